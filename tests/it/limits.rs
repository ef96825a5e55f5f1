//! Sizes: of messages, packets and buffers.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Uid;
use serde_json::value::RawValue;
use wormhole::{Error, Options, Pool, Receiver, Sender, channel, spawn, spawn_fresh};

use crate::support::{in_own_process, open_fds, packet, packet_of_length, raw_send, written_text};

fn text(json_len: usize) -> String {
    "x".repeat(json_len - 2) // its quotes
}

/// The longest JSON text that fits into one packet of a channel.
fn inline_limit(socket: impl AsFd) -> usize {
    let buffer = getsockopt(&socket.as_fd(), sockopt::SndBuf).unwrap();
    (buffer - 32).min(256 * 1024) - 8
}

#[test]
fn a_message_fills_the_packet_to_the_last_byte() {
    in_own_process(|| {
        for options in [
            Options::new(),
            Options::new().buffer(1),
            Options::new().buffer(20_000),
            Options::new().buffer(200_000),
        ] {
            let (tx, rx) = options.channel::<String>().unwrap();
            let limit = inline_limit(&tx);
            // Without memfds: a message that fits needs none, one that does not says what it needs.
            let (soft, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_FSIZE).unwrap();
            setrlimit(Resource::RLIMIT_FSIZE, 0, hard).unwrap();
            for len in [2, limit - 1, limit] {
                tx.send(text(len)).unwrap();
                assert_eq!(rx.recv().unwrap(), text(len));
            }
            let error = tx.send(text(limit + 1)).unwrap_err();
            assert_eq!(error.to_string(), "cannot put a long message into a memfd");
            setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
            for len in [limit + 1, limit + 2, 2 * limit, 3 * limit + 5] {
                tx.send(text(len)).unwrap();
                assert_eq!(rx.recv().unwrap(), text(len));
            }
        }
    });
}

#[test]
fn a_file_size_limit_is_an_error_and_no_signal() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let before = open_fds();
        setrlimit(Resource::RLIMIT_FSIZE, 1000, 1000).unwrap();
        let error = tx.send(text(1_000_000)).unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. }
            if source.kind() == std::io::ErrorKind::FileTooLarge));
        assert_eq!(open_fds(), before);
        tx.send(text(10)).unwrap();
        assert_eq!(rx.recv().unwrap(), text(10));
    });
}

#[test]
fn long_messages_come_whole_with_their_descriptors() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let before = open_fds();
        let fds = vec![tx.as_fd(); 252];
        for len in [1_000_000, 10_000_000, 300_000] {
            tx.send_with_fds(text(len), &fds).unwrap();
            let (message, received) = rx.recv_with_fds().unwrap();
            assert!(message == text(len));
            assert_eq!(received.len(), 252);
        }
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn the_memfds_of_long_messages_and_blobs_are_close_on_exec() {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    in_own_process(|| {
        let (tx, _rx) = channel::<String>().unwrap();
        while tx.try_send(text(1000)).is_ok() {}
        let mut select = wormhole::Select::new();
        select.send(&tx, text(1_000_000));
        // There is no room, so it waits with its memfd to be tried again.
        assert!(select.try_select().unwrap().is_none());
        let _made = wormhole::Blob::from_bytes(b"some").unwrap();
        let _built = wormhole::Blob::build(4, |_| ()).unwrap();
        let memfds: Vec<_> = open_fds()
            .into_iter()
            .filter(|(_, what)| what.starts_with("/memfd:wormhole"))
            .collect();
        assert_eq!(memfds.len(), 3, "{memfds:?}");
        for (number, _) in memfds {
            // SAFETY: it is open for as long as its owners above live.
            #[allow(unsafe_code, reason = "the list of descriptors has numbers")]
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
            let flags = FdFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFD).unwrap());
            assert!(flags.contains(FdFlag::FD_CLOEXEC));
        }
    });
}

#[test]
fn a_long_message_has_room_for_one_descriptor_less() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let fds = vec![tx.as_fd(); 253];
        let error = tx.send_with_fds(text(1_000_000), &fds).unwrap_err();
        assert!(matches!(
            error,
            Error::TooManyFds {
                count: 254,
                limit: 253
            }
        ));
        tx.send_with_fds(text(10), &fds).unwrap();
        assert_eq!(rx.recv_with_fds().unwrap().1.len(), 253);
    });
}

#[test]
fn the_limit_is_exact_on_both_sides() {
    in_own_process(|| {
        let (tx, rx) = Options::new()
            .max_message_len(100)
            .channel::<String>()
            .unwrap();
        tx.send(text(100)).unwrap();
        assert_eq!(rx.recv().unwrap(), text(100));
        let error = tx.send(text(101)).unwrap_err();
        assert!(matches!(
            error,
            Error::TooLarge {
                size: 101,
                limit: 100
            }
        ));

        let generous =
            Sender::<String>::try_from(tx.as_fd().try_clone_to_owned().unwrap()).unwrap();
        generous.send(text(101)).unwrap();
        generous.send(text(1_000_000)).unwrap();
        assert!(matches!(
            rx.recv(),
            Err(Error::TooLarge {
                size: 101,
                limit: 100
            })
        ));
        assert!(matches!(
            rx.recv(),
            Err(Error::TooLarge {
                size: 1_000_000,
                limit: 100
            })
        ));
        tx.send(text(3)).unwrap();
        assert_eq!(rx.recv().unwrap(), "x");
    });
}

#[test]
fn the_default_limit_is_64_mib() {
    in_own_process(|| {
        const LIMIT: usize = 64 << 20;
        let (tx, rx) = channel::<Box<RawValue>>().unwrap();
        tx.send(written_text(LIMIT)).unwrap();
        assert_eq!(rx.recv().unwrap().get().len(), LIMIT);
        let error = tx.send(written_text(LIMIT + 1)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "message of 67108865 bytes is longer than the limit of 67108864 bytes"
        );
    });
}

#[test]
fn a_spilled_message_fills_the_channel_by_itself() {
    in_own_process(|| {
        let (tx, rx) = Options::new().buffer(100_000).channel::<String>().unwrap();
        tx.send(text(1_000_000)).unwrap();
        assert!(matches!(tx.try_send(text(1_000_000)), Err(Error::Full)));
        assert_eq!(rx.recv().unwrap(), text(1_000_000));
        tx.try_send(text(1_000_000)).unwrap();
    });
}

#[test]
fn the_limit_goes_with_clones_and_is_the_default_for_ends_from_elsewhere() {
    in_own_process(|| {
        let (tx, rx) = Options::new()
            .max_message_len(100)
            .channel::<Box<RawValue>>()
            .unwrap();
        let (clone_tx, clone_rx) = (tx.clone(), rx.clone());
        let too_large = |error| matches!(error, Error::TooLarge { limit: 100, .. });
        assert!(too_large(clone_tx.send(written_text(101)).unwrap_err()));
        let generous =
            || Sender::<Box<RawValue>>::try_from(tx.as_fd().try_clone_to_owned().unwrap());
        generous().unwrap().send(written_text(101)).unwrap();
        assert!(too_large(clone_rx.recv().unwrap_err()));

        let beyond = (64 << 20) + 1;
        let default = |error| {
            matches!(
                error,
                Error::TooLarge {
                    limit: 67_108_864,
                    ..
                }
            )
        };
        assert!(default(
            generous().unwrap().send(written_text(beyond)).unwrap_err()
        ));
        let (carry, carried) = channel::<Receiver<Box<RawValue>>>().unwrap();
        carry.by_ref().send(&rx).unwrap();
        let packet = packet_of_length(beyond as u64, b"");
        let adopted = Receiver::<Box<RawValue>>::try_from(rx.as_fd().try_clone_to_owned().unwrap());
        for rx in [adopted.unwrap(), carried.recv().unwrap()] {
            raw_send(&tx, &packet, &[]);
            assert!(default(rx.recv().unwrap_err()));
        }
    });
}

#[test]
fn the_buffer_is_what_was_asked_for() {
    in_own_process(|| {
        let (tx, _rx) = Options::new().buffer(50_000).channel::<()>().unwrap();
        // KERNEL: socket(7): it doubles the number, for its own bookkeeping.
        assert_eq!(getsockopt(&tx.as_fd(), sockopt::SndBuf).unwrap(), 100_000);

        let Ok(most) = std::fs::read_to_string("/proc/sys/net/core/wmem_max") else {
            eprintln!("skipped: in this network namespace the limit is not shown");
            return;
        };
        let most: usize = most.trim().parse().unwrap();
        Options::new().buffer(most).channel::<()>().unwrap();
        let error = Options::new().buffer(most + 1).channel::<()>().unwrap_err();
        let Error::Io { source, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(
            source.to_string(),
            format!(
                "{} bytes asked for, net.core.wmem_max of this machine allows {most}",
                most + 1
            )
        );
    });
}

#[test]
fn a_buffer_that_another_process_shrinks_is_noticed() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        nix::sys::socket::setsockopt(&tx.as_fd(), sockopt::SndBuf, &2304).unwrap();
        for len in [10, 5_000, 100_000] {
            tx.send(text(len)).unwrap();
            assert_eq!(rx.recv().unwrap(), text(len));
        }
    });
}

fn too_deep<T>(result: Result<T, impl std::fmt::Display>) -> bool {
    let error = result.err().map(|error| format!("{error:#}"));
    error.is_some_and(|error| error.contains("nests deeper than 127 levels"))
}

#[test]
fn a_message_may_nest_127_levels_deep() {
    in_own_process(|| {
        let (tx, rx) = channel::<Nest>().unwrap();
        for levels in [128, 500] {
            let error = tx.send(nest(levels)).unwrap_err();
            assert!(matches!(error, Error::Encode { .. }), "{error}");
            assert!(too_deep(Err::<(), _>(error)));
        }
        tx.send(nest(127)).unwrap();
        tx.send(nest(1)).unwrap();
        rx.recv().unwrap();
        assert!(rx.recv().unwrap().0.is_empty());
        // Siblings are not levels, whatever they are.
        let (tx, rx) = channel::<Vec<(Nest, BTreeMap<u8, Nest>)>>().unwrap();
        let pair = || (nest(125), BTreeMap::from([(1, nest(124)), (2, nest(1))]));
        tx.send(vec![pair(), pair(), pair()]).unwrap();
        assert_eq!(rx.recv().unwrap().len(), 3);
        // A receiver refuses what somebody else has sent.
        let text = "[".repeat(128) + &"]".repeat(128);
        let (tx, rx) = channel::<Nest>().unwrap();
        raw_send(&tx, &packet(text.as_bytes()), &[]);
        let error = rx.recv().unwrap_err().to_string();
        assert!(error.contains("recursion limit exceeded"), "{error}");
    });
}

#[test]
fn a_handle_that_sets_its_limit_keeps_to_it_and_its_clones_do_not() {
    let text = |len: usize| "x".repeat(len - 2); // less the quotes
    let (tx, rx) = channel::<String>().unwrap();
    let (mut short, mut shorter) = (tx.clone(), rx.clone());
    short.set_max_message_len(10);
    shorter.set_max_message_len(9);
    let error = short.send(text(11)).unwrap_err();
    let size_and_limit = |error| match error {
        Error::TooLarge { size, limit } => (size, limit),
        error => panic!("{error}"),
    };
    assert_eq!(size_and_limit(error), (11, 10));
    short.send(text(10)).unwrap();
    tx.send(text(11)).unwrap();
    short.send(text(9)).unwrap();
    assert_eq!(size_and_limit(shorter.recv().unwrap_err()), (10, 9));
    assert_eq!(rx.recv().unwrap(), text(11));
    assert_eq!(shorter.recv().unwrap(), text(9));
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Nest(Vec<Nest>);

fn nest(levels: usize) -> Nest {
    (1..levels).fold(Nest(vec![]), |inner, _| Nest(vec![inner]))
}

#[test]
fn a_result_nests_as_deep_as_a_message_and_what_goes_with_something_else_a_level_less() {
    in_own_process(|| {
        spawn(127, nest).unwrap().join().unwrap();
        assert!(too_deep(spawn(128, nest).unwrap().join()));
        spawn_fresh(127, nest).unwrap().join().unwrap();
        assert!(too_deep(spawn_fresh(128, nest).unwrap().join()));
        // Beside the arguments of a fresh child lies its function, around the result of a job what kind of answer it is.
        spawn_fresh(nest(126), drop).unwrap().join().unwrap();
        let spawned = spawn_fresh(nest(127), drop);
        assert!(too_deep(spawned.and_then(|child| child.join())));
        let mut pool = Pool::new(1, nest).unwrap();
        for (levels, (_, result)) in [126, 127].into_iter().zip(pool.map([126, 127])) {
            assert_eq!(too_deep(result), levels == 127);
        }
        let mut pool = Pool::new(1, drop::<Nest>).unwrap();
        for (levels, (_, result)) in [127, 128].into_iter().zip(pool.map([127, 128].map(nest))) {
            assert_eq!(too_deep(result), levels == 128);
        }
    });
}

#[test]
fn too_many_descriptors_in_flight_are_an_error_that_passes() {
    in_own_process(|| {
        if !Uid::effective().is_root() {
            eprintln!("skipped: needs root, to become a user of whom nothing else is in flight");
            return;
        }
        // KERNEL: too_many_unix_fds() counts by user, and lets CAP_SYS_RESOURCE and CAP_SYS_ADMIN pass.
        nix::unistd::setuid(Uid::from_raw(54_321)).unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
        let (tx, rx) = channel::<u32>().unwrap();
        let before = open_fds();
        let fds = [tx.as_fd(); 10];
        let refused = (0..50).find_map(|number| tx.send_with_fds(number, &fds).err());
        assert!(matches!(refused, Some(Error::TooManyFdsInFlight)));
        assert_eq!(open_fds(), before);
        assert_eq!(rx.recv_with_fds().unwrap().0, 0);
        tx.send_with_fds(50, &fds).unwrap();
    });
}
