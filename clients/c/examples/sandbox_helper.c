/* The helper beside a container that decides about its system calls. A runtime, or a hook of one, starts it with the
 * receiver of a channel, and sends there the state of each container process, as the OCI runtime specification has it,
 * with the descriptors that "fds" names beside the message: {"fds": ["seccompFd"], "pid": 7, "metadata": "30", ...}.
 * "seccompFd" is what seccomp(2) gives for SECCOMP_FILTER_FLAG_NEW_LISTENER.
 *
 * This one lets nothing happen: each call that the filter asks about fails with the error that the metadata says. */
#define WORMHOLE_IMPLEMENTATION
#include "wormhole.h"

#include <jansson.h>
#include <linux/seccomp.h>

/* Answers until no process has the filter any more. */
static void decide(int notify, int error) {
    for (;;) {
        struct seccomp_notif request;
        struct seccomp_notif_resp response;
        struct pollfd polled = {notify, POLLIN, 0};
        if (poll(&polled, 1, -1) < 0) continue; /* a signal */
        if (polled.revents & POLLHUP) return;
        memset(&request, 0, sizeof request); /* which the kernel asks for */
        memset(&response, 0, sizeof response);
        if (ioctl(notify, SECCOMP_IOCTL_NOTIF_RECV, &request) < 0) continue; /* it is gone meanwhile */
        fprintf(stderr, "process %u asks for call %d: error %d\n", request.pid, request.data.nr, error);
        response.id = request.id;
        response.error = -error;
        ioctl(notify, SECCOMP_IOCTL_NOTIF_SEND, &response); /* it may be gone again */
    }
}

/* Takes the descriptor of a name out of a message: it is the caller's. */
static int take_named(struct wormhole_message *state, const json_t *names, const char *wanted) {
    int fds[WORMHOLE_MAX_FDS], found = -1;
    size_t i, count;
    if (wormhole_fds_left(state) != json_array_size(names)) return -EPROTO;
    count = wormhole_take_rest(state, fds, WORMHOLE_MAX_FDS);
    for (i = 0; i < count; i++) {
        const char *name = json_string_value(json_array_get(names, i));
        if (found < 0 && name != NULL && strcmp(name, wanted) == 0) found = fds[i];
        else close(fds[i]);
    }
    return found < 0 ? -ENOENT : found;
}

/* Whether a message was lost, so that the next one arrives. */
static int is_lost(int error) { return error == -EBADMSG || error == -EMSGSIZE || error == -EMFILE; }

int main(void) {
    struct wormhole_message message;
    int states, result;
    wormhole_message_init(&message);
    result = wormhole_inherit(&message);
    if (result == 0) result = strcmp(message.text, "0") == 0 ? wormhole_take_receiver(&message, 0) : -EINVAL;
    if (result < 0) {
        fprintf(stderr, "cannot take the states: %s\n", wormhole_strerror(result));
        return 1;
    }
    states = result;
    while ((result = wormhole_recv_fds(states, &message)) == 0 || is_lost(result)) {
        json_t *state = result < 0 ? NULL : json_loadb(message.text, message.len, JSON_REJECT_DUPLICATES, NULL), *names;
        const char *metadata = "1";
        int notify = -EPROTO;
        if (json_unpack(state, "{s:o, s?s}", "fds", &names, "metadata", &metadata) == 0)
            notify = take_named(&message, names, "seccompFd");
        if (notify >= 0) {
            decide(notify, atoi(metadata));
            close(notify);
        } else {
            fprintf(stderr, "cannot serve a container: %s\n", wormhole_strerror(result < 0 ? result : notify));
        }
        json_decref(state);
    }
    wormhole_message_clear(&message);
    close(states);
    if (result == -EPIPE) return 0;
    fprintf(stderr, "cannot receive states: %s\n", wormhole_strerror(result));
    return 1;
}
