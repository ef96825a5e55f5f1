//! Listening at a name and connecting to it, across real processes.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt,
    send, socket, sockopt,
};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, chdir, getpid, setgid, setgroups, setuid};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use wormhole::{Error, Listener, Options, Sender, channel};

use crate::support::{
    DescriptorLimit, Forked, becomes_ready, forked, full_listener, in_own_process, interruptible,
    open_fds, packet, place, raw_send, until_asleep,
};

/// A name that no other test has, nor the same test in another run.
fn abstract_name() -> String {
    format!("\0wormhole test {}", getpid())
}

/// The reason of an [`Error::Address`], which must name the path.
#[track_caller]
fn refusal<T>(result: Result<T, Error>, path: &Path) -> io::Error {
    match result.map(drop) {
        Err(Error::Address {
            address, source, ..
        }) => {
            assert_eq!(Path::new(&address), path);
            source
        }
        other => panic!("{other:?}"),
    }
}

fn files(directory: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn raw_socket(kind: SockType) -> OwnedFd {
    socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// Leaves a socket file that nobody listens at, as a killed process does.
fn leave_stale(path: &Path) {
    let socket = raw_socket(SockType::SeqPacket);
    bind(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
}

fn skip_unless_root() -> bool {
    if !Uid::effective().is_root() {
        eprintln!("skipped: needs root");
    }
    !Uid::effective().is_root()
}

/// A child that is another user.
fn forked_as(id: u32, body: impl FnOnce()) -> Forked {
    forked(|| {
        setgroups(&[]).unwrap();
        setgid(Gid::from_raw(id + 1)).unwrap();
        setuid(Uid::from_raw(id)).unwrap();
        body();
    })
}

#[derive(Serialize, Deserialize)]
struct Job {
    client: usize,
    number: usize,
    text: String,
    #[serde(with = "wormhole::fd")]
    file: File,
    reply: Sender<(usize, usize)>,
}

#[test]
fn twenty_clients_at_once_deliver_every_message() {
    const CLIENTS: usize = 20;
    const MESSAGES: usize = 200;
    in_own_process(|| {
        let before = open_fds();
        let (directory, path) = place();
        let listener = Listener::<Job>::bind(&path).unwrap();
        let mut clients = Vec::new();
        for client in 0..CLIENTS {
            clients.push(forked(|| {
                let tx = Sender::<Job>::connect(&path).unwrap();
                for number in 0..MESSAGES {
                    let (reply, answer) = channel().unwrap();
                    let len = if number % 50 == 7 { 400_000 } else { number };
                    tx.send(Job {
                        client,
                        number,
                        text: "x".repeat(len),
                        file: File::open("/proc/self/stat").unwrap(),
                        reply,
                    })
                    .unwrap();
                    if number % 20 == 3 {
                        assert_eq!(answer.recv().unwrap(), (number, len));
                    }
                }
            }));
        }
        let accepted: Vec<_> = listener
            .incoming()
            .take(CLIENTS)
            .map(Result::unwrap)
            .collect();
        let mut served = BTreeSet::new();
        for (rx, peer) in accepted {
            let mut client = None;
            for (expected, job) in rx.iter().enumerate() {
                let job = job.unwrap();
                assert_eq!(job.number, expected);
                assert_eq!(*client.get_or_insert(job.client), job.client);
                let stat = io::read_to_string(job.file).unwrap();
                assert!(stat.starts_with(&format!("{} ", peer.pid.unwrap())));
                let _ = job.reply.send((job.number, job.text.len()));
                assert!(expected < MESSAGES);
            }
            let pid = i32::try_from(peer.pid.unwrap()).unwrap();
            assert_eq!(clients[client.unwrap()].pid.as_raw(), pid);
            assert_eq!(
                (peer.uid, peer.gid),
                (Uid::effective().as_raw(), Gid::effective().as_raw())
            );
            assert!(served.insert(client));
        }
        assert_eq!(served.len(), CLIENTS);
        clients.into_iter().for_each(Forked::join);
        drop(listener);
        assert!(files(&directory).is_empty());
        drop(directory);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_listener_that_is_inherited_shares_the_clients() {
    in_own_process(|| {
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let (report, reports) = channel::<u32>().unwrap();
        let servers: Vec<_> = (0..3)
            .map(|_| {
                forked(|| {
                    for client in &listener {
                        for number in client.unwrap().0 {
                            report.send(number.unwrap()).unwrap();
                        }
                    }
                })
            })
            .collect();
        for number in 0..300 {
            Sender::connect(&path).unwrap().send(number).unwrap();
        }
        let served: BTreeSet<u32> = reports.iter().map(Result::unwrap).take(300).collect();
        assert!(served.into_iter().eq(0..300));
        servers.into_iter().for_each(Forked::kill);
        // The last copy, whose process has bound it.
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    });
}

#[test]
fn the_kernel_says_who_connected() {
    in_own_process(|| {
        if skip_unless_root() {
            return;
        }
        let name = abstract_name();
        let listener = Listener::<u32>::bind(&name).unwrap();
        let clients: Vec<_> = [1000, 2000]
            .into_iter()
            .map(|uid| {
                let name = &name;
                forked_as(uid, move || {
                    let tx = Sender::<u32>::connect(name).unwrap();
                    tx.send(uid).unwrap();
                })
            })
            .collect();
        for _ in &clients {
            let (rx, peer) = listener.accept().unwrap();
            let uid = rx.recv().unwrap();
            assert_eq!((peer.uid, peer.gid), (uid, uid + 1));
            let pid = i32::try_from(peer.pid.unwrap()).unwrap();
            assert!(clients.iter().any(|client| client.pid.as_raw() == pid));
        }
        clients.into_iter().for_each(Forked::join);
    });
}

#[test]
fn a_peer_that_this_pid_namespace_cannot_see_has_no_pid() {
    in_own_process(|| {
        if skip_unless_root() {
            return;
        }
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let tx = Sender::<u32>::connect(&path).unwrap();
        tx.send(1).unwrap();
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        forked(|| {
            let (rx, peer) = listener.accept().unwrap();
            assert_eq!((peer.pid, peer.uid, peer.gid), (None, 0, 0));
            assert_eq!(rx.recv().unwrap(), 1);
        })
        .join();
    });
}

#[test]
fn the_socket_file_is_the_owners_alone() {
    in_own_process(|| {
        let (directory, path) = place();
        for mask in [0o000, 0o022, 0o077] {
            let old = umask(Mode::from_bits_retain(mask));
            let _listener = Listener::<u32>::bind(&path).unwrap();
            let file = fs::symlink_metadata(&path).unwrap();
            assert!(file.file_type().is_socket());
            assert_eq!(file.mode() & 0o7777, 0o600);
            assert_eq!(umask(old).bits(), mask);
        }
        if skip_unless_root() {
            return;
        }
        fs::set_permissions(&directory, PermissionsExt::from_mode(0o755)).unwrap();
        let _listener = Listener::<u32>::bind(&path).unwrap();
        forked_as(1000, || {
            let error = refusal(Sender::<u32>::connect(&path), &path);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
            // Neither is it taken for stale: to replace it takes a lock file, which this user cannot make.
            let lock = path.with_extension("wormhole-lock");
            let error = refusal(Listener::<u32>::bind(&path), &lock);
            assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        })
        .join();
        Sender::<u32>::connect(&path).unwrap();
    });
}

#[test]
fn dropping_the_listener_removes_its_file_only() {
    in_own_process(|| {
        let before = open_fds();
        let (directory, path) = place();
        drop(Listener::<u32>::bind(&path).unwrap());
        assert!(files(&directory).is_empty());

        // Somebody has put another one in its place meanwhile.
        let first = Listener::<u32>::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = Listener::<u32>::bind(&path).unwrap();
        drop(first);
        Sender::connect(&path).unwrap().send(1).unwrap();
        assert_eq!(second.accept().unwrap().0.recv().unwrap(), 1);
        fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(second);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        fs::remove_file(&path).unwrap();

        // A relative path, which means something else by then.
        chdir(directory.path()).unwrap();
        let listener = Listener::<u32>::bind("socket").unwrap();
        chdir("/").unwrap();
        drop(listener);
        assert!(!path.exists());
        drop(directory);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_forked_copy_does_not_remove_the_file() {
    in_own_process(|| {
        let (_directory, path) = place();
        let mut listener = Some(Listener::<u32>::bind(&path).unwrap());
        forked(|| drop(listener.take())).join();
        forked(|| ()).join(); // whose exit drops nothing
        assert!(path.exists());
        Sender::connect(&path).unwrap().send(1).unwrap();
        let (rx, _) = listener.as_ref().unwrap().accept().unwrap();
        assert_eq!(rx.recv().unwrap(), 1);

        if skip_unless_root() {
            return;
        }
        // Nor does one that has the same number, being the first of its namespace too.
        drop(listener.take());
        unshare(CloneFlags::CLONE_NEWPID).unwrap();
        forked(|| {
            listener = Some(Listener::bind(&path).unwrap());
            unshare(CloneFlags::CLONE_NEWPID).unwrap();
            let parent = getpid();
            forked(|| {
                assert_eq!(getpid(), parent);
                drop(listener.take());
            })
            .join();
            assert!(path.exists());
            drop(listener.take());
            assert!(!path.exists());
        })
        .join();
    });
}

#[test]
fn a_stale_file_is_replaced() {
    in_own_process(|| {
        let before = open_fds();
        let (directory, path) = place();
        let (ready, wait) = channel::<()>().unwrap();
        let killed = forked(|| {
            let _listener = Listener::<u32>::bind(&path).unwrap();
            ready.send(()).unwrap();
            loop {
                nix::unistd::pause();
            }
        });
        wait.recv().unwrap();
        killed.kill();
        assert!(path.exists());
        let error = refusal(Sender::<u32>::connect(&path), &path);
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);

        // What a process that was killed while it replaced another one has left.
        fs::write(directory.path().join("socket.wormhole-lock"), "").unwrap();
        let listener = Listener::<u32>::bind(&path).unwrap();
        assert_eq!(files(&directory), std::slice::from_ref(&path));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        Sender::connect(&path).unwrap().send(1).unwrap();
        assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 1);
        drop((listener, directory, ready, wait));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_lock_file_that_cannot_be_opened_is_named() {
    in_own_process(|| {
        let (_directory, path) = place();
        let error = {
            let listener = Listener::<u32>::bind(&path).unwrap();
            let copy = OwnedFd::try_from(listener).unwrap(); // which leaves the file, stale from now on
            drop(copy);
            let mut lock = path.clone().into_os_string();
            lock.push(".wormhole-lock");
            std::os::unix::fs::symlink("/dev/null", &lock).unwrap(); // a link is not followed
            Listener::<u32>::bind(&path).unwrap_err()
        };
        let text = format!(
            "cannot open the lock file `{}.wormhole-lock`",
            path.display()
        );
        assert_eq!(error.to_string(), text);
    });
}

#[test]
fn a_live_listener_is_not_replaced_and_not_disturbed() {
    in_own_process(|| {
        let (directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let before = open_fds();
        for _ in 0..3 {
            let result = Listener::<u32>::bind(&path);
            let error = result.as_ref().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("cannot listen at `{}`", path.display())
            );
            let source = error.source().unwrap().downcast_ref::<io::Error>();
            assert_eq!(source.unwrap().kind(), ErrorKind::AddrInUse);
            assert_eq!(refusal(result, &path).kind(), ErrorKind::AddrInUse);
        }
        assert_eq!(open_fds(), before);
        assert_eq!(files(&directory), std::slice::from_ref(&path));
        assert!(matches!(listener.try_accept(), Err(Error::Empty)));
        drop(listener);

        // Neither are those of other programs, whose queue may be full, or that do not listen yet.
        let in_use = || {
            let error = refusal(Listener::<u32>::bind(&path), &path);
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            fs::remove_file(&path).unwrap();
        };
        let (_full, _client) = full_listener(&path);
        in_use();
        let stream = UnixListener::bind(&path).unwrap();
        in_use();
        assert!(stream.set_nonblocking(true).is_ok() && stream.accept().is_err());
        for kind in [SockType::SeqPacket, SockType::Stream, SockType::Datagram] {
            let silent = raw_socket(kind);
            bind(silent.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
            in_use();
        }
    });
}

#[test]
fn a_file_that_is_not_a_socket_is_refused_and_left_alone() {
    in_own_process(|| {
        let (directory, path) = place();
        let other = directory.path().join("other");
        leave_stale(&other);
        let makers: [&dyn Fn(); 5] = [
            &|| fs::write(&path, "precious").unwrap(),
            &|| fs::create_dir(&path).unwrap(),
            &|| nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap(),
            &|| symlink(&other, &path).unwrap(),
            &|| symlink("/nowhere", &path).unwrap(),
        ];
        for make in makers {
            make();
            let id = |path| fs::symlink_metadata(path).unwrap().ino();
            let before = (id(&path), id(&other));
            let error = refusal(Listener::<u32>::bind(&path), &path);
            assert_eq!(error.kind(), ErrorKind::AlreadyExists);
            assert_eq!(error.to_string(), "a file that is not a socket is there");
            assert_eq!((id(&path), id(&other)), before);
            assert_eq!(files(&directory).len(), 2);
            fs::remove_file(&path)
                .or_else(|_| fs::remove_dir(&path))
                .unwrap();
        }
    });
}

#[test]
fn of_many_that_replace_a_stale_file_at_once_one_listens() {
    const RACERS: usize = 6;
    in_own_process(|| {
        let (directory, path) = place();
        let (report, reports) = channel::<bool>().unwrap();
        for _ in 0..200 {
            leave_stale(&path);
            // Who waits for a message that never comes starts when the sender is dropped.
            let (start, started) = channel::<()>().unwrap();
            let (stop, stopped) = channel::<()>().unwrap();
            let mut mine = Some((start, stop));
            let racers: Vec<_> = (0..RACERS)
                .map(|_| {
                    forked(|| {
                        mine = None;
                        let _ = started.recv();
                        let bound = Listener::<u32>::bind(&path);
                        if let Err(error) = &bound {
                            let kind = error.source().unwrap().downcast_ref::<io::Error>();
                            assert_eq!(kind.unwrap().kind(), ErrorKind::AddrInUse);
                        }
                        report.send(bound.is_ok()).unwrap();
                        let _ = stopped.recv();
                        if let Ok(listener) = bound {
                            let (rx, _) = listener.accept().unwrap();
                            assert_eq!(rx.recv().unwrap(), 5);
                        }
                    })
                })
                .collect();
            let (start, stop) = mine.take().unwrap();
            drop(start);
            let winners = (0..RACERS).filter(|_| reports.recv().unwrap()).count();
            assert_eq!(winners, 1);
            Sender::connect(&path).unwrap().send(5).unwrap();
            drop(stop);
            racers.into_iter().for_each(Forked::join);
            assert!(files(&directory).is_empty());
        }
    });
}

#[test]
fn clients_that_leave_are_accepted_and_disconnected() {
    in_own_process(|| {
        let before = open_fds();
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        forked(|| drop(Sender::<u32>::connect(&path).unwrap())).join();
        forked(|| {
            let tx = Sender::connect(&path).unwrap();
            tx.send(1).unwrap();
            tx.send(2).unwrap();
        })
        .join();
        let (silent, _) = listener.accept().unwrap();
        assert!(matches!(silent.recv(), Err(Error::Disconnected)));
        let (rx, _) = listener.accept().unwrap();
        assert!(rx.iter().map(Result::unwrap).eq([1, 2]));
        drop((silent, rx));

        // And those that nobody has accepted when the listener goes.
        let tx = Sender::connect(&path).unwrap();
        tx.send(1).unwrap();
        drop(listener);
        assert!(matches!(tx.send(2), Err(Error::Disconnected)));
        drop(tx);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn silent_clients_and_garbage_stop_nobody_else() {
    in_own_process(|| {
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let silent = Sender::<u32>::connect(&path).unwrap();
        let hostile = Sender::<u32>::connect(&path).unwrap();
        raw_send(&hostile, b"", &[]);
        raw_send(&hostile, b"garbage", &[silent.as_fd()]);
        raw_send(&hostile, &packet(b"\"text\""), &[]);
        let good = Sender::<u32>::connect(&path).unwrap();
        good.send(7).unwrap();

        let (from_silent, _) = listener.accept().unwrap();
        let (from_hostile, _) = listener.accept().unwrap();
        let (from_good, _) = listener.accept().unwrap();
        assert!(matches!(from_silent.try_recv(), Err(Error::Empty)));
        assert!(matches!(from_hostile.recv(), Err(Error::Malformed { .. })));
        assert!(matches!(from_hostile.recv(), Err(Error::Malformed { .. })));
        assert!(matches!(from_hostile.recv(), Err(Error::Decode { .. })));
        assert_eq!(from_good.recv().unwrap(), 7);
        hostile.send(8).unwrap();
        assert_eq!(from_hostile.recv().unwrap(), 8);
    });
}

#[test]
fn what_is_accepted_is_one_way_blocking_and_close_on_exec() {
    in_own_process(|| {
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let tx = Sender::<u32>::connect_timeout(&path, Duration::from_secs(60)).unwrap();
        let (rx, _) = listener.accept().unwrap();
        let backwards = send(rx.as_fd().as_raw_fd(), b"x", MsgFlags::MSG_NOSIGNAL);
        assert_eq!(backwards, Err(nix::Error::EPIPE));
        for fd in [tx.as_fd(), rx.as_fd(), listener.as_fd()] {
            let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
        }
        for fd in [tx.as_fd(), rx.as_fd()] {
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
            assert!(!flags.contains(OFlag::O_NONBLOCK));
            let timeout = getsockopt(&fd, sockopt::SendTimeout).unwrap();
            assert_eq!(timeout, nix::sys::time::TimeVal::new(0, 0));
        }
    });
}

#[test]
fn options_hold_for_both_sides_and_for_clones_of_the_listener() {
    in_own_process(|| {
        let (_directory, path) = place();
        let options = Options::new().max_message_len(4).buffer(4096);
        let listener = options.bind::<String>(&path).unwrap();
        for listener in [&listener, &listener.clone()] {
            let tx = options.connect::<String>(&path).unwrap();
            let text = "four".to_owned(); // and two quotes
            let error = tx.by_ref().send(&text).unwrap_err();
            assert!(matches!(error, Error::TooLarge { size: 6, limit: 4 }));
            assert!((0..50).any(|_| matches!(tx.try_send("x".to_owned()), Err(Error::Full))));

            let tx = Sender::<String>::connect(&path).unwrap();
            tx.send(text).unwrap();
            let (first, _) = listener.accept().unwrap();
            assert_eq!(first.recv().unwrap(), "x");
            let error = listener.accept().unwrap().0.recv().unwrap_err();
            assert!(matches!(error, Error::TooLarge { size: 6, limit: 4 }));
        }
    });
}

#[test]
fn out_of_descriptors_is_an_error_that_passes() {
    in_own_process(|| {
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        Sender::connect(&path).unwrap().send(3).unwrap();
        let before = open_fds();
        let limit = DescriptorLimit::new();
        for _ in 0..3 {
            match listener.accept() {
                Err(Error::Io { operation, source }) => {
                    assert_eq!(operation, "accept a client");
                    assert_eq!(source.raw_os_error(), Some(nix::libc::EMFILE));
                }
                other => panic!("{other:?}"),
            }
        }
        let error = refusal(Sender::<u32>::connect(&path), &path);
        assert_eq!(error.raw_os_error(), Some(nix::libc::EMFILE));
        let other = path.with_extension("other");
        let error = refusal(Listener::<u32>::bind(&other), &other);
        assert_eq!(error.raw_os_error(), Some(nix::libc::EMFILE));
        limit.leave_room_for(1);
        let (rx, _) = listener.accept().unwrap();
        assert_eq!(rx.recv().unwrap(), 3);
        drop((rx, limit));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_listener_can_be_polled() {
    in_own_process(|| {
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        assert!(!becomes_ready(&listener, PollFlags::POLLIN, Duration::ZERO));
        let client = forked(|| drop(Sender::<u32>::connect(&path).unwrap()));
        assert!(becomes_ready(
            &listener,
            PollFlags::POLLIN,
            crate::support::DEADLINE
        ));
        client.join();
        listener.try_accept().unwrap();
        assert!(matches!(listener.try_accept(), Err(Error::Empty)));
        assert!(!becomes_ready(&listener, PollFlags::POLLIN, Duration::ZERO));
    });
}

#[test]
fn accept_waits_and_signals_are_not_noticed() {
    in_own_process(|| {
        interruptible();
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let server = forked(|| {
            let (rx, _) = listener.accept().unwrap();
            assert_eq!(rx.recv().unwrap(), 5);
        });
        for _ in 0..300 {
            until_asleep(server.pid);
            kill(server.pid, Signal::SIGUSR1).unwrap();
        }
        Sender::connect(&path).unwrap().send(5).unwrap();
        server.join();

        let timeout = Duration::from_millis(50);
        let parent = getpid();
        let pest = forked(move || while kill(parent, Signal::SIGUSR1).is_ok() {});
        let start = Instant::now();
        assert!(matches!(
            listener.accept_timeout(timeout),
            Err(Error::TimedOut { .. })
        ));
        assert!(start.elapsed() >= timeout);
        pest.kill();
        let _tx = Sender::<u32>::connect(&path).unwrap();
        listener.accept_timeout(Duration::from_secs(60)).unwrap();
    });
}

#[test]
fn connecting_to_a_full_queue_times_out() {
    in_own_process(|| {
        interruptible();
        let (_directory, path) = place();
        let (listener, _first) = full_listener(&path);
        let mut listener = Some(listener);
        let before = open_fds();
        let connect = |timeout| Sender::<u32>::connect_timeout(&path, timeout);
        for timeout in [Duration::ZERO, Duration::from_millis(50)] {
            let start = Instant::now();
            assert!(matches!(connect(timeout), Err(Error::TimedOut { .. })));
            assert!(start.elapsed() >= timeout);
        }
        // Interrupted all the time, so a timeout that starts anew with each signal would never end.
        let parent = getpid();
        let pest = forked(move || while kill(parent, Signal::SIGUSR1).is_ok() {});
        for timeout in [Duration::ZERO, Duration::from_millis(50)] {
            assert!(matches!(connect(timeout), Err(Error::TimedOut { .. })));
        }
        pest.kill();
        assert_eq!(open_fds(), before);

        // Room is made for one that waits; another one is told that the listener is gone.
        let waits: [&dyn Fn() -> Result<Sender<u32>, Error>; 2] =
            [&|| Sender::connect(&path), &|| connect(Duration::MAX)];
        for wait in waits {
            let client = forked(|| wait().unwrap().send(1).unwrap());
            until_asleep(client.pid);
            kill(client.pid, Signal::SIGUSR1).unwrap();
            until_asleep(client.pid);
            let listener = listener.as_ref().unwrap().as_raw_fd();
            let accepted = accept4(listener, SockFlag::SOCK_CLOEXEC).unwrap();
            client.join();
            nix::unistd::close(accepted).unwrap();
        }
        let clients = waits.map(|wait| {
            forked(|| {
                listener = None; // or it is never gone
                let error = refusal(wait(), &path);
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            })
        });
        for client in &clients {
            until_asleep(client.pid);
        }
        drop(listener);
        clients.into_iter().for_each(Forked::join);
    });
}

#[test]
fn what_cannot_be_connected_to_is_named() {
    in_own_process(|| {
        let before = open_fds();
        let (directory, path) = place();
        let kind = |path: &Path| refusal(Sender::<u32>::connect(path), path).kind();
        assert_eq!(kind(&path), ErrorKind::NotFound);
        fs::write(&path, "").unwrap();
        assert_eq!(kind(&path), ErrorKind::ConnectionRefused);
        fs::remove_file(&path).unwrap();
        let stream = UnixListener::bind(&path).unwrap();
        let error = refusal(Sender::<u32>::connect(&path), &path);
        assert_eq!(error.raw_os_error(), Some(nix::libc::EPROTOTYPE));
        UnixStream::connect(&path).unwrap();
        drop((stream, directory));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn names_that_cannot_be_are_refused() {
    in_own_process(|| {
        let reason = |name: &str| {
            let reasons = [
                Listener::<u32>::bind(name).map(drop),
                Sender::<u32>::connect(name).map(drop),
            ]
            .map(|result| match result.unwrap_err() {
                Error::Address {
                    address, source, ..
                } => {
                    assert_eq!(
                        address,
                        name.replacen('\0', r"\0", usize::from(name.starts_with('\0')))
                    );
                    assert_eq!(source.kind(), ErrorKind::InvalidInput);
                    source.to_string()
                }
                error => panic!("{error:?}"),
            });
            assert_eq!(reasons[0], reasons[1]);
            let [reason, _] = reasons;
            reason
        };
        let long = "the name of a socket has at most 107 bytes, this one has 108";
        assert_eq!(reason(&"x".repeat(108)), long);
        assert_eq!(reason(&format!("\0{}", "x".repeat(108))), long);
        assert_eq!(reason(""), "the name of a socket cannot be empty");
        assert_eq!(reason("\0"), "the name of a socket cannot be empty");
        assert_eq!(reason("/tmp/x\0y"), "a path cannot contain NUL");

        let (directory, _) = place();
        chdir(directory.path()).unwrap();
        for name in ["x".repeat(107), format!("{:x<108}", abstract_name())] {
            let listener = Listener::<u32>::bind(&name).unwrap();
            Sender::connect(&name).unwrap().send(1).unwrap();
            assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 1);
        }
        assert!(files(&directory).is_empty());
    });
}

#[test]
fn an_abstract_name_has_no_file_and_vanishes_with_its_listener() {
    in_own_process(|| {
        let (directory, _) = place();
        chdir(directory.path()).unwrap();
        let name = &abstract_name();
        let listener = Listener::<u32>::bind(name).unwrap();
        assert!(files(&directory).is_empty());
        let shown = name.replace('\0', r"\0");
        let shown = Path::new(&shown);
        let error = refusal(Listener::<u32>::bind(name), shown);
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        Sender::connect(name).unwrap().send(1).unwrap();
        assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 1);
        drop(listener);
        let error = refusal(Sender::<u32>::connect(name), shown);
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        drop(Listener::<u32>::bind(name).unwrap());
    });
}

#[test]
fn a_foreign_client_needs_nothing_but_a_socket() {
    in_own_process(|| {
        let (_directory, path) = place();
        let listener = Listener::<u32>::bind(&path).unwrap();
        let client = raw_socket(SockType::SeqPacket);
        connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        raw_send(&client, &packet(b"17"), &[]);
        assert_eq!(listener.accept().unwrap().0.recv().unwrap(), 17);
    });
}
