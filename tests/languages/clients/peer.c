/* The program in C. Its argument is its role, what it is handed are objects with the members that messages.rs has. */
#define WORMHOLE_IMPLEMENTATION
#include "wormhole.h"

#include <sys/wait.h>

#include "json.h"

#define LANGUAGE "\"c\""

static void fail_at(int line, const char *what, long long found) {
    fprintf(stderr, "peer.c:%d: %s (%lld)\n", line, what, found);
    exit(1);
}

#define CHECK(condition) ((condition) ? (void)0 : fail_at(__LINE__, #condition, errno))

/* The result of a call that must succeed. */
#define MUST(call) must(__LINE__, #call, call)

static int must(int line, const char *call, int result) {
    if (result < 0) fail_at(line, call, result);
    return result;
}

/* Writes a string of JSON. */
static void out_string(struct out *out, const char *text, size_t len) {
    size_t i;
    out_text(out, "\"");
    for (i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        char escape[8];
        if (c >= 0x20 && c != '"' && c != '\\') {
            out_bytes(out, text + i, 1);
        } else {
            snprintf(escape, sizeof escape, "\\u%04x", c);
            out_text(out, escape);
        }
    }
    out_text(out, "\"");
}

static void out_format(struct out *out, const char *format, unsigned long long number) {
    char text[80];
    snprintf(text, sizeof text, format, number); /* which stand in this file */
    out_text(out, text);
}

static void send_out(int tx, struct out *out, const int *fds, size_t count) {
    MUST(wormhole_send_fds(tx, out->text, out->len, fds, count));
    free(out->text);
    memset(out, 0, sizeof *out);
}

static void send_string(int tx, const char *text) {
    struct out out = {NULL, 0, 0};
    out_string(&out, text, strlen(text));
    send_out(tx, &out, NULL, 0);
}

static int is_over(int rx) {
    struct wormhole_message message;
    int result;
    wormhole_message_init(&message);
    result = wormhole_recv_fds(rx, &message);
    wormhole_message_clear(&message);
    return result == -EPIPE;
}

/* A message and what is read of its text. */
struct read {
    struct wormhole_message message;
    struct json *value;
};

static int receive(int rx, struct read *read) {
    int result = wormhole_recv_fds(rx, &read->message);
    json_free(read->value);
    read->value = NULL;
    if (result < 0) return result;
    read->value = json_read(read->message.text, read->message.len);
    CHECK(read->value != NULL);
    return 0;
}

static void clear(struct read *read) {
    json_free(read->value);
    read->value = NULL;
    wormhole_message_clear(&read->message);
}

static const char *text_of(const struct json *value) {
    CHECK(value != NULL && value->kind == JSON_TEXT);
    return value->text;
}

static const char *digits_of(const struct json *value) {
    CHECK(value != NULL && value->kind == JSON_NUMBER);
    CHECK(value->text[strspn(value->text, "0123456789")] == '\0');
    return value->text;
}

static unsigned long long number_of(const struct json *value) { return strtoull(digits_of(value), NULL, 10); }

static const struct json *member(const struct read *read, const char *name) {
    const struct json *found = json_member(read->value, name);
    CHECK(found != NULL);
    return found;
}

static int sender(struct read *read, const char *name) {
    return MUST(wormhole_take_sender(&read->message, atoll(digits_of(member(read, name)))));
}

static int receiver(struct read *read, const char *name) {
    return MUST(wormhole_take_receiver(&read->message, atoll(digits_of(member(read, name)))));
}

/* What this program was handed. */
static struct read args;

/*
 * Letters.
 */

static const char *letter_text(unsigned long long number, size_t *len) {
    static char text[100];
    *len = (size_t)snprintf(text, sizeof text, "letter %llu: \xc3\xa9 \xf0\x9f\x98\x80 %c \" \\ \n </b>", number, 0);
    return text;
}

static void write_letter(struct out *out, unsigned long long number) {
    size_t len, i;
    const char *text = letter_text(number, &len);
    char third[60];
    out_format(out, "{\"number\":%llu,\"text\":", number);
    out_string(out, text, len);
    out_format(out, ",\"wide\":%llu", number * 0x9e3779b97f4a7c15ULL);
    out_format(out, number == 0 ? ",\"negative\":%llu" : ",\"negative\":-%llu", number);
    snprintf(third, sizeof third, ",\"third\":%.17g,\"list\":[", (double)number / 3);
    out_text(out, third);
    for (i = 0; i < number % 5; i++) out_text(out, i == 0 ? "7" : ",7");
    out_format(out, number % 2 == 0 ? "],\"maybe\":\"%llu\"}" : "],\"maybe\":null}", number);
}

static void check_letter(const struct read *read, unsigned long long number) {
    const struct json *text = member(read, "text"), *negative = member(read, "negative"), *list = member(read, "list");
    const struct json *maybe = json_member(read->value, "maybe");
    size_t len;
    const char *expected = letter_text(number, &len);
    CHECK(number_of(member(read, "number")) == number);
    CHECK(text->kind == JSON_TEXT && text->len == len && memcmp(text->text, expected, len) == 0);
    CHECK(number_of(member(read, "wide")) == number * 0x9e3779b97f4a7c15ULL);
    CHECK(negative->kind == JSON_NUMBER && strtoll(negative->text, NULL, 10) == -(long long)number);
    CHECK(member(read, "third")->kind == JSON_NUMBER);
    CHECK(memcmp(&(double){strtod(member(read, "third")->text, NULL)}, &(double){(double)number / 3}, sizeof(double)) ==
          0);
    CHECK(list->kind == JSON_LIST && json_count(list) == number % 5);
    for (list = list->first; list != NULL; list = list->next) CHECK(number_of(list) == 7);
    if (number % 2 == 0) CHECK(strtoull(text_of(maybe), NULL, 10) == number);
    else CHECK(maybe == NULL || maybe->kind == JSON_NULL);
    CHECK(wormhole_fds_left(&read->message) == 0);
}

static void send_letter(int tx, unsigned long long number) {
    struct out out = {NULL, 0, 0};
    write_letter(&out, number);
    send_out(tx, &out, NULL, 0);
}

static unsigned long long first_of_plan(void) { return number_of(member(&args, "plan")->first); }

static void send_letters(void) {
    int to = sender(&args, "to");
    unsigned long long number, count = first_of_plan();
    for (number = 0; number < count; number++) send_letter(to, number);
    send_string(sender(&args, "report"), "done");
}

static void receive_letters(void) {
    int source = receiver(&args, "source");
    unsigned long long number, count = first_of_plan();
    struct read read;
    memset(&read, 0, sizeof read);
    wormhole_message_init(&read.message);
    for (number = 0; number < count; number++) {
        MUST(receive(source, &read));
        check_letter(&read, number);
    }
    CHECK(is_over(source));
    send_string(sender(&args, "report"), "done");
    clear(&read);
}

/*
 * Parcels.
 */

static char *long_text(size_t size) {
    size_t times = size / 10 + 1, i;
    char *text = (char *)json_memory(times * 10 + 1);
    for (i = 0; i < times; i++) memcpy(text + i * 10, "w\xc3\xb6rmhole ", 10);
    return text;
}

static int file(const char *content) {
    int fd = memfd_create("peer", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, content, strlen(content)) == (ssize_t)strlen(content));
    return fd;
}

static void content(struct out *out, int fd) {
    char bytes[1000];
    ssize_t len = pread(fd, bytes, sizeof bytes, 0);
    CHECK(len >= 0);
    out_text(out, " ");
    out_bytes(out, bytes, (size_t)len);
    close(fd);
}

static void send_parcels(void) {
    int to = sender(&args, "to");
    const struct json *size;
    struct read read;
    memset(&read, 0, sizeof read);
    wormhole_message_init(&read.message);
    for (size = member(&args, "plan")->first; size != NULL; size = size->next) {
        int replies, word, fds[6], i;
        struct out out = {NULL, 0, 0};
        struct wormhole_blob blob;
        char *name = long_text(number_of(size)), expected[100];
        fds[0] = file("first");
        fds[1] = file("second");
        MUST(wormhole_channel(&fds[2], &replies));
        MUST(wormhole_channel(&word, &fds[3]));
        send_string(word, "word");
        close(word);
        MUST(wormhole_blob_create(&blob, "blob", 4));
        fds[4] = blob.fd;
        fds[5] = file("beside");
        out_text(&out, "{\"name\":");
        out_string(&out, name, strlen(name));
        out_text(&out, ",\"inputs\":[0,1],\"reply\":2,\"words\":3,\"data\":4}");
        send_out(to, &out, fds, 6);
        for (i = 0; i < 6; i++)
            if (i != 4) close(fds[i]);
        wormhole_blob_close(&blob);
        snprintf(expected, sizeof expected, "%zu first second beside word blob", strlen(name));
        MUST(receive(replies, &read));
        CHECK(strcmp(text_of(read.value), expected) == 0);
        CHECK(is_over(replies));
        close(replies);
        free(name);
    }
    send_string(sender(&args, "report"), "done");
    clear(&read);
}

static void receive_parcels(void) {
    int source = receiver(&args, "source");
    const struct json *size;
    struct read read, word;
    memset(&read, 0, sizeof read);
    memset(&word, 0, sizeof word);
    wormhole_message_init(&read.message);
    wormhole_message_init(&word.message);
    for (size = member(&args, "plan")->first; size != NULL; size = size->next) {
        char *name = long_text(number_of(size));
        const struct json *input;
        struct wormhole_blob blob;
        struct out out = {NULL, 0, 0};
        int reply, words, beside;
        MUST(receive(source, &read));
        CHECK(strcmp(text_of(member(&read, "name")), name) == 0);
        reply = sender(&read, "reply");
        words = receiver(&read, "words");
        MUST(wormhole_take_blob(&read.message, atoll(digits_of(member(&read, "data"))), &blob));
        MUST(receive(words, &word));
        CHECK(is_over(words));
        close(words);
        out_format(&out, "%llu", strlen(name));
        CHECK(json_count(member(&read, "inputs")) == 2);
        for (input = member(&read, "inputs")->first; input != NULL; input = input->next)
            content(&out, MUST(wormhole_take_fd(&read.message, atoll(digits_of(input)))));
        CHECK(wormhole_fds_left(&read.message) == 1);
        CHECK(wormhole_take_rest(&read.message, &beside, 1) == 1);
        content(&out, beside);
        out_text(&out, " ");
        out_text(&out, text_of(word.value));
        out_text(&out, " ");
        out_bytes(&out, blob.data, blob.len);
        send_string(reply, out.text);
        close(reply);
        wormhole_blob_close(&blob);
        free(out.text);
        free(name);
    }
    CHECK(is_over(source));
    send_string(sender(&args, "report"), "done");
    clear(&read);
    clear(&word);
}

/*
 * The other side is killed.
 */

static void fill(void) {
    int to = sender(&args, "to"), report = sender(&args, "report"), result;
    struct out out = {NULL, 0, 0};
    write_letter(&out, 0);
    do result = wormhole_try_send(to, out.text, out.len);
    while (result == 0);
    CHECK(result == -EAGAIN);
    send_string(report, "full");
    CHECK(wormhole_send(to, out.text, out.len) == -EPIPE);
    send_string(report, "disconnected");
    free(out.text);
}

static void hold(void) {
    int forever = receiver(&args, "forever");
    CHECK(is_over(forever));
}

static void send_one_and_hold(void) {
    int forever = receiver(&args, "forever");
    send_letter(sender(&args, "to"), 1);
    CHECK(is_over(forever));
}

static void wait_for_end(void) {
    int source = receiver(&args, "source"), report = sender(&args, "report");
    struct read read;
    memset(&read, 0, sizeof read);
    wormhole_message_init(&read.message);
    MUST(receive(source, &read));
    check_letter(&read, 1);
    send_string(report, "one");
    CHECK(is_over(source));
    send_string(report, "disconnected");
    clear(&read);
}

/*
 * Programs and strangers.
 */

static void start(void) {
    const struct json *word = member(&args, "command"), *variable;
    int to = sender(&args, "to"), until = receiver(&args, "until"), status;
    char **argv = (char **)json_memory((json_count(word) + 1) * sizeof *argv);
    size_t count = 0;
    pid_t pid;
    for (word = word->first; word != NULL; word = word->next) argv[count++] = (char *)(uintptr_t)text_of(word);
    for (variable = member(&args, "environment")->first; variable != NULL; variable = variable->next)
        CHECK(setenv(variable->key, text_of(variable), 1) == 0);
    MUST(wormhole_spawn(&pid, argv[0], argv, NULL, "{\"to\":0,\"address\":null}", 23, &to, 1));
    close(to);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(is_over(until));
    free(argv);
}

static void say(void) {
    const struct json *to = json_member(args.value, "to"), *address = json_member(args.value, "address");
    int tx;
    if (to == NULL || to->kind == JSON_NULL) {
        CHECK(text_of(address) != NULL);
        tx = MUST(wormhole_connect(address->text, address->len, -1));
    } else {
        tx = sender(&args, "to");
    }
    MUST(wormhole_send(tx, LANGUAGE, 3));
}

/* Says that it listens, and then what the one who connects has to say. */
static void listen_once(void) {
    const struct json *address = member(&args, "address");
    struct wormhole_listener listener;
    struct wormhole_message message;
    int to = sender(&args, "to"), source;
    wormhole_message_init(&message);
    MUST(wormhole_listen(&listener, text_of(address), address->len));
    send_string(to, "listening");
    source = MUST(wormhole_accept(listener.fd, NULL, -1));
    MUST(wormhole_recv(source, &message));
    MUST(wormhole_send(to, message.text, message.len));
    CHECK(is_over(source));
    wormhole_listener_close(&listener);
    wormhole_message_clear(&message);
}

static void pass_on(void) {
    int source = receiver(&args, "source"), to = sender(&args, "to"), end;
    struct read read;
    memset(&read, 0, sizeof read);
    wormhole_message_init(&read.message);
    MUST(receive(source, &read));
    end = MUST(wormhole_take_sender(&read.message, atoll(digits_of(read.value))));
    MUST(wormhole_send(end, LANGUAGE, 3));
    MUST(wormhole_send_fds(to, "0", 1, &end, 1));
    close(end);
    clear(&read);
}

static void work(void) {
    int jobs = receiver(&args, "jobs"), results = sender(&args, "results"), gate = receiver(&args, "gate"), result;
    struct read read, opened;
    memset(&read, 0, sizeof read);
    memset(&opened, 0, sizeof opened);
    wormhole_message_init(&read.message);
    wormhole_message_init(&opened.message);
    while ((result = receive(jobs, &read)) == 0) {
        struct out out = {NULL, 0, 0};
        unsigned long long number = number_of(member(&read, "number"));
        out_format(&out, "{\"number\":%llu", number);
        out_format(&out, ",\"square\":%llu,\"language\":" LANGUAGE "}", number * number);
        send_out(results, &out, NULL, 0);
        CHECK(member(&read, "wait")->kind == JSON_BOOL);
        if (member(&read, "wait")->truth) MUST(receive(gate, &opened));
    }
    CHECK(result == -EPIPE);
    clear(&read);
    clear(&opened);
}

static const struct {
    const char *name;
    void (*play)(void);
} roles[] = {
    {"send letters", send_letters},
    {"receive letters", receive_letters},
    {"send parcels", send_parcels},
    {"receive parcels", receive_parcels},
    {"fill", fill},
    {"hold", hold},
    {"send one and hold", send_one_and_hold},
    {"wait", wait_for_end},
    {"start", start},
    {"say", say},
    {"listen", listen_once},
    {"pass on", pass_on},
    {"work", work},
};

int main(int argc, char **argv) {
    size_t i;
    CHECK(argc == 2);
    wormhole_message_init(&args.message);
    MUST(wormhole_inherit(&args.message));
    args.value = json_read(args.message.text, args.message.len);
    CHECK(args.value != NULL);
    for (i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(roles[i].name, argv[1]) != 0) continue;
        roles[i].play();
        clear(&args);
        return 0;
    }
    fail_at(__LINE__, argv[1], 0);
    return 1;
}
