/*
 * wormhole: channels between Linux processes, for C99 and C++.
 *
 * Programs in Rust, Python, Go and C share them: make a channel, hand one end to another process, send JSON
 * and descriptors. Version 1 of the protocol (PROTOCOL.md). In one source file of the program, before all else:
 *
 *     #define WORMHOLE_IMPLEMENTATION
 *     #include "wormhole.h"
 *
 * Elsewhere without the first line. An end of a channel is an int, a descriptor, which close(2) closes. It can be
 * polled, inherited and sent. The text of a message is JSON in UTF-8; to write and to read it is up to the program,
 * by hand or with a library.
 *
 * - Every function that can fail gives a negative errno value, never errno itself; what it says is at
 *   wormhole_strerror. Signals do not end a call early.
 * - Descriptors that are arguments stay the caller's, whether a call fails or not: what is sent is a duplicate. Only
 *   wormhole_blob_adopt takes one over, if it succeeds. What a function makes is the caller's to close.
 * - A received message owns its descriptors until wormhole_take_fd and its like hand them out.
 * - All descriptors that come from here are close-on-exec and 3 or more.
 * - Any number of threads may use an end. A message, a listener and a blob are for one thread at a time.
 *
 * Licensed under MIT or Apache-2.0, as the Rust crate is.
 */
#ifndef WORMHOLE_H
#define WORMHOLE_H

#if defined(WORMHOLE_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The most descriptors that one message carries. */
#define WORMHOLE_MAX_FDS 253

/* The longest text in bytes that is sent, and that is received unless a message says otherwise. To be defined before
 * the implementation if it is to be another. */
#ifndef WORMHOLE_MAX_MESSAGE_LEN
#define WORMHOLE_MAX_MESSAGE_LEN 67108864
#endif

/* How many bytes the blobs of one message may have together, unless it says otherwise. */
#ifndef WORMHOLE_MAX_BLOB_LEN
#define WORMHOLE_MAX_BLOB_LEN 1073741824
#endif

/*
 * Channels. Both ends are the caller's.
 */

/* Makes a channel. How much may be sent that is not yet received is the sender's SO_SNDBUF, socket(7). */
int wormhole_channel(int *tx, int *rx);

/* Checks that a descriptor from elsewhere is a sender, or a receiver: -ENOTSOCK, -ENOTCONN, or -EPROTOTYPE for a socket
 * of another family or type, or the wrong end of a channel. An end whose other end is gone passes for either. */
int wormhole_check_sender(int fd);
int wormhole_check_receiver(int fd);

/* Whether every copy of the other end is gone, in all processes: 1 or 0. A receiver may have messages queued then. */
int wormhole_is_disconnected(int end);

/*
 * Sending. 0 means that the kernel has the whole message: it outlives this process. After any error nothing was
 * sent. The descriptors are borrowed: they are the caller's to close afterwards, also after an error. The index of a
 * descriptor among them is what stands for it in the text.
 *
 * -EPIPE: every receiver is gone. -EMSGSIZE: the text is too long. -E2BIG: too many descriptors. -ETOOMANYREFS: this
 * user has too many descriptors in flight. -EAGAIN (try): full. -ETIMEDOUT (timeout).
 * -EINVAL: no text. Others are the kernel's.
 *
 * A timeout is in milliseconds, counted from the call; one that is negative waits for as long as it takes.
 */
int wormhole_send(int tx, const char *text, size_t len);
int wormhole_try_send(int tx, const char *text, size_t len);
int wormhole_send_timeout(int tx, const char *text, size_t len, int timeout);
int wormhole_send_fds(int tx, const char *text, size_t len, const int *fds, size_t count);
int wormhole_try_send_fds(int tx, const char *text, size_t len, const int *fds, size_t count);
int wormhole_send_fds_timeout(int tx, const char *text, size_t len, const int *fds, size_t count, int timeout);

/*
 * Receiving. One struct serves for any number of messages, one after the other, and keeps its memory from one to
 * the next.
 */
struct wormhole_message {
    const char *text; /* not checked: it may be anything but NULL; a NUL follows it */
    size_t len;       /* without that NUL */
    size_t fd_count;  /* how many descriptors came with it */

    size_t max_message_len; /* for the messages to come */
    size_t max_blob_len;    /* for all blobs of a message together */

    /* The rest is private. */
    int fds[WORMHOLE_MAX_FDS];
    size_t blob_len;
    char *packet;
    char *long_text;
};

/* To be called first. Cannot fail, and makes nothing that would have to be freed. */
void wormhole_message_init(struct wormhole_message *message);

/* Closes the descriptors that were not taken, and frees the memory. The struct is as after init, with its limits. */
void wormhole_message_clear(struct wormhole_message *message);

/*
 * Receives the next message, after closing the descriptors of the one before that were not taken. After an error
 * there are none, and no text.
 *
 * -EPIPE: nothing is queued and every sender is gone, which ends a loop. -EAGAIN (try): nothing is queued.
 * -ETIMEDOUT (timeout).
 *
 * After these the message is lost, its descriptors are closed, and the next call gives the next message. -EBADMSG: it
 * is not what the protocol says. -EMSGSIZE: longer than max_message_len. -EMFILE: descriptors were lost, because this
 * process is out of them or a security module has refused them. -EPROTO: it has descriptors, and the function is none
 * of those with `fds` in their names.
 *
 * Others are the kernel's, such as -EBADF, -ENOMEM, and what a sandbox says. A message may be lost then; or none was
 * received, and the next call may fail alike. So they end a loop as well.
 */
int wormhole_recv(int rx, struct wormhole_message *message);
int wormhole_try_recv(int rx, struct wormhole_message *message);
int wormhole_recv_timeout(int rx, struct wormhole_message *message, int timeout);
int wormhole_recv_fds(int rx, struct wormhole_message *message);
int wormhole_try_recv_fds(int rx, struct wormhole_message *message);
int wormhole_recv_fds_timeout(int rx, struct wormhole_message *message, int timeout);

/*
 * Takes a descriptor out of a message: the result is the caller's to close. The index is that in the text, and must
 * have been written as digits alone. -EBADF: there is none of that index, or it was taken before. It stays in the
 * message after an error.
 *
 * An end is checked as by wormhole_check_sender and wormhole_check_receiver, a listener as PROTOCOL.md says.
 */
int wormhole_take_fd(struct wormhole_message *message, long long index);
int wormhole_take_sender(struct wormhole_message *message, long long index);
int wormhole_take_receiver(struct wormhole_message *message, long long index);
int wormhole_take_listener(struct wormhole_message *message, long long index);

/* How many descriptors have not been taken. If no field refers to them, and none were expected beside the message, it
 * is not of the expected type. */
size_t wormhole_fds_left(const struct wormhole_message *message);

/* Takes those that are left, in order, but not more than `most`: how many. They are the caller's to close. */
size_t wormhole_take_rest(struct wormhole_message *message, int *fds, size_t most);

/*
 * Blobs: immutable bytes in shared memory, for bulk data without JSON. What is sent is the descriptor.
 */
struct wormhole_blob {
    const void *data; /* until the blob is closed; never NULL */
    size_t len;
    int fd; /* to send; the blob's own */
};

/* Makes a blob with a copy of the bytes. -EFBIG: beyond the limit of file sizes (RLIMIT_FSIZE). */
int wormhole_blob_create(struct wormhole_blob *blob, const void *bytes, size_t len);

/* Makes a blob of a descriptor, which it takes over, or leaves alone if it fails. -EINVAL: it is not a memfd, or not
 * sealed as PROTOCOL.md says. -EFBIG: it has more than `max_len` bytes. */
int wormhole_blob_adopt(struct wormhole_blob *blob, int fd, size_t max_len);

/* Takes a blob out of a message. -EFBIG: the message's blobs have more than max_blob_len bytes together. */
int wormhole_take_blob(struct wormhole_message *message, long long index, struct wormhole_blob *blob);

/* Gives up the memory and closes the descriptor. */
void wormhole_blob_close(struct wormhole_blob *blob);

/*
 * Unrelated processes. A name is a path, or an abstract name if it begins with a NUL, as in all languages: "@name" is
 * a file. WORMHOLE_NAME("\0my-server") stands for a literal and its length, WORMHOLE_PATH(path) for a string and
 * its length.
 */
#define WORMHOLE_NAME(literal) ("" literal), (sizeof(literal) - 1)
#define WORMHOLE_PATH(path) (path), (strlen(path))

struct wormhole_listener {
    int fd; /* to accept from and to poll; the listener's own */
    char *path;
    dev_t dev;
    ino_t ino;
};

struct wormhole_peer { /* as the kernel's ucred */
    pid_t pid;         /* 0 if this process's pid namespace has no number for it */
    uid_t uid;
    gid_t gid;
};

/* Listens. The socket file has mode 0600; a stale one is replaced. -EADDRINUSE: another process listens there. -EEXIST:
 * a file that is no socket is there. -EINVAL, -ENAMETOOLONG (more than 107 bytes): the name. Others are the
 * kernel's. */
int wormhole_listen(struct wormhole_listener *listener, const char *name, size_t len);

/* Closes the listener and removes its file, unless it belongs to another process, of which this one is a fork. What was
 * accepted stays. */
void wormhole_listener_close(struct wormhole_listener *listener);

/* Waits for the next client, and gives the receiver of its channel, which is the caller's, and who the client is unless
 * `peer` is NULL. The first argument is the listener's `fd`, or a listening socket from elsewhere. The timeout is as
 * above; with 0 it only looks. -ETIMEDOUT: nobody came. */
int wormhole_accept(int listener, struct wormhole_peer *peer, int timeout);

/* Gives a sender, which is the caller's. Waits only while too many others wait to be accepted: -ETIMEDOUT. -ENOENT,
 * -ECONNREFUSED: nobody listens there. */
int wormhole_connect(const char *name, size_t len, int timeout);

/*
 * Handing a message to a program.
 */

/* Takes the message that this program was handed by the one that has started it, as wormhole_recv_fds does. It can be
 * done once, never waits, and is best the first thing in main. -ENOENT: there is none, and nothing is changed. */
int wormhole_inherit(struct wormhole_message *message);

/* Starts a program as posix_spawnp(3) does, and hands it a message. `envp` may be NULL: the environment of this
 * process. The descriptors are borrowed as in wormhole_send_fds. */
int wormhole_spawn(pid_t *pid, const char *file, char *const argv[], char *const envp[], const char *text, size_t len,
                   const int *fds, size_t count);

/* The same for those who start the program themselves: gives the descriptor that it must inherit, without close-on-exec
 * and by the number that its variable WORMHOLE_FD tells. It is the caller's to close. */
int wormhole_hand_over(const char *text, size_t len, const int *fds, size_t count);

/* What an error of these functions means, in words. */
const char *wormhole_strerror(int error);

#ifdef __cplusplus
}
#endif

#endif /* WORMHOLE_H */

#if defined(WORMHOLE_IMPLEMENTATION) && !defined(WORMHOLE_IMPLEMENTED)
#define WORMHOLE_IMPLEMENTED

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#if !defined(POLLRDHUP) || !defined(F_ADD_SEALS) || !defined(MFD_CLOEXEC)
#error "define _GNU_SOURCE, or include wormhole.h with WORMHOLE_IMPLEMENTATION before all other headers"
#endif

/* The longest packet, and so the size of a receiver's buffer. */
#define WHP_MAX_PACKET ((size_t)262144)
/* The bytes of a packet before the text. */
#define WHP_HEADER ((size_t)8)
/* The last two are the kernel's: include/linux/socket.h, since Linux 6.5, and magic.h. */
enum { WHP_FIRST_FD = 3, WHP_SCM_PIDFD = 4, WHP_TMPFS_MAGIC = 0x01021994 };

/*
 * Waiting. A deadline is a time of the monotonic clock in nanoseconds.
 */

#define WHP_NEVER 0LL
#define WHP_FOREVER LLONG_MAX
#define WHP_MILLISECOND 1000000LL

static long long whp_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long long)now.tv_sec * 1000 * WHP_MILLISECOND + (long long)now.tv_nsec;
}

static long long whp_deadline(int timeout) {
    return timeout < 0 ? WHP_FOREVER : whp_now() + timeout * WHP_MILLISECOND + 1;
}

/*
 * To be woken costs more than most answers take to come. So a call that waits spins for a moment, as long as
 * that has been paying off for this end: it takes some quick answers until it does, and each time that it was in
 * vain or too slow, twice as many.
 */
#define WHP_SPIN (50 * 1000LL)
enum { WHP_ENOUGH = 4, WHP_MOST = 8, WHP_PENALTY = 8, WHP_MOST_EXTRA = 4088 };

struct whp_spin {
    int score; /* how many quick answers there have been lately, less those that it takes to try again */
    int extra; /* how many it takes after the next failure, beyond the first penalty */
};

/* What this thread has learned, by the number of the end. That two ends may share a place does no harm: these are
 * estimates. */
static __thread struct whp_spin whp_spins[64];

static void whp_learn(struct whp_spin *spin, int awake, int quick) {
    if (quick) {
        spin->score += spin->score < WHP_MOST;
        spin->extra -= awake && spin->extra > 0;
    } else if (awake) {
        spin->score = -WHP_PENALTY - spin->extra;
        spin->extra += spin->extra < WHP_MOST_EXTRA ? WHP_PENALTY + spin->extra : 0;
    } else {
        spin->score -= spin->score > 0;
    }
}

/* One poll. Gives the events, 0 if there are none in time or a signal came, or a negative errno value. */
static int whp_poll(int fd, int events, long long nanoseconds) {
    struct pollfd pollfd = {fd, (short)events, 0};
    struct timespec limit;
    limit.tv_sec = (time_t)(nanoseconds / (1000 * WHP_MILLISECOND));
    limit.tv_nsec = (long)(nanoseconds % (1000 * WHP_MILLISECOND));
    while (ppoll(&pollfd, 1, nanoseconds < 0 ? NULL : &limit, NULL) < 0) {
        if (errno != EINTR) return -errno;
        if (nanoseconds != 0) return 0; /* how much of the time is left, the caller knows */
    }
    return (unsigned short)pollfd.revents;
}

/*
 * Runs `attempt` until it gives something else than -EAGAIN, and waits in between. It is told whether it may block.
 *
 * KERNEL: blocked receivers of one socket are woken one by one, polling ones all at once, so a receive that may wait
 * for as long as it takes blocks by itself. A full socket wakes its senders only once three quarters of its buffer
 * are free, while a send succeeds as soon as any of it is: so senders look for themselves, now and then.
 */
static int whp_until(int fd, int events, long long deadline, int (*attempt)(void *, int), void *call) {
    struct whp_spin *spin = &whp_spins[fd & 63];
    const int sends = events == POLLOUT;
    const int can_block = !sends && deadline == WHP_FOREVER;
    int may_block = 0, awake = 0;
    long long since = 0, retry = WHP_MILLISECOND, now, left;
    for (;;) {
        int result = attempt(call, may_block);
        if (result == -EINTR) continue;
        if (result != -EAGAIN) {
            /* Asleep, the time to be woken is in it, about as long again. */
            if (since != 0 && result >= 0) whp_learn(spin, awake, whp_now() - since <= 2 * WHP_SPIN);
            return result;
        }
        if (deadline == WHP_NEVER) return -EAGAIN;
        now = whp_now();
        if (since == 0) {
            since = now;
            awake = spin->score >= WHP_ENOUGH;
        }
        if (awake && now - since < WHP_SPIN && now < deadline) {
            sched_yield();
            continue;
        }
        if (awake) whp_learn(spin, awake, 0);
        awake = 0;
        if (can_block && !may_block) {
            may_block = 1;
            continue;
        }
        if (now >= deadline) return -ETIMEDOUT;
        left = deadline == WHP_FOREVER ? -1 : deadline - now;
        if (sends) {
            if (left < 0 || left > retry) left = retry;
            if (retry < 64 * WHP_MILLISECOND) retry *= 2;
        }
        result = whp_poll(fd, events, left);
        if (result < 0) { /* a sandbox denies it, as an RLIMIT_NOFILE of 0 does */
            if (may_block || deadline != WHP_FOREVER) return result;
            may_block = 1;
        }
    }
}

/*
 * Descriptors.
 */

static void whp_close(int fd) {
    /* Never again on EINTR: Linux has closed it. */
    if (fd >= 0) close(fd);
}

/* Takes over a fresh descriptor, and gives it, or a duplicate that is no standard stream. For what failed (-1) it gives
 * the error. */
static int whp_above_streams(int fd) {
    if (fd < 0) return -errno;
    if (fd >= WHP_FIRST_FD) return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, WHP_FIRST_FD);
    if (moved < 0) moved = -errno;
    close(fd);
    return moved;
}

/* What a function gives that has made a descriptor: it, or an error after closing it. */
static int whp_made(int fd, int result) {
    if (result == 0) return fd;
    whp_close(fd);
    return result;
}

static int whp_option(int fd, int option, int *value) {
    socklen_t size = sizeof *value;
    *value = 0;
    return getsockopt(fd, SOL_SOCKET, option, value, &size) < 0 ? -errno : 0;
}

int wormhole_channel(int *tx, int *rx) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) return -errno;
    pair[0] = whp_above_streams(pair[0]);
    pair[1] = whp_above_streams(pair[1]);
    int result = pair[0] < 0 ? pair[0] : pair[1] < 0 ? pair[1] : 0;
    /* KERNEL: were this direction open, a receiver that writes backwards would make a receive fail. */
    if (result == 0 && shutdown(pair[1], SHUT_WR) < 0) result = -errno;
    if (result < 0) {
        whp_close(pair[0]);
        return whp_made(pair[1], result);
    }
    *tx = pair[0];
    *rx = pair[1];
    return 0;
}

static int whp_check_kind(int fd) {
    int domain, type, result = whp_option(fd, SO_DOMAIN, &domain);
    if (result == -EBADF && fcntl(fd, F_GETFD) >= 0) result = -ENOTSOCK; /* KERNEL: a mere path (O_PATH) */
    if (result == 0) result = whp_option(fd, SO_TYPE, &type);
    if (result < 0) return result;
    return domain == AF_UNIX && type == SOCK_SEQPACKET ? 0 : -EPROTOTYPE;
}

static int whp_check_connected(int fd) {
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    int result = whp_check_kind(fd);
    /* KERNEL: a socket whose peer has closed still has a peer name; one that listens has none. */
    if (result == 0 && getpeername(fd, (struct sockaddr *)&name, &size) < 0) result = -errno;
    return result;
}

int wormhole_check_receiver(int fd) {
    int result = whp_check_connected(fd);
    if (result < 0) return result;
    /* KERNEL: the other direction of a sender is shut: RDHUP. HUP only comes when the peer is gone. */
    int events = whp_poll(fd, POLLRDHUP, 0);
    return events > 0 && (events & POLLRDHUP) && !(events & POLLHUP) ? -EPROTOTYPE : 0;
}

int wormhole_check_sender(int fd) {
    int result = whp_check_connected(fd);
    if (result < 0 || whp_poll(fd, POLLRDHUP, 0) != 0) return result;
    /* It is a receiver, or one of a pair that is not one-way. KERNEL: to send what cannot be read fails, and sends
     * nothing, with EPIPE if the socket may not write and with EFAULT or EAGAIN if it may. */
    int refused = send(fd, NULL, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno == EPIPE;
    return refused && !wormhole_is_disconnected(fd) ? -EPROTOTYPE : 0;
}

int wormhole_is_disconnected(int end) {
    int events = whp_poll(end, 0, 0);
    return events > 0 && (events & POLLHUP) ? 1 : 0;
}

/*
 * Memory that has a descriptor.
 */

/* Makes a memfd with a copy of the bytes. */
static int whp_memfd(const char *bytes, size_t len, unsigned flags) {
    struct rlimit limit;
    /* KERNEL: going beyond RLIMIT_FSIZE is a signal, SIGXFSZ, in a memfd as well. */
    if (getrlimit(RLIMIT_FSIZE, &limit) < 0) return -errno;
    if (limit.rlim_cur != RLIM_INFINITY && len > limit.rlim_cur) return -EFBIG;
    int fd = whp_above_streams(memfd_create("wormhole", MFD_CLOEXEC | flags)), result = 0;
    for (size_t written = 0; fd >= 0 && written < len && result == 0;) {
        ssize_t count = pwrite(fd, bytes + written, len - written, (off_t)written);
        written += count > 0 ? (size_t)count : 0;
        if (count <= 0 && (count == 0 || errno != EINTR)) result = count == 0 ? -EIO : -errno;
    }
    return whp_made(fd, result);
}

/*
 * Sending.
 */

/* Whether a sandbox allows sendmsg and denies sendto. */
static int whp_send_is_denied;

static int whp_is_denial(int error) { return error == EPERM || error == EACCES || error == ENOSYS; }

/* Room for all descriptors, and for what a foreign holder of a receiving socket may have asked for (credentials, a
 * label, a pidfd), which must not push out descriptors. */
union whp_control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int) * WORMHOLE_MAX_FDS) + CMSG_SPACE(sizeof(struct ucred)) + 320];
};

/* A packet: the header with the beginning of the text, and where the text goes on. */
struct whp_packet {
    const char *text;
    size_t len, whole, count;      /* of the text, how much of it is in the packet, and how many descriptors */
    int tx, memfd;                 /* the latter with the rest of the text, or -1 */
    int fds[WORMHOLE_MAX_FDS + 1]; /* the memfd's place first */
    char head[4096];
};

static int whp_send_attempt(void *call, int may_block) {
    struct whp_packet *packet = (struct whp_packet *)call;
    union whp_control control;
    const int flags = MSG_NOSIGNAL | (may_block ? 0 : MSG_DONTWAIT);
    const size_t room = sizeof packet->head - WHP_HEADER;
    const size_t first = packet->whole < room ? packet->whole : room;
    const size_t skip = packet->memfd < 0, count = packet->count + 1 - skip;
    const int plain = count == 0 && first == packet->whole;
    if (plain && !__atomic_load_n(&whp_send_is_denied, __ATOMIC_RELAXED)) {
        if (send(packet->tx, packet->head, WHP_HEADER + first, flags) >= 0) return 0;
        if (!whp_is_denial(errno)) return -errno;
    }
    struct iovec parts[2] = {{packet->head, WHP_HEADER + first},
                             {(char *)(uintptr_t)packet->text + first, packet->whole - first}};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = parts;
    message.msg_iovlen = first < packet->whole ? 2 : 1;
    if (count > 0) {
        memset(&control, 0, CMSG_SPACE(sizeof(int) * count));
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.header), packet->fds + skip, sizeof(int) * count);
        message.msg_control = &control;
        message.msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * count);
    }
    /* KERNEL: atomic: it never takes a part of the packet. Called by number, as musl's own refuses 253 descriptors. */
    int result = syscall(SYS_sendmsg, packet->tx, &message, flags) < 0 ? -errno : 0;
    /* Was sendto denied, and this is not? */
    if (plain && !whp_is_denial(-result)) __atomic_store_n(&whp_send_is_denied, 1, __ATOMIC_RELAXED);
    return result;
}

/* Moves the text that the socket does not take into a memfd, after so many packets were refused. */
static int whp_split(struct whp_packet *packet, int refused) {
    int size, result = whp_option(packet->tx, SO_SNDBUF, &size);
    if (result < 0) return result;
    /* KERNEL: unix sockets refuse a packet longer than their send buffer less 32 bytes. */
    size_t limit = size > 32 ? (size_t)size - 32 : 0;
    if (limit > WHP_MAX_PACKET) limit = WHP_MAX_PACKET;
    /* Some kernel may take less than it says. Then half of that, and so on. */
    if (refused > 4) limit >>= refused - 4;
    if (limit < WHP_HEADER) return -EMSGSIZE;
    whp_close(packet->memfd);
    packet->memfd = -1;
    packet->whole = packet->len;
    if (packet->len <= limit - WHP_HEADER) return 0; /* the buffer has grown since */
    if (packet->count == WORMHOLE_MAX_FDS) return -E2BIG;
    packet->whole = limit - WHP_HEADER;
    packet->memfd = packet->fds[0] = whp_memfd(packet->text + packet->whole, packet->len - packet->whole, 0);
    return packet->memfd < 0 ? packet->memfd : 0;
}

static int whp_send(int tx, const char *text, size_t len, const int *fds, size_t count, long long deadline) {
    struct whp_packet packet;
    const size_t room = sizeof packet.head - WHP_HEADER;
    int refused = 0, result = 0;
    if (len == 0) return -EINVAL;
    if (len > WORMHOLE_MAX_MESSAGE_LEN) return -EMSGSIZE;
    if (count > WORMHOLE_MAX_FDS) return -E2BIG;
    packet.tx = tx;
    packet.memfd = -1;
    packet.text = text;
    packet.len = packet.whole = len;
    packet.count = count;
    if (count > 0) memcpy(packet.fds + 1, fds, sizeof(int) * count);
    for (size_t i = 0; i < WHP_HEADER; i++) packet.head[i] = (char)((unsigned long long)len >> (8 * i) & 0xff);
    memcpy(packet.head + WHP_HEADER, text, len < room ? len : room);
    if (len > WHP_MAX_PACKET - WHP_HEADER) result = whp_split(&packet, refused);
    while (result == 0) {
        result = whp_until(tx, POLLOUT, deadline, whp_send_attempt, &packet);
        if (result != -EMSGSIZE) break;
        /* The socket's buffer is smaller than the packet, or than it was a moment ago: some other process that
         * shares the socket may have changed it. */
        result = whp_split(&packet, ++refused);
    }
    whp_close(packet.memfd);
    /* KERNEL: ECONNRESET once if messages died with the last receiver; ECONNREFUSED where older kernels race. */
    return result == -ECONNRESET || result == -ECONNREFUSED ? -EPIPE : result;
}

int wormhole_send_fds(int tx, const char *text, size_t len, const int *fds, size_t count) {
    return whp_send(tx, text, len, fds, count, WHP_FOREVER);
}

int wormhole_try_send_fds(int tx, const char *text, size_t len, const int *fds, size_t count) {
    return whp_send(tx, text, len, fds, count, WHP_NEVER);
}

int wormhole_send_fds_timeout(int tx, const char *text, size_t len, const int *fds, size_t count, int timeout) {
    return whp_send(tx, text, len, fds, count, whp_deadline(timeout));
}

int wormhole_send(int tx, const char *text, size_t len) { return whp_send(tx, text, len, NULL, 0, WHP_FOREVER); }

int wormhole_try_send(int tx, const char *text, size_t len) { return whp_send(tx, text, len, NULL, 0, WHP_NEVER); }

int wormhole_send_timeout(int tx, const char *text, size_t len, int timeout) {
    return whp_send(tx, text, len, NULL, 0, whp_deadline(timeout));
}

/*
 * Receiving.
 */

void wormhole_message_init(struct wormhole_message *message) {
    memset(message, 0, sizeof *message);
    message->max_message_len = WORMHOLE_MAX_MESSAGE_LEN;
    message->max_blob_len = WORMHOLE_MAX_BLOB_LEN;
}

static void whp_forget(struct wormhole_message *message) {
    for (size_t i = 0; i < message->fd_count; i++) whp_close(message->fds[i]);
    free(message->long_text);
    message->long_text = NULL;
    message->text = NULL;
    message->len = message->fd_count = message->blob_len = 0;
}

void wormhole_message_clear(struct wormhole_message *message) {
    whp_forget(message);
    free(message->packet);
    message->packet = NULL;
}

struct whp_arrival {
    struct wormhole_message *message;
    size_t len; /* of the packet, which may be more than the buffer holds */
    /* Some descriptors did not make it into this process; nothing is queued and nobody is left who could send. */
    int rx, lost, end;
};

/* Takes the descriptors out of control messages, cmsg(3). Those that nobody asked for are closed. */
static void whp_unpack(struct whp_arrival *arrival, const char *control, size_t size) {
    struct wormhole_message *message = arrival->message;
    while (size >= sizeof(struct cmsghdr)) {
        struct cmsghdr header;
        memcpy(&header, control, sizeof header);
        if (header.cmsg_len < sizeof header || header.cmsg_len > size) return;
        for (size_t at = CMSG_LEN(0); at + sizeof(int) <= header.cmsg_len; at += sizeof(int)) {
            int fd;
            memcpy(&fd, control + at, sizeof fd);
            if (header.cmsg_level != SOL_SOCKET) break;
            if (header.cmsg_type == SCM_RIGHTS) {
                fd = whp_above_streams(fd);
                if (fd < 0) arrival->lost = 1;
                else if (message->fd_count < WORMHOLE_MAX_FDS) message->fds[message->fd_count++] = fd;
            } else if (header.cmsg_type == WHP_SCM_PIDFD) {
                /* Some other holder of the socket has asked for it. KERNEL: it may be an error, a negative number. */
                whp_close(fd);
            }
        }
        size_t step = CMSG_ALIGN((size_t)header.cmsg_len);
        if (step > size) return;
        control += step;
        size -= step;
    }
}

/* Why a receive gave no bytes: 1 at the end, 0 if the packet was empty, -EAGAIN if it missed something. */
static int whp_what_nothing_means(int rx) {
    int queued = 0, events = whp_poll(rx, POLLRDHUP, 0);
    /* KERNEL: RDHUP is set, for good, when the last copy of the peer closes or shuts down. Where a sandbox denies these
     * calls, it can only be taken for the end, which is what it nearly always is. */
    if (events >= 0 && !(events & POLLRDHUP)) return 0;
    /* KERNEL: a receive that finds the queue empty looks only then whether the sender is gone, which may have sent and
     * closed meanwhile. */
    return ioctl(rx, FIONREAD, &queued) == 0 && queued > 0 ? -EAGAIN : 1;
}

static int whp_recv_attempt(void *call, int may_block) {
    struct whp_arrival *arrival = (struct whp_arrival *)call;
    union whp_control control;
    struct iovec part = {arrival->message->packet, WHP_MAX_PACKET};
    struct msghdr message;
    /* MSG_TRUNC asks for the length of the packet even if the buffer is shorter. */
    const int flags = MSG_CMSG_CLOEXEC | MSG_TRUNC | (may_block ? 0 : MSG_DONTWAIT);
    for (;;) {
        memset(&message, 0, sizeof message);
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        message.msg_control = &control;
        message.msg_controllen = sizeof control.space;
        ssize_t received = recvmsg(arrival->rx, &message, flags);
        /* KERNEL: the sender closed with bytes unread that were sent backwards to it. Reported once, ahead of what is
         * still queued. */
        if (received < 0 && errno == ECONNRESET) continue;
        if (received < 0) return -errno;
        arrival->len = (size_t)received;
        arrival->lost = (message.msg_flags & MSG_CTRUNC) != 0;
        whp_unpack(arrival, control.space, message.msg_controllen);
        arrival->end = 0;
        if (received == 0 && arrival->message->fd_count == 0 && !arrival->lost)
            arrival->end = whp_what_nothing_means(arrival->rx);
        if (arrival->end >= 0) return 0;
    }
}

/* Puts a long text together from its packet and the memfd that came with it. */
static int whp_gather(struct wormhole_message *message, const char *text, size_t whole) {
    const size_t missing = message->len - whole;
    struct stat stat;
    size_t done = 0;
    int result = 0;
    if (message->fd_count == 0) return -EBADMSG;
    const int memfd = message->fds[0];
    /* A file of another kind could make the read below wait without an end. KERNEL: F_GET_SEALS answers for files in
     * memory only, and a mere path (O_PATH) has no operations at all. */
    if (fcntl(memfd, F_GET_SEALS) < 0) return errno == EINVAL || errno == EBADF ? -EBADMSG : -errno;
    if (fstat(memfd, &stat) < 0) return -errno;
    if (stat.st_size < 0 || (unsigned long long)stat.st_size != missing) return -EBADMSG;
    message->long_text = (char *)malloc(message->len + 1);
    if (message->long_text == NULL) return -ENOMEM;
    memcpy(message->long_text, text, whole);
    while (done < missing && result == 0) {
        /* Not a mapping: a memfd that its sender shrinks now must not cause SIGBUS here. */
        ssize_t count = pread(memfd, message->long_text + whole + done, missing - done, (off_t)done);
        done += count > 0 ? (size_t)count : 0;
        if (count == 0 || (count < 0 && errno == EBADF)) result = -EBADMSG; /* cut meanwhile; not open for reading */
        else if (count < 0 && errno != EINTR) result = -errno;
    }
    close(memfd); /* it does not count among the descriptors */
    message->fd_count--;
    memmove(message->fds, message->fds + 1, sizeof(int) * message->fd_count);
    message->text = message->long_text;
    message->long_text[message->len] = '\0';
    return result;
}

/* Takes a packet apart, in the order of checks that PROTOCOL.md gives. */
static int whp_open(struct wormhole_message *message, const struct whp_arrival *arrival) {
    unsigned long long declared = 0;
    if (arrival->lost) return -EMFILE;
    if (arrival->len > WHP_MAX_PACKET || arrival->len < WHP_HEADER) return -EBADMSG;
    for (size_t i = WHP_HEADER; i > 0; i--) declared = declared << 8 | (unsigned char)message->packet[i - 1];
    if (declared < arrival->len - WHP_HEADER) return -EBADMSG;
    if (declared > message->max_message_len || declared > (size_t)-1 / 2) return -EMSGSIZE;
    message->len = (size_t)declared;
    if (declared > arrival->len - WHP_HEADER)
        return whp_gather(message, message->packet + WHP_HEADER, arrival->len - WHP_HEADER);
    message->text = message->packet + WHP_HEADER;
    message->packet[arrival->len] = '\0';
    return 0;
}

static int whp_recv(int rx, struct wormhole_message *message, int with_fds, long long deadline) {
    struct whp_arrival arrival = {message, 0, rx, 0, 0};
    whp_forget(message);
    if (message->packet == NULL) message->packet = (char *)malloc(WHP_MAX_PACKET + 1);
    if (message->packet == NULL) return -ENOMEM;
    int result = whp_until(rx, POLLIN, deadline, whp_recv_attempt, &arrival);
    if (result == 0) result = arrival.end ? -EPIPE : whp_open(message, &arrival);
    if (result == 0 && !with_fds && message->fd_count > 0) result = -EPROTO;
    if (result < 0) whp_forget(message);
    return result;
}

int wormhole_recv_fds(int rx, struct wormhole_message *message) { return whp_recv(rx, message, 1, WHP_FOREVER); }

int wormhole_try_recv_fds(int rx, struct wormhole_message *message) { return whp_recv(rx, message, 1, WHP_NEVER); }

int wormhole_recv_fds_timeout(int rx, struct wormhole_message *message, int timeout) {
    return whp_recv(rx, message, 1, whp_deadline(timeout));
}

int wormhole_recv(int rx, struct wormhole_message *message) { return whp_recv(rx, message, 0, WHP_FOREVER); }

int wormhole_try_recv(int rx, struct wormhole_message *message) { return whp_recv(rx, message, 0, WHP_NEVER); }

int wormhole_recv_timeout(int rx, struct wormhole_message *message, int timeout) {
    return whp_recv(rx, message, 0, whp_deadline(timeout));
}

/* Looks at a descriptor without taking it. */
static int whp_peek(const struct wormhole_message *message, long long index) {
    if (index < 0 || (unsigned long long)index >= message->fd_count || message->fds[index] < 0) return -EBADF;
    return message->fds[index];
}

int wormhole_take_fd(struct wormhole_message *message, long long index) {
    int fd = whp_peek(message, index);
    if (fd >= 0) message->fds[index] = -1;
    return fd;
}

static int whp_check_listener(int fd) {
    int listens = 0, result = whp_check_kind(fd);
    if (result == 0) result = whp_option(fd, SO_ACCEPTCONN, &listens);
    return result < 0 ? result : listens ? 0 : -EPROTOTYPE;
}

static int whp_take_checked(struct wormhole_message *message, long long index, int (*check)(int)) {
    int fd = whp_peek(message, index), result = fd < 0 ? fd : check(fd);
    return result < 0 ? result : wormhole_take_fd(message, index);
}

int wormhole_take_sender(struct wormhole_message *m, long long index) {
    return whp_take_checked(m, index, wormhole_check_sender);
}

int wormhole_take_receiver(struct wormhole_message *m, long long index) {
    return whp_take_checked(m, index, wormhole_check_receiver);
}

int wormhole_take_listener(struct wormhole_message *m, long long index) {
    return whp_take_checked(m, index, whp_check_listener);
}

size_t wormhole_fds_left(const struct wormhole_message *message) {
    size_t left = 0;
    for (size_t i = 0; i < message->fd_count; i++) left += message->fds[i] >= 0;
    return left;
}

size_t wormhole_take_rest(struct wormhole_message *message, int *fds, size_t most) {
    size_t taken = 0;
    for (size_t i = 0; i < message->fd_count && taken < most; i++) {
        int fd = wormhole_take_fd(message, (long long)i);
        if (fd >= 0) fds[taken++] = fd;
    }
    return taken;
}

/*
 * Blobs.
 */

int wormhole_blob_adopt(struct wormhole_blob *blob, int fd, size_t max_len) {
    const int needed = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW;
    const void *data = "";
    struct statfs system;
    struct stat stat;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0) return errno == EBADF && fcntl(fd, F_GETFD) >= 0 ? -EINVAL : -errno;
    if ((seals & needed) != needed) return -EINVAL;
    /* KERNEL: reading a huge page that is not there yet is SIGBUS once the machine is out of them. */
    if (fstatfs(fd, &system) < 0 || fstat(fd, &stat) < 0) return -errno;
    if ((long)system.f_type != WHP_TMPFS_MAGIC) return -EINVAL;
    if (stat.st_size < 0 || (unsigned long long)stat.st_size > max_len) return -EFBIG;
    /* KERNEL: nothing cannot be mapped. Before Linux 6.7 a shared mapping of what is sealed was refused; a private one
     * shows the same. */
    if (stat.st_size > 0) data = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) return -errno;
    blob->data = data;
    blob->len = (size_t)stat.st_size;
    blob->fd = fd;
    return 0;
}

int wormhole_blob_create(struct wormhole_blob *blob, const void *bytes, size_t len) {
    int fd = whp_memfd((const char *)bytes, len, MFD_ALLOW_SEALING);
    if (fd < 0) return fd;
    int sealed = fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    int result = whp_made(fd, sealed < 0 ? -errno : wormhole_blob_adopt(blob, fd, len));
    return result < 0 ? result : 0;
}

int wormhole_take_blob(struct wormhole_message *message, long long index, struct wormhole_blob *blob) {
    const size_t used = message->blob_len, most = message->max_blob_len;
    int fd = whp_peek(message, index);
    int result = fd < 0 ? fd : wormhole_blob_adopt(blob, fd, most > used ? most - used : 0);
    if (result < 0) return result;
    message->blob_len += blob->len;
    message->fds[index] = -1;
    return 0;
}

void wormhole_blob_close(struct wormhole_blob *blob) {
    if (blob->len > 0) munmap((void *)(uintptr_t)blob->data, blob->len);
    whp_close(blob->fd);
    blob->len = 0;
    blob->fd = -1;
}

/*
 * Unrelated processes.
 */

struct whp_address {
    struct sockaddr_un name;
    socklen_t size;
};

static int whp_parse_name(struct whp_address *address, const char *name, size_t len) {
    const size_t nul = len > 0 && name[0] == '\0';
    if (len == nul) return -EINVAL; /* KERNEL: unix(7): it would ask the kernel to choose one */
    if (len - nul >= sizeof address->name.sun_path) return -ENAMETOOLONG;
    if (!nul && memchr(name, '\0', len) != NULL) return -EINVAL;
    memset(address, 0, sizeof *address);
    address->name.sun_family = AF_UNIX;
    memcpy(address->name.sun_path, name, len);
    /* With the NUL that begins an abstract name, or the one that ends a path. */
    address->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1 - nul);
    return 0;
}

static int whp_address_connect(int fd, const struct whp_address *address) {
    return connect(fd, (const struct sockaddr *)&address->name, address->size) < 0 ? -errno : 0;
}

static int whp_address_bind(int fd, const struct whp_address *address) {
    return bind(fd, (const struct sockaddr *)&address->name, address->size) < 0 ? -errno : 0;
}

static int whp_socket(int type) { return whp_above_streams(socket(AF_UNIX, type | SOCK_CLOEXEC, 0)); }

/* Removes a socket file to which no process has a socket bound, or says what is in the way. */
static int whp_remove_stale(const struct whp_address *address) {
    const char *path = address->name.sun_path;
    struct stat found;
    int result;
    if (lstat(path, &found) < 0) return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(found.st_mode)) return -EEXIST;
    /* KERNEL: connecting a socket of another type fails as soon as the kernel has found the one there, so the process
     * that listens does not notice. */
    int probe = whp_socket(SOCK_DGRAM | SOCK_NONBLOCK);
    if (probe < 0) return probe;
    do result = whp_address_connect(probe, address);
    while (result == -EINTR);
    close(probe);
    if (result == -ECONNREFUSED || result == -ENOENT) return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
    return result == 0 || result == -EPROTOTYPE || result == -EAGAIN ? -EADDRINUSE : result;
}

/* Takes the right to replace a socket file, of one process at a time. Never waits: its holder is about to listen. */
static int whp_lock(const char *path) {
    for (;;) {
        struct stat stat;
        int fd = whp_above_streams(open(path, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600)), result = 0;
        if (fd == -EINTR) continue;
        if (fd < 0) return fd;
        while (result == 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
            result = errno == EINTR ? 0 : errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
        if (result == 0 && fstat(fd, &stat) < 0) result = -errno;
        if (result < 0 || stat.st_nlink > 0) return whp_made(fd, result);
        close(fd); /* the holder before has removed it between the two calls */
    }
}

static int whp_bind_file(struct wormhole_listener *listener, const struct whp_address *address) {
    const char *name = address->name.sun_path;
    char path[sizeof address->name.sun_path + 16];
    struct stat made;
    int result = whp_address_bind(listener->fd, address);
    if (result == -EADDRINUSE) {
        /* Two processes could find the same file stale, and the slower one remove what the faster one has just bound.
         * A name that is free needs no lock: bind takes it or fails. */
        snprintf(path, sizeof path, "%s.wormhole-lock", name);
        int lock = whp_lock(path);
        result = lock < 0 ? lock : whp_remove_stale(address);
        if (result == 0) result = whp_address_bind(listener->fd, address);
        if (lock >= 0) {
            unlink(path);         /* still locked, so still this process's own */
            flock(lock, LOCK_UN); /* to close it is not enough: a process that was forked meanwhile has a copy */
            close(lock);
        }
    }
    if (result < 0) return result;
    /* Absolute, because the working directory may change. */
    listener->path = name[0] == '/' ? strdup(name) : realpath(name, NULL);
    if (listener->path == NULL || lstat(name, &made) < 0) {
        result = -errno;
        unlink(name); /* bound just now, so it is this socket's */
        return result;
    }
    listener->dev = made.st_dev;
    listener->ino = made.st_ino;
    return 0;
}

static int whp_credentials(int fd, struct wormhole_peer *peer) {
    socklen_t size = sizeof *peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &size) < 0 ? -errno : 0;
}

int wormhole_listen(struct wormhole_listener *listener, const char *name, size_t len) {
    struct wormhole_listener made;
    struct whp_address address;
    int result = whp_parse_name(&address, name, len);
    if (result < 0) return result;
    memset(&made, 0, sizeof made);
    /* accept has no flag for a single call, as recvmsg has. So this socket does not block from its creation on. */
    made.fd = whp_socket(SOCK_SEQPACKET | SOCK_NONBLOCK);
    if (made.fd < 0) return made.fd;
    /* KERNEL: bind makes the file with the mode of the socket's own inode, less the umask. */
    if (fchmod(made.fd, 0600) < 0) result = -errno;
    else result = name[0] == '\0' ? whp_address_bind(made.fd, &address) : whp_bind_file(&made, &address);
    /* KERNEL: the number is cut to net.core.somaxconn. */
    if (result == 0 && listen(made.fd, INT_MAX) < 0) {
        result = -errno;
        if (made.path != NULL) unlink(made.path);
    }
    if (result == 0) *listener = made;
    else free(made.path);
    return result == 0 ? 0 : whp_made(made.fd, result);
}

void wormhole_listener_close(struct wormhole_listener *listener) {
    struct wormhole_peer owner;
    struct stat found;
    /* While the socket is open: until then nobody takes the file for stale. KERNEL: listen notes for SO_PEERCRED which
     * process has called it. */
    if (listener->path != NULL && whp_credentials(listener->fd, &owner) == 0 && owner.pid == getpid() &&
        lstat(listener->path, &found) == 0 && found.st_dev == listener->dev && found.st_ino == listener->ino)
        unlink(listener->path);
    whp_close(listener->fd);
    free(listener->path);
    listener->fd = -1;
    listener->path = NULL;
}

static int whp_accept_attempt(void *call, int may_block) {
    const int fd = *(const int *)call;
    int connection, ready = may_block ? 1 : whp_poll(fd, POLLIN, 0);
    /* A listening socket from elsewhere may block. */
    if (ready == 0) return -EAGAIN;
    do connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    while (connection < 0 && errno == ECONNABORTED); /* that client has left: on to the next one */
    return whp_above_streams(connection);
}

int wormhole_accept(int listener, struct wormhole_peer *peer, int timeout) {
    struct wormhole_peer ignored;
    int rx = whp_until(listener, POLLIN, whp_deadline(timeout), whp_accept_attempt, &listener);
    if (rx < 0) return rx;
    /* What arrives here is one-way. */
    return whp_made(rx, shutdown(rx, SHUT_WR) < 0 ? -errno : whp_credentials(rx, peer == NULL ? &ignored : peer));
}

/* Limits how long connect waits for room in the other's queue. KERNEL: polling tells nothing about it. */
static int whp_limit_connect(int fd, long long nanoseconds) {
    const long long second = 1000 * WHP_MILLISECOND;
    struct timeval limit = {(time_t)(nanoseconds / second), (suseconds_t)(nanoseconds % second / 1000)};
    return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ? -errno : 0;
}

int wormhole_connect(const char *name, size_t len, int timeout) {
    const long long deadline = whp_deadline(timeout);
    const int limited = deadline != WHP_FOREVER;
    struct whp_address address;
    int result = whp_parse_name(&address, name, len);
    if (result < 0) return result;
    int fd = whp_socket(SOCK_SEQPACKET);
    if (fd < 0) return fd;
    do {
        long long left = limited ? deadline - whp_now() : 1;
        /* No other process shares this socket yet, so it may have a timeout for a moment. Zero would be no limit. */
        result = limited ? whp_limit_connect(fd, left > 1000 ? left : 1000) : 0;
        if (result < 0) return whp_made(fd, result);
        result = whp_address_connect(fd, &address);
        /* KERNEL: a unix socket that was interrupted here has not begun to connect. */
        if ((result == -EINTR || result == -EAGAIN) && left <= 0) result = -ETIMEDOUT;
    } while (result == -EINTR || result == -EAGAIN);
    return whp_made(fd, result == 0 && limited ? whp_limit_connect(fd, 0) : result);
}

/*
 * Handing a message to a program.
 */

int wormhole_inherit(struct wormhole_message *message) {
    static int taken;
    struct wormhole_peer maker;
    const char *value = getenv("WORMHOLE_FD");
    char *end = NULL;
    long number = value != NULL && *value >= '0' && *value <= '9' ? strtol(value, &end, 10) : -1;
    if (number < WHP_FIRST_FD || number > INT_MAX || *end != '\0') return -ENOENT;
    /* What this program has opened itself by that number is close-on-exec, or no such socket, or its own. */
    int fd = (int)number, flags = fcntl(fd, F_GETFD);
    if (flags < 0 || (flags & FD_CLOEXEC)) return -ENOENT;
    int result = wormhole_check_receiver(fd);
    if (result == 0) result = whp_credentials(fd, &maker);
    if (result < 0) return result == -ENOTSOCK || result == -EPROTOTYPE || result == -ENOTCONN ? -ENOENT : result;
    if (maker.pid == getpid() || __atomic_exchange_n(&taken, 1, __ATOMIC_RELAXED)) return -ENOENT;
    result = fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : wormhole_try_recv_fds(fd, message);
    close(fd);
    return result == -EAGAIN || result == -EPIPE ? -ENOENT : result;
}

int wormhole_hand_over(const char *text, size_t len, const int *fds, size_t count) {
    int tx = -1, rx = -1, result = wormhole_channel(&tx, &rx);
    if (result < 0) return result;
    /* KERNEL: one packet fits an empty channel at once, however long the message. */
    result = wormhole_try_send_fds(tx, text, len, fds, count);
    close(tx);
    return whp_made(rx, result);
}

int wormhole_spawn(pid_t *pid, const char *file, char *const argv[], char *const envp[], const char *text, size_t len,
                   const int *fds, size_t count) {
    posix_spawn_file_actions_t actions;
    char variable[32];
    size_t size = 0, at = 0;
    int rx = wormhole_hand_over(text, len, fds, count);
    if (rx < 0) return rx;
    if (envp == NULL) envp = environ;
    while (envp != NULL && envp[size] != NULL) size++;
    char **environment = (char **)malloc((size + 2) * sizeof *environment);
    int result = environment == NULL ? ENOMEM : posix_spawn_file_actions_init(&actions);
    if (result == 0) {
        for (size_t i = 0; i < size; i++)
            if (strncmp(envp[i], "WORMHOLE_FD=", 12) != 0) environment[at++] = envp[i];
        snprintf(variable, sizeof variable, "WORMHOLE_FD=%d", rx);
        environment[at++] = variable;
        environment[at] = NULL;
        /* A duplicate by its own number is inherited (glibc 2.29, musl 1.1.24). In this process it is close-on-exec all
         * the time. */
        result = posix_spawn_file_actions_adddup2(&actions, rx, rx);
        if (result == 0) result = posix_spawnp(pid, file, &actions, NULL, argv, environment);
        posix_spawn_file_actions_destroy(&actions);
    }
    free(environment);
    close(rx);
    return -result;
}

const char *wormhole_strerror(int error) {
    switch (error < 0 ? -error : error) {
    case EPIPE: return "every copy of the other end of the channel is gone";
    case EAGAIN: return "it would have to wait: the channel is full, or empty";
    case ETIMEDOUT: return "it took too long";
    case EMSGSIZE: return "the message is longer than the limit";
    case EBADMSG: return "the message is not what the protocol says";
    case EPROTO: return "the message has descriptors that nobody expected";
    case E2BIG: return "more than 253 descriptors in a message, the one of a long text included";
    case ETOOMANYREFS: return "too many descriptors of this user have been sent and not yet received";
    case EPROTOTYPE: return "not an end of a channel of this direction";
    default: return strerror(error < 0 ? -error : error);
    }
}

#endif /* WORMHOLE_IMPLEMENTATION */
