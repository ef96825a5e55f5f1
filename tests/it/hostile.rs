//! What a hostile or foreign holder of a channel sends and does, beyond the garbage of the guarantees.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, Sender, channel};

use crate::support::{
    DescriptorLimit, in_own_process, memfd, open_fds, packet, packet_of_length, raw_send,
    two_way_pair,
};

#[test]
fn out_of_descriptors_while_sending_is_an_error_and_sends_nothing() {
    in_own_process(|| {
        #[derive(Serialize, Deserialize)]
        struct Fd(#[serde(with = "wormhole::fd")] OwnedFd, String);
        let (tx, rx) = channel::<Fd>().unwrap();
        let mut message = Fd(memfd(b""), String::new());
        let before = open_fds();
        let limit = DescriptorLimit::new();
        let error = tx.by_ref().send(&message).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot duplicate a descriptor of the message"
        );
        assert!(matches!(channel::<u8>(), Err(Error::Io { .. })));
        // One more descriptor: enough for the field, not for the memfd of a long text as well.
        limit.leave_room_for(1);
        message.1 = "x".repeat(1_000_000);
        let error = tx.by_ref().send(&message).unwrap_err();
        assert!(error.to_string().contains("memfd"), "{error}");
        message.1.clear();
        tx.by_ref().send(&message).unwrap();
        drop(limit);
        assert_eq!(open_fds(), before);
        assert_eq!(rx.recv().unwrap().1, "");
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}

#[test]
fn what_a_foreign_holder_asks_the_kernel_for_costs_no_descriptor() {
    use nix::libc;
    in_own_process(|| {
        #[derive(Debug, Serialize, Deserialize)]
        struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);
        const SO_PASSPIDFD: libc::c_int = 76;
        let wishes: &[&[libc::c_int]] = &[
            &[SO_PASSPIDFD],
            &[libc::SO_PASSCRED],
            &[libc::SO_PASSSEC],
            &[libc::SO_PASSCRED, libc::SO_PASSSEC, SO_PASSPIDFD],
            &[libc::SO_TIMESTAMP],
            &[
                libc::SO_PASSCRED,
                libc::SO_PASSSEC,
                SO_PASSPIDFD,
                libc::SO_TIMESTAMPNS,
                libc::SO_TIMESTAMPING,
            ],
        ];
        let before = open_fds();
        for wish in wishes {
            let (tx, rx) = channel::<Vec<Fd>>().unwrap();
            for &option in *wish {
                // For SO_TIMESTAMPING: when it was received, by the system's clock.
                let yes: libc::c_int = 0x18;
                // SAFETY: the pointer is to an integer of the length given.
                #[allow(unsafe_code, reason = "nix does not know all of these options")]
                let set = unsafe {
                    libc::setsockopt(
                        std::os::fd::AsRawFd::as_raw_fd(&rx.as_fd()),
                        libc::SOL_SOCKET,
                        option,
                        (&raw const yes).cast(),
                        4,
                    )
                };
                if set != 0 {
                    eprintln!("skipped: this kernel does not know socket option {option}");
                }
            }
            for count in [0, 1, 2, 253] {
                tx.send((0..count).map(|_| Fd(memfd(b""))).collect::<Vec<_>>())
                    .unwrap();
                raw_send(&tx, b"garbage", &[]);
                let open = open_fds().len();
                assert_eq!(rx.recv().unwrap().len(), count);
                rx.recv().unwrap_err();
                assert_eq!(open_fds().len(), open);
            }
            drop(tx);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            drop(rx);
            assert_eq!(open_fds(), before);
        }
    });
}

#[test]
fn a_receiver_that_writes_backwards_costs_nothing() {
    in_own_process(|| {
        use nix::sys::socket::{MsgFlags, send};
        use std::os::fd::AsRawFd;
        let (tx, rx) = channel::<u32>().unwrap();
        for number in 0..100 {
            tx.send(number).unwrap();
        }
        let backwards = send(rx.as_fd().as_raw_fd(), b"garbage", MsgFlags::MSG_NOSIGNAL);
        assert_eq!(backwards, Err(nix::Error::EPIPE)); // one-way in the kernel
        tx.send(100).unwrap();
        drop(tx);
        assert!(rx.iter().map(Result::unwrap).eq(0..=100));

        // The same through a foreign pair, which is not one-way.
        let (a, b) = two_way_pair();
        let tx = Sender::<u32>::try_from(a).unwrap();
        let rx = Receiver::<u32>::try_from(b).unwrap();
        for number in 0..100 {
            tx.send(number).unwrap();
        }
        raw_send(&rx, b"garbage", &[]);
        tx.send(100).unwrap();
        drop(tx);
        assert!(rx.iter().map(Result::unwrap).eq(0..=100));
    });
}

#[test]
fn a_sender_whose_receiver_died_with_messages_is_disconnected() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        drop(rx);
        for _ in 0..3 {
            assert!(matches!(tx.send(2), Err(Error::Disconnected)));
            assert!(matches!(tx.try_send(2), Err(Error::Disconnected)));
            let late = tx.send_timeout(2, Duration::from_secs(1));
            assert!(matches!(late, Err(Error::Disconnected)));
            let long = tx.send_with_fds(3, &[tx.as_fd()]);
            assert!(matches!(long, Err(Error::Disconnected)));
        }
    });
}

#[test]
fn empty_packets_do_not_look_like_the_end() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let is_malformed = |message| matches!(message, Err(Error::Malformed { .. }));
        raw_send(&tx, b"", &[]);
        assert!(is_malformed(rx.recv()));
        raw_send(&tx, b"", &[]);
        raw_send(&tx, b"", &[]);
        tx.send(1).unwrap();
        assert!(is_malformed(rx.recv()));
        assert!(is_malformed(rx.recv()));
        assert_eq!(rx.recv().unwrap(), 1);
        raw_send(&tx, b"", &[]);
        tx.send(2).unwrap();
        raw_send(&tx, b"", &[memfd(b"").as_fd()]);
        tx.send(3).unwrap();
        raw_send(&tx, b"", &[]);
        drop(tx);
        // Without a sender, empty packets are passed over: nothing tells them from a look at the queue that
        // came too early. One with a descriptor is never the end.
        assert_eq!(rx.recv().unwrap(), 2);
        assert!(is_malformed(rx.recv()));
        assert_eq!(rx.recv().unwrap(), 3);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_last_message_just_before_the_end_is_received() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;
    in_own_process(|| {
        // Sender and receiver on a processor each, if there are two.
        let this = Pid::from_raw(0);
        let allowed = sched_getaffinity(this).unwrap();
        let cpus: Vec<_> = (0..CpuSet::count())
            .filter(|&cpu| allowed.is_set(cpu).unwrap())
            .collect();
        let stay_on = move |cpu| {
            let mut set = CpuSet::new();
            set.set(cpu).unwrap();
            sched_setaffinity(this, &set).unwrap();
        };
        let (hand, handed) = std::sync::mpsc::sync_channel::<Sender<u32>>(1);
        let there = *cpus.last().unwrap();
        let sender = std::thread::spawn(move || {
            stay_on(there);
            let mut random = crate::support::Random::new(1);
            for tx in handed {
                for _ in 0..random.below(1000) {
                    std::hint::spin_loop();
                }
                tx.send(1).unwrap();
            }
        });
        stay_on(cpus[0]);
        // As many as there is time for: where other processes want both processors, a round takes milliseconds.
        let start = std::time::Instant::now();
        let rounds = (0..20_000).take_while(|_| start.elapsed().as_secs() < 30);
        for _ in rounds {
            let (tx, rx) = channel::<u32>().unwrap();
            hand.send(tx).unwrap();
            // No wait: looks at the queue and at the end of the sender as often as possible.
            let looks = || std::iter::from_fn(|| Some(rx.try_recv()));
            let received = looks().find(|look| !matches!(look, Err(Error::Empty)));
            assert_eq!(received.unwrap().unwrap(), 1);
            let end = looks().find(|look| !matches!(look, Err(Error::Empty)));
            assert!(matches!(end, Some(Err(Error::Disconnected))));
        }
        drop(hand);
        sender.join().unwrap();
    });
}

#[test]
fn a_buffer_that_changes_all_the_time_tears_nothing() {
    use nix::sys::socket::{setsockopt, sockopt};
    #[derive(Debug, Serialize, Deserialize)]
    struct WithFile(#[serde(with = "wormhole::fd")] File, String);
    in_own_process(|| {
        let (tx, rx) = channel::<WithFile>().unwrap();
        let same = tx.as_fd().try_clone_to_owned().unwrap();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    setsockopt(&same, sockopt::SndBuf, &2304).unwrap();
                    setsockopt(&same, sockopt::SndBuf, &106_496).unwrap();
                }
            });
            let message = WithFile(File::open("/dev/null").unwrap(), "x".repeat(100_000));
            for _ in 0..300 {
                tx.by_ref().send(&message).unwrap();
                let WithFile(file, text) = rx.recv().unwrap();
                assert!(!file.metadata().unwrap().is_file()); // a device, no memfd
                assert_eq!(text.len(), 100_000);
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn a_memfd_that_changes_while_it_is_read_is_an_error_at_worst() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let text = format!("\"{}\"", "x".repeat(1_000_000));
        let memfd = File::from(memfd(text.as_bytes()));
        let before = open_fds();
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    for len in [0, 500_000, 2_000_000, text.len() as u64] {
                        memfd.set_len(len).unwrap();
                    }
                }
            });
            let packet = packet_of_length(text.len() as u64, b"");
            for _ in 0..1000 {
                raw_send(&tx, &packet, &[memfd.as_fd()]);
                match rx.recv() {
                    Ok(_) | Err(Error::Malformed { .. } | Error::Decode { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(open_fds(), before);
        tx.send("good".to_owned()).unwrap();
        assert_eq!(rx.recv().unwrap(), "good");
    });
}

#[test]
fn every_form_of_recv_refuses_descriptors_that_nothing_claims() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let forms: [&dyn Fn() -> Result<u32, Error>; 4] = [
            &|| rx.recv(),
            &|| rx.try_recv(),
            &|| rx.recv_timeout(Duration::from_secs(60)),
            &|| wormhole::select! { recv(rx) -> message => message },
        ];
        let before = open_fds();
        for form in forms {
            tx.send_with_fds(1, &[tx.as_fd()]).unwrap();
            assert!(matches!(form(), Err(Error::UnexpectedFds { count: 1 })));
            assert_eq!(open_fds(), before);
        }
    });
}

#[test]
fn an_error_does_not_repeat_all_that_the_peer_has_sent() {
    in_own_process(|| {
        #[derive(Debug, Deserialize)]
        enum Color {
            Red,
        }
        let (tx, rx) = channel::<Color>().unwrap();
        let hostile = format!("\"\\n\\u001b[31m{}\"", "x".repeat(1_000_000));
        for text in [hostile.as_str(), "\"\\n\\u001b[31m\""] {
            let memfd = memfd(text.as_bytes());
            raw_send(
                &tx,
                &packet_of_length(text.len() as u64, b""),
                &[memfd.as_fd()],
            );
            let error = rx.recv().unwrap_err().to_string();
            assert!(
                error.len() < 1200 && error.contains("unknown variant"),
                "{error}"
            );
            assert!(!error.contains(char::is_control), "{error:?}");
        }
        raw_send(&tx, &packet(b"\"Red\""), &[]);
        assert!(matches!(rx.recv(), Ok(Color::Red)));
    });
}

#[test]
fn end_of_input_from_a_shut_down_sender_is_disconnection() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        let shutdown = nix::sys::socket::Shutdown::Write;
        nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&tx.as_fd()), shutdown).unwrap();
        assert!(matches!(tx.send(2), Err(Error::Disconnected)));
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}
