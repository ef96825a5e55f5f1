/* A worker that another program has started with the receiver of its jobs, in Rust with spawn_command(command, jobs). A
 * job is {"name": text, "input": a descriptor, "reply": the sender for the answer}, which is the size of the input. The
 * texts are read by jansson. */
#define WORMHOLE_IMPLEMENTATION
#include "wormhole.h"

#include <jansson.h>

/* Reads a descriptor to its end. */
static long long size_of(int fd) {
    static char bytes[65536];
    long long size = 0;
    ssize_t count;
    while ((count = read(fd, bytes, sizeof bytes)) > 0) size += count;
    return count < 0 ? -1 : size;
}

/* Answers one job, or says why not. */
static const char *serve(struct wormhole_message *job) {
    /* Members must not be repeated. jansson checks the UTF-8 and that nothing follows, and tells integers from floats. */
    json_t *root = json_loadb(job->text, job->len, JSON_REJECT_DUPLICATES, NULL);
    const char *name, *problem = NULL;
    json_int_t input_index, reply_index;
    char answer[32];
    int input = -1, reply = -1, result;
    if (root == NULL ||
        json_unpack(root, "{s:s, s:I, s:I}", "name", &name, "input", &input_index, "reply", &reply_index) < 0) {
        problem = "it is no job";
    } else if ((input = wormhole_take_fd(job, input_index)) < 0) {
        problem = "there is no input";
    } else if ((reply = wormhole_take_sender(job, reply_index)) < 0) {
        problem = "there is no sender for the answer";
    } else if (wormhole_fds_left(job) > 0) {
        problem = "there are descriptors that no field refers to";
    } else {
        fprintf(stderr, "job %s\n", name);
        snprintf(answer, sizeof answer, "%lld", size_of(input));
        result = wormhole_send(reply, answer, strlen(answer));
        if (result < 0) problem = wormhole_strerror(result);
    }
    /* What was taken is ours to close; what was not, the message closes. */
    if (input >= 0) close(input);
    if (reply >= 0) close(reply);
    json_decref(root);
    return problem;
}

/* Whether a message was lost, so that the next one arrives. */
static int is_lost(int error) { return error == -EBADMSG || error == -EMSGSIZE || error == -EMFILE; }

int main(void) {
    struct wormhole_message message;
    int jobs, result;
    wormhole_message_init(&message);
    result = wormhole_inherit(&message);
    /* What it was handed is the receiver itself: the text is its index, and there is one descriptor. */
    if (result == 0) result = strcmp(message.text, "0") == 0 ? wormhole_take_receiver(&message, 0) : -EINVAL;
    if (result < 0) {
        fprintf(stderr, "cannot take the jobs: %s\n", wormhole_strerror(result));
        return 1;
    }
    jobs = result;
    while ((result = wormhole_recv_fds(jobs, &message)) == 0 || is_lost(result)) {
        const char *problem = result < 0 ? wormhole_strerror(result) : serve(&message);
        if (problem != NULL) fprintf(stderr, "cannot do a job: %s\n", problem);
    }
    wormhole_message_clear(&message);
    close(jobs);
    if (result == -EPIPE) return 0; /* every sender is gone, in all processes */
    fprintf(stderr, "cannot receive jobs: %s\n", wormhole_strerror(result));
    return 1;
}
