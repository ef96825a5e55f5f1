/* The packets of conformance/, which the tests of every language read: its README describes them. What is JSON's part is
 * done by the tests' own reader, as Rust does it. */
#define WORMHOLE_IMPLEMENTATION
#include "../wormhole.h"

#include <math.h>

#include "json.h"
#include "raw.h"

static const char *const files[] = {"packets.json", "text.json", "numbers.json", "values.json", "descriptors.json"};

#define FILES (sizeof files / sizeof *files)
#define MOST (WORMHOLE_MAX_FDS + 1)

static const char *json_text(const struct json *value) {
    return value != NULL && (value->kind == JSON_TEXT || value->kind == JSON_NUMBER) ? value->text : NULL;
}

/* What goes with a packet, and the other ends that the test keeps. */
struct descriptors {
    int sent[MOST], kept[MOST];
    size_t sent_count, kept_count;
};

static void close_descriptors(struct descriptors *all) {
    close_all(all->sent, all->sent_count);
    close_all(all->kept, all->kept_count);
    all->sent_count = all->kept_count = 0;
}

static size_t times_of(const struct json *piece) {
    const struct json *times = json_member(piece, "times");
    return times == NULL ? 1 : strtoul(times->text, NULL, 10);
}

static void out_hex(struct out *out, const char *digits) {
    for (; *digits != '\0'; digits += 2) {
        const char pair[3] = {digits[0], digits[1], '\0'};
        char byte = (char)strtoul(pair, NULL, 16);
        out_bytes(out, &byte, 1);
    }
}

/* The bytes that stand in the data as digits and pieces. */
static void out_pieces(struct out *out, const struct json *data) {
    const struct json *piece;
    CHECK(data != NULL);
    if (data->kind == JSON_TEXT) {
        out_hex(out, data->text);
    } else if (data->kind == JSON_LIST) {
        for (piece = data->first; piece != NULL; piece = piece->next) out_pieces(out, piece);
    } else {
        size_t times;
        piece = json_member(data, "ascii");
        for (times = times_of(data); times > 0; times--) {
            if (piece != NULL) out_bytes(out, piece->text, piece->len);
            else out_hex(out, json_text(json_member(data, "hex")));
        }
    }
}

static void out_digits(struct out *out, const char *bytes, size_t len) {
    char digits[3];
    size_t i;
    for (i = 0; i < len; i++) {
        snprintf(digits, sizeof digits, "%02x", (unsigned char)bytes[i]);
        out_text(out, digits);
    }
}

/*
 * Values are compared in one form: text.
 */

static void out_tagged(struct out *out, const char *tag, const char *bytes, size_t len) {
    out_text(out, tag);
    out_text(out, "(");
    out_digits(out, bytes, len);
    out_text(out, ")");
}

static int by_key(const void *a, const void *b) {
    const struct json *const *one = (const struct json *const *)a, *const *other = (const struct json *const *)b;
    return strcmp((*one)->key, (*other)->key);
}

/* The members of an object in the order of their keys, of those that are repeated the last. */
static size_t sorted_members(const struct json *object, struct json ***sorted) {
    struct json *member, **all = (struct json **)json_memory((json_count(object) + 1) * sizeof *all);
    size_t count = 0;
    for (member = object->first; member != NULL; member = member->next)
        if (json_member(object, member->key) == member) all[count++] = member;
    qsort(all, count, sizeof *all, by_key);
    *sorted = all;
    return count;
}

static void out_members(struct out *out, const struct json *object,
                        int (*show)(struct out *, const struct json *, void *), void *argument, int *ok) {
    struct json **members;
    size_t i, count = sorted_members(object, &members);
    out_text(out, "{");
    for (i = 0; i < count; i++) {
        out_digits(out, members[i]->key, members[i]->key_len);
        out_text(out, ":");
        if (!show(out, members[i], argument)) *ok = 0;
        out_text(out, ",");
    }
    out_text(out, "}");
    free(members);
}

/* A value of the data in that form. */
static int out_normal(struct out *out, const struct json *value, void *unused) {
    const struct json *data = value->first;
    const char *tag = data->key;
    struct out bytes = {NULL, 0, 0};
    int ok = 1;
    if (strcmp(tag, "value") == 0) { /* it stands after "choice", or before */
        data = json_member(value, "choice");
        tag = data->key;
    }
    if (strcmp(tag, "text") == 0 || strcmp(tag, "descriptor") == 0 || strcmp(tag, "blob") == 0) {
        out_pieces(&bytes, data);
        out_tagged(out, tag, bytes.text, bytes.len);
        free(bytes.text);
    } else if (strcmp(tag, "list") == 0) {
        out_text(out, "[");
        for (data = data->first; data != NULL; data = data->next) {
            out_normal(out, data, NULL);
            out_text(out, ",");
        }
        out_text(out, "]");
    } else if (strcmp(tag, "object") == 0) {
        out_members(out, data, out_normal, NULL, &ok);
    } else if (strcmp(tag, "choice") == 0) {
        out_text(out, data->text);
        if (json_member(value, "value") != NULL) out_normal(out, json_member(value, "value"), NULL);
    } else if (strcmp(tag, "nested") == 0 || strcmp(tag, "nested_objects") == 0) {
        const int list = strcmp(tag, "nested") == 0;
        size_t i, depth = strtoul(data->text, NULL, 10);
        for (i = 0; i < depth; i++) out_text(out, list ? "[" : i + 1 < depth ? "{78:" : "{");
        for (i = 0; i < depth; i++) out_text(out, i + 1 < depth ? (list ? "]," : "},") : list ? "]" : "}");
    } else if (strcmp(tag, "bool") == 0) {
        out_text(out, data->truth ? "true" : "false");
    } else if (strcmp(tag, "null") == 0) {
        out_text(out, "null");
    } else { /* int, f64, file_type, end */
        out_text(out, tag);
        out_text(out, data->text);
    }
    return ok && unused == NULL;
}

/*
 * What a message is, by its type.
 */

struct showing {
    const char *type;
    struct wormhole_message *message;
    const int *kept;
    size_t kept_count;
};

static int show(struct out *out, const struct json *value, void *argument);

static int show_as(struct out *out, const struct json *value, const struct showing *showing, const char *type) {
    struct showing inner = *showing;
    inner.type = type;
    return value != NULL && show(out, value, &inner);
}

static const struct {
    const char *type, *most, *least; /* without the sign; no negative numbers if "" */
} integers[] = {
    {"u8", "255", ""},
    {"u32", "4294967295", ""},
    {"i64", "9223372036854775807", "9223372036854775808"},
    {"u64", "18446744073709551615", ""},
    {"i128", "170141183460469231731687303715884105727", "170141183460469231731687303715884105728"},
    {"u128", "340282366920938463463374607431768211455", ""},
};

static int is_at_most(const char *digits, const char *most) {
    size_t len = strlen(digits);
    return len < strlen(most) || (len == strlen(most) && strcmp(digits, most) <= 0);
}

static int is_integer(const struct json *value, size_t i) {
    const char *digits = value->text;
    int negative;
    if (value->kind != JSON_NUMBER || strpbrk(digits, ".eE") != NULL) return 0;
    if (strcmp(digits, "-0") == 0) return strstr(integers[i].type, "128") != NULL;
    negative = *digits == '-';
    return is_at_most(digits + negative, negative ? integers[i].least : integers[i].most);
}

static int show_float(struct out *out, const struct json *value) {
    double number;
    unsigned long long bits;
    char digits[20];
    if (value->kind != JSON_NUMBER) return 0;
    number = strtod(value->text, NULL);
    if (isinf(number)) return 0;
    memcpy(&bits, &number, sizeof bits);
    snprintf(digits, sizeof digits, "f64%016llx", bits);
    out_text(out, digits);
    return 1;
}

static int show_list(struct out *out, const struct json *list, const struct showing *showing, const char *type) {
    const struct json *element;
    if (list->kind != JSON_LIST) return 0;
    out_text(out, "[");
    for (element = list->first; element != NULL; element = element->next) {
        if (!show_as(out, element, showing, type)) return 0;
        out_text(out, ",");
    }
    out_text(out, "]");
    return 1;
}

/* Whether a list or an object has the fields of a record: `fields` has their names in order, and gets their values. */
static int take_fields(const struct json *value, const char *const *names, const struct json **fields, size_t count) {
    const struct json *member;
    size_t i;
    if (value->kind == JSON_LIST) {
        if (json_count(value) != count) return 0;
        for (i = 0, member = value->first; i < count; i++, member = member->next) fields[i] = member;
        return 1;
    }
    for (i = 0; i < count; i++) {
        fields[i] = json_member(value, names[i]);
        if (fields[i] == NULL) return 0;
        for (member = value->first; member != NULL; member = member->next)
            if (member != fields[i] && strcmp(member->key, names[i]) == 0) return 0; /* repeated */
    }
    return 1;
}

static int show_record(struct out *out, const struct json *value, const struct showing *showing,
                       const char *const *names, const char *const *types, size_t count) {
    const struct json *fields[4];
    size_t i;
    if (!take_fields(value, names, fields, count)) return 0;
    out_text(out, "{");
    for (i = 0; i < count; i++) {
        out_digits(out, names[i], strlen(names[i]));
        out_text(out, ":");
        if (!show_as(out, fields[i], showing, types[i])) return 0;
        out_text(out, ",");
    }
    out_text(out, "}");
    return 1;
}

static int show_choice(struct out *out, const struct json *value, const struct showing *showing) {
    static const char *const names[] = {"degrees", "fast"}, *const types[] = {"i64", "bool"};
    const struct json *inner = value->first;
    if (value->kind == JSON_TEXT) return strcmp(value->text, "Stop") == 0 ? out_text(out, "Stop"), 1 : 0;
    if (value->kind != JSON_OBJECT || json_count(value) != 1) return 0;
    out_text(out, inner->key);
    if (strcmp(inner->key, "Stop") == 0) return inner->kind == JSON_NULL;
    if (strcmp(inner->key, "Go") == 0) return show_as(out, inner, showing, "u32");
    if (strcmp(inner->key, "At") == 0) return json_count(inner) == 2 && show_list(out, inner, showing, "i64");
    return strcmp(inner->key, "Turn") == 0 && show_record(out, inner, showing, names, types, 2);
}

/* The index that stands for a descriptor, or -1. */
static long long index_of(const struct json *value) {
    if (value->kind != JSON_NUMBER || value->text[strspn(value->text, "0123456789")] != '\0') return -1;
    return value->len < 10 ? atoll(value->text) : -1;
}

static void show_content(struct out *out, int fd) {
    struct stat stat;
    char bytes[256];
    CHECK(fstat(fd, &stat) == 0);
    if (S_ISREG(stat.st_mode)) {
        ssize_t len = pread(fd, bytes, sizeof bytes, 0);
        CHECK(len >= 0);
        out_tagged(out, "descriptor", bytes, (size_t)len);
    } else {
        out_text(out, "file_type");
        out_text(out, S_ISFIFO(stat.st_mode)   ? "pipe"
                      : S_ISSOCK(stat.st_mode) ? "socket"
                      : S_ISDIR(stat.st_mode)  ? "directory"
                                               : "character device");
    }
}

/* Uses an end, and closes it. */
static void show_end(struct out *out, int end, int sends, const struct showing *showing) {
    struct wormhole_message message;
    int result = 0;
    wormhole_message_init(&message);
    if (sends) result = wormhole_send_timeout(end, "5", 1, 10000);
    else if (showing->kept_count > 0) SAME(wormhole_send_timeout(showing->kept[0], "5", 1, 10000), 0);
    if (result == 0) result = wormhole_recv_timeout(sends ? showing->kept[0] : end, &message, 10000);
    if (result == 0) CHECK(strcmp(message.text, "5") == 0);
    else SAME(result, -EPIPE);
    out_text(out, result < 0 ? "enddead" : sends ? "endsender" : "endreceiver");
    wormhole_message_clear(&message);
    close(end);
}

static int show(struct out *out, const struct json *value, void *argument) {
    static const char *const record_names[] = {"a", "b", "c"}, *const record_types[] = {"u32", "string", "bytes"};
    static const char *const job_names[] = {"input", "name", "reply"}, *const job_types[] = {"descriptor", "string",
                                                                                             "sender"};
    struct showing *showing = (struct showing *)argument;
    const char *type = showing->type;
    size_t i;
    int ok = 1, fd;
    for (i = 0; i < sizeof integers / sizeof *integers; i++) {
        if (strcmp(type, integers[i].type) != 0) continue;
        if (!is_integer(value, i)) return 0;
        out_text(out, "int");
        out_text(out, strcmp(value->text, "-0") == 0 ? "0" : value->text);
        return 1;
    }
    if (strcmp(type, "f64") == 0) return show_float(out, value);
    if (strcmp(type, "optional_f64") == 0)
        return value->kind == JSON_NULL ? out_text(out, "null"), 1 : show_float(out, value);
    if (strcmp(type, "bool") == 0)
        return value->kind == JSON_BOOL ? out_text(out, value->truth ? "true" : "false"), 1 : 0;
    if (strcmp(type, "string") == 0)
        return value->kind == JSON_TEXT ? out_tagged(out, "text", value->text, value->len), 1 : 0;
    if (strcmp(type, "list") == 0) return show_list(out, value, showing, "i64");
    if (strcmp(type, "bytes") == 0) return show_list(out, value, showing, "u8");
    if (strcmp(type, "descriptors") == 0) return show_list(out, value, showing, "descriptor");
    if (strcmp(type, "record") == 0) return show_record(out, value, showing, record_names, record_types, 3);
    if (strcmp(type, "job") == 0) return show_record(out, value, showing, job_names, job_types, 3);
    if (strcmp(type, "choice") == 0) return show_choice(out, value, showing);
    if (strcmp(type, "map") == 0) {
        struct showing inner = *showing;
        inner.type = "i64";
        if (value->kind != JSON_OBJECT) return 0;
        out_members(out, value, show, &inner, &ok);
        return ok;
    }
    if (strcmp(type, "any") == 0) {
        switch (value->kind) {
        case JSON_NULL: return out_text(out, "null"), 1;
        case JSON_BOOL: return show_as(out, value, showing, "bool");
        case JSON_TEXT: return show_as(out, value, showing, "string");
        case JSON_LIST: return show_list(out, value, showing, "any");
        case JSON_OBJECT: return out_members(out, value, show, showing, &ok), ok;
        default: break;
        }
        if (is_integer(value, 2)) return show_as(out, value, showing, "i64");
        return show_as(out, value, showing, is_integer(value, 3) ? "u64" : "f64");
    }
    if (strcmp(type, "descriptor") == 0) {
        fd = wormhole_take_fd(showing->message, index_of(value));
        if (fd < 0) return 0;
        show_content(out, fd);
        close(fd);
        return 1;
    }
    if (strcmp(type, "sender") == 0 || strcmp(type, "receiver") == 0) {
        const int sends = *type == 's';
        fd = (sends ? wormhole_take_sender : wormhole_take_receiver)(showing->message, index_of(value));
        if (fd < 0) return 0;
        show_end(out, fd, sends, showing);
        return 1;
    }
    if (strcmp(type, "blob") == 0) {
        struct wormhole_blob blob;
        if (wormhole_take_blob(showing->message, index_of(value), &blob) < 0) return 0;
        out_tagged(out, "blob", (const char *)blob.data, blob.len);
        wormhole_blob_close(&blob);
        return 1;
    }
    fail_at(__FILE__, __LINE__, type, 0);
    return 0;
}

/*
 * A case.
 */

static int memfd_of(const struct json *data) {
    static const struct {
        const char *name;
        int seal;
    } seals[] = {{"seal", F_SEAL_SEAL},
                 {"shrink", F_SEAL_SHRINK},
                 {"grow", F_SEAL_GROW},
                 {"write", F_SEAL_WRITE},
                 {"future_write", 0x10}};
    const struct json *wanted = json_member(data, "seals"), *size = json_member(data, "size");
    struct out bytes = {NULL, 0, 0};
    size_t i;
    int fd = memfd_create("test", MFD_CLOEXEC | (wanted == NULL ? 0 : MFD_ALLOW_SEALING));
    CHECK(fd >= 0);
    out_pieces(&bytes, json_member(data, "memfd"));
    CHECK(bytes.len == 0 || write(fd, bytes.text, bytes.len) == (ssize_t)bytes.len);
    free(bytes.text);
    if (size != NULL) CHECK(ftruncate(fd, atoll(size->text)) == 0);
    if (wanted != NULL) {
        for (wanted = wanted->first; wanted != NULL; wanted = wanted->next)
            for (i = 0; i < sizeof seals / sizeof *seals; i++)
                if (strcmp(wanted->text, seals[i].name) == 0) CHECK(fcntl(fd, F_ADD_SEALS, seals[i].seal) == 0);
    }
    if (json_member(data, "open") != NULL) {
        char path[40];
        int writable;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        writable = open(path, O_WRONLY | O_CLOEXEC);
        CHECK(writable >= 0);
        close(fd);
        return writable;
    }
    return fd;
}

static int descriptor_of(const char *kind, int *kept) {
    int pair[2], sends;
    *kept = -1;
    if (strcmp(kind, "pipe") == 0) {
        CHECK(pipe(pair) == 0);
        close(pair[1]);
        return pair[0];
    }
    if (strcmp(kind, "stream socket") == 0) return socket(AF_UNIX, SOCK_STREAM, 0);
    if (strcmp(kind, "unconnected socket") == 0) return socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (strcmp(kind, "file") == 0) return open("/proc/self/status", O_RDONLY);
    if (strcmp(kind, "directory") == 0) return open("/", O_RDONLY);
    if (strcmp(kind, "terminal") == 0) return open("/dev/ptmx", O_RDONLY | O_NOCTTY);
    SAME(wormhole_channel(&pair[0], &pair[1]), 0);
    if (strcmp(kind, "dead end") == 0) {
        close(pair[1]);
        return pair[0];
    }
    sends = strcmp(kind, "sender") == 0;
    CHECK(sends || strcmp(kind, "receiver") == 0);
    *kept = pair[sends];
    return pair[!sends];
}

static struct descriptors descriptors_of(const struct json *list) {
    struct descriptors made;
    const struct json *one;
    size_t times;
    memset(&made, 0, sizeof made);
    for (one = list == NULL ? NULL : list->first; one != NULL; one = one->next) {
        for (times = times_of(one); times > 0; times--) {
            int kept = -1, fd = one->kind == JSON_TEXT ? descriptor_of(one->text, &kept) : memfd_of(one);
            CHECK(fd >= 0 && made.sent_count < MOST);
            made.sent[made.sent_count++] = fd;
            if (kept >= 0) made.kept[made.kept_count++] = kept;
        }
    }
    return made;
}

static struct descriptors put(int tx, const struct json *test) {
    struct descriptors made = descriptors_of(json_member(test, "fds"));
    struct out packet = {NULL, 0, 0};
    out_pieces(&packet, json_member(test, "packet"));
    raw_send(tx, packet.text == NULL ? "" : packet.text, packet.len, made.sent, made.sent_count);
    close_all(made.sent, made.sent_count);
    made.sent_count = 0;
    free(packet.text);
    return made;
}

static const char *error_name(int error) {
    switch (error) {
    case -EBADMSG: return "Malformed";
    case -EMSGSIZE: return "TooLarge";
    case -EMFILE: return "FdsLost";
    case -EPROTO: return "UnexpectedFds";
    case -EPIPE: return "Disconnected";
    case -EILSEQ: return "Decode";
    default: return wormhole_strerror(error);
    }
}

/* Receives a message, and writes its value and what came beside it: 0 or an error. -EILSEQ is Decode. `copies` gets
 * duplicates of all descriptors, unless it is NULL. */
static int take(int rx, struct wormhole_message *message, const struct json *test, const struct descriptors *made,
                struct out *out, int *copies) {
    const int asks = json_member(test, "beside") != NULL;
    struct showing showing;
    struct json *value;
    int beside[MOST], result = wormhole_recv_fds_timeout(rx, message, 10000);
    size_t i, count;
    if (result < 0) return result;
    CHECK(message->text[message->len] == '\0');
    for (i = 0; copies != NULL && i < message->fd_count; i++)
        CHECK((copies[i] = fcntl(message->fds[i], F_DUPFD_CLOEXEC, 3)) >= 0);
    showing.type = json_text(json_member(test, "type"));
    showing.message = message;
    showing.kept = made->kept;
    showing.kept_count = made->kept_count;
    value = json_read(message->text, message->len);
    if (value == NULL || !show(out, value, &showing)) result = -EILSEQ;
    json_free(value);
    if (result < 0) return result;
    if (!asks) return wormhole_fds_left(message) > 0 ? -EPROTO : 0;
    count = wormhole_take_rest(message, beside, MOST);
    SAME(wormhole_fds_left(message), 0);
    for (i = 0; i < count; i++) show_content(out, beside[i]);
    close_all(beside, count);
    return 0;
}

static void out_expected(struct out *out, const struct json *test) {
    struct descriptors made = descriptors_of(json_member(test, "beside"));
    size_t i;
    out_normal(out, json_member(test, "value"), NULL);
    for (i = 0; i < made.sent_count; i++) show_content(out, made.sent[i]);
    close_descriptors(&made);
}

static void same_text(const struct out *found, const struct out *expected) {
    if (found->len == expected->len && memcmp(found->text, expected->text, found->len) == 0) return;
    fprintf(stderr, "%s: found    %.300s\n%s: expected %.300s\n", test_name, found->text, test_name, expected->text);
    exit(1);
}

/* The message goes the other way as well: its text and descriptors, as a program that passes it on sends them. */
static void send_again(int tx, int rx, struct wormhole_message *message, const struct json *test, const int *fds,
                       size_t count, const struct descriptors *made, const struct out *expected) {
    static char packet[262144];
    struct out bytes = {NULL, 0, 0}, found = {NULL, 0, 0};
    int came[MOST];
    size_t came_count, len;
    SAME(wormhole_send_fds_timeout(tx, message->text, message->len, fds, count, 10000), 0);
    len = raw_recv(rx, packet, sizeof packet, came, &came_count);
    SAME(came_count, count);
    out_pieces(&bytes, json_member(test, "packet"));
    if (strcmp(json_text(json_member(test, "encode")), "same bytes") == 0)
        CHECK(len == bytes.len && memcmp(packet, bytes.text, len) == 0);
    raw_send(tx, packet, len, came, came_count);
    close_all(came, came_count);
    SAME(take(rx, message, test, made, &found, NULL), 0);
    same_text(&found, expected);
    free(found.text);
    free(bytes.text);
}

static void run(const struct json *test, const struct json *good) {
    const struct json *limit = json_member(test, "max_message_len"), *error = json_member(test, "error");
    const struct json *encode = json_member(test, "encode");
    struct descriptors made, made_of_good;
    struct out found = {NULL, 0, 0}, expected = {NULL, 0, 0}, other = {NULL, 0, 0}, other_expected = {NULL, 0, 0};
    struct wormhole_message message;
    int tx, rx, size = 212992, result, before, copies[MOST];
    size_t count;
    wormhole_message_init(&message);
    SAME(wormhole_channel(&tx, &rx), 0);
    CHECK(setsockopt(tx, SOL_SOCKET, SO_SNDBUF, &size, sizeof size) == 0);
    if (limit != NULL) message.max_message_len = strtoul(limit->text, NULL, 10);
    made = put(tx, test);
    made_of_good = put(tx, good);

    before = open_fds();
    result = take(rx, &message, test, &made, &found, encode == NULL ? NULL : copies);
    count = encode == NULL ? 0 : message.fd_count;
    if (error != NULL) {
        if (result == 0 || strcmp(error_name(result), json_text(error)) != 0) {
            fprintf(stderr, "%s: expected %s, found %s %s\n", test_name, json_text(error), error_name(result),
                    found.text == NULL ? "" : found.text);
            exit(1);
        }
        if (result == -EILSEQ || result == -EPROTO) wormhole_message_clear(&message);
        SAME(open_fds(), before);
    } else {
        SAME(result, 0);
        out_expected(&expected, test);
        same_text(&found, &expected);
        if (encode != NULL) {
            int local[2];
            SAME(wormhole_channel(&local[0], &local[1]), 0);
            send_again(local[0], local[1], &message, test, copies, count, &made, &expected);
            close_all(local, 2);
        }
    }
    close_all(copies, count);

    message.max_message_len = WORMHOLE_MAX_MESSAGE_LEN;
    SAME(take(rx, &message, good, &made_of_good, &other, NULL), 0);
    out_expected(&other_expected, good);
    same_text(&other, &other_expected);
    SAME(wormhole_try_recv(rx, &message), -EAGAIN);
    wormhole_message_clear(&message);
    close_descriptors(&made);
    close_descriptors(&made_of_good);
    close(tx);
    close(rx);
    free(found.text);
    free(expected.text);
    free(other.text);
    free(other_expected.text);
}

static struct json *read_file(const char *folder, const char *name) {
    struct out text = {NULL, 0, 0};
    char path[1000], bytes[4096];
    struct json *list;
    size_t len;
    FILE *file;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "r");
    CHECK(file != NULL);
    while ((len = fread(bytes, 1, sizeof bytes, file)) > 0) out_bytes(&text, bytes, len);
    fclose(file);
    list = json_read(text.text, text.len);
    CHECK(list != NULL && list->kind == JSON_LIST);
    free(text.text);
    return list;
}

/* The first case of the same type that gives a value. */
static const struct json *good_case(struct json *const *lists, const char *type) {
    const struct json *test;
    size_t i;
    for (i = 0; i < FILES; i++)
        for (test = lists[i]->first; test != NULL; test = test->next)
            if (strcmp(json_text(json_member(test, "type")), type) == 0 && json_member(test, "value") != NULL &&
                json_member(test, "max_message_len") == NULL)
                return test;
    fail_at(__FILE__, __LINE__, type, 0);
    return NULL;
}

int main(int argc, char **argv) {
    struct json *lists[FILES];
    const struct json *test;
    size_t i, count = 0;
    CHECK(argc == 2);
    alarm(120);
    for (i = 0; i < FILES; i++) lists[i] = read_file(argv[1], files[i]);
    for (i = 0; i < FILES; i++) {
        for (test = lists[i]->first; test != NULL; test = test->next) {
            int before = open_fds();
            test_name = json_text(json_member(test, "name"));
            run(test, good_case(lists, json_text(json_member(test, "type"))));
            SAME(open_fds(), before);
            count++;
        }
    }
    for (i = 0; i < FILES; i++) json_free(lists[i]);
    printf("conformance: %zu cases\n", count);
    return count > 250 ? 0 : 1;
}
