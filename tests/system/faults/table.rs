//! What each operation must give if one of its system calls fails.

use std::collections::{BTreeMap, BTreeSet};

use super::strace;

use Then::{As, Fails, Says, Untried};

/// What an operation gives.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// What it gives without a fault, which is "ok" for most: the call was repeated, or did not matter.
    As,
    /// An error of this text, as `told` in `work.rs` tells it. What follows may be anything.
    Says(&'static str),
    /// "cannot ...", with the error of the call as its source.
    Fails(&'static str),
    /// Whatever it likes.
    Untried,
}

/// A system call of an operation, as `strace` names it or, if it does many things, the one of them; the errors,
/// of which "*" are all others that `ERRORS` has for it; what the operation gives then.
///
/// "name#2" is the second call of that name alone, "name|other" is whichever of the two the operation makes. The
/// first rule that matches holds.
type Rule = (&'static str, &'static str, Then);

/// What a filter of system calls answers, so what every call can fail with.
const SANDBOX: &str = "EPERM EACCES ENOSYS";

/// What else they can fail with: section 2 of the manual pages, and unix(7).
const ERRORS: &[(&str, &str)] = &[
    ("F_ADD_SEALS", "EBUSY EINVAL ENOMEM"),
    ("F_DUPFD_CLOEXEC", "EMFILE ENOMEM"),
    ("F_GETFD", "EBADF"),
    ("F_GET_SEALS", "EINVAL EBADF"),
    ("F_SETFD", ""),
    (
        "accept4",
        "EAGAIN EINTR ECONNABORTED EMFILE ENFILE ENOBUFS ENOMEM EPROTO",
    ),
    (
        "bind",
        "EADDRINUSE EINVAL EINTR EIO ELOOP ENOENT ENOMEM ENOSPC ENOTDIR EDQUOT EROFS",
    ),
    ("clone", "EAGAIN ENOMEM"),
    ("close", "EINTR EIO ENOSPC EDQUOT"),
    (
        "connect",
        "EAGAIN ECONNREFUSED EINTR ELOOP ENOENT ENOMEM ENOTDIR EPROTOTYPE",
    ),
    ("dup3", "EBUSY EINTR EMFILE"),
    ("epoll_create1", "EMFILE ENFILE ENOMEM"),
    ("epoll_ctl", "ENOMEM ENOSPC"),
    ("epoll_pwait", "EINTR"),
    ("eventfd2", "EMFILE ENFILE ENODEV ENOMEM"),
    ("fallocate", "EINTR EFBIG EIO ENOMEM ENOSPC EOPNOTSUPP"),
    ("fchmod", "EIO EROFS"),
    ("flock", "EAGAIN EINTR ENOLCK ENOMEM"),
    ("fstat", "EIO ENOMEM EOVERFLOW"),
    ("fstatfs", "EINTR EIO ENOMEM EOVERFLOW"),
    ("getdents64", ""),
    ("getpeername", "ENOBUFS ENOTCONN"),
    ("getsockopt", "ENOBUFS ENOPROTOOPT ENOTSOCK EOPNOTSUPP"),
    ("ioctl", "EINTR EINVAL ENOTTY"),
    ("listen", "EADDRINUSE EOPNOTSUPP"),
    ("memfd_create", "EINVAL EMFILE ENFILE ENOMEM"),
    ("mmap", "EAGAIN ENFILE ENODEV ENOMEM"),
    ("newfstatat", "EIO ENOMEM EOVERFLOW"),
    (
        "open",
        "EDQUOT EINTR EIO ELOOP EMFILE ENFILE ENOENT ENOMEM ENOSPC ENOTDIR EROFS",
    ),
    ("pidfd_open", "EMFILE ENFILE ENODEV ENOMEM"),
    ("pidfd_send_signal", "ESRCH"),
    ("ppoll", "EINTR EINVAL ENOMEM"),
    ("pread64", "EBADF EINTR EIO ENOMEM"),
    ("prlimit64", ""),
    ("pwrite64", "EDQUOT EFBIG EINTR EIO ENOMEM ENOSPC"),
    ("read", "EINTR EIO"),
    ("recvfrom", "EINTR"),
    ("recvmsg", "EAGAIN EINTR ECONNRESET ENOBUFS ENOMEM"),
    ("sched_yield", ""),
    (
        "sendmsg",
        "EAGAIN EINTR EPIPE ECONNRESET ECONNREFUSED EMSGSIZE ENOBUFS ENOMEM ETOOMANYREFS",
    ),
    (
        "sendto",
        "EAGAIN EINTR EPIPE ECONNRESET ECONNREFUSED EMSGSIZE ENOBUFS ENOMEM",
    ),
    ("set_robust_list", "EINVAL"),
    ("setsockopt", "ENOMEM"),
    ("shutdown", "ENOBUFS ENOTCONN"),
    ("socket", "EAFNOSUPPORT EMFILE ENFILE ENOBUFS ENOMEM"),
    (
        "socketpair",
        "EAFNOSUPPORT EMFILE ENFILE ENOBUFS ENOMEM EOPNOTSUPP",
    ),
    ("statx", "EIO ELOOP ENOENT ENOMEM ENOTDIR"),
    ("timerfd_create", "EMFILE ENFILE ENODEV ENOMEM"),
    ("unlink", "EBUSY EIO ENOENT ENOMEM EROFS"),
    ("unshare", "EINVAL ENOMEM"),
    ("waitid", "ECHILD EINTR"),
];

/// Calls of the C library, the allocator and std, about which there is nothing to say.
const OTHERS: [&str; 14] = [
    "MAP_ANONYMOUS",
    "brk",
    "clock_gettime",
    "exit_group",
    "futex",
    "getpid",
    "getrandom",
    "gettid",
    "madvise",
    "mremap",
    "munmap",
    "rt_sigprocmask",
    "set_robust_list",
    "write",
];

/// In every operation.
const EVERYWHERE: &[Rule] = &[
    ("close", "*", As),
    // std asks before it closes a descriptor, in builds for debugging.
    ("F_GETFD", "EBADF", Untried), // it takes that for a bug, and ends the process
    ("F_GETFD", "*", As),
];

/// Of messages that carry no descriptors.
const SEND_PLAIN: &[Rule] = &[("sendto", "EPERM EACCES ENOSYS", As)]; // then it is sendmsg

const SEND: &[Rule] = &[
    ("sendto|sendmsg", "EAGAIN EINTR", As),
    ("sendto|sendmsg", "EMSGSIZE", As),
    (
        "sendto|sendmsg",
        "EPIPE ECONNRESET ECONNREFUSED",
        Says("Disconnected"),
    ),
    ("sendto|sendmsg", "ETOOMANYREFS", Says("TooManyFdsInFlight")),
    ("sendto|sendmsg", "*", Fails("send a message")),
];

const SPILL: &[Rule] = &[
    ("getsockopt", "*", Fails("look up the size of the buffer")),
    (
        "prlimit64",
        "*",
        Fails("look up the limit of file sizes (prlimit64)"),
    ),
    (
        "memfd_create",
        "*",
        Fails("create the memfd (memfd_create) that a long message needs"),
    ),
    ("pwrite64", "EINTR", As),
    ("pwrite64", "*", Fails("put a long message into a memfd")),
];

/// What is asked for before a blob is filled.
const MAKE_A_BLOB: &[Rule] = &[
    (
        "memfd_create",
        "*",
        Fails("create the memfd (memfd_create) of a blob"),
    ),
    (
        "prlimit64",
        "*",
        Fails("look up the limit of file sizes (prlimit64)"),
    ),
];

const RECEIVE: &[Rule] = &[
    ("recvmsg", "EAGAIN EINTR ECONNRESET", As),
    ("recvmsg", "*", Fails("receive a message")),
];

/// Of a call with a deadline that waits in vain.
const RECEIVE_IN_VAIN: &[Rule] = &[
    ("ppoll", "EINTR", As),
    ("ppoll", "*", Fails("receive a message")),
];

const SEND_IN_VAIN: &[Rule] = &[
    ("ppoll", "EINTR", As),
    ("ppoll", "*", Fails("send a message")),
];

const SELECT: &[Rule] = &[
    ("ppoll", "EINTR", As),
    ("ppoll", "*", Fails("wait for one of several cases")),
];

const SET: &[Rule] = &[
    ("epoll_create1", "*", Fails("create a set of receivers")),
    ("epoll_ctl#1", "*", Fails("add a receiver to a set")),
    ("epoll_pwait", "EINTR", As),
    ("epoll_pwait", "*", Fails("wait for a set of receivers")),
];

const CREATE: &[Rule] = &[
    ("socketpair#1", "*", Fails("create a socket pair")),
    ("shutdown", "*", Fails("make a socket pair one-way")),
];

const ADOPT: &[Rule] = &[
    ("ppoll", "*", As), // then its direction is taken on trust
    (
        "getsockopt#1",
        "ENOTSOCK",
        Says("descriptor is not an end of a channel"),
    ),
    ("getsockopt", "*", Fails("look up the type of a socket")),
    (
        "getpeername",
        "ENOTCONN",
        Says("descriptor is not an end of a channel: a unix socket that is not connected"),
    ),
    ("getpeername", "*", Fails("look up the peer of a socket")),
];

/// A pool waits for all of its workers.
const POOL: &[Rule] = &[
    ("epoll_pwait", "EINTR", As),
    ("epoll_pwait", "*", Fails("wait for a pool")),
];

/// A worker that takes no more is replaced, and the job given to the other one.
const SEND_TO_A_WORKER: &[Rule] = &[("sendto|sendmsg", "EPIPE ECONNRESET ECONNREFUSED", As)];

/// Starting a worker in the place of another one, which is tried again.
const REPLACE: &[Rule] = &[
    ("unshare", "*", As),
    ("ppoll", "*", As),
    ("socketpair", "*", As),
    ("shutdown", "*", As),
    ("open", "*", As),
    ("newfstatat", "*", As),
    ("getdents64", "*", As),
    ("clone", "*", As),
    ("pidfd_open", "*", As),
    ("epoll_ctl", "*", As),
    ("pidfd_send_signal", "ESRCH", Untried), // it is there
    ("pidfd_send_signal", "*", As),          // it is left to itself
    ("recvmsg", "EAGAIN EINTR ECONNRESET", As),
    (
        "recvmsg",
        "*",
        Says("undelivered: cannot receive a message: "),
    ),
    LIST_DESCRIPTORS,
];

/// Seeing that a worker has ended.
const BURY: &[Rule] = &[
    ("ioctl", "*", As),
    ("waitid", "ECHILD", Untried), // nothing else waits for children here
    ("waitid", "*", As),
];

/// std ends the process if it cannot close a directory.
const LIST_DESCRIPTORS: Rule = ("close", "EIO ENOSPC EDQUOT EPERM EACCES ENOSYS", Untried);

const START_A_WORKER: &[Rule] = &[
    ("unshare", "*", As), // asks again, or counts the threads in /proc
    ("ppoll", "*", As),   // does not write what standard output holds, nor does the child
    ("clone", "*", Fails("fork")),
    (
        "pidfd_open",
        "*",
        Fails("open a descriptor (pidfd_open) for a child"),
    ),
];

const TAKE_A_BLOB: &[Rule] = &[
    (
        "F_GET_SEALS",
        "EINVAL EBADF",
        Says("descriptor is not a blob: it is not a memfd"),
    ),
    ("F_GET_SEALS", "*", Fails("map a blob")),
    ("fstatfs", "*", Fails("map a blob")),
    ("fstat", "*", Fails("map a blob")),
];

/// The operations, and the rules for each. The last ones of all are those of `EVERYWHERE`.
const TABLE: &[(&str, &[&[Rule]])] = &[
    ("create_a_channel", &[CREATE]),
    (
        "create_a_channel_with_a_buffer",
        &[
            CREATE,
            &[
                (
                    "setsockopt",
                    "*",
                    Fails("set the size of the channel's buffer"),
                ),
                (
                    "getsockopt",
                    "*",
                    Fails("set the size of the channel's buffer"),
                ),
            ],
        ],
    ),
    ("drop_a_channel", &[]),
    ("send", &[SEND_PLAIN, SEND]),
    (
        "send_without_waiting",
        &[
            &[("sendto|sendmsg", "EAGAIN", Says("Full"))],
            SEND_PLAIN,
            SEND,
        ],
    ),
    (
        "send_a_field",
        &[
            &[(
                "F_DUPFD_CLOEXEC",
                "*",
                Fails("duplicate a descriptor of the message"),
            )],
            SEND,
        ],
    ),
    ("send_beside", &[SEND]),
    ("send_undecoded", &[SEND]),
    ("send_a_listener", &[SEND]),
    ("send_long", &[SEND, SPILL]),
    ("send_longer_than_the_buffer", &[SEND_PLAIN, SEND, SPILL]),
    ("send_to_a_full_channel", &[SEND_IN_VAIN, SEND_PLAIN, SEND]),
    ("send_beside_to_a_full_channel", &[SEND_IN_VAIN, SEND]),
    // Without poll it waits in sendmsg.
    ("send_and_wait", &[&[("ppoll", "*", As)], SEND_PLAIN, SEND]),
    ("receive", &[RECEIVE]),
    ("iterate", &[RECEIVE]),
    ("receive_descriptors", &[RECEIVE]),
    ("receive_descriptors_in_time", &[RECEIVE]),
    ("receive_undecoded", &[RECEIVE]),
    (
        "receive_a_listener",
        &[
            &[("getsockopt", "*", Says("cannot decode a message as"))],
            RECEIVE,
        ],
    ),
    (
        "receive_fields",
        &[
            &[
                ("getsockopt", "*", Says("cannot decode a message as")),
                ("getpeername", "*", Says("cannot decode a message as")),
                ("ppoll", "*", As),
            ],
            RECEIVE,
        ],
    ),
    (
        "receive_long",
        &[
            &[
                (
                    "F_GET_SEALS",
                    "EINVAL EBADF",
                    Says("received a malformed packet: the descriptor for the"),
                ),
                (
                    "F_GET_SEALS",
                    "*",
                    Fails("read a long message from its memfd"),
                ),
                ("fstat", "*", Fails("read a long message from its memfd")),
                ("pread64", "EINTR", As),
                (
                    "pread64",
                    "EBADF",
                    Says("received a malformed packet: the memfd of a long message is not open"),
                ),
                ("pread64", "*", Fails("read a long message from its memfd")),
            ],
            RECEIVE,
        ],
    ),
    ("receive_garbage", &[RECEIVE]),
    ("receive_nothing", &[RECEIVE_IN_VAIN, RECEIVE]),
    ("receive_no_descriptors", &[RECEIVE_IN_VAIN, RECEIVE]),
    // Where these are denied it is taken for the end.
    (
        "receive_the_end",
        &[&[("ppoll", "*", As), ("ioctl", "*", As)], RECEIVE],
    ),
    ("select_a_receive", &[SELECT, RECEIVE]),
    ("select_a_send", &[SELECT, SEND_PLAIN, SEND]),
    ("select_nothing", &[SELECT]),
    ("select_in_the_program_text", &[SELECT, RECEIVE]),
    ("select_a_closed_channel", &[SELECT]),
    ("select_a_writable_descriptor", &[SELECT]),
    (
        "receive_from_a_set",
        &[&[("epoll_ctl#2", "*", As)], SET, RECEIVE],
    ),
    ("receive_descriptors_from_a_set", &[SET, RECEIVE]),
    (
        "receive_nothing_from_a_set",
        &[
            SET,
            &[
                ("ppoll", "EINTR", As),
                ("ppoll", "*", Fails("wait for a set of receivers")),
            ],
        ],
    ),
    ("adopt_a_descriptor", &[ADOPT]),
    (
        "adopt_a_listener",
        &[&[
            (
                "getsockopt#1",
                "ENOTSOCK",
                Says("descriptor is not an end of a channel"),
            ),
            ("getsockopt#3", "*", Fails("look up the state of a socket")),
            ("getsockopt", "*", Fails("look up the type of a socket")),
        ]],
    ),
    (
        "compare_two_ends",
        &[&[("fstat", "*", Fails("look up the identity of a socket"))]],
    ),
    (
        "ask_for_the_other_side",
        &[&[
            ("ppoll", "EINTR", As),
            ("ppoll", "*", Says("perhaps there")),
        ]],
    ),
    (
        "encode_without_a_channel",
        &[&[
            (
                "F_DUPFD_CLOEXEC#1",
                "*",
                Fails("duplicate a descriptor of the message"),
            ),
            (
                "F_DUPFD_CLOEXEC",
                "*",
                Fails("duplicate the descriptor of a channel end"),
            ),
        ]],
    ),
    (
        "decode_without_a_channel",
        &[&[
            (
                "F_DUPFD_CLOEXEC",
                "*",
                Fails("duplicate a descriptor of a message"),
            ),
            ("getsockopt", "*", Says("cannot decode a message as")),
            ("getpeername", "*", Says("cannot decode a message as")),
            ("ppoll", "*", As), // its direction is taken on trust
        ]],
    ),
    (
        "give_up_a_descriptor",
        &[&[(
            "F_DUPFD_CLOEXEC",
            "*",
            Fails("duplicate the descriptor of a channel end"),
        )]],
    ),
    (
        "bind",
        &[&[
            ("bind", "EADDRINUSE", As), // the file that is in the way has gone
            ("bind", "*", Fails("listen at ADDRESS")),
            ("fchmod", "*", Fails("listen at ADDRESS")),
            ("listen", "*", Fails("listen at ADDRESS")),
            ("socket", "*", Fails("listen at ADDRESS")),
            ("statx", "ENOSYS", As), // std uses another call then
            ("statx", "*", Fails("listen at ADDRESS")),
        ]],
    ),
    (
        "bind_over_a_stale_file",
        &[&[
            ("bind#1", "EADDRINUSE", As), // as without a fault
            ("bind", "*", Fails("listen at ADDRESS")),
            ("connect", "ECONNREFUSED ENOENT EINTR", As),
            (
                "connect",
                "EAGAIN EPROTOTYPE",
                Says("cannot listen at ADDRESS: EADDRINUSE"),
            ),
            ("connect", "*", Fails("listen at ADDRESS")),
            ("fchmod", "*", Fails("listen at ADDRESS")),
            ("flock#1", "EINTR", As),
            (
                "flock#1",
                "EAGAIN",
                Says("cannot listen at ADDRESS: EADDRINUSE"),
            ),
            ("flock#1", "*", Fails("listen at ADDRESS")),
            ("flock#2", "*", As),
            ("fstat", "*", Fails("listen at ADDRESS")),
            ("listen", "*", Fails("listen at ADDRESS")),
            ("open", "EINTR", As),
            ("open", "*", Fails("open the lock file ADDRESS")),
            ("socket", "*", Fails("listen at ADDRESS")),
            (
                "statx#1",
                "ENOENT",
                Says("cannot listen at ADDRESS: EADDRINUSE"),
            ),
            ("statx", "ENOSYS", As), // std uses another call then
            ("statx", "*", Fails("listen at ADDRESS")),
            ("unlink#1", "*", Fails("listen at ADDRESS")),
            ("unlink#2", "*", As),
        ]],
    ),
    (
        "close_a_listener",
        &[&[
            ("getsockopt", "*", As),
            ("statx", "*", As),
            ("unlink", "*", As),
        ]],
    ),
    (
        "connect",
        &[&[
            ("socket", "*", Fails("connect to ADDRESS")),
            ("connect", "EAGAIN EINTR", As),
            ("connect", "*", Fails("connect to ADDRESS")),
        ]],
    ),
    (
        "connect_within_a_time",
        &[&[
            ("socket", "*", Fails("connect to ADDRESS")),
            ("setsockopt", "*", Fails("connect to ADDRESS")),
            ("connect", "EAGAIN EINTR", As),
            ("connect", "*", Fails("connect to ADDRESS")),
        ]],
    ),
    (
        "connect_with_a_buffer",
        &[&[
            ("socket", "*", Fails("connect to ADDRESS")),
            (
                "setsockopt",
                "*",
                Fails("set the size of the channel's buffer"),
            ),
            (
                "getsockopt",
                "*",
                Fails("set the size of the channel's buffer"),
            ),
            ("connect", "EAGAIN EINTR", As),
            ("connect", "*", Fails("connect to ADDRESS")),
        ]],
    ),
    (
        "accept",
        &[&[
            ("ppoll", "*", As), // then accept4 tells whether a client is waiting
            ("accept4", "EAGAIN EINTR ECONNABORTED", As),
            ("accept4", "*", Fails("accept a client")),
            ("shutdown", "*", Fails("accept a client")),
            ("getsockopt", "*", Fails("accept a client")),
        ]],
    ),
    (
        "accept_nobody",
        &[&[
            ("ppoll#2", "EINTR", As),
            ("ppoll#2", "*", Fails("accept a client")),
            ("ppoll", "*", As), // a look at whether a client is waiting
        ]],
    ),
    (
        "look_for_a_client",
        &[&[("ppoll", "*", As)]], // then accept4 tells, which does not block either
    ),
    (
        "make_a_blob",
        &[
            MAKE_A_BLOB,
            &[
                ("pwrite64", "EINTR", As),
                ("pwrite64", "*", Fails("fill a blob")),
                ("F_ADD_SEALS", "*", Fails("fill a blob")),
                ("mmap", "*", Fails("map a blob")),
            ],
            TAKE_A_BLOB,
        ],
    ),
    (
        "build_a_blob",
        &[
            MAKE_A_BLOB,
            &[
                ("fallocate", "EINTR", As),
                ("fallocate", "*", Fails("fill a blob")),
                ("F_ADD_SEALS", "EBUSY", As), // a copy is made
                ("F_ADD_SEALS", "*", Fails("fill a blob")),
                ("mmap#1", "*", Fails("fill a blob")),
                ("mmap#2", "*", Fails("map a blob")),
            ],
            TAKE_A_BLOB,
        ],
    ),
    (
        "read_a_blob",
        &[
            &[
                (
                    "memfd_create",
                    "*",
                    Fails("create the memfd (memfd_create) of a blob"),
                ),
                ("prlimit64", "*", Fails("read what a blob is to hold")),
                ("pwrite64", "EINTR", As),
                ("pwrite64", "*", Fails("read what a blob is to hold")),
                ("F_ADD_SEALS", "EBUSY", As), // a copy is made
                ("F_ADD_SEALS", "*", Fails("fill a blob")),
                ("mmap", "*", Fails("map a blob")),
            ],
            TAKE_A_BLOB,
        ],
    ),
    (
        "seal_a_blob",
        &[
            &[
                (
                    "F_ADD_SEALS",
                    "EINVAL EPERM",
                    Says("descriptor is not a blob: it is not sealed against writing"),
                ),
                ("F_ADD_SEALS", "*", Fails("seal a blob")),
                ("mmap", "*", Fails("map a blob")),
            ],
            TAKE_A_BLOB,
        ],
    ),
    (
        "receive_a_blob",
        &[
            RECEIVE,
            &[
                ("F_GET_SEALS", "*", Says("cannot decode a message as")),
                ("fstatfs", "*", Says("cannot decode a message as")),
                ("fstat", "*", Says("cannot decode a message as")),
                ("mmap", "*", Says("cannot decode a message as")),
            ],
        ],
    ),
    (
        "spawn_a_child",
        &[
            CREATE,
            &[
                ("socketpair#2", "*", Fails("create a socket pair")),
                ("unshare", "*", As), // asks again, or counts the threads in /proc
                ("ppoll", "*", As), // does not write what standard output holds, nor does the child
                ("clone", "*", Fails("fork")),
                (
                    "pidfd_open",
                    "*",
                    Fails("open a descriptor (pidfd_open) for a child"),
                ),
            ],
        ],
    ),
    (
        "child_of_a_spawn",
        &[&[
            ("dup3", "EINTR", As),
            (
                "dup3",
                "*",
                Says(
                    "child process could not deliver its result: cannot replace the descriptors of its parent",
                ),
            ),
            ("sendto", "EPERM EACCES ENOSYS", As), // then it is sendmsg
            ("sendto|sendmsg", "EAGAIN EINTR EMSGSIZE", As),
            // Its parent is gone, as far as it knows.
            (
                "sendto|sendmsg",
                "EPIPE ECONNRESET ECONNREFUSED",
                Says("child process exited with status 0"),
            ),
            (
                "sendto|sendmsg",
                "*",
                Says("child process could not deliver its result: cannot send"),
            ),
        ]],
    ),
    (
        "join_a_child",
        &[
            &[
                ("waitid", "EINTR", As),
                ("waitid", "ECHILD", As), // somebody else took the status: the result is here
                ("waitid", "*", Fails("wait for a child")),
                // KERNEL: never, as the result is in the queue by the time the child has ended.
                (
                    "recvmsg",
                    "EAGAIN",
                    Says("child process exited with status 0"),
                ),
            ],
            RECEIVE,
        ],
    ),
    (
        "kill_a_child",
        &[&[
            ("pidfd_send_signal", "ESRCH", As),
            ("pidfd_send_signal", "*", Fails("kill a child")),
        ]],
    ),
    (
        "spawn_a_fresh_child",
        &[
            CREATE,
            &[
                ("socketpair#2", "*", Fails("create a socket pair")),
                (
                    "F_DUPFD_CLOEXEC#1",
                    "*",
                    Fails("duplicate the standard input"),
                ),
                (
                    "F_DUPFD_CLOEXEC",
                    "*",
                    Fails("duplicate a descriptor of the message"),
                ),
                (
                    "fstat",
                    "*",
                    Fails("start a fresh copy of this program (/proc/self/exe)"),
                ),
                // Then it is not known whether the program was named to a loader, which it was not.
                ("open", "*", As),
                ("statx", "*", As),
                ("read", "*", As),
                ("prlimit64", "*", As), // std or the C library looks for room for its own descriptors
                ("clone", "ENOSYS", As), // the C library knows other calls
                (
                    "clone",
                    "*",
                    Fails("start a fresh copy of this program (/proc/self/exe)"),
                ),
                (
                    "pidfd_open",
                    "*",
                    Fails("open a descriptor (pidfd_open) for a child"),
                ),
            ],
            SEND,
            ADOPT,
        ],
    ),
    (
        "start_a_pool",
        &[
            &[
                ("socketpair", "*", Fails("create a socket pair")),
                (
                    "open",
                    "*",
                    Fails("list the open descriptors (/proc/self/fd)"),
                ),
                (
                    "newfstatat",
                    "*",
                    Fails("list the open descriptors (/proc/self/fd)"),
                ),
                ("getdents64", "*", Fails("list the open descriptors")),
                (
                    "epoll_create1",
                    "*",
                    Fails("make the descriptors of a pool"),
                ),
                (
                    "timerfd_create",
                    "*",
                    Fails("make the descriptors of a pool"),
                ),
                ("eventfd2", "*", Fails("make the descriptors of a pool")),
                ("epoll_ctl", "*", Fails("wait for a worker")),
            ],
            &[LIST_DESCRIPTORS],
            CREATE,
            START_A_WORKER,
        ],
    ),
    (
        "job_of_a_pool",
        &[
            POOL,
            SEND_PLAIN,
            SEND_TO_A_WORKER,
            SEND,
            // One that cannot be understood when it says that it has started is replaced.
            &[
                ("recvmsg", "EAGAIN EINTR ECONNRESET", As),
                ("recvmsg#1", "*", As),
                (
                    "recvmsg",
                    "*",
                    Says("undelivered: cannot receive a message: "),
                ),
            ],
        ],
    ),
    (
        "death_in_a_pool",
        &[POOL, BURY, REPLACE, SEND_PLAIN, SEND_TO_A_WORKER, SEND],
    ),
    ("cancel_in_a_pool", &[REPLACE]),
    (
        "child_of_a_pool",
        &[&[
            ("dup3", "*", As),
            ("recvmsg", "*", As),
            ("sendto", "*", As),
            ("set_robust_list", "*", As),
        ]],
    ),
    (
        "start_a_program",
        &[
            CREATE,
            SEND,
            &[
                ("unshare", "*", As), // counts the threads in /proc
                ("F_SETFD#1", "*", Fails("start a program")),
                ("F_SETFD#2", "*", As),  // the descriptor is closed
                ("clone", "ENOSYS", As), // the C library knows other calls
                ("clone", "*", Fails("start a program")),
            ],
        ],
    ),
    (
        "inherit_arguments",
        &[
            &[
                (
                    "F_GETFD#1",
                    "EBADF",
                    Says("nothing to inherit: WORMHOLE_FD="),
                ),
                ("F_GETFD#1", "*", Fails("look at an inherited descriptor")),
                (
                    "getsockopt#1",
                    "ENOTSOCK",
                    Says("nothing to inherit: WORMHOLE_FD="),
                ),
                (
                    "getsockopt#3",
                    "*",
                    Fails("look up which process has made an inherited descriptor"),
                ),
                (
                    "getsockopt#4",
                    "ENOTSOCK",
                    Says("descriptor is not an end of a channel"),
                ),
                (
                    "getpeername#1",
                    "ENOTCONN",
                    Says("nothing to inherit: WORMHOLE_FD="),
                ),
                // KERNEL: never, as the message is in the queue since before this program was started.
                (
                    "recvmsg",
                    "EAGAIN",
                    Says("nothing to inherit: the channel is empty"),
                ),
                (
                    "F_SETFD",
                    "*",
                    Fails("make an inherited descriptor close-on-exec"),
                ),
            ],
            ADOPT,
            RECEIVE,
        ],
    ),
];

/// Where two processes or a clock are at it, so that only the first call of each name is sure to come.
const TIMED: [&str; 11] = [
    "cancel_in_a_pool",
    "child_of_a_pool",
    "death_in_a_pool",
    "select_nothing",
    "send_to_a_full_channel",
    "send_beside_to_a_full_channel",
    "send_and_wait",
    "receive_nothing",
    "receive_no_descriptors",
    "receive_nothing_from_a_set",
    "accept_nobody",
];

pub(crate) fn names() -> BTreeSet<&'static str> {
    TABLE.iter().map(|(name, _)| *name).collect()
}

/// Runs a workload as often as there are calls of it that can fail, and errors that they can fail with.
pub(crate) fn check(workload: &str) {
    if !strace::is_there() {
        return;
    }
    let (_, rules) = TABLE.iter().find(|(name, _)| *name == workload).unwrap();
    let rules: Vec<Rule> = rules.iter().copied().flatten().copied().collect();
    let (usual, calls) = strace::record(workload);
    let is_child = workload.starts_with("child_");
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut surprises = Vec::new();
    let mut faults = 0;
    for call in &calls {
        let label = call.label.as_str();
        let count = seen.entry(label).or_default();
        *count += 1;
        if *count > 1 && TIMED.contains(&workload) {
            continue;
        }
        let one = format!("{label}#{count}");
        let everywhere: &[Rule] = if is_child { &[] } else { EVERYWHERE };
        let for_call: Vec<_> = rules
            .iter()
            .chain(everywhere)
            .filter(|(what, ..)| what.split('|').any(|what| what == label || what == one))
            .collect();
        if for_call.is_empty() {
            // What a child does besides is the affair of other workloads.
            if !OTHERS.contains(&label) && !is_child {
                surprises.push(format!("{workload}: a call that the table lacks: {one}"));
            }
            continue;
        }
        let Some((_, errors)) = ERRORS.iter().find(|(name, _)| *name == label) else {
            surprises.push(format!("{workload}: what can {label} fail with?"));
            continue;
        };
        let errors = errors.split(' ').chain(SANDBOX.split(' '));
        for errno in errors.filter(|errno| !errno.is_empty()) {
            let is_for =
                |errors: &str| errors == "*" || errors.split(' ').any(|name| name == errno);
            let rule = for_call.iter().find(|(_, errors, _)| is_for(errors));
            let Some(&&(_, _, then)) = rule else {
                surprises.push(format!("{workload}: no rule for {errno} of {one}"));
                continue;
            };
            let (expected, is_whole) = match then {
                Untried => continue,
                Says(text) => (text.to_owned(), false),
                As => (usual.clone(), true),
                Fails(operation) => (format!("cannot {operation}: {errno}"), true),
            };
            faults += 1;
            let inject = || strace::inject(workload, &call.name, errno, call.nth);
            // Where a clock is at it, the time may be over before the call comes. Then nothing was tried yet.
            let tries = if TIMED.contains(&workload) { 20 } else { 1 };
            let told = (0..tries).find_map(|_| inject());
            let told = told.unwrap_or_else(|| "never called".to_owned());
            if !(told == expected || !is_whole && told.starts_with(&expected)) {
                surprises.push(format!(
                    "{workload}: {errno} of {one}: {told}, not: {expected}"
                ));
            }
        }
    }
    for (what, ..) in &rules {
        let is_called = |what: &str| {
            let (label, nth) = what.split_once('#').unwrap_or((what, "1"));
            seen.get(label)
                .is_some_and(|&count| count >= nth.parse().unwrap())
        };
        if !what.split('|').any(is_called) {
            surprises.push(format!("{workload}: a rule for nothing: {what}"));
        }
    }
    println!("{workload}: {} calls, {faults} faults", calls.len());
    assert!(surprises.is_empty(), "\n{}", surprises.join("\n"));
}
