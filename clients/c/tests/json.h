/* A small JSON reader and writer for tests, as strict as the other languages' are: RFC 8259, UTF-8, at most 127 levels.
 * Numbers stay text. */
#ifndef TEST_JSON_H
#define TEST_JSON_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_MAX_DEPTH 127

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_LIST, JSON_OBJECT };

struct json {
    enum json_kind kind;
    int truth;
    char *text; /* of a text, which may contain NUL, or of a number; a NUL follows */
    size_t len;
    char *key; /* of a member of an object */
    size_t key_len;
    struct json *first; /* of what a list or an object has */
    struct json *next;  /* the next one of the same list or object */
};

struct json_reader {
    const unsigned char *at, *end;
};

static void json_free(struct json *value) {
    while (value != NULL) {
        struct json *next = value->next;
        json_free(value->first);
        free(value->text);
        free(value->key);
        free(value);
        value = next;
    }
}

static void *json_memory(size_t size) {
    void *memory = calloc(1, size);
    if (memory == NULL) abort();
    return memory;
}

/* The length of the character at `at`, or 0 if it is no UTF-8. */
static size_t json_character(const unsigned char *at, const unsigned char *end) {
    size_t len = *at < 0x80 ? 1 : *at < 0xc2 ? 0 : *at < 0xe0 ? 2 : *at < 0xf0 ? 3 : *at < 0xf5 ? 4 : 0;
    size_t i;
    if (len == 0 || (size_t)(end - at) < len) return 0;
    for (i = 1; i < len; i++)
        if ((at[i] & 0xc0) != 0x80) return 0;
    if ((*at == 0xe0 && at[1] < 0xa0) || (*at == 0xed && at[1] > 0x9f)) return 0;
    if ((*at == 0xf0 && at[1] < 0x90) || (*at == 0xf4 && at[1] > 0x8f)) return 0;
    return len;
}

static int json_is_utf8(const char *text, size_t size) {
    const unsigned char *at = (const unsigned char *)text, *end = at + size;
    while (at < end) {
        size_t len = json_character(at, end);
        if (len == 0) return 0;
        at += len;
    }
    return 1;
}

static void json_skip(struct json_reader *in) {
    while (in->at < in->end && strchr(" \t\r\n", *in->at) != NULL && *in->at != '\0') in->at++;
}

static int json_is(struct json_reader *in, const char *word) {
    size_t len = strlen(word);
    if ((size_t)(in->end - in->at) < len || memcmp(in->at, word, len) != 0) return 0;
    in->at += len;
    return 1;
}

/* Four hexadecimal digits, or -1. */
static long json_hex(struct json_reader *in) {
    long unit = 0;
    int i;
    if (in->end - in->at < 4) return -1;
    for (i = 0; i < 4; i++, in->at++) {
        const char *digits = "0123456789abcdef0123456789ABCDEF", *found = strchr(digits, *in->at);
        if (*in->at == '\0' || found == NULL) return -1;
        unit = unit * 16 + (found - digits) % 16;
    }
    return unit;
}

static size_t json_put_character(char *out, long c) {
    unsigned char *to = (unsigned char *)out;
    if (c < 0x80) return *to = (unsigned char)c, 1;
    if (c < 0x800) return to[0] = (unsigned char)(0xc0 | c >> 6), to[1] = (unsigned char)(0x80 | (c & 0x3f)), 2;
    if (c < 0x10000) {
        to[0] = (unsigned char)(0xe0 | c >> 12);
        to[1] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
        to[2] = (unsigned char)(0x80 | (c & 0x3f));
        return 3;
    }
    to[0] = (unsigned char)(0xf0 | c >> 18);
    to[1] = (unsigned char)(0x80 | (c >> 12 & 0x3f));
    to[2] = (unsigned char)(0x80 | (c >> 6 & 0x3f));
    to[3] = (unsigned char)(0x80 | (c & 0x3f));
    return 4;
}

/* The text between two quotes, of which the first is next. NULL: not JSON. */
static char *json_string(struct json_reader *in, size_t *len) {
    char *text;
    *len = 0;
    if (!json_is(in, "\"")) return NULL;
    text = (char *)json_memory((size_t)(in->end - in->at) + 1); /* escapes are longer than what they stand for */
    while (in->at < in->end && *in->at >= 0x20) {
        unsigned char c = *in->at++;
        if (c == '"') {
            char *exact = (char *)realloc(text, *len + 1);
            if (exact == NULL) abort();
            exact[*len] = '\0';
            return exact;
        }
        if (c != '\\') {
            text[(*len)++] = (char)c;
        } else if (in->at < in->end) {
            const char *from = "\"\\/bfnrt", *to = "\"\\/\b\f\n\r\t", *found;
            c = *in->at++;
            found = c == '\0' ? NULL : strchr(from, c);
            if (found != NULL) {
                text[(*len)++] = to[found - from];
            } else {
                long high = c == 'u' ? json_hex(in) : -1, low;
                if (high >= 0xd800 && high < 0xdc00) {
                    low = json_is(in, "\\u") ? json_hex(in) : -1;
                    high = low >= 0xdc00 && low < 0xe000 ? 0x10000 + (high - 0xd800) * 0x400 + (low - 0xdc00) : -1;
                } else if (high >= 0xdc00 && high < 0xe000) {
                    high = -1;
                }
                if (high < 0) break;
                *len += json_put_character(text + *len, high);
            }
        }
    }
    free(text);
    return NULL;
}

static size_t json_digits(struct json_reader *in) {
    const unsigned char *before = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
    return (size_t)(in->at - before);
}

static int json_number(struct json_reader *in, struct json *value) {
    const unsigned char *before = in->at;
    int ok;
    json_is(in, "-");
    ok = json_is(in, "0") || json_digits(in) > 0;
    if (ok && json_is(in, ".")) ok = json_digits(in) > 0;
    if (ok && (json_is(in, "e") || json_is(in, "E"))) {
        if (!json_is(in, "+")) json_is(in, "-");
        ok = json_digits(in) > 0;
    }
    value->kind = JSON_NUMBER;
    value->len = (size_t)(in->at - before);
    value->text = (char *)json_memory(value->len + 1);
    memcpy(value->text, before, value->len);
    return ok;
}

static struct json *json_value(struct json_reader *in, int depth);

static int json_elements(struct json_reader *in, struct json *value, int depth) {
    const char *close = value->kind == JSON_LIST ? "]" : "}";
    struct json **last = &value->first;
    if (depth > JSON_MAX_DEPTH) return 0;
    json_skip(in);
    if (json_is(in, close)) return 1;
    do {
        char *key = NULL;
        size_t key_len = 0;
        json_skip(in);
        if (value->kind == JSON_OBJECT) {
            key = json_string(in, &key_len);
            if (key == NULL) return 0;
            json_skip(in);
            if (!json_is(in, ":")) return free(key), 0;
            json_skip(in);
        }
        *last = json_value(in, depth);
        if (*last == NULL) return free(key), 0;
        (*last)->key = key;
        (*last)->key_len = key_len;
        last = &(*last)->next;
        json_skip(in);
    } while (json_is(in, ","));
    return json_is(in, close);
}

static struct json *json_value(struct json_reader *in, int depth) {
    struct json *value = (struct json *)json_memory(sizeof *value);
    int ok = 1;
    if (in->at == in->end) {
        ok = 0;
    } else if (*in->at == '"') {
        value->kind = JSON_TEXT;
        value->text = json_string(in, &value->len);
        ok = value->text != NULL;
    } else if (*in->at == '[' || *in->at == '{') {
        value->kind = *in->at++ == '[' ? JSON_LIST : JSON_OBJECT;
        ok = json_elements(in, value, depth + 1);
    } else if (json_is(in, "null")) {
        value->kind = JSON_NULL;
    } else if (json_is(in, "true") || json_is(in, "false")) {
        value->kind = JSON_BOOL;
        value->truth = in->at[-2] == 'u';
    } else {
        ok = json_number(in, value);
    }
    if (ok) return value;
    json_free(value);
    return NULL;
}

/* Reads a whole text. NULL: it is not JSON. To be freed. */
static struct json *json_read(const char *text, size_t len) {
    struct json_reader in;
    struct json *value;
    if (!json_is_utf8(text, len)) return NULL;
    in.at = (const unsigned char *)text;
    in.end = in.at + len;
    json_skip(&in);
    value = json_value(&in, 0);
    json_skip(&in);
    if (value != NULL && in.at == in.end) return value;
    json_free(value);
    return NULL;
}

/* The last member of that name, or NULL. */
static struct json *json_member(const struct json *object, const char *name) {
    struct json *member, *found = NULL;
    if (object == NULL || object->kind != JSON_OBJECT) return NULL;
    for (member = object->first; member != NULL; member = member->next)
        if (member->key_len == strlen(name) && memcmp(member->key, name, member->key_len) == 0) found = member;
    return found;
}

static size_t json_count(const struct json *list) {
    const struct json *element;
    size_t count = 0;
    for (element = list->first; element != NULL; element = element->next) count++;
    return count;
}

/* A text that grows. */
struct out {
    char *text;
    size_t len, room;
};

static void out_bytes(struct out *out, const void *bytes, size_t len) {
    if (out->len + len + 1 > out->room) {
        out->room = (out->len + len + 1) * 2;
        out->text = (char *)realloc(out->text, out->room);
        if (out->text == NULL) abort();
    }
    if (len > 0) memcpy(out->text + out->len, bytes, len);
    out->len += len;
    out->text[out->len] = '\0';
}

static void out_text(struct out *out, const char *text) { out_bytes(out, text, strlen(text)); }

#endif
