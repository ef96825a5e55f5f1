//! `spawn_fresh`: a function in a fresh copy of the program, here of this test binary, under its ordinary harness with all
//! its threads.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::fstat;
use nix::sys::statvfs::{FsFlags, statvfs};
use serde::{Deserialize, Serialize};
use wormhole::process::{Builder, Failure};
use wormhole::{ChildEnd, Error, Receiver, Sender, channel, spawn_fresh};

use crate::support::{
    DEADLINE, Picky, in_own_process, open_fds, output_within, packet, pipe, raw_send,
};

fn end_of<R: std::fmt::Debug>(joined: Result<R, Error>) -> ChildEnd {
    match joined {
        Err(Error::Child { end, .. }) => end,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_fresh_child_runs_the_function_in_a_process_of_its_own() {
    let mut child = spawn_fresh((1, "two".to_owned()), |(one, two): (i32, String)| {
        (
            std::process::id(),
            std::os::unix::process::parent_id(),
            one,
            two,
        )
    })
    .unwrap();
    let pid = child.pid();
    let joined = child.join_timeout(DEADLINE).unwrap();
    assert_eq!(joined, (pid, std::process::id(), 1, "two".to_owned()));
    assert_eq!(end_of(child.join()), ChildEnd::Joined);
}

#[test]
fn fresh_children_start_from_many_threads_at_once() {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|thread: u32| {
                scope.spawn(move || {
                    for number in 0..10 {
                        let mut child =
                            spawn_fresh((thread, number), |(a, b): (u32, u32)| a * b).unwrap();
                        assert_eq!(child.join_timeout(DEADLINE).unwrap(), thread * number);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

#[test]
fn arguments_of_any_length_reach_a_fresh_child() {
    for len in [0, 200_000, 212_000, 300_000, 10_000_000] {
        let mut child = spawn_fresh("x".repeat(len), |text: String| text + "y").unwrap();
        assert_eq!(child.join_timeout(DEADLINE).unwrap().len(), len + 1);
    }
}

#[test]
fn a_fresh_child_ends_as_any_other() {
    type Case = (fn(()) -> u32, ChildEnd);
    let message = "no idea".to_owned();
    let cases: [Case; 4] = [
        (|()| panic!("no idea"), ChildEnd::Panicked { message }),
        (|()| std::process::exit(0), ChildEnd::Exited { code: 0 }),
        (|()| std::process::exit(7), ChildEnd::Exited { code: 7 }),
        (
            |()| {
                setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
                std::process::abort()
            },
            ChildEnd::Killed {
                signal: 6,
                core_dumped: false,
            },
        ),
    ];
    for (f, end) in cases {
        let mut child = spawn_fresh((), f).unwrap();
        assert_eq!(end_of(child.join_timeout(DEADLINE)), end);
    }
    fn fails(port: String) -> Result<u16, Failure> {
        let port = port.parse::<u16>();
        port.map_err(|error| Failure::from(error).context("no port"))
    }
    let mut child = spawn_fresh("x".to_owned(), fails).unwrap();
    let failure = child.join_timeout(DEADLINE).unwrap().unwrap_err();
    assert_eq!(
        failure.to_string(),
        "no port: invalid digit found in string"
    );
}

#[test]
fn arguments_that_cannot_be_decoded_are_an_error_that_says_so() {
    let mut child = spawn_fresh(Picky::undecodable(), |_: Picky| ()).unwrap();
    let ChildEnd::Undelivered { reason } = end_of(child.join_timeout(DEADLINE)) else {
        panic!()
    };
    assert!(reason.contains("cannot decode"), "{reason}");
    let error = spawn_fresh(BTreeMap::from([((1, 2), 3)]), |_| ()).unwrap_err();
    assert!(matches!(error, Error::Encode { .. }), "{error}");
}

#[derive(Serialize, Deserialize)]
struct Opened(#[serde(with = "wormhole::fd")] File);

#[test]
fn ends_and_descriptors_move_into_a_fresh_child_and_nothing_else_is_inherited() {
    in_own_process(|| {
        let before = open_fds();
        let (number, numbers) = channel::<u64>().unwrap();
        let (total, totals) = channel::<u64>().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"from the parent").unwrap();
        file.rewind().unwrap();
        let inherited = tempfile::tempfile().unwrap();
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        type Args = (Receiver<u64>, Sender<u64>, Opened);
        fn work((numbers, total, Opened(mut file)): Args) -> (String, Vec<RawFd>) {
            let open = open_fds().into_keys().collect();
            let sum: u64 = numbers.iter().map(Result::unwrap).sum();
            total.send(sum).unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            (text, open)
        }
        let child = spawn_fresh((numbers, total, Opened(file)), work).unwrap();
        for n in 1..=10 {
            number.send(n).unwrap();
        }
        drop(number);
        assert_eq!(totals.recv().unwrap(), 55);
        assert!(
            matches!(totals.recv(), Err(Error::Disconnected)),
            "a stray copy"
        );
        let (text, open) = child.join().unwrap();
        assert_eq!(text, "from the parent");
        // The streams, the arguments, and the sender of the result.
        assert_eq!(open.len(), 3 + 3 + 1, "{open:?}");
        drop((totals, inherited));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_fresh_child_starts_with_the_standard_streams_closed_and_with_few_descriptors() {
    in_own_process(|| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        for closed in [&[0][..], &[1], &[2], &[0, 1], &[0, 1, 2]] {
            // Another process, so that this one can still say what is wrong.
            let (tell, told) = channel::<String>().unwrap();
            let closed = closed.to_vec();
            let child = wormhole::spawn(
                (closed, tell),
                |(closed, tell): (Vec<RawFd>, Sender<String>)| {
                    for stream in closed {
                        nix::unistd::close(stream).unwrap();
                    }
                    let (reply, replies) = channel::<Vec<RawFd>>().unwrap();
                    let child = spawn_fresh(reply, |reply: Sender<Vec<RawFd>>| {
                        println!();
                        eprintln!();
                        let open: Vec<RawFd> = open_fds().into_keys().collect();
                        reply.send(open).unwrap();
                        reply.as_fd().as_raw_fd()
                    });
                    let mut child = child.unwrap();
                    let own = [replies.as_fd().as_raw_fd(), child.as_fd().as_raw_fd()];
                    let open = replies.recv().unwrap();
                    let end = child.join_timeout(DEADLINE).unwrap();
                    tell.send(format!("{open:?} {end} {own:?}")).unwrap();
                    let low = own.iter().any(|&number| number < 3) || end < 3;
                    let mine = open_fds();
                    let low_sockets = mine.range(..3).any(|(_, link)| link.starts_with("socket:"));
                    open.starts_with(&[0, 1, 2]) && !low && !low_sockets
                },
            );
            let good = child.unwrap().join();
            assert!(matches!(good, Ok(true)), "{good:?} {:?}", told.try_recv());
        }
    });
}

#[test]
fn what_a_fresh_child_prints_reaches_its_standard_output_and_its_exit_handlers_run() {
    extern "C" fn handler() {
        println!("handler");
    }
    fn prints(_: ()) {
        print!("rust ");
        std::io::stdout().flush().unwrap();
        // SAFETY: the handler may be called at any exit.
        #[allow(unsafe_code, reason = "C's own exit handlers")]
        unsafe {
            nix::libc::atexit(handler);
        }
        // SAFETY: the text ends with NUL, and asks for no arguments.
        #[allow(unsafe_code, reason = "C's own output")]
        unsafe {
            nix::libc::printf(c"c ".as_ptr());
        }
        print!("late ");
    }
    let (mut read, write) = pipe();
    let child = Builder::new()
        .stdout(write)
        .spawn_fresh((), prints)
        .unwrap();
    child.join().unwrap();
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    let words: Vec<_> = text.split_whitespace().collect();
    assert_eq!(words[0], "rust");
    for word in ["late", "c", "handler"] {
        assert_eq!(
            words.iter().filter(|said| **said == word).count(),
            1,
            "{text}"
        );
    }
    assert_eq!(words.len(), 4, "{text}");
}

#[test]
fn the_random_numbers_of_fresh_children_are_their_own() {
    let draw = |()| RandomState::new().hash_one(1);
    let mut drawn: Vec<u64> = (0..3)
        .map(|_| spawn_fresh((), draw).unwrap().join().unwrap())
        .collect();
    drawn.push(draw(()));
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 4);
}

#[test]
fn a_fresh_child_starts_fresh_children() {
    fn factorial(n: u64) -> u64 {
        match n {
            0 => 1,
            n => n * spawn_fresh(n - 1, factorial).unwrap().join().unwrap(),
        }
    }
    assert_eq!(factorial(4), 24);
    // And what it starts is not taken for one.
    let variable = spawn_fresh((), |()| std::env::var_os("WORMHOLE_FRESH").is_some());
    assert!(!variable.unwrap().join().unwrap());
}

#[test]
#[cfg_attr(
    target_feature = "crt-static",
    ignore = "a static program has its libraries in itself"
)]
fn a_function_of_a_library_is_refused() {
    // SAFETY: it is not called.
    #[allow(unsafe_code, reason = "a function of the C library as one of ours")]
    let function: fn(()) -> i32 = unsafe { std::mem::transmute(nix::libc::getpid as *const ()) };
    let (tx, rx) = channel::<()>().unwrap();
    let error = spawn_fresh((), function).unwrap_err();
    assert!(
        matches!(&error, Error::FreshCopy { reason } if reason.contains("of a library")),
        "{error}"
    );
    drop((tx, rx));
}

/// What this test binary does as a program of its own.
#[test]
fn program() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let own = std::env::current_exe().unwrap();
    fs::remove_file(&own).unwrap();
    fs::write(&own, "something else").unwrap();
    let child = spawn_fresh(20, |n: u32| n + 1).unwrap();
    println!("{SAYS}{}", child.join().unwrap());
}

const ROLE: &str = "TEST_FRESH_PROGRAM";
const SAYS: &str = "\nthe program says ";

/// A copy of this test binary.
///
/// Another process writes it: a child that a test beside this one forks meanwhile would hold this process's descriptor for
/// writing until it ends, and nothing starts a program that somebody may still write (`ETXTBSY`).
fn copy(directory: &tempfile::TempDir) -> std::path::PathBuf {
    let path = directory.path().join("copy");
    let mut command = Command::new("cp");
    command.arg(std::env::current_exe().unwrap()).arg(&path);
    let output = output_within(DEADLINE, command);
    assert!(output.status.success(), "{output:?}");
    path
}

#[test]
fn a_program_whose_file_was_replaced_starts_copies_of_what_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(copy(&directory));
    command
        .args(["fresh::program", "--exact", "--nocapture"])
        .env(ROLE, "1");
    let output = output_within(DEADLINE, command);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("{SAYS}21")), "{output:?}");
}

/// Runs this test binary as somebody would who takes it for a fresh copy, and gives its status and what it says.
fn taken_for_a_copy(
    path: &std::path::Path,
    variable: &str,
    stdin: Option<OwnedFd>,
) -> (i32, String) {
    let mut command = Command::new(path);
    command
        .args(["fresh::no_test_of_this_name", "--exact"])
        .env("WORMHOLE_FRESH", variable);
    command.stdin(stdin.map_or(Stdio::null(), Stdio::from));
    let output = output_within(DEADLINE, command);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code().unwrap(),
        String::from_utf8(text).unwrap(),
    )
}

#[test]
fn the_variable_set_by_hand_does_nothing() {
    let own = std::env::current_exe().unwrap();
    let (_tx, rx) = channel::<u8>().unwrap();
    let rx = OwnedFd::try_from(rx).unwrap();
    let null = File::open("/dev/null").unwrap();
    let inode = null.metadata().unwrap().ino().to_string();
    for (variable, stdin) in [
        ("", None),
        ("1", None),
        ("x", Some(rx.try_clone().unwrap())),
        ("1", Some(rx)),
        (&*inode, Some(null.into())),
    ] {
        let (status, text) = taken_for_a_copy(&own, variable, stdin);
        assert_eq!(status, 0, "{text}");
        assert!(text.contains("0 passed"), "{text}");
    }
}

#[test]
fn a_message_of_somebody_else_is_refused_and_main_does_not_run() {
    let own = std::env::current_exe().unwrap();
    let hello = |program: &str| format!("[{program:?},64,64,null,null,[false,false,null],1]");
    let too_much_in_it = (0..1000).map(|_| '[').collect::<String>();
    for (message, reason) in [
        (Some(hello("build 0123")), "another program"),
        (Some("[]".to_owned()), "cannot decode"),
        (Some(too_much_in_it), "cannot decode"),
        (None, "disconnected"),
    ] {
        let (tx, rx) = channel::<u8>().unwrap();
        if let Some(message) = message {
            raw_send(&tx, &packet(message.as_bytes()), &[]);
        }
        drop(tx);
        let inode = fstat(&rx).unwrap().st_ino.to_string();
        let (status, text) = taken_for_a_copy(&own, &inode, Some(rx.try_into().unwrap()));
        assert_eq!(status, 125, "{text}");
        assert!(text.contains(reason) && !text.contains("passed"), "{text}");
    }
}

#[test]
fn a_program_with_more_rights_than_its_user_is_no_copy() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can make a program of another user");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let flags = statvfs(directory.path()).unwrap().flags();
    if flags.contains(FsFlags::ST_NOSUID) || nix::sys::prctl::get_no_new_privs().unwrap() {
        eprintln!("skipped: no program gets more rights here");
        return;
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = copy(&directory);
    chown(&path, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6755)).unwrap();
    let (tx, rx) = channel::<u8>().unwrap();
    tx.send(1).unwrap();
    let inode = fstat(&rx).unwrap().st_ino.to_string();
    let (status, text) = taken_for_a_copy(&path, &inode, Some(rx.try_into().unwrap()));
    assert_eq!(status, 125, "{text}");
    assert!(text.contains("more rights"), "{text}");
}

/// The dynamic loader that has loaded this program, if one has.
fn loader() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let files = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let mut loaders = files.filter(|file| file.contains("/ld-"));
    loaders.next().map(str::to_owned)
}

#[test]
fn a_program_that_was_named_to_the_loader_starts_no_copies() {
    if std::env::var_os("WORMHOLE_TEST_LOADER").is_some() {
        let error = spawn_fresh((), |()| ()).unwrap_err().to_string();
        assert!(error.contains("naming it to the dynamic loader"), "{error}");
        return;
    }
    let Some(loader) = loader() else {
        eprintln!("skipped: this program was loaded by the kernel alone");
        return;
    };
    let mut command = Command::new(loader);
    command
        .arg(std::env::current_exe().unwrap())
        .arg("fresh::a_program_that_was_named_to_the_loader_starts_no_copies")
        .arg("--exact")
        .env("WORMHOLE_TEST_LOADER", "1");
    let output = output_within(DEADLINE, command);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
