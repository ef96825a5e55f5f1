/* The worker of worker_jansson.c with cJSON: jobs {"name": text, "input": a descriptor, "reply": the sender for the
 * answer}, which is the size of the input. */
#define WORMHOLE_IMPLEMENTATION
#include "wormhole.h"

#include <cjson/cJSON.h>

static long long size_of(int fd) {
    static char bytes[65536];
    long long size = 0;
    ssize_t count;
    while ((count = read(fd, bytes, sizeof bytes)) > 0) size += count;
    return count < 0 ? -1 : size;
}

/* The index that a member is, or -1, which no message has. All numbers of cJSON are floats. */
static long long index_of(const cJSON *object, const char *name) {
    const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNumber(member) && member->valuedouble == member->valueint ? member->valueint : -1;
}

static int serve(struct wormhole_message *job) {
    /* The NUL after the text is one of the bytes, and must be where the value ends: nothing may follow. cJSON does not
     * check the UTF-8, which matters if texts go on to where it must be. */
    cJSON *root = cJSON_ParseWithLengthOpts(job->text, job->len + 1, NULL, 1);
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(root, "name"));
    int input = wormhole_take_fd(job, index_of(root, "input"));
    int reply = wormhole_take_sender(job, index_of(root, "reply"));
    int result = input < 0 ? input : reply < 0 ? reply : 0;
    char answer[32];
    if (result == 0 && (name == NULL || wormhole_fds_left(job) > 0)) result = -EPROTO;
    if (result == 0) {
        fprintf(stderr, "job %s\n", name);
        snprintf(answer, sizeof answer, "%lld", size_of(input));
        result = wormhole_send(reply, answer, strlen(answer));
    }
    if (input >= 0) close(input);
    if (reply >= 0) close(reply);
    cJSON_Delete(root);
    return result;
}

/* Whether a message was lost, so that the next one arrives. */
static int is_lost(int error) { return error == -EBADMSG || error == -EMSGSIZE || error == -EMFILE; }

int main(void) {
    struct wormhole_message message;
    int jobs, result;
    wormhole_message_init(&message);
    result = wormhole_inherit(&message);
    if (result == 0) result = strcmp(message.text, "0") == 0 ? wormhole_take_receiver(&message, 0) : -EINVAL;
    if (result < 0) {
        fprintf(stderr, "cannot take the jobs: %s\n", wormhole_strerror(result));
        return 1;
    }
    jobs = result;
    while ((result = wormhole_recv_fds(jobs, &message)) == 0 || is_lost(result)) {
        if (result == 0) result = serve(&message);
        if (result < 0) fprintf(stderr, "cannot do a job: %s\n", wormhole_strerror(result));
    }
    wormhole_message_clear(&message);
    close(jobs);
    if (result == -EPIPE) return 0;
    fprintf(stderr, "cannot receive jobs: %s\n", wormhole_strerror(result));
    return 1;
}
