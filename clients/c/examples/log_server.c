/* Without a JSON library, as texts are only passed through: listens at a path, and prints what any number of programs
 * send, a line for each message with who has connected. Ends when its input does. */
#define WORMHOLE_IMPLEMENTATION
#include "wormhole.h"

#define MOST 64

struct client {
    struct wormhole_peer peer;
    int rx;
};

static struct wormhole_message message;

/* Prints a text that anybody may have sent: on one line, and nothing that a terminal or a reader would take for something
 * else. Letters beyond ASCII are among what could deceive. */
static void print_text(const char *text, size_t len) {
    size_t i;
    for (i = 0; i < len; i++) {
        if (text[i] >= ' ' && text[i] <= '~') putchar(text[i]);
        else printf("\\x%02x", (unsigned char)text[i]);
    }
    putchar('\n');
}

/* Whether a message was lost, so that the next one arrives. */
static int is_lost(int error) {
    return error == -EBADMSG || error == -EMSGSIZE || error == -EMFILE || error == -EPROTO;
}

/* Prints what is there: 0 when there is nothing more now, or an error when there will be none, -EPIPE if the client is
 * gone. */
static int print_all(const struct client *client) {
    for (;;) {
        int result = wormhole_try_recv(client->rx, &message);
        if (result == -EAGAIN) return 0;
        if (result == -EPIPE) return result;
        printf("%ld ", (long)client->peer.pid);
        if (result < 0) printf("! %s\n", wormhole_strerror(result));
        else print_text(message.text, message.len);
        fflush(stdout);
        if (result < 0 && !is_lost(result)) return result;
    }
}

int main(int argc, char **argv) {
    struct wormhole_listener listener;
    struct client clients[MOST];
    struct pollfd polled[MOST + 2];
    int count = 0, i, result;
    if (argc != 2) {
        fprintf(stderr, "usage: log_server PATH\n");
        return 2;
    }
    wormhole_message_init(&message);
    result = wormhole_listen(&listener, WORMHOLE_PATH(argv[1]));
    if (result < 0) {
        fprintf(stderr, "cannot listen at %s: %s\n", argv[1], wormhole_strerror(result));
        return 1;
    }
    for (;;) {
        polled[MOST].fd = count < MOST ? listener.fd : -1;
        polled[MOST + 1].fd = 0;
        for (i = 0; i < MOST; i++) polled[i].fd = i < count ? clients[i].rx : -1;
        for (i = 0; i < MOST + 2; i++) polled[i].events = POLLIN, polled[i].revents = 0;
        if (poll(polled, MOST + 2, -1) < 0) continue;
        for (i = count - 1; i >= 0; i--) {
            if (polled[i].revents == 0 || print_all(&clients[i]) == 0) continue;
            close(clients[i].rx);
            clients[i] = clients[--count];
        }
        if (polled[MOST].revents != 0) {
            result = wormhole_accept(listener.fd, &clients[count].peer, 0);
            if (result >= 0) clients[count++].rx = result;
        }
        if (polled[MOST + 1].revents != 0 && read(0, &i, sizeof i) <= 0) break;
    }
    for (i = 0; i < count; i++) {
        print_all(&clients[i]);
        close(clients[i].rx);
    }
    wormhole_message_clear(&message);
    wormhole_listener_close(&listener);
    return 0;
}
