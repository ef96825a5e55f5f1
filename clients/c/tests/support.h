/* What the tests share: checks and descriptor counts. */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <dirent.h>
#include <sys/wait.h>

static const char *test_name = "";

static void fail_at(const char *file, int line, const char *what, long long found) {
    fprintf(stderr, "%s:%d: %s: %s (%lld)\n", file, line, test_name, what, found);
    fflush(NULL);
    _exit(1);
}

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) fail_at(__FILE__, __LINE__, #condition, errno);                                              \
    } while (0)

/* Checks that two numbers are the same. */
#define SAME(found, expected)                                                                                          \
    do {                                                                                                               \
        long long same_found = (long long)(found);                                                                     \
        if (same_found != (long long)(expected)) fail_at(__FILE__, __LINE__, #found " is not " #expected, same_found); \
    } while (0)

static int open_fds(void) {
    DIR *directory = opendir("/proc/self/fd");
    int count = -1; /* the directory itself */
    struct dirent *entry;
    CHECK(directory != NULL);
    while ((entry = readdir(directory)) != NULL) count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

/* What a program inherits that another one has started with this message. */
__attribute__((unused)) static int handed_over(const char *text) {
    struct wormhole_message message;
    int tx, rx, fd;
    pid_t pid;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) { /* whoever makes the socket cannot inherit it */
        fd = wormhole_hand_over(text, strlen(text), NULL, 0);
        _exit(fd >= 0 && wormhole_send_fds(tx, "0", 1, &fd, 1) == 0 ? 0 : 1);
    }
    SAME(waitpid(pid, NULL, 0), pid);
    SAME(wormhole_try_recv_fds(rx, &message), 0); /* with the same calls each time */
    fd = wormhole_take_fd(&message, 0);
    CHECK(fd >= 0 && fcntl(fd, F_SETFD, 0) == 0);
    wormhole_message_clear(&message);
    close(tx);
    close(rx);
    return fd;
}

/* Not every test needs it. */
__attribute__((unused)) static void close_all(const int *fds, size_t count) {
    size_t i;
    for (i = 0; i < count; i++) close(fds[i]);
}

#endif
