//! What a message costs, and a process: allocations, system calls, copies of memory, dependencies.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "tokio")]
mod awaited;
mod pools;
// Where seccompiler knows filters.
#[cfg(any(
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "x86_64"
))]
mod starting;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use nix::libc::c_long;
#[cfg(not(target_arch = "x86"))]
use nix::libc::{SYS_recvmsg, SYS_sendmsg, SYS_sendto};
// There all calls of sockets are one.
#[cfg(target_arch = "x86")]
use nix::libc::{
    SYS_socketcall as SYS_recvmsg, SYS_socketcall as SYS_sendmsg, SYS_socketcall as SYS_sendto,
};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wormhole::{Options, ReceiverSet, Sender, channel, select};

use support::{forked, in_own_process, output_within, written_text};

wormhole::init_tests!();

/// Counts the allocations of each thread, and their bytes.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(size: usize) {
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(size)));
    hold(size, 0);
}

fn hold(more: usize, less: usize) {
    let _ = HELD.try_with(|held| held.set(held.get() + more as isize - less as isize));
}

// SAFETY: all work is the system allocator's.
#[allow(unsafe_code, reason = "counting allocations takes an allocator")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        hold(0, layout.size());
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(0, layout.size());
        // SAFETY: the caller's promises are the system allocator's demands.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(work: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn a_message_allocates_only_what_its_value_owns() {
    let (tx, rx) = channel::<(u32, [f64; 4])>().unwrap();
    let message = (7, [0.25; 4]);
    let there_and_back = || {
        tx.send(message).unwrap();
        tx.try_send(message).unwrap();
        tx.send_timeout(message, Duration::from_secs(1)).unwrap();
        assert_eq!(rx.recv().unwrap(), message);
        assert_eq!(rx.try_recv().unwrap(), message);
        let (received, fds) = rx.recv_with_fds().unwrap();
        assert_eq!((received, fds.len()), (message, 0));
        assert!(rx.try_recv().is_err());
    };
    there_and_back(); // the thread's buffers
    assert_eq!(allocations(there_and_back), 0);

    let (tx, rx) = channel::<(String, String)>().unwrap();
    for len in [1, 100_000, 500_000] {
        let message = ("x".repeat(len), "y".repeat(len));
        let there_and_back = || {
            tx.by_ref().send(&message).unwrap();
            rx.recv().unwrap();
        };
        there_and_back();
        assert_eq!(allocations(there_and_back), 2, "two strings of {len}");
    }
}

#[test]
fn a_message_with_descriptors_allocates_only_what_its_value_owns() {
    #[derive(Serialize, Deserialize)]
    struct Fd(#[serde(with = "wormhole::fd")] File);
    let (tx, rx) = channel::<[Fd; 3]>().unwrap();
    let null = || Fd(File::open("/dev/null").unwrap());
    let message = [null(), null(), null()];
    let there_and_back = || {
        tx.by_ref().send(&message).unwrap();
        rx.recv().unwrap();
        tx.by_ref().send_with_fds(&message, &[tx.as_fd()]).unwrap();
        let (_, fds) = rx.recv_with_fds().unwrap();
        assert_eq!(fds.len(), 1);
    };
    there_and_back();
    assert_eq!(allocations(there_and_back), 1); // the list that is returned

    // A channel end owns one allocation, which its clones share.
    let (tx, rx) = channel::<Sender<u8>>().unwrap();
    let (inner, _answers) = channel::<u8>().unwrap();
    let there_and_back = || {
        tx.by_ref().send(&inner).unwrap();
        rx.recv().unwrap();
    };
    there_and_back();
    assert_eq!(allocations(there_and_back), 1);
}

#[test]
fn the_memory_of_a_long_message_is_given_back() {
    let (tx, rx) = channel::<Box<RawValue>>().unwrap();
    tx.send(written_text(2)).unwrap();
    rx.recv().unwrap();
    let before = HELD.get();
    let held_after = |len: usize| {
        tx.send(written_text(len)).unwrap();
        assert_eq!(rx.recv().unwrap().get().len(), len);
        HELD.get() - before
    };
    // One leaves nothing behind, and neither do several that are too long to keep memory for.
    for len in [5_000_000, 10, 9_000_000, 10, 34_000_000, 34_000_000] {
        assert!(held_after(len) < 100_000, "{len}");
    }
    assert!(held_after(10) < 100_000);
    // Between two that come one after the other it is kept, for both ways, until a short one comes.
    assert!(held_after(9_000_000) < 100_000);
    for _ in 0..3 {
        let kept = held_after(9_000_000);
        assert!((18_000_000..50_000_000).contains(&kept), "{kept}");
    }
    assert!(held_after(10) < 100_000);
    // What is kept for the next message of the kind: a text on its way out, and one on its way in.
    tx.send(written_text(1_000_000)).unwrap();
    rx.recv().unwrap();
    let kept = HELD.get() - before;
    assert!((2_000_000..4_000_000).contains(&kept), "{kept}");
}

#[test]
fn a_length_that_lies_costs_no_memory() {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    let (tx, rx) = channel::<String>().unwrap();
    let before = HELD.get();
    let length = 64 << 20;
    let small = memfd_create(c"small", MFdFlags::MFD_CLOEXEC).unwrap();
    let null = File::open("/dev/null").unwrap();
    let (_, pipe) = support::pipe();
    LARGEST.set(0);
    for fds in [
        &[][..],
        &[null.as_fd()],
        &[pipe.as_fd()],
        &[tx.as_fd()],
        &[small.as_fd()],
    ] {
        support::raw_send(&tx, &support::packet_of_length(length, b"\""), fds);
        let error = rx.recv().unwrap_err();
        assert!(
            matches!(error, wormhole::Error::Malformed { .. }),
            "{error}"
        );
    }
    // The buffer of a thread that receives.
    assert_eq!(LARGEST.get(), 256 << 10);
    assert!(HELD.get() - before < 300_000);
}

/// Whether a process may trace its children here. Some containers do not let it.
fn may_trace() -> bool {
    let child = forked(|| {
        if ptrace::traceme().is_err() {
            std::process::exit(1);
        }
    });
    let may = waitpid(child.pid, None).unwrap() == WaitStatus::Exited(child.pid, 0);
    if !may {
        eprintln!("skipped: ptrace is denied");
    }
    may
}

/// The system call that a traced process is about to make, if it is not on its way out of one.
// Not all C libraries have the types that nix needs for this.
fn entered(pid: Pid) -> Option<c_long> {
    const PTRACE_GET_SYSCALL_INFO: u32 = 0x420e;
    const ENTRY: u8 = 1;
    // ptrace(2): `op` is the first byte; after the architecture, the instruction and the stack pointer comes `nr`.
    let mut info = [0_u64; 16];
    // SAFETY: the kernel writes no more than these bytes.
    #[allow(unsafe_code, reason = "ptrace takes pointers")]
    let written = unsafe {
        let request = PTRACE_GET_SYSCALL_INFO as _;
        nix::libc::ptrace(request, pid.as_raw(), size_of_val(&info), info.as_mut_ptr())
    };
    assert!(written > 0, "{}", nix::Error::last());
    let is_entry = info[0].to_ne_bytes()[0] == ENTRY;
    is_entry.then(|| c_long::try_from(info[3]).unwrap())
}

/// The system calls that `work` makes, by number. It runs in a child under ptrace, between two calls of
/// getppid, after a first round that is not counted.
fn system_calls(work: impl Fn()) -> Vec<c_long> {
    let child = forked(|| {
        work();
        ptrace::traceme().unwrap();
        raise(Signal::SIGSTOP).unwrap();
        getppid();
        work();
        getppid();
    });
    waitpid(child.pid, None).unwrap(); // stopped by itself
    let options = ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(child.pid, options).unwrap();
    let mut calls = Vec::new();
    loop {
        ptrace::syscall(child.pid, None).unwrap();
        match waitpid(child.pid, None).unwrap() {
            WaitStatus::PtraceSyscall(pid) => {
                calls.extend(entered(pid));
            }
            WaitStatus::Exited(_, status) => {
                assert_eq!(status, 0);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    // Reading the clock takes a system call only on machines whose clock the vDSO cannot read.
    calls.retain(|&call| call != nix::libc::SYS_clock_gettime);
    let mut rounds = calls.split(|&call| call == nix::libc::SYS_getppid);
    rounds.nth(1).expect("two calls of getppid").to_vec()
}

#[test]
fn a_small_send_and_a_receive_of_a_waiting_message_are_one_system_call_each() {
    in_own_process(|| {
        if !may_trace() {
            return;
        }
        let (tx, rx) = channel::<(u32, String)>().unwrap();
        let message = |len| (7, "x".repeat(len));
        assert_eq!(system_calls(|| tx.send(message(3)).unwrap()), [SYS_sendto]);
        while rx.try_recv().is_ok() {}
        assert_eq!(
            system_calls(|| {
                tx.try_send(message(0)).unwrap();
                tx.send_timeout(message(0), Duration::from_secs(9)).unwrap();
                tx.send(message(100_000)).unwrap();
                for _ in 0..3 {
                    rx.recv().unwrap();
                }
            }),
            [
                SYS_sendto,
                SYS_sendto,
                SYS_sendto,
                SYS_recvmsg,
                SYS_recvmsg,
                SYS_recvmsg
            ]
        );
        assert_eq!(
            system_calls(|| assert!(rx.try_recv().is_err())),
            [SYS_recvmsg]
        );
        assert_eq!(
            system_calls(|| {
                tx.send_with_fds(message(3), &[tx.as_fd()]).unwrap();
                tx.send(message(3)).unwrap();
                std::mem::forget(rx.recv_with_fds().unwrap()); // to close it is the user's affair
                rx.recv_timeout(Duration::from_secs(9)).unwrap();
            }),
            [SYS_sendmsg, SYS_sendto, SYS_recvmsg, SYS_recvmsg]
        );
        assert!(system_calls(|| drop((tx.clone(), rx.clone()))).is_empty());
    });
}

/// Whether that process sleeps in the kernel. One that a tracer has stopped does not.
fn is_asleep(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().starts_with('S')
}

#[test]
fn a_receive_whose_message_comes_late_sleeps_at_once() {
    const MESSAGES: u32 = 80;
    in_own_process(|| {
        if !may_trace() {
            return;
        }
        // No answer is quick with that limit, whatever the machine does.
        let options = Options::new().spin(Duration::from_nanos(1));
        let (tx, rx) = options.channel::<u32>().unwrap();
        let (waits, waiting) = channel::<u32>().unwrap();
        let sender = forked(|| {
            while let Ok(pid) = waiting.recv() {
                for n in 0..MESSAGES {
                    while !is_asleep(pid) {
                        std::thread::yield_now();
                    }
                    tx.send(n).unwrap();
                }
            }
        });
        let calls = system_calls(|| {
            waits.send(std::process::id()).unwrap();
            for n in 0..MESSAGES {
                assert_eq!(rx.recv().unwrap(), n);
            }
        });
        let receives = calls.iter().filter(|&&call| call == SYS_recvmsg);
        let receives = u32::try_from(receives.count()).unwrap();
        // One wait of eight is measured, which takes a look before it.
        let (least, most) = (MESSAGES, MESSAGES + MESSAGES / 8 + 1);
        assert!((least..=most).contains(&receives), "{receives} calls");
        sender.kill();
    });
}

#[test]
fn waiting_for_one_of_two_is_one_system_call_more() {
    use nix::libc::SYS_ppoll;
    in_own_process(|| {
        if !may_trace() {
            return;
        }
        let (tx, rx) = channel::<u32>().unwrap();
        let (_tx2, rx2) = channel::<u32>().unwrap();
        let calls = system_calls(|| {
            tx.send(1).unwrap();
            select! {
                recv(rx2) -> _ => unreachable!(),
                recv(rx) -> message => assert_eq!(message.unwrap(), 1),
            }
            select! {
                recv(rx2) -> _ => unreachable!(),
                send(tx, 1) -> sent => sent.unwrap(),
            }
            let mut set = ReceiverSet::new().unwrap();
            set.add(rx.clone()).unwrap();
            set.recv().unwrap().1.unwrap();
            std::mem::forget(set);
        });
        let calls: Vec<_> = calls
            .into_iter()
            .filter(|call| ![nix::libc::SYS_epoll_create1, nix::libc::SYS_epoll_ctl].contains(call))
            .collect();
        assert_eq!(
            calls,
            [
                SYS_sendto,
                SYS_ppoll,
                SYS_recvmsg,
                SYS_ppoll,
                SYS_sendto,
                nix::libc::SYS_epoll_pwait,
                SYS_recvmsg
            ]
        );
    });
}

#[test]
fn the_library_needs_serde_serde_json_rustix_libc_and_what_they_need() {
    let mut tree = Command::new(env!("CARGO"));
    tree.args([
        "tree",
        "--offline",
        "--edges",
        "normal,build",
        "--prefix",
        "none",
    ])
    .args(["--package", "wormhole-rs", "--format", "{p}"])
    .current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = output_within(support::DEADLINE, tree);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let names: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let expected = [
        "bitflags",
        "itoa",
        "libc",
        "linux-raw-sys",
        "memchr",
        "rustix",
        "serde",
        "serde_core",
        "serde_json",
        "wormhole-rs",
        "zmij",
    ];
    assert_eq!(names, BTreeSet::from(expected));
}
