"""Every system call that the C client makes, failing with every error that it can fail with.

Each operation of faults.c runs under strace, which makes one call of it fail. It must then give the error of that call,
or what the rules below say; that nothing is left over, faults.c itself checks. A call for which there are no errors below
is a failure as well.
"""

import errno
import os
import re
import subprocess
import sys
import tempfile

PROGRAM = sys.argv[1]
ONLY = sys.argv[2:]

# What a filter of system calls answers, so what every call can fail with.
SANDBOX = "EPERM EACCES ENOSYS"

# What else they can fail with: section 2 of the manual pages, and unix(7).
ERRORS = {
    "F_ADD_SEALS": "EBUSY EINVAL ENOMEM",
    "F_DUPFD_CLOEXEC": "EMFILE ENOMEM",
    "F_GETFD": "EBADF",
    "F_GETFL": "EBADF",
    "F_GET_SEALS": "EINVAL EBADF",
    "F_SETFD": "",
    "accept4": "EAGAIN EINTR ECONNABORTED EMFILE ENFILE ENOBUFS ENOMEM EPROTO",
    "bind": "EADDRINUSE EINVAL EINTR EIO ELOOP ENOENT ENOMEM ENOSPC ENOTDIR EDQUOT EROFS",
    "clone": "EAGAIN ENOMEM",
    "close": "EINTR EIO ENOSPC EDQUOT",
    "connect": "EAGAIN ECONNREFUSED EINTR ELOOP ENOENT ENOMEM ENOTDIR EPROTOTYPE",
    "fchmod": "EIO EROFS",
    "flock": "EAGAIN EINTR ENOLCK ENOMEM",
    "fstat": "EIO ENOMEM EOVERFLOW",
    "fstatfs": "EIO ENOMEM EOVERFLOW",
    "getcwd": "ENOENT ENOMEM",
    "getpeername": "ENOBUFS ENOTCONN",
    "getpid": None,
    "getsockopt": "ENOBUFS ENOPROTOOPT ENOTSOCK EOPNOTSUPP",
    "ioctl": "EINVAL ENOTTY",
    "listen": "EADDRINUSE EOPNOTSUPP",
    "lstat": "EIO ELOOP ENOENT ENOMEM ENOTDIR",
    "memfd_create": "EINVAL EMFILE ENFILE ENOMEM",
    "mmap": "EAGAIN ENFILE ENODEV ENOMEM",
    "open": "EDQUOT EINTR EIO ELOOP EMFILE ENFILE ENOENT ENOMEM ENOSPC ENOTDIR EROFS",
    "ppoll": "EINTR EINVAL ENOMEM",
    "pread64": "EBADF EINTR EIO ENOMEM",
    "prlimit64": "",
    "pwrite64": "EDQUOT EFBIG EINTR EIO ENOMEM ENOSPC",
    "readlink": "EIO ELOOP ENOENT ENOMEM ENOTDIR",
    "recvmsg": "EAGAIN EINTR ECONNRESET ENOBUFS ENOMEM",
    "sched_yield": None,
    "sendmsg": "EAGAIN EINTR EPIPE ECONNRESET ECONNREFUSED EMSGSIZE ENOBUFS ENOMEM ETOOMANYREFS",
    "sendto": "EAGAIN EINTR EPIPE ECONNRESET ECONNREFUSED EMSGSIZE ENOBUFS ENOMEM",
    "setsockopt": "ENOMEM",
    "shutdown": "ENOBUFS ENOTCONN",
    "socket": "EAFNOSUPPORT EMFILE ENFILE ENOBUFS ENOMEM",
    "socketpair": "EAFNOSUPPORT EMFILE ENFILE ENOBUFS ENOMEM EOPNOTSUPP",
    "unlink": "EBUSY EIO ENOENT ENOMEM EROFS",
}

# The allocator's and the C library's own, about which there is nothing to say.
OTHERS = {"brk", "munmap", "mremap", "madvise", "futex", "getrandom", "clock_gettime", "rt_sigprocmask", "rt_sigaction",
          "MAP_ANONYMOUS", "mprotect", "wait4", "exit_group", "write", "rt_sigreturn"}  # fmt: skip

AS = "as without a fault"
ITS = "the error of the call"

# An operation, or "*"; a call, with "#2" if only the second of its label in the operation is meant; its errors, or "*";
# what the operation gives. The first that matches holds, and without any it is the error of the call.
RULES = [
    ("*", "close", "*", AS),
    ("*", "sendto sendmsg", "EINTR EMSGSIZE", AS),
    ("take_a_foreign_sender", "sendto", "EPIPE", "EPROTOTYPE"),
    ("take_a_foreign_sender take_a_sender", "sendto", "*", AS),  # it only asks
    ("send_without_waiting", "sendto", "EAGAIN", "EAGAIN"),
    # One packet fits an empty channel at once: a foreign filter answers like that.
    ("hand_over start_a_program", "sendto sendmsg", "EAGAIN", "EAGAIN"),
    ("*", "sendto sendmsg", "EAGAIN", AS),
    ("*", "sendto sendmsg", "EPIPE ECONNRESET ECONNREFUSED", "EPIPE"),
    ("*", "sendto", SANDBOX, AS),  # by sendmsg
    ("start_a_program", "prlimit64", "*", AS),  # the C library's
    ("receive_the_end", "recvmsg", "EAGAIN", AS),
    ("inherit", "recvmsg", "EAGAIN", "ENOENT"),
    ("*", "recvmsg", "EAGAIN EINTR ECONNRESET", AS),
    ("receive_the_end", "ppoll ioctl", "*", AS),
    ("take_a_sender take_a_receiver take_a_foreign_sender inherit", "ppoll", "*", AS),
    ("accept_a_client", "ppoll", "*", AS),
    ("*", "ppoll", "EINTR", AS),
    ("receive_with_closed_streams", "F_DUPFD_CLOEXEC", "*", "EMFILE"),
    ("receive_long", "F_GET_SEALS", "EINVAL EBADF", "EBADMSG"),
    ("make_a_blob take_a_blob", "F_GET_SEALS", "EINVAL EBADF", "EINVAL"),
    ("*", "pread64 pwrite64", "EINTR", AS),
    ("*", "pread64", "EBADF", "EBADMSG"),
    ("listen_over_a_stale_file", "bind#2", "*", ITS),
    ("*", "bind", "EADDRINUSE", AS),  # and then nothing is found there
    ("listen_over_a_stale_file", "connect", "EINTR ECONNREFUSED ENOENT", AS),
    ("listen_over_a_stale_file", "connect", "EAGAIN EPROTOTYPE", "EADDRINUSE"),
    ("*", "connect", "EINTR EAGAIN", AS),
    ("*", "open", "EINTR", AS),
    ("*", "flock#2", "*", AS),
    ("*", "flock", "EINTR", AS),
    ("*", "flock", "EAGAIN", "EADDRINUSE"),
    ("listen_over_a_stale_file", "lstat#1", "ENOENT", "EADDRINUSE"),  # it is there all the same
    ("listen_over_a_stale_file", "unlink#1", "ENOENT", "EADDRINUSE"),  # likewise
    ("listen_over_a_stale_file", "unlink#2", "*", AS),
    ("close_a_listener", "getsockopt lstat unlink", "*", "EEXIST"),  # the file stays, and is stale
    ("*", "accept4", "EAGAIN EINTR ECONNABORTED", AS),
    ("inherit", "F_GETFD", "*", "ENOENT"),
    ("inherit", "getsockopt#1", "ENOTSOCK", "ENOENT"),
    ("inherit", "getsockopt", "ENOTSOCK", "ENOENT"),
    ("inherit", "getpeername", "ENOTCONN", "ENOENT"),
    ("start_a_program", "clone", "ENOSYS", AS),  # there are several calls of that kind
]  # fmt: skip


def run(operation, options):
    """What an operation gives under strace, and its calls."""
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        command = ["strace", "-qq", "-e", "signal=none", *options, "-o", trace, PROGRAM, operation, folder]
        # Without it what was freed counts as in use.
        environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
        # strace makes a call fail by leaving it out.
        if any("inject=close:" in option for option in options):
            environment["TEST_NOT_CLOSED"] = "1"
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        found = re.search(r"^outcome: (-?\d+)$", done.stdout, re.MULTILINE)
        if done.returncode or not found:
            raise AssertionError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        number = int(found.group(1))
        with open(trace) as file:
            return name_of(-number), file.read()


def name_of(number):
    # Two names of the same.
    return "EOPNOTSUPP" if number == errno.EOPNOTSUPP else errno.errorcode.get(number, str(number))


def label_of(name, arguments):
    if name == "fcntl":
        return re.search(r"F_\w+", arguments).group()
    if name == "newfstatat" or name == "statx":
        return "fstat" if "AT_EMPTY_PATH" in arguments else "lstat"
    if name == "mmap":
        return "MAP_ANONYMOUS" if "MAP_ANONYMOUS" in arguments else "mmap"
    same = {"openat": "open", "unlinkat": "unlink", "clone3": "clone", "vfork": "clone", "readlinkat": "readlink",
            "poll": "ppoll", "getrlimit": "prlimit64"}  # fmt: skip
    return same.get(name, name)


def calls_of(trace):
    """Each call between the two marks: its name, its number of that name in the process, its label, its number of that
    label in the operation."""
    marked = False
    numbers, labels, calls = {}, {}, []
    for line in trace.splitlines():
        found = re.match(r"(\w+)\((.*)", line)
        if not found:
            continue
        name, arguments = found.groups()
        if name == "getppid":
            marked = not marked
            continue
        numbers[name] = numbers.get(name, 0) + 1
        if marked:
            label = label_of(name, arguments)
            labels[label] = labels.get(label, 0) + 1
            calls.append((name, numbers[name], label, labels[label]))
    return calls


def expected(operation, label, number, error, without):
    for operations, calls, errors, then in RULES:
        if operations != "*" and operation not in operations.split():
            continue
        if label not in calls.split() and f"{label}#{number}" not in calls.split():
            continue
        if errors == "*" or error in errors.split():
            return without if then == AS else error if then == ITS else then
    return error


def main():
    names = subprocess.run([PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    faults, wrong = 0, []
    for operation in names:
        if ONLY and operation not in ONLY:
            continue
        without, trace = run(operation, [])
        calls = calls_of(trace)
        if not calls:
            wrong.append(f"{operation}: no calls")
        for name, nth, label, number in calls:
            if label in OTHERS:
                continue
            if label not in ERRORS:
                wrong.append(f"{operation}: {name} ({label}) is not in the table")
                continue
            if ERRORS[label] is None:
                continue
            for error in (SANDBOX + " " + ERRORS[label]).split():
                then = expected(operation, label, number, error, without)
                inject = ["-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={nth}"]
                try:
                    gave, trace = run(operation, inject)
                except (AssertionError, subprocess.TimeoutExpired) as failure:
                    wrong.append(f"{operation}: {label}#{number} {error}: {failure}")
                    continue
                faults += 1
                if "(INJECTED)" not in trace:
                    if operation == "send_to_a_full_channel":
                        continue  # how often it looks depends on the time
                    wrong.append(f"{operation}: {label}#{number} {error}: there was no such call")
                elif gave != then:
                    wrong.append(f"{operation}: {label}#{number} {error} gave {gave}, not {then}")
    print(f"faults: {faults} in {len(names)} operations, {len(wrong)} wrong")
    print("\n".join(wrong))
    sys.exit(bool(wrong))


main()
