/* Packets as they are. */
#ifndef TEST_RAW_H
#define TEST_RAW_H

#include "support.h"

static void raw_send(int fd, const void *bytes, size_t len, const int *fds, size_t count) {
    union {
        struct cmsghdr header;
        char space[2048];
    } control;
    struct iovec part;
    struct msghdr message;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    part.iov_base = (char *)(uintptr_t)bytes;
    part.iov_len = len;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (count > 0) {
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * count);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
    }
    CHECK(sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len);
}

/* Receives a packet as it is: how many bytes. */
static size_t raw_recv(int fd, void *bytes, size_t room, int *fds, size_t *count) {
    union {
        struct cmsghdr header;
        char space[2048];
    } control;
    struct iovec part;
    struct msghdr message;
    ssize_t received;
    memset(&message, 0, sizeof message);
    part.iov_base = bytes;
    part.iov_len = room;
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    CHECK(received >= 0);
    *count = 0;
    if (message.msg_controllen > 0) {
        *count = (control.header.cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(&control.header), *count * sizeof(int));
    }
    return (size_t)received;
}

#endif
