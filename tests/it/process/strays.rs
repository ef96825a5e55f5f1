//! No process waits for ever because another one has a copy of an end that it does not know of. With a
//! plain fork each of these tests hangs.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process::{Command, Stdio, exit};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use serde::{Deserialize, Serialize};
use wormhole::{
    Child, Error, Receiver, ReceiverSet, Sender, channel, spawn, spawn_command, spawn_unchecked,
};

use crate::support::{forked, in_own_process, open_fds};

/// Stays until it is told to leave.
fn stay(leave: Receiver<()>) {
    drop(leave.recv());
}

#[test]
fn a_child_that_dies_before_it_sends() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let child = spawn(tx, |_: Sender<u32>| exit(1)).unwrap();
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        let ended: Result<(), _> = child.join();
        ended.unwrap_err();
    });
}

#[test]
fn a_younger_sibling_of_a_sender() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (leave, wait) = channel::<()>().unwrap();
        let younger = spawn(wait, stay).unwrap(); // while this process has `tx`
        let sender = spawn(tx, |tx: Sender<u32>| tx.send(1).unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        sender.join().unwrap();
        drop(leave);
        younger.join().unwrap();
    });
}

#[test]
fn a_younger_sibling_of_a_receiver() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (leave, wait) = channel::<()>().unwrap();
        let sibling = spawn(wait, stay).unwrap();
        let receiver = spawn(rx, |rx: Receiver<u32>| rx.recv().unwrap()).unwrap();
        tx.send(1).unwrap();
        receiver.join().unwrap();
        // Would fill the channel, and then wait.
        while tx.send(2).is_ok() {}
        drop(leave);
        sibling.join().unwrap();
    });
}

#[test]
fn a_program_started_meanwhile() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let mut cat = Command::new("cat");
        cat.stdin(Stdio::piped());
        let (unread, _reads) = channel::<u32>().unwrap();
        let mut cat = spawn_command(cat, unread).unwrap();
        let sender = spawn(tx, |tx: Sender<u32>| tx.send(1).unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        sender.join().unwrap();
        drop(cat.stdin.take());
        cat.wait().unwrap();
    });
}

#[test]
fn the_other_end_in_the_child_itself() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let child = spawn(rx, |rx: Receiver<u32>| {
            rx.iter().map(Result::unwrap).sum::<u32>()
        })
        .unwrap();
        tx.send(20).unwrap();
        tx.send(22).unwrap();
        drop(tx); // the child has a copy of it in its memory
        assert_eq!(child.join().unwrap(), 42);
    });
}

#[test]
fn an_end_in_a_static() {
    static STATIC: Mutex<Option<Sender<u32>>> = Mutex::new(None);
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        *STATIC.lock().unwrap() = Some(tx);
        let (leave, wait) = channel::<()>().unwrap();
        let child = spawn(wait, |wait: Receiver<()>| {
            let number = STATIC
                .lock()
                .unwrap()
                .as_ref()
                .map(|tx| tx.as_fd().as_raw_fd());
            let sent = STATIC.lock().unwrap().as_ref().unwrap().send(1);
            assert!(matches!(sent, Err(Error::Disconnected)));
            let (new, _) = channel::<u32>().unwrap();
            assert_ne!(Some(new.as_fd().as_raw_fd()), number, "its number is taken");
            stay(wait);
            // Dropping it is as good as ever.
            *STATIC.lock().unwrap() = None;
        })
        .unwrap();
        *STATIC.lock().unwrap() = None;
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        drop(leave);
        child.join().unwrap();
    });
}

#[test]
fn a_dead_end_says_disconnected_whatever_it_is_asked() {
    static ENDS: Mutex<Option<(Sender<String>, Receiver<String>)>> = Mutex::new(None);
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        tx.send("not for the child".to_owned()).unwrap();
        *ENDS.lock().unwrap() = Some((tx, rx));
        let child = spawn((), |()| {
            let ends = ENDS.lock().unwrap();
            let (tx, rx) = ends.as_ref().unwrap();
            let second = Duration::from_secs(1);
            let long = "x".repeat(1_000_000);
            for text in ["", &long] {
                let sent = [
                    tx.send(text.to_owned()),
                    tx.try_send(text.to_owned()),
                    tx.send_timeout(text.to_owned(), second),
                    tx.send_with_fds(text.to_owned(), &[rx.as_fd()]),
                ];
                assert!(
                    sent.iter()
                        .all(|sent| matches!(sent, Err(Error::Disconnected)))
                );
            }
            let received = [rx.recv(), rx.try_recv(), rx.recv_timeout(second)];
            assert!(
                received
                    .iter()
                    .all(|it| matches!(it, Err(Error::Disconnected)))
            );
            assert!(rx.iter().next().is_none());
        });
        child.unwrap().join().unwrap();
        let (tx, rx) = ENDS.lock().unwrap().take().unwrap();
        drop(tx);
        assert_eq!(rx.recv().unwrap(), "not for the child");
    });
}

#[test]
fn a_set_of_receivers_in_a_static() {
    thread_local! {
        static SET: Cell<Option<ReceiverSet<u32>>> = const { Cell::new(None) };
    }
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let mut set = ReceiverSet::new().unwrap();
        set.add(rx).unwrap();
        SET.set(Some(set));
        let child = spawn((), |()| {
            let mut set = SET.take().unwrap();
            // Not the parent's set, of which the parent would notice.
            let (tx, rx) = channel::<u32>().unwrap();
            assert!(matches!(set.add(rx), Err(Error::Io { .. })));
            drop(tx);
            assert!(set.recv().is_err());
        });
        child.unwrap().join().unwrap();
        let mut set = SET.take().unwrap();
        tx.send(1).unwrap();
        assert_eq!(set.recv().unwrap().1.unwrap(), 1);
    });
}

#[test]
fn a_thousand_live_channels() {
    type Ends = (Sender<u32>, Receiver<u32>);
    static ENDS: Mutex<Vec<Ends>> = Mutex::new(Vec::new());
    in_own_process(|| {
        *ENDS.lock().unwrap() = (0..1000).map(|_| channel().unwrap()).collect();
        let child = spawn((), |()| {
            let ends = ENDS.lock().unwrap();
            let dead = ends.iter().filter(|(tx, rx)| {
                let sent = tx.try_send(1);
                let received = rx.try_recv();
                matches!(sent, Err(Error::Disconnected))
                    && matches!(received, Err(Error::Disconnected))
            });
            dead.count()
        });
        assert_eq!(child.unwrap().join().unwrap(), 1000);
        for (tx, rx) in ENDS.lock().unwrap().drain(..) {
            tx.send(1).unwrap();
            assert_eq!(rx.recv().unwrap(), 1);
            drop(tx);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        }
    });
}

#[test]
fn ends_beyond_a_limit_that_was_lowered_are_closed() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&tx, 100).unwrap();
        let high: Sender<u32> = high.try_into().unwrap();
        drop(tx);
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let (leave, wait) = channel().unwrap();
        let child = spawn(wait, stay).unwrap();
        drop(high);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        drop(leave);
        child.join().unwrap();
    });
}

/// Raises the limit of descriptors so far that there can be one of that number, where the machine allows it.
fn make_room_for(number: RawFd) -> bool {
    let needed = rlim_t::try_from(number).unwrap() + 1;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = hard.max(needed);
    let is_raised = setrlimit(Resource::RLIMIT_NOFILE, limit, limit).is_ok();
    if !is_raised {
        eprintln!("skipped: no descriptor may be numbered {number} here (sysctl fs.nr_open)");
    }
    is_raised
}

#[test]
fn the_end_of_the_largest_number_that_linux_gives_out_is_a_stray_like_any_other() {
    in_own_process(|| {
        let number = (1 << 20) - 1;
        if !make_room_for(number) {
            return;
        }
        let (tx, rx) = channel::<u32>().unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&tx, number).unwrap();
        let high: Sender<u32> = high.try_into().unwrap();
        drop(tx);
        let (leave, wait) = channel().unwrap();
        let child = spawn(wait, stay).unwrap();
        drop(high);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        drop(leave);
        child.join().unwrap();
    });
}

#[test]
fn an_end_of_a_larger_number_is_no_stray_but_makes_spawn_refuse() {
    in_own_process(|| {
        let number = 1 << 20;
        if !make_room_for(number) {
            return;
        }
        let (tx, rx) = channel::<u32>().unwrap();
        let high = rustix::io::fcntl_dupfd_cloexec(&tx, number).unwrap();
        let high: Sender<u32> = high.try_into().unwrap();
        drop(tx);
        let before = open_fds();
        let refused = spawn((), |()| ()).unwrap_err();
        assert!(refused.to_string().contains("beyond 2^20"), "{refused}");
        // SAFETY: there is one thread.
        #[allow(unsafe_code, reason = "this is the function under test")]
        let refused = unsafe { spawn_unchecked((), |()| ()) };
        assert!(matches!(refused, Err(Error::Io { .. })));
        assert_eq!(open_fds(), before);
        high.send(1).unwrap();
        drop(high);
        spawn((), |()| ()).unwrap().join().unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

/// An end that goes as any other descriptor does.
#[derive(Serialize)]
struct Plain(#[serde(with = "wormhole::fd")] Sender<u32>);

#[test]
fn an_end_among_the_arguments_that_goes_as_a_descriptor_stays_live() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u32>().unwrap();
        let child = spawn(Plain(tx), |Plain(tx)| tx.send(1).unwrap()).unwrap();
        child.join().unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        drop(rx);
        assert_eq!(open_fds(), before);
    });
}

#[derive(Serialize)]
enum Nested {
    Tuple(u32, Sender<u32>),
    Struct { inner: Option<Sender<u32>> },
}

#[derive(Serialize)]
struct Deep {
    list: Vec<Sender<u32>>,
    option: Option<Sender<u32>>,
    none: Option<Sender<u32>>,
    map: HashMap<String, Sender<u32>>,
    enums: Vec<Nested>,
}

#[test]
fn ends_nested_in_the_arguments_stay_live() {
    in_own_process(|| {
        let before = open_fds();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..6).map(|_| channel::<u32>().unwrap()).unzip();
        let mut senders = senders.into_iter();
        let mut next = || senders.next().unwrap();
        let args = Deep {
            list: vec![next(), next()],
            option: Some(next()),
            none: None,
            map: HashMap::from([("key".to_owned(), next())]),
            enums: vec![
                Nested::Tuple(1, next()),
                Nested::Struct {
                    inner: Some(next()),
                },
            ],
        };
        let child = spawn(args, |args: Deep| {
            let Deep {
                list,
                option,
                none,
                map,
                enums,
            } = args;
            let mut all = list;
            all.extend(option.into_iter().chain(none));
            all.extend(map.into_values());
            for nested in enums {
                match nested {
                    Nested::Tuple(_, tx) => all.push(tx),
                    Nested::Struct { inner } => all.extend(inner),
                }
            }
            for (number, tx) in (0..).zip(&all) {
                tx.send(number).unwrap();
            }
        });
        child.unwrap().join().unwrap();
        for (number, rx) in (0..).zip(&receivers) {
            assert_eq!(rx.recv().unwrap(), number);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        }
        drop(receivers);
        assert_eq!(open_fds(), before);
    });
}

#[derive(Serialize)]
struct Cloned {
    one: Sender<u32>,
    other: Sender<u32>,
}

#[test]
fn a_clone_in_a_struct_of_the_parent() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u32>().unwrap();
        let (dropped, wait) = channel::<()>().unwrap();
        let (leave, stays) = channel::<()>().unwrap();
        let parents = Cloned {
            one: tx.clone(),
            other: tx.clone(),
        };
        let cloned = Cloned {
            one: tx.clone(),
            other: tx,
        };
        let args = (cloned, dropped, stays);
        let child = spawn(args, |(cloned, dropped, stays): (Cloned, Sender<()>, _)| {
            let Cloned { one, other } = cloned;
            one.send(1).unwrap();
            drop(one);
            other.send(2).unwrap();
            // The last one in this process, although copies of the parent's lie in its memory.
            drop(other);
            drop(dropped);
            stay(stays);
        });
        let child = child.unwrap();
        assert!(matches!(wait.recv(), Err(Error::Disconnected)));
        assert_eq!((rx.recv().unwrap(), rx.recv().unwrap()), (1, 2));
        parents.one.send(3).unwrap();
        drop(parents.one);
        parents.other.send(4).unwrap();
        drop(parents.other);
        assert_eq!((rx.recv().unwrap(), rx.recv().unwrap()), (3, 4));
        assert!(
            matches!(rx.recv(), Err(Error::Disconnected)),
            "the child still has one"
        );
        drop(leave);
        child.join().unwrap();
        drop((rx, wait));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_clone_of_a_receiver_in_the_parent() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (leave, stays) = channel::<()>().unwrap();
        let (dropped, wait) = channel::<()>().unwrap();
        let args = (rx.clone(), dropped, stays);
        type Args = (Receiver<u32>, Sender<()>, Receiver<()>);
        let child = spawn(args, |(rx, dropped, stays): Args| {
            drop(rx);
            drop(dropped);
            stay(stays);
        });
        assert!(matches!(wait.recv(), Err(Error::Disconnected)));
        drop(rx);
        while tx.send(1).is_ok() {}
        drop(leave);
        child.unwrap().join().unwrap();
    });
}

/// Passes its sender on, through clones, and stays.
fn generation((left, tx, stays): (u32, Sender<u32>, Receiver<()>)) -> u32 {
    tx.send(left).unwrap();
    if left == 0 {
        drop(tx);
        stay(stays);
        return 0;
    }
    let child = spawn((left - 1, tx.clone(), stays.clone()), generation).unwrap();
    drop(tx);
    stay(stays);
    child.join().unwrap() + 1
}

#[test]
fn ten_generations_deep() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (leave, stays) = channel::<()>().unwrap();
        let child = spawn((10, tx, stays.clone()), generation).unwrap();
        for expected in (0..=10).rev() {
            assert_eq!(rx.recv().unwrap(), expected);
        }
        // All of them still live, and none has a sender.
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        drop((leave, stays));
        assert_eq!(child.join().unwrap(), 10);
    });
}

#[test]
fn an_end_that_is_passed_on_a_hundred_times() {
    fn pass((left, tx): (u32, Sender<u32>)) -> usize {
        tx.send(left).unwrap();
        match left {
            0 => open_fds().len(),
            _ => spawn((left - 1, tx), pass).unwrap().join().unwrap(),
        }
    }
    in_own_process(|| {
        let before = open_fds().len();
        let (tx, rx) = channel::<u32>().unwrap();
        let open = spawn((100, tx), pass).unwrap().join().unwrap();
        assert!(rx.iter().map(Result::unwrap).eq((0..=100).rev()));
        // The sender of each generation's result, dead in the next.
        assert!(
            open <= before + 110,
            "{open} descriptors, at first {before}"
        );
    });
}

#[test]
fn a_fork_by_hand_beside_it() {
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<u32>().unwrap();
        let mut tx = Some(tx);
        let by_hand = forked(|| {
            // Has what its parent has, and spawns as its parent does.
            let child = spawn(tx.take(), |tx: Option<Sender<u32>>| {
                tx.unwrap().send(1).unwrap();
            });
            child.unwrap().join().unwrap();
        });
        let child: Child<()> = spawn(tx.take(), |tx: Option<Sender<u32>>| {
            tx.unwrap().send(1).unwrap();
        })
        .unwrap();
        assert_eq!((rx.recv().unwrap(), rx.recv().unwrap()), (1, 1));
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        child.join().unwrap();
        by_hand.join();
        drop(rx);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn ends_that_arrived_in_messages() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (carrier, carried) = channel::<Sender<u32>>().unwrap();
        carrier.send(tx).unwrap();
        let tx = carried.recv().unwrap();
        let (leave, stays) = channel::<()>().unwrap();
        let sibling = spawn(stays, stay).unwrap();
        let child = spawn(tx, |tx: Sender<u32>| tx.send(1).unwrap()).unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        child.join().unwrap();
        drop(leave);
        sibling.join().unwrap();
    });
}

#[test]
fn ends_that_became_descriptors_are_inherited_and_those_made_from_descriptors_are_not() {
    static RAW: Mutex<Option<OwnedFd>> = Mutex::new(None);
    in_own_process(|| {
        // Shared and not: one way duplicates, the other gives up.
        for share in [true, false] {
            let (tx, rx) = channel::<u32>().unwrap();
            let clone = share.then(|| tx.clone());
            *RAW.lock().unwrap() = Some(tx.try_into().unwrap());
            drop(clone);
            let child = spawn((), |()| {
                let raw = RAW.lock().unwrap().take().unwrap();
                Sender::<u32>::try_from(raw).unwrap().send(1).unwrap();
            });
            child.unwrap().join().unwrap();
            assert_eq!(rx.recv().unwrap(), 1);

            let raw = RAW.lock().unwrap().take().unwrap();
            let tx = Sender::<u32>::try_from(raw).unwrap();
            let (leave, stays) = channel::<()>().unwrap();
            let sibling = spawn(stays, stay).unwrap();
            drop(tx);
            assert!(matches!(rx.recv(), Err(Error::Disconnected)));
            drop(leave);
            sibling.join().unwrap();
        }
    });
}

#[test]
fn a_number_that_is_used_again_is_not_mistaken_for_an_end() {
    #[derive(Serialize, Deserialize)]
    struct Fd(#[serde(with = "wormhole::fd")] std::fs::File);
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let number = rx.as_fd().as_raw_fd();
        drop((tx, rx));
        let (read, write) = crate::support::pipe();
        assert!(
            [&read, &write]
                .iter()
                .any(|file| file.as_raw_fd() == number)
        );
        let child = spawn((Fd(read), Fd(write)), |(Fd(read), Fd(mut write))| {
            use std::io::Write;
            write.write_all(b"through").unwrap();
            drop(write);
            std::io::read_to_string(read).unwrap()
        });
        assert_eq!(child.unwrap().join().unwrap(), "through");
    });
}

#[test]
fn a_search_of_the_arguments_does_not_disturb_a_message_that_they_send() {
    /// Whose `Serialize` sends.
    struct Sends(Sender<Sender<u32>>, Sender<u32>);
    impl Serialize for Sends {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            self.0
                .by_ref()
                .send(&self.1)
                .map_err(serde::ser::Error::custom)?;
            (&self.0, &self.1).serialize(serializer)
        }
    }
    in_own_process(|| {
        let (carrier, carried) = channel().unwrap();
        let (tx, rx) = channel::<u32>().unwrap();
        let args = Sends(carrier, tx);
        let child = spawn(args, |args: Sends| args.1.send(1).unwrap()).unwrap();
        child.join().unwrap();
        assert_eq!(rx.recv().unwrap(), 1);
        carried.recv().unwrap().send(2).unwrap();
        assert_eq!(rx.recv().unwrap(), 2);
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_search_that_fails_does_not_disturb_the_one_around_it() {
    /// Whose `Serialize` spawns what cannot be.
    struct Spawns;
    impl Serialize for Spawns {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let (tx, _rx) = channel::<u32>().unwrap();
            let no_text = HashMap::from([((1, 2), 3)]);
            let refused = spawn((tx, no_text), |_| ()).unwrap_err();
            assert!(matches!(refused, Error::Encode { .. }), "{refused}");
            serializer.serialize_unit()
        }
    }
    in_own_process(|| {
        let (before, before_rx) = channel::<u32>().unwrap();
        let (after, after_rx) = channel::<u32>().unwrap();
        let child = spawn((before, Spawns, after), |(before, _, after)| {
            before.send(1).unwrap();
            after.send(2).unwrap();
        });
        child.unwrap().join().unwrap();
        assert_eq!(
            (before_rx.recv().unwrap(), after_rx.recv().unwrap()),
            (1, 2)
        );
        assert!(matches!(before_rx.recv(), Err(Error::Disconnected)));
        assert!(matches!(after_rx.recv(), Err(Error::Disconnected)));
    });
}

#[derive(Serialize)]
struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);

#[test]
fn a_number_that_the_arguments_brought_may_be_used_again_for_anything() {
    in_own_process(|| {
        // In the child, the number of its argument becomes that of a file which its own child needs.
        let child = spawn(Fd(crate::support::pipe().0.into()), |Fd(fd)| {
            let number = fd.as_raw_fd();
            drop(fd);
            let file = std::fs::File::open("/proc/self/comm").unwrap();
            assert_eq!(file.as_raw_fd(), number);
            let grandchild = spawn(number, |number: i32| {
                std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap()
            });
            grandchild.unwrap().join().unwrap()
        });
        let link = child.unwrap().join().unwrap();
        assert!(link.ends_with("comm"), "{}", link.display());
    });
}
