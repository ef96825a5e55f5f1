/* What wormhole.h promises, a test for each. Every one runs in a process of its own, with a deadline, and must end with as
 * many descriptors as it began with. The argument, if there is one, is the name of one test. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <sched.h>
#include <sys/socket.h>

/* What the client calls instead of two functions of the C library, to see how it waits, and to make a receive miss what is
 * queued, as the kernel may. */
static int yields, misses, receives_blocked;

static int counting_yield(void) {
    yields++;
    return sched_yield();
}

static ssize_t missing_recvmsg(int fd, struct msghdr *message, int flags) {
    receives_blocked = !(flags & MSG_DONTWAIT);
    if (misses == 0) return recvmsg(fd, message, flags);
    misses--;
    message->msg_controllen = 0;
    message->msg_flags = 0;
    return 0;
}

#define sched_yield counting_yield
#define recvmsg missing_recvmsg
#define WORMHOLE_IMPLEMENTATION
#include "../wormhole.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "raw.h"

#define MESSAGE(text) (text), (sizeof(text) - 1)

static void expect(const struct wormhole_message *message, const char *text) {
    CHECK(message->len == strlen(text) && memcmp(message->text, text, message->len + 1) == 0);
}

/* A text of so many bytes, that differ from place to place. */
static char *long_text(size_t len) {
    char *text = (char *)malloc(len + 1);
    size_t i;
    CHECK(text != NULL);
    for (i = 0; i < len; i++) text[i] = (char)('a' + (i * 7 + i / 1000) % 26);
    if (len > 0) text[0] = text[len - 1] = '"';
    text[len] = '\0';
    return text;
}

static void channel_of_buffer(int *tx, int *rx, int bytes) {
    SAME(wormhole_channel(tx, rx), 0);
    CHECK(setsockopt(*tx, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
}

static int file_of(const char *content) {
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, content, strlen(content)) == (ssize_t)strlen(content));
    return fd;
}

static int has(int fd, const char *content) {
    char bytes[100];
    ssize_t len = pread(fd, bytes, sizeof bytes, 0);
    return len == (ssize_t)strlen(content) && memcmp(bytes, content, (size_t)len) == 0;
}

static pid_t child_of(void (*body)(void *), void *argument) {
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        alarm(20);
        body(argument);
        _exit(0);
    }
    return pid;
}

static void succeeds(pid_t pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) < 0) CHECK(errno == EINTR);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Waits until another process waits in the kernel: for a message, for room, or for what it polls. */
static void until_it_sleeps(pid_t pid) {
    char path[40], line[400];
    for (;;) {
        FILE *file;
        const char *found;
        long call;
        snprintf(path, sizeof path, "/proc/%d/syscall", (int)pid);
        file = fopen(path, "r");
        CHECK(file != NULL);
        found = fgets(line, sizeof line, file); /* "running", or the number of the call */
        fclose(file);
        CHECK(found != NULL);
        call = strtol(line, NULL, 10);
        if (call == SYS_recvmsg || call == SYS_ppoll) return;
        sched_yield();
    }
}

/* Denies a system call to this process: it fails with that error. */
static void deny(int call, int error) {
    struct sock_filter steps[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0},
        {BPF_RET | BPF_K, 0, 0, 0},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    struct sock_fprog program;
    steps[1].k = (unsigned)call;
    steps[2].k = SECCOMP_RET_ERRNO | (unsigned)error;
    program.len = 4;
    program.filter = steps;
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
}

/*
 * Messages.
 */

static void messages_arrive_in_order_and_end_with_a_nul(void) {
    struct wormhole_message message;
    char text[20];
    int tx, rx, i;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    for (i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "%d", i);
        SAME(wormhole_send(tx, text, strlen(text)), 0);
    }
    for (i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "%d", i);
        SAME(wormhole_recv(rx, &message), 0);
        expect(&message, text);
    }
    SAME(wormhole_try_recv(rx, &message), -EAGAIN);
    CHECK(message.text == NULL && message.len == 0);
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static void texts_of_every_length_arrive(void) {
    /* Around what is copied, what fits the smallest buffer, what fits the default one, and what fits any packet. */
    static const size_t around[] = {4088, 4568, 212952, 262136, 1000000, 10000000};
    static const int buffers[] = {0, 100000, 212992};
    struct wormhole_message message;
    size_t i, b;
    wormhole_message_init(&message);
    for (b = 0; b < 3; b++) {
        for (i = 0; i < sizeof around / sizeof *around; i++) {
            size_t len;
            for (len = around[i] - 1; len <= around[i] + 1; len++) {
                char *text = long_text(len);
                int tx, rx;
                channel_of_buffer(&tx, &rx, buffers[b]);
                SAME(wormhole_try_send(tx, text, len), 0);
                SAME(wormhole_recv(rx, &message), 0);
                expect(&message, text);
                SAME(message.fd_count, 0);
                free(text);
                close(tx);
                close(rx);
            }
        }
    }
    wormhole_message_clear(&message);
}

static void a_message_fills_the_packet_to_the_last_byte(void) {
    struct wormhole_message message;
    static char packet[300000];
    char *text = long_text(300000);
    int tx, rx, size, fds[4];
    size_t count, len;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(whp_option(tx, SO_SNDBUF, &size), 0);
    len = (size_t)size - 32;
    SAME(wormhole_send(tx, text, len - 8), 0);
    SAME(raw_recv(rx, packet, sizeof packet, fds, &count), len);
    SAME(count, 0);
    SAME(wormhole_send(tx, text, len - 7), 0);
    SAME(raw_recv(rx, packet, sizeof packet, fds, &count), len);
    SAME(count, 1);
    close(fds[0]);
    /* Whatever the buffer. */
    size = 1000000;
    if (setsockopt(tx, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) == 0) {
        SAME(wormhole_send(tx, text, 300000), 0);
        SAME(raw_recv(rx, packet, sizeof packet, fds, &count), 262144);
        SAME(count, 1);
        close(fds[0]);
    }
    free(text);
    close(tx);
    close(rx);
}

static void the_limits_of_length_hold(void) {
    struct wormhole_message message;
    char *text = long_text(WORMHOLE_MAX_MESSAGE_LEN + 1);
    int tx, rx;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_send(tx, text, WORMHOLE_MAX_MESSAGE_LEN + 1), -EMSGSIZE);
    SAME(wormhole_send(tx, text, 0), -EINVAL);
    SAME(wormhole_send(tx, text, 100), 0);
    SAME(wormhole_send(tx, text, 1000000), 0);
    message.max_message_len = 99;
    SAME(wormhole_recv(rx, &message), -EMSGSIZE);
    SAME(wormhole_recv(rx, &message), -EMSGSIZE);
    SAME(wormhole_send(tx, MESSAGE("\"next\"")), 0);
    SAME(wormhole_recv(rx, &message), 0);
    expect(&message, "\"next\"");
    wormhole_message_clear(&message);
    SAME(message.max_message_len, 99);
    free(text);
    close(tx);
    close(rx);
}

static void what_the_text_says_is_up_to_the_program(void) {
    static const char *const texts[] = {"NaN", "\"\xff\"", "-0", "{\"a\":1,\"a\":2}", "18446744073709551617", " x\n"};
    struct wormhole_message message;
    int tx, rx;
    size_t i;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    for (i = 0; i < sizeof texts / sizeof *texts; i++) {
        SAME(wormhole_send(tx, texts[i], strlen(texts[i])), 0);
        SAME(wormhole_recv(rx, &message), 0);
        expect(&message, texts[i]);
    }
    SAME(wormhole_send(tx, "", 0), -EINVAL); /* no JSON text is that short */
    SAME(wormhole_try_recv(rx, &message), -EAGAIN);
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static void bad_packets_are_consumed(void) {
    struct wormhole_message message;
    char huge[300000] = "x", path[] = "/tmp/wormhole-c-test-XXXXXX";
    int tx, rx, fd, size = 1000000;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    raw_send(tx, "", 0, NULL, 0);
    SAME(wormhole_recv(rx, &message), -EBADMSG);
    raw_send(tx, "\1\0\0\0\0\0\0", 7, NULL, 0);
    SAME(wormhole_recv(rx, &message), -EBADMSG);
    if (setsockopt(tx, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size) == 0) {
        raw_send(tx, huge, sizeof huge, NULL, 0);
        SAME(wormhole_recv(rx, &message), -EBADMSG);
    }
    /* A file of the right size that is not in memory. */
    fd = mkstemp(path);
    CHECK(fd >= 0 && unlink(path) == 0 && write(fd, "345", 3) == 3);
    raw_send(tx, "\3\0\0\0\0\0\0\0", 8, &fd, 1);
    SAME(wormhole_recv(rx, &message), -EBADMSG);
    close(fd);
    SAME(wormhole_send(tx, MESSAGE("1")), 0);
    SAME(wormhole_recv(rx, &message), 0);
    expect(&message, "1");
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static unsigned random_number(void) {
    static unsigned long long state = 88172645463325252ULL;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)(state >> 32);
}

static void garbage_of_all_kinds_does_no_harm(void) {
    struct wormhole_message message;
    int tx, rx, fds[6], i, before;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    fds[0] = file_of("");
    fds[1] = file_of("0123456789");
    fds[2] = file_of("01234567");
    fds[3] = tx;
    fds[4] = rx;
    CHECK((fds[5] = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0);
    before = open_fds();
    for (i = 0; i < 30000; i++) {
        static char packet[300];
        struct wormhole_blob blob;
        int sent[4], result, taken;
        size_t len = random_number() % sizeof packet, count = random_number() % 5, declared, j;
        for (j = 8; j < len; j++) packet[j] = (char)random_number();
        /* Mostly a length that is nearly right. */
        declared = len < 8 ? 0 : len - 8 + random_number() % 21 - (random_number() % 4 == 0 ? 10 : 0);
        memcpy(packet, &declared, 8);
        if (random_number() % 16 == 0) packet[random_number() % 8] = (char)random_number();
        for (j = 0; j < count; j++) sent[j] = fds[random_number() % 6];
        message.max_message_len = random_number() % 8 == 0 ? 100 : WORMHOLE_MAX_MESSAGE_LEN;
        raw_send(tx, packet, len, sent, count);
        result = wormhole_try_recv_fds(rx, &message);
        CHECK(result == 0 || result == -EBADMSG || result == -EMSGSIZE);
        if (result < 0) {
            CHECK(message.text == NULL && message.fd_count == 0 && open_fds() == before);
            continue;
        }
        CHECK(message.len <= message.max_message_len && message.text[message.len] == '\0');
        taken = wormhole_take_sender(&message, random_number() % 5);
        if (taken >= 0) close(taken);
        taken = wormhole_take_receiver(&message, random_number() % 5);
        if (taken >= 0) close(taken);
        if (wormhole_take_blob(&message, random_number() % 5, &blob) == 0) wormhole_blob_close(&blob);
    }
    SAME(wormhole_try_recv(rx, &message), -EAGAIN);
    wormhole_message_clear(&message);
    close(fds[0]);
    close(fds[1]);
    close(fds[2]);
    close(fds[5]);
    close(tx);
    close(rx);
}

/*
 * Waiting, and the end.
 */

static void calls_that_must_not_wait_do_not(void) {
    struct wormhole_message message;
    int tx, rx, sent = 0, i;
    wormhole_message_init(&message);
    channel_of_buffer(&tx, &rx, 0);
    SAME(wormhole_try_recv(rx, &message), -EAGAIN);
    SAME(wormhole_try_recv_fds(rx, &message), -EAGAIN);
    SAME(wormhole_recv_timeout(rx, &message, 0), -ETIMEDOUT);
    SAME(wormhole_recv_timeout(rx, &message, 5), -ETIMEDOUT);
    SAME(wormhole_recv_fds_timeout(rx, &message, 5), -ETIMEDOUT);
    while ((i = wormhole_try_send(tx, MESSAGE("[]"))) == 0) sent++;
    SAME(i, -EAGAIN);
    CHECK(sent > 0);
    SAME(wormhole_try_send_fds(tx, MESSAGE("0"), &rx, 1), -EAGAIN);
    SAME(wormhole_send_timeout(tx, MESSAGE("[]"), 0), -ETIMEDOUT);
    SAME(wormhole_send_timeout(tx, MESSAGE("[]"), 5), -ETIMEDOUT);
    SAME(wormhole_send_fds_timeout(tx, MESSAGE("0"), &rx, 1, 5), -ETIMEDOUT);
    for (i = 0; i < sent; i++) SAME(wormhole_recv(rx, &message), 0);
    SAME(wormhole_recv_timeout(rx, &message, 1), -ETIMEDOUT);
    SAME(wormhole_send_timeout(tx, MESSAGE("[]"), 0), 0);
    SAME(wormhole_recv_timeout(rx, &message, 0), 0);
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static void what_was_sent_outlives_its_sender(void) {
    struct wormhole_message message;
    char *text = long_text(1000000);
    int tx, rx;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_is_disconnected(tx), 0);
    SAME(wormhole_send(tx, text, 1000000), 0);
    close(tx);
    SAME(wormhole_is_disconnected(rx), 1);
    SAME(wormhole_recv(rx, &message), 0);
    expect(&message, text);
    SAME(wormhole_recv(rx, &message), -EPIPE);
    SAME(wormhole_try_recv(rx, &message), -EPIPE);
    SAME(wormhole_recv_timeout(rx, &message, 1000), -EPIPE);
    wormhole_message_clear(&message);
    free(text);
    close(rx);
}

static void a_sender_is_told_that_every_receiver_is_gone(void) {
    int tx, rx;
    signal(SIGPIPE, SIG_DFL);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_send(tx, MESSAGE("1")), 0); /* it dies with the receiver: ECONNRESET, once */
    close(rx);
    SAME(wormhole_send(tx, MESSAGE("1")), -EPIPE);
    SAME(wormhole_send(tx, MESSAGE("1")), -EPIPE);
    SAME(wormhole_send_timeout(tx, MESSAGE("1"), 1000), -EPIPE);
    SAME(wormhole_is_disconnected(tx), 1);
    close(tx);
}

struct ends {
    int tx, rx, tell, told;
};

static void it_spins_while_that_pays_off(void) {
    struct wormhole_message message;
    struct whp_spin *spin;
    int tx, rx, i;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    spin = &whp_spins[rx & 63];
    SAME(wormhole_recv_timeout(rx, &message, 1), -ETIMEDOUT);
    SAME(yields, 0);
    for (i = 0; i < WHP_ENOUGH; i++) whp_learn(spin, 0, 1);
    SAME(wormhole_recv_timeout(rx, &message, 1), -ETIMEDOUT);
    CHECK(yields > 0);
    /* In vain: it takes eight quick answers more until it is tried again, then sixteen. */
    SAME(spin->score, -8);
    for (i = 0; i < 8 + WHP_ENOUGH; i++) {
        yields = 0;
        SAME(wormhole_recv_timeout(rx, &message, 1), -ETIMEDOUT);
        SAME(yields, 0);
        SAME(spin->score, i - 8);
        whp_learn(spin, 0, 1);
    }
    SAME(wormhole_recv_timeout(rx, &message, 1), -ETIMEDOUT);
    SAME(spin->score, -16);
    for (i = 0; i < 20; i++) whp_learn(spin, 1, 0);
    SAME(spin->score, -4096);
    for (i = 0; i < 5000; i++) whp_learn(spin, 1, 1);
    SAME(spin->score, WHP_MOST);
    SAME(spin->extra, 0);
    for (i = 0; i < 20; i++) whp_learn(spin, 0, 0);
    SAME(spin->score, 0);
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static void waits_for_one(void *argument) {
    struct ends *ends = (struct ends *)argument;
    struct wormhole_message message;
    wormhole_message_init(&message);
    close(ends->tx);
    SAME(wormhole_recv(ends->rx, &message), 0);
    SAME(receives_blocked, 1); /* in the kernel, which wakes blocked receivers one by one */
    expect(&message, "1");
    SAME(wormhole_recv(ends->rx, &message), -EPIPE);
    wormhole_message_clear(&message);
}

static void a_waiting_receiver_is_woken_by_a_message_and_by_the_end(void) {
    struct ends ends;
    pid_t pid;
    SAME(wormhole_channel(&ends.tx, &ends.rx), 0);
    pid = child_of(waits_for_one, &ends);
    close(ends.rx);
    until_it_sleeps(pid);
    SAME(wormhole_send(ends.tx, MESSAGE("1")), 0);
    until_it_sleeps(pid);
    close(ends.tx);
    succeeds(pid);
}

/* How often a process has gone to sleep. */
static long sleeps_of(pid_t pid) {
    char path[40], line[200];
    long count = -1;
    FILE *file;
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof line, file) != NULL) sscanf(line, "voluntary_ctxt_switches: %ld", &count);
    fclose(file);
    CHECK(count >= 0);
    return count;
}

static void takes_one_and_waits(void *argument) {
    struct ends *ends = (struct ends *)argument;
    struct wormhole_message message;
    const long sleeps = sleeps_of(getppid());
    while (sleeps_of(getppid()) < sleeps + 8) sched_yield(); /* it has looked some times */
    wormhole_message_init(&message);
    close(ends->tx);
    close(ends->tell);
    SAME(wormhole_recv(ends->rx, &message), 0);
    SAME(wormhole_recv(ends->told, &message), 0); /* what the sender says after its next send */
    wormhole_message_clear(&message);
}

static void a_waiting_sender_goes_on_as_soon_as_there_is_room(void) {
    struct ends ends;
    pid_t pid;
    SAME(wormhole_channel(&ends.tx, &ends.rx), 0);
    SAME(wormhole_channel(&ends.tell, &ends.told), 0);
    while (wormhole_try_send(ends.tx, MESSAGE("[]")) == 0) continue;
    pid = child_of(takes_one_and_waits, &ends);
    /* The kernel wakes no sender for that. */
    SAME(wormhole_send(ends.tx, MESSAGE("[]")), 0);
    SAME(wormhole_send(ends.tell, MESSAGE("[]")), 0);
    succeeds(pid);
    close(ends.rx);
    SAME(wormhole_send(ends.tx, MESSAGE("[]")), -EPIPE);
    close(ends.tx);
    close(ends.tell);
    close(ends.told);
}

static void fills_until_the_end(void *argument) {
    struct ends *ends = (struct ends *)argument;
    int result;
    close(ends->rx);
    do result = wormhole_send(ends->tx, MESSAGE("[]"));
    while (result == 0);
    SAME(result, -EPIPE);
}

static void a_waiting_sender_is_told_of_the_end(void) {
    struct ends ends;
    pid_t pid;
    SAME(wormhole_channel(&ends.tx, &ends.rx), 0);
    pid = child_of(fills_until_the_end, &ends);
    close(ends.tx);
    until_it_sleeps(pid);
    close(ends.rx);
    succeeds(pid);
}

static void on_signal(int number) { (void)number; }

static void signals_do_not_end_a_call(void) {
    struct wormhole_message message;
    struct itimerspec often = {{0, 1000000}, {0, 1000000}};
    struct sigaction action;
    struct sigevent event;
    timer_t timer;
    int tx, rx;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGUSR1;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal; /* without SA_RESTART */
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    CHECK(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0 && timer_settime(timer, 0, &often, NULL) == 0);
    wormhole_message_init(&message);
    channel_of_buffer(&tx, &rx, 0);
    SAME(wormhole_recv_timeout(rx, &message, 50), -ETIMEDOUT);
    while (wormhole_try_send(tx, MESSAGE("[]")) == 0) continue;
    SAME(wormhole_send_timeout(tx, MESSAGE("[]"), 50), -ETIMEDOUT);
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static void a_shared_flag_changes_nothing(void) {
    struct ends ends;
    pid_t pid;
    SAME(wormhole_channel(&ends.tx, &ends.rx), 0);
    CHECK(fcntl(ends.rx, F_SETFL, O_NONBLOCK) == 0);
    pid = child_of(waits_for_one, &ends);
    close(ends.rx);
    until_it_sleeps(pid);
    SAME(wormhole_send(ends.tx, MESSAGE("1")), 0);
    close(ends.tx);
    succeeds(pid);
}

static void what_a_receive_has_missed_is_no_end(void) {
    struct wormhole_message message;
    int tx, rx;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_send(tx, MESSAGE("1")), 0);
    close(tx);
    misses = 3;
    SAME(wormhole_recv(rx, &message), 0);
    SAME(misses, 0);
    expect(&message, "1");
    SAME(wormhole_recv(rx, &message), -EPIPE);
    wormhole_message_clear(&message);
    close(rx);
}

static void sends_and_closes(void *argument) {
    struct ends *ends = (struct ends *)argument;
    SAME(wormhole_send(ends->tx, MESSAGE("1")), 0);
}

static void a_last_message_just_before_the_end_is_received(void) {
    struct wormhole_message message;
    int i;
    wormhole_message_init(&message);
    for (i = 0; i < 200; i++) {
        struct ends ends;
        pid_t pid;
        SAME(wormhole_channel(&ends.tx, &ends.rx), 0);
        pid = child_of(sends_and_closes, &ends);
        close(ends.tx);
        while ((ends.told = wormhole_try_recv(ends.rx, &message)) == -EAGAIN) continue;
        SAME(ends.told, 0);
        SAME(wormhole_recv(ends.rx, &message), -EPIPE);
        close(ends.rx);
        succeeds(pid);
    }
    wormhole_message_clear(&message);
}

static void a_receiver_that_writes_backwards_costs_nothing(void) {
    struct wormhole_message message;
    int pair[2];
    wormhole_message_init(&message);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0); /* both ways */
    CHECK(send(pair[1], "x", 1, 0) == 1);
    SAME(wormhole_send(pair[0], MESSAGE("1")), 0);
    close(pair[0]);
    SAME(wormhole_recv(pair[1], &message), 0);
    SAME(wormhole_recv(pair[1], &message), -EPIPE);
    wormhole_message_clear(&message);
    close(pair[1]);
}

struct crowd {
    int jobs, results;
};

static void forwards_all(void *argument) {
    struct crowd *crowd = (struct crowd *)argument;
    struct wormhole_message message;
    int result;
    wormhole_message_init(&message);
    while ((result = wormhole_recv(crowd->jobs, &message)) == 0)
        SAME(wormhole_send(crowd->results, message.text, message.len), 0);
    SAME(result, -EPIPE);
    wormhole_message_clear(&message);
}

static void each_message_reaches_exactly_one_receiver(void) {
    static char seen[3000];
    struct wormhole_message message;
    struct crowd crowd;
    int tx, rx, i, received = 0;
    pid_t pids[3];
    char text[20];
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &crowd.jobs), 0);
    SAME(wormhole_channel(&crowd.results, &rx), 0);
    CHECK(fcntl(tx, F_SETFD, FD_CLOEXEC) == 0);
    for (i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            close(tx);
            close(rx);
            alarm(20);
            forwards_all(&crowd);
            _exit(0);
        }
    }
    close(crowd.jobs);
    close(crowd.results);
    for (i = 0; i < 3000; i++) {
        snprintf(text, sizeof text, "%d", i);
        SAME(wormhole_send(tx, text, strlen(text)), 0);
        while (wormhole_try_recv(rx, &message) == 0) seen[atoi(message.text)]++, received++;
    }
    close(tx);
    while (wormhole_recv(rx, &message) == 0) seen[atoi(message.text)]++, received++;
    SAME(received, 3000);
    for (i = 0; i < 3000; i++) SAME(seen[i], 1);
    for (i = 0; i < 3; i++) succeeds(pids[i]);
    wormhole_message_clear(&message);
    close(rx);
}

/*
 * Descriptors.
 */

static void a_send_borrows_and_a_message_owns(void) {
    struct wormhole_message message;
    int tx, rx, fds[3], taken, before;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    fds[0] = file_of("first");
    fds[1] = file_of("second");
    fds[2] = file_of("third");
    before = open_fds();
    SAME(wormhole_send_fds(tx, MESSAGE("[0,1,2]"), fds, 3), 0);
    SAME(open_fds(), before);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(message.fd_count, 3);
    SAME(wormhole_fds_left(&message), 3);
    taken = wormhole_take_fd(&message, 1);
    CHECK(taken >= 0 && has(taken, "second") && (fcntl(taken, F_GETFD) & FD_CLOEXEC));
    SAME(wormhole_take_fd(&message, 1), -EBADF);
    SAME(wormhole_take_fd(&message, 3), -EBADF);
    SAME(wormhole_take_fd(&message, -1), -EBADF);
    SAME(wormhole_take_sender(&message, 1LL << 40), -EBADF);
    SAME(wormhole_take_sender(&message, 0), -ENOTSOCK); /* and stays there */
    SAME(wormhole_fds_left(&message), 2);
    wormhole_message_clear(&message);
    SAME(open_fds(), before + 1);
    close(taken);

    /* The next message closes what the one before has left; the rest comes in order. */
    SAME(wormhole_send_fds(tx, MESSAGE("0"), fds, 3), 0);
    SAME(wormhole_send_fds(tx, MESSAGE("0"), fds, 3), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(open_fds(), before + 3);
    close(wormhole_take_fd(&message, 0));
    SAME(wormhole_take_rest(&message, &taken, 1), 1);
    CHECK(has(taken, "second"));
    SAME(wormhole_fds_left(&message), 1);
    wormhole_message_clear(&message);
    SAME(open_fds(), before + 1);
    close(taken);
    close_all(fds, 3);
    close(tx);
    close(rx);
}

static void failures_leave_the_callers_descriptors_alone(void) {
    struct wormhole_message message;
    struct wormhole_blob blob;
    int tx, rx, fds[254], i, before;
    char *text = long_text(1000000);
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    fds[0] = file_of("first");
    for (i = 1; i < 254; i++) fds[i] = fds[0];
    before = open_fds();
    SAME(wormhole_send_fds(tx, MESSAGE("0"), fds, 254), -E2BIG);
    SAME(wormhole_send_fds(tx, text, 1000000, fds, 253), -E2BIG); /* the memfd is one too many */
    SAME(wormhole_send_fds(tx, text, 1000000, fds, 252), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    expect(&message, text);
    SAME(message.fd_count, 252);
    SAME(wormhole_send_fds(tx, MESSAGE("0"), fds, 253), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(message.fd_count, 253);
    SAME(wormhole_blob_adopt(&blob, fds[0], 100), -EINVAL);
    fds[1] = -1;
    SAME(wormhole_send_fds(tx, MESSAGE("0"), fds, 2), -EBADF);
    wormhole_message_clear(&message);
    SAME(wormhole_hand_over(text, 0, fds, 1), -EINVAL);
    close(rx);
    SAME(wormhole_send_fds(tx, text, 1000000, fds, 1), -EPIPE);
    SAME(open_fds(), before - 1);
    CHECK(has(fds[0], "first"));
    free(text);
    close(fds[0]);
    close(tx);
}

static void descriptors_that_nobody_asked_for_are_an_error(void) {
    struct wormhole_message message;
    int tx, rx, fd = file_of("x"), before;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    before = open_fds();
    SAME(wormhole_send_fds(tx, MESSAGE("1"), &fd, 1), 0);
    SAME(wormhole_send_fds(tx, MESSAGE("1"), &fd, 1), 0);
    SAME(wormhole_send_fds(tx, MESSAGE("1"), &fd, 1), 0);
    SAME(wormhole_send(tx, MESSAGE("2")), 0);
    SAME(wormhole_recv(rx, &message), -EPROTO);
    SAME(wormhole_try_recv(rx, &message), -EPROTO);
    SAME(wormhole_recv_timeout(rx, &message, 1000), -EPROTO);
    SAME(open_fds(), before);
    SAME(wormhole_recv(rx, &message), 0);
    expect(&message, "2");
    wormhole_message_clear(&message);
    close(fd);
    close(tx);
    close(rx);
}

static void lost_descriptors_are_an_error(void) {
    struct wormhole_message message;
    struct rlimit limit = {0, 0}, old;
    int tx, rx, fds[8], i, before;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    for (i = 0; i < 8; i++) fds[i] = tx;
    SAME(wormhole_send_fds(tx, MESSAGE("1"), fds, 8), 0);
    SAME(wormhole_send(tx, MESSAGE("2")), 0);
    before = open_fds();
    CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    limit.rlim_max = old.rlim_max;
    limit.rlim_cur = (rlim_t)rx + 3;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    SAME(wormhole_recv_fds(rx, &message), -EMFILE);
    CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    SAME(open_fds(), before);
    SAME(wormhole_recv(rx, &message), 0);
    expect(&message, "2");
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static void nothing_takes_the_place_of_a_standard_stream(void) {
    struct wormhole_message message;
    struct wormhole_listener listener;
    struct wormhole_blob blob;
    char name[40];
    int tx, rx, fd, accepted, i, saved[3], file = file_of("x");
    size_t len = (size_t)snprintf(name, sizeof name, "%cwormhole-c-%d", 0, (int)getpid());
    wormhole_message_init(&message);
    for (i = 0; i < 3; i++) {
        saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 10);
        CHECK(saved[i] >= 0);
        close(i);
    }
    SAME(wormhole_channel(&tx, &rx), 0);
    CHECK(tx > 2 && rx > 2);
    SAME(wormhole_send_fds(tx, MESSAGE("0"), &file, 1), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    fd = wormhole_take_fd(&message, 0);
    CHECK(fd > 2 && has(fd, "x"));
    close(fd);
    SAME(wormhole_blob_create(&blob, "x", 1), 0);
    CHECK(blob.fd > 2);
    wormhole_blob_close(&blob);
    SAME(wormhole_listen(&listener, name, len), 0);
    fd = wormhole_connect(name, len, 1000);
    CHECK(listener.fd > 2 && fd > 2);
    accepted = wormhole_accept(listener.fd, NULL, 1000);
    CHECK(accepted > 2);
    close(accepted);
    close(fd);
    wormhole_listener_close(&listener);
    fd = wormhole_hand_over(MESSAGE("0"), NULL, 0);
    CHECK(fd > 2);
    close(fd);
    for (i = 0; i < 3; i++) {
        CHECK(fcntl(i, F_GETFD) < 0);
        CHECK(dup2(saved[i], i) == i);
        close(saved[i]);
    }
    wormhole_message_clear(&message);
    close(file);
    close(tx);
    close(rx);
}

static void what_other_holders_ask_of_the_kernel_costs_nothing(void) {
    struct wormhole_message message;
    int tx, rx, on = 1, fd = file_of("x"), before, i;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    CHECK(setsockopt(rx, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
    setsockopt(rx, SOL_SOCKET, 76 /* SO_PASSPIDFD */, &on, sizeof on);
    before = open_fds();
    for (i = 0; i < 3; i++) {
        SAME(wormhole_send_fds(tx, MESSAGE("0"), &fd, 1), 0);
        SAME(wormhole_recv_fds(rx, &message), 0);
        SAME(message.fd_count, 1);
        SAME(open_fds(), before + 1);
        CHECK(has(message.fds[0], "x"));
        SAME(wormhole_send(tx, MESSAGE("1")), 0);
        SAME(wormhole_recv(rx, &message), 0);
    }
    wormhole_message_clear(&message);
    SAME(open_fds(), before);
    close(fd);
    close(tx);
    close(rx);
}

static void control_messages_of_all_kinds_are_walked_over(void) {
    struct wormhole_message message;
    struct whp_arrival arrival;
    union {
        struct cmsghdr header;
        char bytes[200];
    } control;
    int fds[2], pidfd, before = open_fds();
    size_t size = 0, cut;
    memset(&control, 0, sizeof control);
    memset(&arrival, 0, sizeof arrival);
    wormhole_message_init(&message);
    arrival.message = &message;
    for (cut = 0; cut <= 120; cut++) { /* cut anywhere, nothing is read beyond */
        struct cmsghdr header;
        fds[0] = file_of("first");
        fds[1] = file_of("second");
        pidfd = file_of("pidfd");
        size = 0;
        memset(&header, 0, sizeof header);
        header.cmsg_level = SOL_SOCKET;
        header.cmsg_type = SCM_CREDENTIALS;
        header.cmsg_len = CMSG_LEN(0); /* empty */
        memcpy(control.bytes + size, &header, sizeof header);
        size += CMSG_SPACE(0);
        header.cmsg_type = 4;
        header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(control.bytes + size, &header, sizeof header);
        memcpy(control.bytes + size + CMSG_LEN(0), &pidfd, sizeof pidfd);
        size += CMSG_SPACE(sizeof(int));
        header.cmsg_type = SCM_RIGHTS;
        header.cmsg_level = 41; /* of another family, where the same number is something else */
        memcpy(control.bytes + size, &header, sizeof header);
        memcpy(control.bytes + size + CMSG_LEN(0), fds, sizeof(int));
        size += CMSG_SPACE(sizeof(int));
        header.cmsg_level = SOL_SOCKET;
        header.cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(control.bytes + size, &header, sizeof header);
        memcpy(control.bytes + size + CMSG_LEN(0), fds, sizeof fds);
        size += CMSG_SPACE(sizeof fds);
        message.fd_count = 0;
        whp_unpack(&arrival, control.bytes, cut < size ? cut : size);
        if (cut >= size) {
            SAME(message.fd_count, 2);
            CHECK(has(message.fds[1], "second"));
        } else {
            SAME(message.fd_count, 0);
            close_all(fds, 2);
        }
        wormhole_message_clear(&message);
        close(pidfd);
        SAME(open_fds(), before);
    }
    memset(control.bytes, 0xff, sizeof control.bytes);
    whp_unpack(&arrival, control.bytes, sizeof control.bytes);
}

static void ends_travel(void) {
    struct wormhole_message message, inner;
    int tx, rx, fds[2], there_tx, there_rx;
    wormhole_message_init(&message);
    wormhole_message_init(&inner);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_channel(&fds[0], &fds[1]), 0);
    SAME(wormhole_send_fds(tx, MESSAGE("{\"to\":0,\"from\":1}"), fds, 2), 0);
    close_all(fds, 2);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(wormhole_take_sender(&message, 1), -EPROTOTYPE);
    SAME(wormhole_take_receiver(&message, 0), -EPROTOTYPE);
    there_tx = wormhole_take_sender(&message, 0);
    there_rx = wormhole_take_receiver(&message, 1);
    CHECK(there_tx >= 0 && there_rx >= 0);
    SAME(wormhole_send(there_tx, MESSAGE("\"through\"")), 0);
    close(there_tx);
    SAME(wormhole_recv(there_rx, &inner), 0);
    expect(&inner, "\"through\"");
    SAME(wormhole_recv(there_rx, &inner), -EPIPE);
    close(there_rx);
    wormhole_message_clear(&message);
    wormhole_message_clear(&inner);
    close(tx);
    close(rx);
}

static void the_wrong_end_is_refused(void) {
    int tx, rx, pair[2], fd, i;
    SAME(wormhole_channel(&tx, &rx), 0);
    for (i = 0; i < 2; i++) { /* empty, then full */
        SAME(wormhole_check_sender(tx), 0);
        SAME(wormhole_check_receiver(rx), 0);
        SAME(wormhole_check_sender(rx), -EPROTOTYPE);
        SAME(wormhole_check_receiver(tx), -EPROTOTYPE);
        while (wormhole_try_send(tx, MESSAGE("[]")) == 0) continue;
    }
    close(rx);
    SAME(wormhole_check_sender(tx), 0); /* one whose other end is gone may be either */
    SAME(wormhole_check_receiver(tx), 0);
    close(tx);
    SAME(wormhole_channel(&tx, &rx), 0);
    close(tx);
    SAME(wormhole_check_sender(rx), 0);
    SAME(wormhole_check_receiver(rx), 0);
    close(rx);

    /* A pair of a foreign program that goes both ways, and nothing arrives by being checked. */
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    for (i = 0; i < 2; i++) {
        SAME(wormhole_check_sender(pair[i]), 0);
        SAME(wormhole_check_receiver(pair[i]), 0);
    }
    for (i = 0; i < 2; i++) CHECK(recv(pair[i], &fd, sizeof fd, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    close_all(pair, 2);

    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    SAME(wormhole_check_sender(pair[0]), -EPROTOTYPE);
    close_all(pair, 2);
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    SAME(wormhole_check_sender(fd), -ENOTCONN);
    SAME(wormhole_check_receiver(fd), -ENOTCONN);
    close(fd);
    fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    SAME(wormhole_check_sender(fd), -EPROTOTYPE);
    close(fd);
    fd = open("/tmp", O_PATH | O_CLOEXEC);
    SAME(wormhole_check_sender(fd), -ENOTSOCK);
    close(fd);
    SAME(wormhole_check_sender(fd), -EBADF);
    SAME(wormhole_check_receiver(-1), -EBADF);
}

/*
 * Blobs.
 */

static void blobs_are_shared_and_limited(void) {
    struct wormhole_message message;
    struct wormhole_blob blob, empty, received, rest;
    struct rlimit limit, old;
    int tx, rx, fds[3], before = open_fds();
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_blob_create(&blob, "some bytes", 10), 0);
    SAME(wormhole_blob_create(&empty, NULL, 0), 0);
    CHECK(blob.len == 10 && memcmp(blob.data, "some bytes", 10) == 0 && empty.len == 0 && empty.data != NULL);
    CHECK(write(blob.fd, "x", 1) < 0);
    fds[0] = blob.fd;
    fds[1] = empty.fd;
    fds[2] = blob.fd;
    SAME(wormhole_send_fds(tx, MESSAGE("[0,1,2]"), fds, 3), 0);
    SAME(wormhole_send_fds(tx, MESSAGE("[0,1,2]"), fds, 3), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(wormhole_take_blob(&message, 0, &received), 0);
    SAME(wormhole_take_blob(&message, 0, &rest), -EBADF);
    CHECK(received.len == 10 && memcmp(received.data, "some bytes", 10) == 0);
    wormhole_blob_close(&received);
    SAME(wormhole_take_blob(&message, 1, &received), 0);
    CHECK(received.len == 0 && received.data != NULL);
    wormhole_blob_close(&received);

    /* Counted over a message, and from nothing in the next. */
    message.max_blob_len = 15;
    SAME(wormhole_take_blob(&message, 2, &received), -EFBIG);
    SAME(wormhole_fds_left(&message), 1);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(wormhole_take_blob(&message, 2, &received), 0);
    wormhole_blob_close(&received);
    message.max_blob_len = 5; /* less than there is already */
    SAME(wormhole_take_blob(&message, 0, &received), -EFBIG);
    SAME(wormhole_blob_adopt(&received, blob.fd, 9), -EFBIG);
    wormhole_message_clear(&message);

    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0);
    limit = old;
    limit.rlim_cur = 1000;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    {
        char *text = long_text(1000000);
        SAME(wormhole_blob_create(&received, text, 1001), -EFBIG); /* and no signal */
        SAME(wormhole_send(tx, text, 1000000), -EFBIG);
        free(text);
    }
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    wormhole_blob_close(&blob);
    wormhole_blob_close(&blob); /* which does no harm */
    wormhole_blob_close(&empty);
    close(tx);
    close(rx);
    SAME(open_fds(), before);
}

static void a_huge_sparse_blob_is_not_mapped(void) {
    struct wormhole_message message;
    struct wormhole_blob blob;
    int tx, rx, fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    CHECK(ftruncate(fd, 1LL << 40) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    SAME(wormhole_send_fds(tx, MESSAGE("0"), &fd, 1), 0);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(wormhole_take_blob(&message, 0, &blob), -EFBIG);
    wormhole_message_clear(&message);
    close(fd);
    /* Nor one of huge pages, which may not be there when they are read. */
    fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | 4 /* MFD_HUGETLB */);
    if (fd >= 0) {
        CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
        SAME(wormhole_blob_adopt(&blob, fd, 100), -EINVAL);
        close(fd);
    }
    close(tx);
    close(rx);
}

/*
 * Listeners.
 */

static char folder[] = "/tmp/wormhole-c-XXXXXX";

static const char *path_of(const char *name) {
    static char path[80];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int files_in_folder(void) {
    DIR *directory = opendir(folder);
    struct dirent *entry;
    int count = -2;
    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL) count++;
    closedir(directory);
    return count;
}

static void talks_over(const char *name, size_t len) {
    struct wormhole_message message;
    struct wormhole_listener listener;
    struct wormhole_peer peer;
    int tx, rx;
    wormhole_message_init(&message);
    SAME(wormhole_listen(&listener, name, len), 0);
    SAME(wormhole_accept(listener.fd, NULL, 0), -ETIMEDOUT);
    SAME(wormhole_accept(listener.fd, NULL, 5), -ETIMEDOUT);
    tx = wormhole_connect(name, len, -1);
    CHECK(tx >= 0);
    SAME(wormhole_send(tx, MESSAGE("1")), 0); /* before it is accepted */
    rx = wormhole_accept(listener.fd, &peer, -1);
    CHECK(rx >= 0 && peer.pid == getpid() && peer.uid == geteuid() && peer.gid == getegid());
    SAME(wormhole_check_sender(tx), 0);
    SAME(wormhole_check_receiver(tx), -EPROTOTYPE);
    SAME(wormhole_check_sender(rx), -EPROTOTYPE);
    wormhole_listener_close(&listener); /* what was accepted stays */
    SAME(wormhole_recv(rx, &message), 0);
    close(tx);
    SAME(wormhole_recv(rx, &message), -EPIPE);
    wormhole_message_clear(&message);
    close(rx);
    tx = wormhole_connect(name, len, 1000);
    CHECK(tx == -ECONNREFUSED || tx == -ENOENT);
}

static void strangers_connect_by_path_and_by_abstract_name(void) {
    char name[40];
    size_t len = (size_t)snprintf(name, sizeof name, "%cwormhole-c-%d", 0, (int)getpid());
    const char *path = path_of("socket");
    struct wormhole_listener listener;
    struct stat stat;
    talks_over(WORMHOLE_PATH(path));
    talks_over(name, len);
    SAME(files_in_folder(), 0);
    CHECK(chdir(folder) == 0);
    talks_over(WORMHOLE_NAME("relative"));
    /* A name that begins with an @ is a file, as in all languages. */
    SAME(wormhole_listen(&listener, WORMHOLE_NAME("@file")), 0);
    CHECK(lstat(path_of("@file"), &stat) == 0 && S_ISSOCK(stat.st_mode) && (stat.st_mode & 0777) == 0600);
    CHECK(chdir("/") == 0);
    wormhole_listener_close(&listener);
    wormhole_listener_close(&listener); /* which does no harm */
    SAME(files_in_folder(), 0);
}

static void bad_names_are_refused(void) {
    struct wormhole_listener listener;
    char name[120];
    memset(name, 'x', sizeof name);
    memcpy(name, "/tmp/", 5);
    SAME(wormhole_listen(&listener, "", 0), -EINVAL);
    SAME(wormhole_listen(&listener, "\0", 1), -EINVAL);
    SAME(wormhole_listen(&listener, "a\0b", 3), -EINVAL);
    SAME(wormhole_listen(&listener, name, 108), -ENAMETOOLONG);
    SAME(wormhole_connect(name, 107, 0), -ENOENT);
    SAME(wormhole_listen(&listener, WORMHOLE_NAME("/missing/socket")), -ENOENT);
    name[0] = '\0';
    SAME(wormhole_connect(name, 109, 0), -ENAMETOOLONG);
    SAME(wormhole_connect(name, 108, 0), -ECONNREFUSED);
}

static void closes_a_listener(void *listener) { wormhole_listener_close((struct wormhole_listener *)listener); }

/* Replaces a file that is there no more when it is to be removed. */
static void finds_nothing_to_remove(void *argument) {
    const char *path = (const char *)argument;
    struct whp_address address;
    SAME(whp_parse_name(&address, WORMHOLE_PATH(path)), 0);
#ifdef SYS_unlink
    deny(SYS_unlink, ENOENT);
#endif
    deny(SYS_unlinkat, ENOENT);
    CHECK(unlink(path) < 0 && errno == ENOENT);
    SAME(whp_remove_stale(&address), 0);
}

static void a_stale_file_that_vanishes_is_not_missed(void) {
    struct wormhole_listener listener;
    const char *path = path_of("socket");
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path)), 0);
    close(listener.fd);
    succeeds(child_of(finds_nothing_to_remove, listener.path));
    CHECK(unlink(listener.path) == 0);
    free(listener.path);
}

static void a_stale_file_is_replaced_and_a_live_one_is_not(void) {
    struct wormhole_listener listener, other;
    const char *path = path_of("socket");
    int fd;
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path)), 0);
    SAME(wormhole_listen(&other, WORMHOLE_PATH(path)), -EADDRINUSE);
    SAME(wormhole_accept(listener.fd, NULL, 0), -ETIMEDOUT); /* it has not noticed */
    succeeds(child_of(closes_a_listener, &listener));
    SAME(files_in_folder(), 1); /* that was a fork's copy */
    close(listener.fd);
    SAME(wormhole_listen(&other, WORMHOLE_PATH(path)), 0);
    free(listener.path);

    /* Another holds the lock, and is about to listen. */
    close(other.fd);
    fd = open(path_of("socket.wormhole-lock"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && flock(fd, LOCK_EX) == 0);
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path_of("socket"))), -EADDRINUSE);
    close(fd);
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path_of("socket"))), 0);
    free(other.path);
    wormhole_listener_close(&listener);
    SAME(files_in_folder(), 0);

    fd = open(path_of("file"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path_of("file"))), -EEXIST);
    close(fd);
    unlink(path_of("file"));
    SAME(files_in_folder(), 0);
}

static void a_file_of_another_is_not_removed(void) {
    struct wormhole_listener listener, other;
    SAME(wormhole_listen(&listener, WORMHOLE_PATH(path_of("socket"))), 0);
    CHECK(unlink(path_of("socket")) == 0);
    SAME(wormhole_listen(&other, WORMHOLE_PATH(path_of("socket"))), 0);
    wormhole_listener_close(&listener);
    SAME(files_in_folder(), 1);
    wormhole_listener_close(&other);
    SAME(files_in_folder(), 0);
}

static void connecting_to_a_full_queue_times_out(void) {
    struct sockaddr_un name;
    int socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), tx;
    socklen_t size;
    struct timeval timeout;
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                       (size_t)snprintf(name.sun_path + 1, 80, "wormhole-c-full-%d", (int)getpid()));
    CHECK(bind(socket_fd, (struct sockaddr *)&name, size) == 0 && listen(socket_fd, 0) == 0);
    tx = wormhole_connect(name.sun_path, size - offsetof(struct sockaddr_un, sun_path), 1000);
    CHECK(tx >= 0);
    size = sizeof timeout;
    CHECK(getsockopt(tx, SOL_SOCKET, SO_SNDTIMEO, &timeout, &size) == 0);
    CHECK(timeout.tv_sec == 0 && timeout.tv_usec == 0); /* nothing is left on the socket */
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name.sun_path + 1));
    SAME(wormhole_connect(name.sun_path, size - offsetof(struct sockaddr_un, sun_path), 20), -ETIMEDOUT);
    SAME(wormhole_connect(name.sun_path, size - offsetof(struct sockaddr_un, sun_path), 0), -ETIMEDOUT);
    close(tx);
    close(socket_fd);
}

/* At a name of the kernel's choice. */
static int listening_and_blocking(void) {
    struct sockaddr_un name;
    int listening = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    CHECK(bind(listening, (struct sockaddr *)&name, sizeof(sa_family_t)) == 0);
    CHECK(listen(listening, 1) == 0);
    return listening;
}

static void a_listener_travels(void) {
    struct wormhole_message message;
    struct wormhole_listener listener;
    char name[40];
    size_t len = (size_t)snprintf(name, sizeof name, "%cwormhole-c-%d", 0, (int)getpid());
    int tx, rx, fds[3], taken, client, accepted;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_listen(&listener, name, len), 0);
    fds[0] = listener.fd;
    fds[1] = tx;
    fds[2] = listening_and_blocking(); /* of another program: a listener all the same */
    SAME(wormhole_send_fds(tx, MESSAGE("[0,1,2]"), fds, 3), 0);
    close(fds[2]);
    SAME(wormhole_recv_fds(rx, &message), 0);
    SAME(wormhole_take_sender(&message, 0), -ENOTCONN);
    SAME(wormhole_take_listener(&message, 1), -EPROTOTYPE);
    taken = wormhole_take_listener(&message, 2);
    CHECK(taken >= 0);
    SAME(wormhole_accept(taken, NULL, 0), -ETIMEDOUT);
    close(taken);
    taken = wormhole_take_listener(&message, 0);
    CHECK(taken >= 0);
    wormhole_listener_close(&listener);
    client = wormhole_connect(name, len, 1000);
    accepted = wormhole_accept(taken, NULL, 1000);
    CHECK(client >= 0 && accepted >= 0);
    close(client);
    close(accepted);
    close(taken);
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
}

static void a_listening_socket_that_blocks_is_accepted_from_in_time(void) {
    int listening = listening_and_blocking();
    SAME(wormhole_accept(listening, NULL, 0), -ETIMEDOUT);
    SAME(wormhole_accept(listening, NULL, 5), -ETIMEDOUT);
    close(listening);
}

/*
 * Programs.
 */

/* What this program does when it is started with a message. */
static int program(void) {
    struct wormhole_message message;
    int reply;
    test_name = "the program that was started";
    alarm(20);
    wormhole_message_init(&message);
    SAME(wormhole_inherit(&message), 0);
    SAME(wormhole_inherit(&message), -ENOENT);
    { /* not even if there is another one by the same number */
        int number = atoi(getenv("WORMHOLE_FD")), other = handed_over("1");
        CHECK(other == number || dup2(other, number) >= 0);
        SAME(wormhole_inherit(&message), -ENOENT);
        if (other != number) close(other);
        close(number);
    }
    SAME(message.text == NULL, 0);
    reply = wormhole_take_sender(&message, 1);
    CHECK(reply >= 0 && (fcntl(reply, F_GETFD) & FD_CLOEXEC));
    {
        char text[100];
        int input = wormhole_take_fd(&message, 0), len;
        CHECK(has(input, "input"));
        len = snprintf(text, sizeof text, "[%s,%d]", message.text, open_fds());
        SAME(wormhole_send(reply, text, (size_t)len), 0);
        close(input);
    }
    wormhole_message_clear(&message);
    return 0;
}

static void a_program_is_handed_a_message(void) {
    static char *const argv[] = {(char *)(uintptr_t) "channel", (char *)(uintptr_t) "--program", NULL};
    static char stale[] = "WORMHOLE_FD=77";
    char *envp[] = {stale, NULL};
    struct wormhole_message message;
    int fds[2], rx, round, number, open_in_program;
    pid_t pid;
    wormhole_message_init(&message);
    for (round = 0; round < 2; round++) {
        SAME(wormhole_channel(&fds[1], &rx), 0);
        fds[0] = file_of("input");
        SAME(wormhole_spawn(&pid, "/proc/self/exe", argv, round == 0 ? NULL : envp, MESSAGE("[0,1]"), fds, 2), 0);
        close_all(fds, 2);
        SAME(wormhole_recv(rx, &message), 0);
        CHECK(sscanf(message.text, "[[0,1],%d]", &open_in_program) == 1);
        /* Beside the standard streams, and what this test itself was started with, the two. */
        number = open_fds();
        SAME(open_in_program, number - 1 + 2);
        SAME(wormhole_recv(rx, &message), -EPIPE); /* no copy stays behind */
        succeeds(pid);
        close(rx);
    }
    SAME(wormhole_spawn(&pid, "/missing", argv, NULL, MESSAGE("1"), NULL, 0), -ENOENT);
    wormhole_message_clear(&message);
}

static void what_is_not_handed_over_is_not_inherited(void) {
    static const char *const values[] = {"", "x", "2", "-3", "+3", " 3", "3x", "99999999999999999999", "1000"};
    struct wormhole_message message;
    char number[20];
    int tx, rx, stream[2], i;
    wormhole_message_init(&message);
    unsetenv("WORMHOLE_FD");
    SAME(wormhole_inherit(&message), -ENOENT);
    for (i = 0; i < (int)(sizeof values / sizeof *values); i++) {
        setenv("WORMHOLE_FD", values[i], 1);
        SAME(wormhole_inherit(&message), -ENOENT);
    }
    SAME(wormhole_channel(&tx, &rx), 0);
    SAME(wormhole_send(tx, MESSAGE("1")), 0);
    snprintf(number, sizeof number, "%d", rx);
    setenv("WORMHOLE_FD", number, 1);
    SAME(wormhole_inherit(&message), -ENOENT); /* close-on-exec: this program's own */
    CHECK(fcntl(tx, F_SETFD, 0) == 0);
    snprintf(number, sizeof number, "%d", tx);
    setenv("WORMHOLE_FD", number, 1);
    SAME(wormhole_inherit(&message), -ENOENT); /* a sender */
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0);
    snprintf(number, sizeof number, "%d", stream[0]);
    setenv("WORMHOLE_FD", number, 1);
    SAME(wormhole_inherit(&message), -ENOENT);
    CHECK(fcntl(stream[0], F_GETFD) == 0); /* nothing was changed */
    close_all(stream, 2);
    close(tx);
    close(rx);

    rx = wormhole_hand_over(MESSAGE("1"), NULL, 0);
    CHECK(rx >= 0 && fcntl(rx, F_SETFD, 0) == 0);
    snprintf(number, sizeof number, "%d", rx);
    setenv("WORMHOLE_FD", number, 1);
    SAME(wormhole_inherit(&message), -ENOENT); /* all is right with it but that this program has made it */
    CHECK(fcntl(rx, F_GETFD) == 0);
    close(rx);
    rx = handed_over("1");
    snprintf(number, sizeof number, "%d", rx);
    setenv("WORMHOLE_FD", number, 1);
    SAME(wormhole_inherit(&message), 0);
    expect(&message, "1");
    wormhole_message_clear(&message);
}

/*
 * In a sandbox.
 */

static void where_sendto_is_denied_sendmsg_is_used(void) {
    static const int errors[] = {EPERM, EACCES, ENOSYS};
    struct wormhole_message message;
    int tx, rx, i;
    SAME(wormhole_channel(&tx, &rx), 0);
    for (i = 0; i < 3; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            wormhole_message_init(&message);
            deny(SYS_sendto, errors[i]);
            SAME(wormhole_send(tx, MESSAGE("1")), 0);
            SAME(whp_send_is_denied, 1); /* remembered */
            SAME(wormhole_send(tx, MESSAGE("2")), 0);
            SAME(wormhole_recv(rx, &message), 0);
            expect(&message, "1");
            SAME(wormhole_recv(rx, &message), 0);
            expect(&message, "2");
            while ((errno = -wormhole_try_send(tx, MESSAGE("[]"))) == 0) continue;
            SAME(errno, EAGAIN);
            deny(SYS_sendmsg, errors[i]);
            SAME(wormhole_send(tx, MESSAGE("1")), -errors[i]);
            while (wormhole_try_recv(rx, &message) == 0) continue;
            _exit(0);
        }
        succeeds(pid);
        SAME(whp_send_is_denied, 0);
    }
    close(tx);
    close(rx);
}

static void a_kernel_that_takes_no_packet_at_all_is_an_error(void) {
    char *text = long_text(1000000);
    int tx, rx;
    SAME(wormhole_channel(&tx, &rx), 0);
    deny(SYS_sendmsg, EMSGSIZE);
    deny(SYS_sendto, EMSGSIZE);
    SAME(wormhole_send(tx, text, 1000000), -EMSGSIZE);
    SAME(wormhole_send(tx, text, 100), -EMSGSIZE);
    free(text);
    close(tx);
    close(rx);
}

static void where_polling_is_denied_channels_still_work(void) {
    struct wormhole_message message;
    int tx, rx;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    deny(SYS_ppoll, EPERM);
    deny(SYS_ioctl, EPERM);
    SAME(wormhole_send(tx, MESSAGE("1")), 0);
    SAME(wormhole_recv(rx, &message), 0);
    SAME(wormhole_recv_timeout(rx, &message, 10), -EPERM);
    SAME(wormhole_try_recv(rx, &message), -EAGAIN);
    SAME(wormhole_check_sender(tx), 0);
    close(tx);
    SAME(wormhole_recv(rx, &message), -EPIPE);
    wormhole_message_clear(&message);
    close(rx);
}

static void what_is_said_of_errors_is_not_empty(void) {
    int error;
    for (error = 0; error < 133; error++) CHECK(strlen(wormhole_strerror(-error)) > 0);
    CHECK(strcmp(wormhole_strerror(-EPIPE), strerror(EPIPE)) != 0);
    CHECK(strcmp(wormhole_strerror(-ENOENT), strerror(ENOENT)) == 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
#define TEST(name)                                                                                                     \
    { #name, name }
    TEST(messages_arrive_in_order_and_end_with_a_nul),
    TEST(texts_of_every_length_arrive),
    TEST(a_message_fills_the_packet_to_the_last_byte),
    TEST(the_limits_of_length_hold),
    TEST(what_the_text_says_is_up_to_the_program),
    TEST(bad_packets_are_consumed),
    TEST(garbage_of_all_kinds_does_no_harm),
    TEST(calls_that_must_not_wait_do_not),
    TEST(what_was_sent_outlives_its_sender),
    TEST(a_sender_is_told_that_every_receiver_is_gone),
    TEST(a_waiting_receiver_is_woken_by_a_message_and_by_the_end),
    TEST(a_waiting_sender_goes_on_as_soon_as_there_is_room),
    TEST(a_waiting_sender_is_told_of_the_end),
    TEST(signals_do_not_end_a_call),
    TEST(a_shared_flag_changes_nothing),
    TEST(what_a_receive_has_missed_is_no_end),
    TEST(it_spins_while_that_pays_off),
    TEST(a_last_message_just_before_the_end_is_received),
    TEST(a_receiver_that_writes_backwards_costs_nothing),
    TEST(each_message_reaches_exactly_one_receiver),
    TEST(a_send_borrows_and_a_message_owns),
    TEST(failures_leave_the_callers_descriptors_alone),
    TEST(descriptors_that_nobody_asked_for_are_an_error),
    TEST(lost_descriptors_are_an_error),
    TEST(nothing_takes_the_place_of_a_standard_stream),
    TEST(what_other_holders_ask_of_the_kernel_costs_nothing),
    TEST(control_messages_of_all_kinds_are_walked_over),
    TEST(ends_travel),
    TEST(the_wrong_end_is_refused),
    TEST(blobs_are_shared_and_limited),
    TEST(a_huge_sparse_blob_is_not_mapped),
    TEST(strangers_connect_by_path_and_by_abstract_name),
    TEST(bad_names_are_refused),
    TEST(a_stale_file_is_replaced_and_a_live_one_is_not),
    TEST(a_stale_file_that_vanishes_is_not_missed),
    TEST(a_file_of_another_is_not_removed),
    TEST(connecting_to_a_full_queue_times_out),
    TEST(a_listener_travels),
    TEST(a_listening_socket_that_blocks_is_accepted_from_in_time),
    TEST(a_program_is_handed_a_message),
    TEST(what_is_not_handed_over_is_not_inherited),
    TEST(where_sendto_is_denied_sendmsg_is_used),
    TEST(a_kernel_that_takes_no_packet_at_all_is_an_error),
    TEST(where_polling_is_denied_channels_still_work),
    TEST(what_is_said_of_errors_is_not_empty),
};

int main(int argc, char **argv) {
    size_t i, count = 0, failed = 0;
    if (argc == 2 && strcmp(argv[1], "--program") == 0) return program();
    for (i = 0; i < sizeof tests / sizeof *tests; i++) {
        int status = -1;
        pid_t pid;
        if (argc == 2 && strcmp(argv[1], tests[i].name) != 0) continue;
        CHECK(mkdtemp(strcpy(folder + strlen(folder) - 6, "XXXXXX") - (strlen(folder) - 6)) != NULL);
        fflush(NULL);
        pid = fork();
        if (pid == 0) {
            int before = open_fds();
            test_name = tests[i].name;
            alarm(60);
            tests[i].run();
            SAME(open_fds(), before);
            exit(0);
        }
        CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
        count++;
        if (status != 0) {
            failed++;
            fprintf(stderr, "%s: failed, with status %x\n", tests[i].name, (unsigned)status);
        }
        rmdir(folder);
    }
    printf("channel: %zu tests, %zu failed\n", count, failed);
    return failed > 0 || count == 0;
}
