/* Many threads use the ends of one channel: every message reaches exactly one of them. Built with the thread sanitizer. */
#define WORMHOLE_IMPLEMENTATION
#include "../wormhole.h"

#include <pthread.h>

#include "support.h"

enum { THREADS = 3, EACH = 2000 };

static int tx, rx;
static int seen[THREADS * EACH];

static void *sends(void *first) {
    char text[2000];
    int i;
    for (i = 0; i < EACH; i++) {
        int number = *(const int *)first + i;
        /* Some with a descriptor, some of two parts. */
        int len = snprintf(text, sizeof text, number % 10 == 0 ? "%-1999d" : "%d", number);
        if (number % 7 == 0) SAME(wormhole_send_fds(tx, text, (size_t)len, &rx, 1), 0);
        else SAME(wormhole_send(tx, text, (size_t)len), 0);
    }
    return NULL;
}

static void *receives(void *unused) {
    struct wormhole_message message;
    int result;
    wormhole_message_init(&message);
    while ((result = wormhole_recv_fds(rx, &message)) == 0) {
        int number = atoi(message.text);
        CHECK(number >= 0 && number < THREADS * EACH);
        SAME(message.fd_count, number % 7 == 0);
        __atomic_add_fetch(&seen[number], 1, __ATOMIC_RELAXED);
    }
    SAME(result, -EPIPE);
    wormhole_message_clear(&message);
    return unused;
}

int main(void) {
    pthread_t senders[THREADS], receivers[THREADS];
    int firsts[THREADS], i, before = open_fds();
    test_name = "threads";
    alarm(60);
    SAME(wormhole_channel(&tx, &rx), 0);
    for (i = 0; i < THREADS; i++) {
        firsts[i] = i * EACH;
        SAME(pthread_create(&receivers[i], NULL, receives, NULL), 0);
        SAME(pthread_create(&senders[i], NULL, sends, &firsts[i]), 0);
    }
    for (i = 0; i < THREADS; i++) pthread_join(senders[i], NULL);
    close(tx);
    for (i = 0; i < THREADS; i++) pthread_join(receivers[i], NULL);
    for (i = 0; i < THREADS * EACH; i++) SAME(seen[i], 1);
    close(rx);
    SAME(open_fds(), before);
    printf("threads: %d messages\n", THREADS * EACH);
    return 0;
}
