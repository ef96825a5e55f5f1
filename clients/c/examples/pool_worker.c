/* A worker of a pool in a program of another language. It is handed two ends, [jobs, results]. A job is a text, and its
 * result is how many words it has: {"Ok": 2}. A job that fails is {"Err": {"message": ..., "place": null, "backtrace":
 * null}}, and the worker goes on; it ends when there are no more jobs. */
#define WORMHOLE_IMPLEMENTATION
#include "wormhole.h"

#include <jansson.h>

static json_int_t words_of(const char *text) {
    json_int_t words = 0;
    for (;;) {
        text += strspn(text, " \t\r\n");
        if (*text == '\0') return words;
        text += strcspn(text, " \t\r\n");
        words++;
    }
}

/* What to send for a job, which is to be freed, or NULL without memory. */
static char *answer(int received, const struct wormhole_message *job) {
    json_t *value = received < 0 ? NULL : json_loadb(job->text, job->len, JSON_DECODE_ANY, NULL), *result;
    char *text;
    if (json_is_string(value) && job->fd_count == 0)
        result = json_pack("{s:I}", "Ok", words_of(json_string_value(value)));
    else
        result = json_pack("{s:{s:s, s:n, s:n}}", "Err", "message",
                           received < 0 ? wormhole_strerror(received) : "the job is no text", "place", "backtrace");
    text = json_dumps(result, JSON_COMPACT);
    json_decref(value);
    json_decref(result);
    return text;
}

/* Whether a job was lost, which is to be answered. Other errors are about none. */
static int is_lost(int error) { return error == -EBADMSG || error == -EMSGSIZE || error == -EMFILE; }

int main(void) {
    struct wormhole_message message;
    int jobs, results, received, sent = 0;
    wormhole_message_init(&message);
    received = wormhole_inherit(&message);
    if (received < 0 || strcmp(message.text, "[0,1]") != 0) {
        fprintf(stderr, "not started by a pool: %s\n", wormhole_strerror(received));
        return 1;
    }
    jobs = wormhole_take_receiver(&message, 0);
    results = wormhole_take_sender(&message, 1);
    while (sent == 0 && jobs >= 0 && results >= 0 &&
           ((received = wormhole_recv_fds(jobs, &message)) == 0 || is_lost(received))) {
        char *text = answer(received, &message);
        sent = text == NULL ? -ENOMEM : wormhole_send(results, text, strlen(text));
        free(text);
    }
    wormhole_message_clear(&message);
    if (jobs >= 0) close(jobs);
    if (results >= 0) close(results);
    return received == -EPIPE || sent == -EPIPE ? 0 : 1; /* no more jobs, or no pool */
}
