/* The examples do what they say. The argument is the folder that has them. */
#define WORMHOLE_IMPLEMENTATION
#include "../wormhole.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "support.h"

static const char *folder;
static struct wormhole_message message;

static void expect(int rx, const char *text) {
    int result = wormhole_recv_timeout(rx, &message, 20000);
    if (result < 0) fail_at(__FILE__, __LINE__, text, result);
    if (strcmp(message.text, text) != 0) fail_at(__FILE__, __LINE__, message.text, 0);
}

static void send_text(int tx, const char *text, const int *fds, size_t count) {
    SAME(wormhole_send_fds_timeout(tx, text, strlen(text), fds, count, 20000), 0);
}

static pid_t start(const char *name, const char *text, const int *fds, size_t count) {
    char path[500];
    char *argv[] = {path, NULL};
    pid_t pid;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    SAME(wormhole_spawn(&pid, path, argv, NULL, text, strlen(text), fds, count), 0);
    return pid;
}

static void ends_with(pid_t pid, int expected) {
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    SAME(WEXITSTATUS(status), expected);
}

static void succeeds(pid_t pid) { ends_with(pid, 0); }

/* From now on this process, and what it executes, receives by that descriptor only: all else says ENOMEM. */
static void receive_only_by(int fd) {
    struct sock_filter steps[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 3, SYS_recvmsg},
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, args[0])},
        {BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 0},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | ENOMEM},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    struct sock_fprog program = {6, steps};
    steps[3].k = (unsigned)fd;
    alarm(20);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
}

/* Starts a program that can receive what it is handed, and nothing else. */
static pid_t start_deaf(const char *name, const char *text, const int *fds, size_t count) {
    char path[500], number[20];
    int inherited = wormhole_hand_over(text, strlen(text), fds, count);
    pid_t pid = fork();
    CHECK(inherited >= 0 && pid >= 0);
    if (pid == 0) {
        snprintf(path, sizeof path, "%s/%s", folder, name);
        snprintf(number, sizeof number, "%d", inherited);
        CHECK(fcntl(inherited, F_SETFD, 0) == 0 && setenv("WORMHOLE_FD", number, 1) == 0);
        receive_only_by(inherited);
        execl(path, path, (char *)NULL);
        _exit(127);
    }
    close(inherited);
    return pid;
}

/* A receive that fails without having received anything would fail again and again. */
static void deaf(const char *name) {
    int tx, rx;
    pid_t pid;
    SAME(wormhole_channel(&tx, &rx), 0);
    pid = start_deaf(name, "0", &rx, 1);
    close(rx);
    ends_with(pid, 1);
    close(tx);
}

static void deaf_pool_worker(void) {
    int jobs, source, results, fds[2];
    pid_t pid;
    SAME(wormhole_channel(&jobs, &source), 0);
    fds[0] = source;
    SAME(wormhole_channel(&fds[1], &results), 0);
    send_text(jobs, "\"a job\"", NULL, 0);
    pid = start_deaf("pool_worker", "[0,1]", fds, 2);
    close_all(fds, 2);
    SAME(wormhole_recv_timeout(results, &message, 20000), -EPIPE); /* no result, as it has no job */
    ends_with(pid, 1);
    close(jobs);
    close(results);
}

/* A worker counts bytes, and goes on after jobs that are none. */
static void worker(const char *name) {
    static const char *const bad[] = {"7",
                                      "{",
                                      "{\"name\":\"x\",\"input\":7,\"reply\":1}",
                                      "{\"name\":\"x\",\"input\":1,\"reply\":0}",
                                      "{\"name\":\"x\"}",
                                      "{\"name\":\"x\",\"input\":0.5,\"reply\":1}"};
    int jobs, source, i, round;
    pid_t pid;
    SAME(wormhole_channel(&jobs, &source), 0);
    pid = start(name, "0", &source, 1);
    close(source);
    for (round = 0; round < 2; round++) {
        int fds[2], answers;
        fds[0] = memfd_create("input", MFD_CLOEXEC);
        CHECK(fds[0] >= 0 && ftruncate(fds[0], 100000) == 0);
        SAME(wormhole_channel(&fds[1], &answers), 0);
        for (i = 0; i < 6; i++) send_text(jobs, bad[i], fds, 2);
        send_text(jobs, "{\"name\":\"count\",\"input\":0,\"reply\":1}", fds, 2);
        close_all(fds, 2);
        expect(answers, "100000");
        SAME(wormhole_recv(answers, &message), -EPIPE); /* the worker keeps none of the ends */
        close(answers);
    }
    close(jobs);
    succeeds(pid);
}

static void pool_worker(void) {
    int jobs, source, results, fds[2];
    pid_t pid;
    SAME(wormhole_channel(&jobs, &source), 0);
    fds[0] = source;
    SAME(wormhole_channel(&fds[1], &results), 0);
    pid = start("pool_worker", "[0,1]", fds, 2);
    close_all(fds, 2);
    send_text(jobs, "\"two words\"", NULL, 0);
    send_text(jobs, "{", NULL, 0);
    send_text(jobs, "[]", NULL, 0);
    send_text(jobs, "\" \"", NULL, 0);
    expect(results, "{\"Ok\":2}");
    expect(results, "{\"Err\":{\"message\":\"the job is no text\",\"place\":null,\"backtrace\":null}}");
    expect(results, "{\"Err\":{\"message\":\"the job is no text\",\"place\":null,\"backtrace\":null}}");
    expect(results, "{\"Ok\":0}");
    close(jobs);
    SAME(wormhole_recv(results, &message), -EPIPE);
    close(results);
    succeeds(pid);
}

static void log_server(int is_deaf) {
    char path[] = "/tmp/wormhole-c-XXXXXX/log", program[500], line[100], expected[100];
    int input[2], output[2], tx, i;
    pid_t pid;
    FILE *lines;
    path[strlen(path) - 4] = '\0';
    CHECK(mkdtemp(path) != NULL);
    path[strlen(path)] = '/';
    snprintf(program, sizeof program, "%s/log_server", folder);
    CHECK(pipe2(input, O_CLOEXEC) == 0 && pipe2(output, O_CLOEXEC) == 0);
    pid = fork();
    if (pid == 0) {
        dup2(input[0], 0);
        dup2(output[1], 1);
        if (is_deaf) receive_only_by(-1);
        execl(program, program, path, (char *)NULL);
        _exit(127);
    }
    close(input[0]);
    close(output[1]);
    while ((tx = wormhole_connect(WORMHOLE_PATH(path), 20000)) == -ENOENT || tx == -ECONNREFUSED) sched_yield();
    CHECK(tx >= 0);
    send_text(tx, "\"first\"", NULL, 0);
    if (!is_deaf) { /* after the first, that one closes the channel */
        send_text(tx, "\"with a descriptor\"", &tx, 1);
        send_text(tx, "\"\x1b[2J\n\xe2\x80\xae\"", NULL, 0);
        send_text(tx, "{\"last\":true}", NULL, 0);
    }
    close(tx);
    lines = fdopen(output[0], "r");
    CHECK(lines != NULL);
    for (i = is_deaf ? 4 : 0; i < (is_deaf ? 5 : 4); i++) {
        static const char *const texts[] = {"\"first\"", "! the message has descriptors that nobody expected",
                                            "\"\\x1b[2J\\x0a\\xe2\\x80\\xae\"", "{\"last\":true}",
                                            "! Cannot allocate memory"};
        CHECK(fgets(line, sizeof line, lines) != NULL);
        snprintf(expected, sizeof expected, "%ld %s\n", (long)getpid(), texts[i]);
        CHECK(strcmp(line, expected) == 0);
    }
    close(input[1]);
    CHECK(fgets(line, sizeof line, lines) == NULL);
    fclose(lines);
    succeeds(pid);
    CHECK(access(path, F_OK) < 0);
    path[strlen(path) - 4] = '\0';
    CHECK(rmdir(path) == 0);
}

/* A process in a container: asks the helper about each mkdir. */
static void container(int states) {
    struct sock_filter steps[] = {
        {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr)},
        {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_mkdirat},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_USER_NOTIF},
        {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
    };
    struct sock_fprog program = {4, steps};
    char text[200];
    int fds[2];
    alarm(20);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    fds[0] = 2; /* another one, to see that the names count */
    fds[1] = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    CHECK(fds[1] >= 0);
    snprintf(text, sizeof text,
             "{\"ociVersion\":\"1.0.2\",\"fds\":[\"other\",\"seccompFd\"],\"pid\":%d,\"metadata\":\"%d\",\"state\":{}}",
             (int)getpid(), ENOTEMPTY);
    send_text(states, text, fds, 2);
    close(fds[1]); /* or it would have to answer itself */
    CHECK(mkdirat(AT_FDCWD, "/nonexistent/folder", 0700) < 0 && errno == ENOTEMPTY);
    CHECK(mkdirat(AT_FDCWD, "/nonexistent/other", 0700) < 0 && errno == ENOTEMPTY);
    _exit(0);
}

static void sandbox_helper(void) {
    int states, source, i;
    pid_t helper;
    SAME(wormhole_channel(&states, &source), 0);
    helper = start("sandbox_helper", "0", &source, 1);
    close(source);
    send_text(states, "{\"fds\":[]}", NULL, 0);
    send_text(states, "{\"fds\":[]}", &states, 1);
    send_text(states, "{", NULL, 0);
    for (i = 0; i < 2; i++) { /* one container after the other */
        pid_t pid = fork();
        if (pid == 0) container(states);
        succeeds(pid);
    }
    close(states);
    succeeds(helper);
}

int main(int argc, char **argv) {
    int before, i;
    CHECK(argc == 2);
    folder = argv[1];
    alarm(100);
    wormhole_message_init(&message);
    before = open_fds();
    test_name = "worker_jansson";
    worker(test_name);
    test_name = "worker_cjson";
    worker(test_name);
    test_name = "pool_worker";
    pool_worker();
    test_name = "log_server";
    log_server(0);
    test_name = "sandbox_helper";
    sandbox_helper();
    for (i = 0; i < 3; i++) {
        static const char *const names[] = {"worker_jansson", "worker_cjson", "sandbox_helper"};
        test_name = names[i];
        deaf(test_name);
    }
    test_name = "pool_worker";
    deaf_pool_worker();
    test_name = "log_server";
    log_server(1);
    SAME(open_fds(), before);
    wormhole_message_clear(&message);
    printf("examples: done\n");
    return 0;
}
