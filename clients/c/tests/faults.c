/* One operation of the client, whose system calls faults.py makes fail. After each: no descriptor and no memory is left
 * over, what the caller has is untouched, and the next message arrives. The argument is the name of the operation; what it
 * gave is printed. The second argument is a folder for it. The part that is to fail stands between two calls of getppid. */
#define WORMHOLE_IMPLEMENTATION
#include "../wormhole.h"

#include <malloc.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "support.h"

#define TEXT "{\"a\":1}"
#define LEN (sizeof TEXT - 1)
#define LONG 1000000

static struct wormhole_message message;
static int tx, rx, fds_before;
static size_t memory_before;
static char *text;

static size_t memory(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static void begin(void) {
    fds_before = open_fds();
    memory_before = memory();
    getppid();
}

static int not_closed; /* a close that was made to fail */

/* To be called with what has been made given back. */
static int end(int result) {
    SAME(open_fds(), fds_before + not_closed);
    SAME(memory(), memory_before);
    return result;
}

static int closing(int fd) {
    getppid();
    if (fd >= 0) close(fd);
    return end(fd < 0 ? fd : 0);
}

static void channel(void) { SAME(wormhole_channel(&tx, &rx), 0); }

/* The channel works as before. */
static void still_works(void) {
    SAME(wormhole_send_fds(tx, TEXT, LEN, &tx, 1), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    CHECK(strcmp(message.text, TEXT) == 0 && message.fd_count == 1);
    SAME(wormhole_try_recv(rx, &message), -EAGAIN);
}

static int create(void) {
    int result;
    begin();
    result = wormhole_channel(&tx, &rx);
    getppid();
    if (result == 0) {
        close(tx);
        close(rx);
    }
    return end(result);
}

static int create_with_closed_streams(void) {
    int in = fcntl(0, F_DUPFD_CLOEXEC, 10), result;
    close(0);
    result = create();
    CHECK(dup2(in, 0) == 0);
    return result;
}

static int sends(const char *what, size_t len, const int *fds, size_t count, int timeout) {
    int result;
    channel();
    begin();
    if (timeout == 0) result = wormhole_try_send_fds(tx, what, len, fds, count);
    else result = wormhole_send_fds_timeout(tx, what, len, fds, count, timeout);
    getppid();
    end(result);
    if (result == 0) {
        SAME(wormhole_recv_fds(rx, &message), 0);
        CHECK(message.len == len && memcmp(message.text, what, len) == 0);
        SAME(message.fd_count, count);
    }
    SAME(wormhole_try_recv(rx, &message), -EAGAIN); /* a failed one has sent nothing */
    still_works();
    return result;
}

static int send_plain(void) { return sends(TEXT, LEN, NULL, 0, -1); }

static int send_without_waiting(void) { return sends(TEXT, LEN, NULL, 0, 0); }

static int send_of_two_parts(void) { return sends(text, 10000, NULL, 0, -1); }

static int send_descriptors(void) {
    static const int fds[] = {0, 1, 2};
    return sends(TEXT, LEN, fds, 3, -1);
}

static int send_long(void) {
    static const int fds[] = {0};
    return sends(text, LONG, fds, 1, -1);
}

static int send_to_a_full_channel(void) {
    int result;
    channel();
    while (wormhole_try_send(tx, TEXT, LEN) == 0) continue;
    begin();
    result = wormhole_send_timeout(tx, TEXT, LEN, 3);
    getppid();
    end(result);
    while (wormhole_try_recv(rx, &message) == 0) continue;
    still_works();
    return result;
}

static int receives(const char *what, size_t len, const int *fds, size_t count) {
    int result;
    channel();
    SAME(wormhole_send_fds(tx, what, len, fds, count), 0);
    begin();
    result = wormhole_recv_fds(rx, &message);
    getppid();
    if (result == 0) {
        CHECK(message.len == len && memcmp(message.text, what, len) == 0 && message.fd_count == count);
    } else {
        CHECK(message.text == NULL && message.fd_count == 0);
    }
    wormhole_message_clear(&message);
    end(result);
    while (wormhole_try_recv_fds(rx, &message) == 0) continue; /* it may be there still */
    still_works();
    return result;
}

static int receive(void) { return receives(TEXT, LEN, NULL, 0); }

static int receive_descriptors(void) {
    static const int fds[] = {0, 1, 2};
    return receives(TEXT, LEN, fds, 3);
}

static int receive_long(void) {
    static const int fds[] = {0};
    return receives(text, LONG, fds, 1);
}

static int receive_with_closed_streams(void) {
    int in = fcntl(0, F_DUPFD_CLOEXEC, 10), result;
    channel();
    SAME(wormhole_send_fds(tx, TEXT, LEN, &tx, 1), 0);
    close(0);
    begin();
    result = wormhole_recv_fds(rx, &message);
    getppid();
    wormhole_message_clear(&message);
    end(result);
    CHECK(dup2(in, 0) == 0);
    while (wormhole_try_recv_fds(rx, &message) == 0) continue; /* it may be there still */
    still_works();
    return result;
}

static int receive_nothing(void) {
    int result;
    channel();
    begin();
    result = wormhole_recv_timeout(rx, &message, 50); /* however busy the machine is, it waits */
    getppid();
    wormhole_message_clear(&message);
    end(result);
    still_works();
    return result;
}

static int receive_the_end(void) {
    int result;
    channel();
    close(tx);
    begin();
    result = wormhole_recv(rx, &message);
    getppid();
    wormhole_message_clear(&message);
    return end(result);
}

static int takes(int (*take)(struct wormhole_message *, long long), int fd) {
    int taken;
    channel();
    SAME(wormhole_send_fds(tx, TEXT, LEN, &fd, 1), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    begin();
    taken = take(&message, 0);
    getppid();
    SAME(wormhole_fds_left(&message), taken < 0 ? 1 : 0); /* a failed one leaves it there */
    end(taken);
    if (taken >= 0) close(taken);
    still_works();
    return taken < 0 ? taken : 0;
}

static int take_a_sender(void) {
    int other_tx, other_rx;
    SAME(wormhole_channel(&other_tx, &other_rx), 0);
    return takes(wormhole_take_sender, other_tx);
}

static int take_a_receiver(void) {
    int other_tx, other_rx;
    SAME(wormhole_channel(&other_tx, &other_rx), 0);
    return takes(wormhole_take_receiver, other_rx);
}

static int take_a_foreign_sender(void) {
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0);
    return takes(wormhole_take_sender, pair[0]);
}

static int take_a_listener(void) {
    struct wormhole_listener listener;
    SAME(wormhole_listen(&listener, WORMHOLE_NAME("\0wormhole faults")), 0);
    return takes(wormhole_take_listener, listener.fd);
}

static int make_a_blob(void) {
    struct wormhole_blob blob;
    int result;
    begin();
    result = wormhole_blob_create(&blob, TEXT, LEN);
    getppid();
    if (result == 0) {
        CHECK(blob.len == LEN && memcmp(blob.data, TEXT, LEN) == 0);
        wormhole_blob_close(&blob);
    }
    return end(result);
}

static int take_a_blob(void) {
    struct wormhole_blob blob, taken;
    int result;
    channel();
    SAME(wormhole_blob_create(&blob, TEXT, LEN), 0);
    SAME(wormhole_send_fds(tx, "0", 1, &blob.fd, 1), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    begin();
    result = wormhole_take_blob(&message, 0, &taken);
    getppid();
    SAME(wormhole_fds_left(&message), result < 0 ? 1 : 0);
    end(result);
    if (result == 0) wormhole_blob_close(&taken);
    still_works();
    return result;
}

static char path[108];

static int listens(const char *name) {
    struct wormhole_listener listener;
    int result;
    begin();
    result = wormhole_listen(&listener, WORMHOLE_PATH(name));
    getppid();
    if (result == 0) {
        int client = wormhole_connect(WORMHOLE_PATH(name), 1000), accepted;
        CHECK(client >= 0);
        accepted = wormhole_accept(listener.fd, NULL, 1000);
        CHECK(accepted >= 0);
        close(client);
        close(accepted);
        wormhole_listener_close(&listener);
    }
    end(result);
    /* The name can be used again. */
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(name)), 0);
    wormhole_listener_close(&listener);
    return result;
}

static int listen_at_a_path(void) { return listens(path); }

static int listen_at_a_relative_path(void) { return listens("socket"); /* in the folder of the test */ }

static int listen_over_a_stale_file(void) {
    struct wormhole_listener listener;
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path)), 0);
    close(listener.fd);
    free(listener.path);
    return listens(path);
}

static int close_a_listener(void) {
    struct wormhole_listener listener;
    int fd, left;
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path)), 0);
    fds_before = open_fds() - 1;
    getppid();
    wormhole_listener_close(&listener);
    getppid();
    SAME(open_fds(), fds_before + not_closed);
    left = access(path, F_OK) == 0;
    /* What could not be removed is stale. */
    fd = wormhole_listen(&listener, WORMHOLE_PATH(path));
    SAME(fd, 0);
    wormhole_listener_close(&listener);
    return left ? -EEXIST : 0;
}

static int accept_a_client(void) {
    struct wormhole_listener listener;
    struct wormhole_peer peer;
    int client, result;
    SAME(wormhole_listen(&listener, WORMHOLE_NAME("\0wormhole faults")), 0);
    client = wormhole_connect(WORMHOLE_NAME("\0wormhole faults"), -1);
    CHECK(client >= 0);
    begin();
    result = closing(wormhole_accept(listener.fd, &peer, -1));
    close(client);
    client = wormhole_connect(WORMHOLE_NAME("\0wormhole faults"), -1);
    CHECK(client >= 0 && wormhole_accept(listener.fd, &peer, 1000) >= 0);
    return result;
}

static int connects(int timeout) {
    struct wormhole_listener listener;
    SAME(wormhole_listen(&listener, WORMHOLE_NAME("\0wormhole faults")), 0);
    begin();
    return closing(wormhole_connect(WORMHOLE_NAME("\0wormhole faults"), timeout));
}

static int connect_to_a_listener(void) { return connects(-1); }

static int connect_within_a_time(void) { return connects(1000); }

static int hand_over(void) {
    int fd = 0;
    begin();
    return closing(wormhole_hand_over(TEXT, LEN, &fd, 1));
}

static int start_a_program(void) {
    static char *const argv[] = {(char *)(uintptr_t) "true", NULL};
    pid_t pid;
    int result, status;
    begin();
    result = wormhole_spawn(&pid, "/bin/true", argv, NULL, TEXT, LEN, NULL, 0);
    getppid();
    if (result == 0) CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    return end(result);
}

static int inherit(void) {
    char number[20];
    int fd = handed_over(TEXT), result, open;
    snprintf(number, sizeof number, "%d", fd);
    setenv("WORMHOLE_FD", number, 1);
    open = open_fds();
    getppid();
    result = wormhole_inherit(&message);
    getppid();
    /* Closed, or as it was. */
    SAME(open_fds(), not_closed || fcntl(fd, F_GETFD) >= 0 ? open : open - 1);
    if (result == 0) CHECK(strcmp(message.text, TEXT) == 0);
    wormhole_message_clear(&message);
    return result;
}

static const struct {
    const char *name;
    int (*run)(void);
} operations[] = {
#define OPERATION(name)                                                                                                \
    { #name, name }
    OPERATION(create),
    OPERATION(create_with_closed_streams),
    OPERATION(send_plain),
    OPERATION(send_without_waiting),
    OPERATION(send_of_two_parts),
    OPERATION(send_descriptors),
    OPERATION(send_long),
    OPERATION(send_to_a_full_channel),
    OPERATION(receive),
    OPERATION(receive_descriptors),
    OPERATION(receive_long),
    OPERATION(receive_with_closed_streams),
    OPERATION(receive_nothing),
    OPERATION(receive_the_end),
    OPERATION(take_a_sender),
    OPERATION(take_a_receiver),
    OPERATION(take_a_foreign_sender),
    OPERATION(take_a_listener),
    OPERATION(make_a_blob),
    OPERATION(take_a_blob),
    OPERATION(listen_at_a_path),
    OPERATION(listen_at_a_relative_path),
    OPERATION(listen_over_a_stale_file),
    OPERATION(close_a_listener),
    OPERATION(accept_a_client),
    OPERATION(connect_to_a_listener),
    OPERATION(connect_within_a_time),
    OPERATION(hand_over),
    OPERATION(start_a_program),
    OPERATION(inherit),
};

int main(int argc, char **argv) {
    static char buffer[200];
    size_t i;
    alarm(30);
    not_closed = getenv("TEST_NOT_CLOSED") != NULL;
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    wormhole_message_init(&message);
    for (i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (argc < 2) {
            printf("%s\n", operations[i].name);
            fflush(stdout);
        } else if (argc == 3 && strcmp(operations[i].name, argv[1]) == 0) {
            test_name = argv[1];
            CHECK(chdir(argv[2]) == 0);
            text = (char *)malloc(LONG);
            CHECK(text != NULL);
            memset(text, 'x', LONG);
            CHECK(snprintf(path, sizeof path, "%s/socket", argv[2]) < (int)sizeof path);
            printf("outcome: %d\n", operations[i].run());
            return 0;
        }
    }
    return argc < 2 ? 0 : 1;
}
