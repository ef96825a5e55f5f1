//! What holds in every event loop: `super` is one of them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use wormhole::process::Failure;
use wormhole::{ChildEnd, Error, Receiver, Sender, channel, spawn};

use super::super::{Polls, impatiently};
use super::{MESSAGES, ONE_THREAD, all, block_on, ends, sleep};
use crate::builder::traced_child;
use crate::support::{becomes_ready, full_listener, in_own_process, open_fds, pipe, place};

/// Runs a future in the event loop, and checks that no descriptor is open afterwards that was not before.
fn run<F: Future>(future: impl FnOnce() -> F) -> F::Output {
    block_on(async {
        // Whatever the event loop opens when it is first used. A timer that is late at once does not use it.
        sleep(Duration::from_millis(1)).await;
        let (_, rx) = channel::<()>().unwrap();
        drop(ends::Receiver::new(rx).unwrap());
        let before = open_fds();
        let output = future().await;
        for (number, what) in open_fds() {
            assert!(before.contains_key(&number), "{number} is open: {what}");
        }
        output
    })
}

/// Receives and drops in turn until a message comes. Says how often it was dropped.
async fn recv_impatiently<T: serde::de::DeserializeOwned>(
    rx: &ends::Receiver<T>,
    dropped: &mut u64,
) -> Result<T, Error> {
    loop {
        let polls = usize::try_from(*dropped % 4).unwrap();
        match impatiently(polls, rx.recv()).await {
            Some(received) => return received,
            None => *dropped += 1,
        }
        if polls == 3 {
            Polls(2).await; // lets the event loop look
        }
    }
}

#[test]
fn a_receive_that_is_dropped_all_the_time_loses_nothing() {
    in_own_process(|| {
        let (tx, rx) = channel::<u64>().unwrap();
        let sender = spawn(tx, |tx: Sender<u64>| {
            (0..MESSAGES).for_each(|number| tx.send(number).unwrap());
        });
        run(|| async {
            let rx = ends::Receiver::new(rx).unwrap();
            let mut dropped = 1;
            for expected in 0..MESSAGES {
                assert_eq!(recv_impatiently(&rx, &mut dropped).await.unwrap(), expected);
            }
            let end = recv_impatiently(&rx, &mut dropped).await;
            assert!(matches!(end, Err(Error::Disconnected)));
            assert!(dropped > 1000, "{dropped}");
        });
        sender.unwrap().join().unwrap();
    });
}

#[derive(Serialize, Deserialize)]
struct WithFile {
    number: u64,
    #[serde(with = "wormhole::fd")]
    file: OwnedFd,
}

#[test]
fn a_receive_of_descriptors_that_is_dropped_all_the_time_leaks_none() {
    in_own_process(|| {
        let (tx, rx) = channel::<WithFile>().unwrap();
        let sender = spawn(tx, |tx: Sender<WithFile>| {
            for number in 0..10_000 {
                let (reader, writer) = pipe();
                let file = reader.into();
                let message = WithFile { number, file };
                tx.send_with_fds(message, &[writer.as_fd()]).unwrap();
            }
        });
        run(|| async {
            let rx = ends::Receiver::new(rx).unwrap();
            let (mut dropped, mut polls) = (0, 0);
            for expected in 0..10_000 {
                let (message, fds) = loop {
                    polls = (polls + 1) % 4;
                    match impatiently(polls, rx.recv_with_fds()).await {
                        Some(received) => break received.unwrap(),
                        None => dropped += 1,
                    }
                };
                assert_eq!((message.number, fds.len()), (expected, 1));
            }
            assert!(matches!(rx.recv().await, Err(Error::Disconnected)));
            assert!(dropped > 1000, "{dropped}");
        });
        sender.unwrap().join().unwrap();
    });
}

#[test]
fn a_send_that_is_dropped_has_sent_nothing() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<(u32, Vec<u8>)>().unwrap();
            let receiver = thread::spawn(move || {
                let numbers = rx.iter().map(|message| message.unwrap().0);
                numbers.collect::<Vec<u32>>()
            });
            let tx = ends::Sender::new(tx).unwrap();
            let (mut sent, mut dropped) = (Vec::new(), 0);
            for number in 0..50_000 {
                let message = (number, vec![7; 100]);
                match impatiently(number as usize % 4, tx.by_ref().send(&message)).await {
                    Some(done) => {
                        done.unwrap();
                        sent.push(number);
                    }
                    None => dropped += 1,
                }
            }
            drop(tx);
            assert_eq!(receiver.join().unwrap(), sent);
            assert!(dropped >= 12_500 && sent.len() > 1000, "{dropped}");
        });
    });
}

#[test]
fn a_send_that_waited_and_is_dropped_has_sent_nothing() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<WithFile>().unwrap();
            let tx = ends::Sender::new(tx).unwrap();
            let message = |number| {
                let file = pipe().0.into();
                WithFile { number, file }
            };
            let mut count = 0;
            while tx.try_send(message(count)).is_ok() {
                count += 1;
            }
            let open = open_fds();
            for polls in [1, 2, 10] {
                let sent = impatiently(polls, tx.send(message(1_000_000))).await;
                assert!(sent.is_none());
                assert_eq!(open_fds(), open);
            }
            drop(tx);
            let numbers = rx.iter().map(|message| message.unwrap().number);
            assert!(numbers.eq(0..count));
        });
    });
}

#[test]
fn a_hundred_tasks_share_one_end() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<u32>().unwrap();
            let tx = ends::Sender::new(tx).unwrap();
            let rx = ends::Receiver::new(rx).unwrap();
            let fds = open_fds().len();
            type Task = std::pin::Pin<Box<dyn Future<Output = Vec<u32>> + Send>>;
            let mut tasks: Vec<Task> = Vec::new();
            for task in 0..100 {
                let (tx, rx) = (tx.clone(), rx.clone());
                tasks.push(Box::pin(async move {
                    for number in 0..100 {
                        tx.send(task * 100 + number).await.unwrap();
                    }
                    Vec::new()
                }));
                tasks.push(Box::pin(async move {
                    let mut received = Vec::new();
                    loop {
                        match rx.recv().await {
                            Ok(number) => received.push(number),
                            Err(Error::Disconnected) => return received,
                            Err(error) => panic!("{error}"),
                        }
                    }
                }));
            }
            assert_eq!(open_fds().len(), fds);
            drop((tx, rx));
            let received: Vec<u32> = all(tasks).await.concat();
            assert_eq!(received.len(), 10_000);
            let different: BTreeSet<u32> = received.into_iter().collect();
            assert!(different.into_iter().eq(0..10_000));
        });
    });
}

#[test]
fn clones_can_be_registered_one_by_one() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<u32>().unwrap();
            let first = ends::Receiver::new(rx.clone()).unwrap();
            let second = ends::Receiver::new(rx.clone()).unwrap();
            let third = ends::Receiver::new(rx).unwrap();
            let senders = [(); 3].map(|()| ends::Sender::new(tx.clone()).unwrap());
            drop(tx);
            for tx in &senders {
                for rx in [&first, &second, &third] {
                    tx.send(1).await.unwrap();
                    assert_eq!(rx.recv().await.unwrap(), 1);
                }
            }
            drop(first); // its registration is that of the socket itself
            senders[0].send(2).await.unwrap();
            assert_eq!(second.recv().await.unwrap(), 2);
            drop(senders);
            for rx in [&second, &third] {
                assert!(matches!(rx.recv().await, Err(Error::Disconnected)));
            }
        });
    });
}

#[test]
fn two_processes_with_an_event_loop_each_talk() {
    in_own_process(|| {
        let (ask, questions) = channel::<Vec<u64>>().unwrap();
        let (answer, answers) = channel::<u64>().unwrap();
        fn sums((questions, answer): (Receiver<Vec<u64>>, Sender<u64>)) {
            block_on(async {
                let questions = ends::Receiver::new(questions).unwrap();
                let answer = ends::Sender::new(answer).unwrap();
                for _ in 0..2000 {
                    let numbers = questions.recv().await.unwrap();
                    answer.send(numbers.iter().sum()).await.unwrap();
                }
            });
        }
        let child = spawn((questions, answer), sums).unwrap();
        block_on(async {
            let ask = ends::Sender::new(ask).unwrap();
            let answers = ends::Receiver::new(answers).unwrap();
            for number in 0..1000 {
                ask.send(vec![number, 1]).await.unwrap();
                assert_eq!(answers.recv().await.unwrap(), number + 1);
            }
            // And both directions at once, with more under way than fits.
            let send = async {
                for number in 0..1000 {
                    ask.send(vec![number; 200]).await.unwrap();
                }
            };
            let receive = async {
                for number in 0..1000 {
                    assert_eq!(answers.recv().await.unwrap(), 200 * number);
                }
            };
            join(send, receive).await;
            assert!(matches!(answers.recv().await, Err(Error::Disconnected)));
            ask.closed().await.unwrap();
            assert!(matches!(ask.send(vec![]).await, Err(Error::Disconnected)));
        });
        child.join().unwrap();
    });
}

#[test]
fn a_timer_goes_on_beside_endless_messages() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (out, sink) = channel::<u32>().unwrap();
        // They end when the other side has gone.
        let endless = spawn(tx, |tx: Sender<u32>| while tx.send(1).is_ok() {}).unwrap();
        let drain = spawn(sink, |sink: Receiver<u32>| while sink.recv().is_ok() {}).unwrap();
        block_on(async {
            let rx = ends::Receiver::new(rx).unwrap();
            let tx = ends::Sender::new(out).unwrap();
            let over = Arc::new(AtomicBool::new(false));
            let is_over = Arc::clone(&over);
            let receiving = async move {
                let mut count = 0u64;
                while !is_over.load(Ordering::Relaxed) {
                    rx.recv().await.unwrap();
                    count += 1;
                }
                count
            };
            let is_over = Arc::clone(&over);
            let sending = async move {
                let mut count = 0u64;
                while !is_over.load(Ordering::Relaxed) {
                    tx.send(1).await.unwrap();
                    count += 1;
                }
                count
            };
            let ticking = async move {
                for _ in 0..50 {
                    sleep(Duration::from_millis(1)).await;
                }
                over.store(true, Ordering::Relaxed);
                50
            };
            type Task = std::pin::Pin<Box<dyn Future<Output = u64> + Send>>;
            let tasks: Vec<Task> = vec![Box::pin(receiving), Box::pin(sending), Box::pin(ticking)];
            let counts = all(tasks).await;
            assert!(counts[0] > 100 && counts[1] > 100, "{counts:?}");
        });
        endless.join().unwrap();
        drain.join().unwrap();
    });
}

#[test]
fn no_flag_is_set_on_the_socket() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<u32>().unwrap();
            let copies = [
                tx.as_fd().try_clone_to_owned().unwrap(),
                rx.as_fd().try_clone_to_owned().unwrap(),
            ];
            let are_blocking = || {
                for copy in &copies {
                    let flags = fcntl(copy, FcntlArg::F_GETFL).unwrap();
                    assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
                }
            };
            let (tx, rx) = (
                ends::Sender::new(tx).unwrap(),
                ends::Receiver::new(rx).unwrap(),
            );
            are_blocking();
            assert!(impatiently(3, rx.recv()).await.is_none());
            are_blocking();
            while tx.try_send(1).is_ok() {}
            assert!(impatiently(3, tx.send(2)).await.is_none());
            are_blocking();
            assert!(impatiently(3, tx.closed()).await.is_none());
            are_blocking();
            while rx.try_recv().is_ok() {}
            let (mut waits, mut send) = (pin!(rx.recv()), pin!(tx.send(3)));
            Polls(2).await;
            let (received, sent) = join(waits.as_mut(), send.as_mut()).await;
            assert_eq!(received.unwrap(), 3);
            sent.unwrap();
            are_blocking();
            drop((tx.clone().into_inner(), rx.clone().into_inner()));
            are_blocking();
        });
    });
}

#[test]
fn a_receiver_that_takes_some_and_then_waits_gets_the_rest() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let (go, wait) = channel::<()>().unwrap();
        let child = spawn((rx, wait), |(rx, wait): (Receiver<u32>, Receiver<()>)| {
            // Too few to make the kernel wake the sender.
            for number in 0..100 {
                assert_eq!(rx.recv().unwrap(), number);
            }
            wait.recv().unwrap(); // comes after the sender has gone on
            for number in 100..=350 {
                assert_eq!(rx.recv().unwrap(), number);
            }
        });
        block_on(async {
            let tx = ends::Sender::new(tx).unwrap();
            for number in 0..=350 {
                tx.send(number).await.unwrap();
                if number == 340 {
                    go.send(()).unwrap();
                }
            }
        });
        child.unwrap().join().unwrap();
    });
}

#[test]
fn ends_can_be_closed_in_every_order() {
    in_own_process(|| {
        run(|| async {
            // While the other one waits: the sender, then the receiver.
            let make = || {
                let (tx, rx) = channel::<u32>().unwrap();
                (
                    ends::Sender::new(tx).unwrap(),
                    ends::Receiver::new(rx).unwrap(),
                )
            };
            let (tx, rx) = make();
            let close = async {
                Polls(3).await;
                drop(tx);
            };
            let (received, ()) = join(rx.recv(), close).await;
            assert!(matches!(received, Err(Error::Disconnected)));

            let (tx, rx) = make();
            while tx.try_send(0).is_ok() {}
            let close = async {
                Polls(3).await;
                drop(rx);
            };
            let ((sent, ()), closed) = join(join(tx.send(1), close), tx.closed()).await;
            assert!(matches!(sent, Err(Error::Disconnected)));
            closed.unwrap();
            tx.closed().await.unwrap();

            // What was sent before the end still arrives.
            let (tx, rx) = make();
            tx.send(1).await.unwrap();
            drop(tx);
            assert_eq!(rx.recv().await.unwrap(), 1);
            assert!(matches!(rx.recv().await, Err(Error::Disconnected)));
            assert!(matches!(rx.recv().await, Err(Error::Disconnected)));

            // The end before its registration, the registration before the end, and a clone in between.
            let (tx, rx) = make();
            let clone = rx.clone();
            let inner = rx.into_inner();
            drop(inner);
            tx.send(2).await.unwrap();
            assert_eq!(clone.recv().await.unwrap(), 2);
            let inner = clone.into_inner();
            tx.send(3).await.unwrap();
            assert_eq!(inner.recv().unwrap(), 3);
            let again = ends::Receiver::new(inner).unwrap();
            tx.send(4).await.unwrap();
            assert_eq!(again.recv().await.unwrap(), 4);
            drop(again);
            assert!(matches!(tx.send(5).await, Err(Error::Disconnected)));
        });
    });
}

#[test]
fn a_stream_gives_every_message_and_ends_with_the_channel() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<u32>().unwrap();
            let mut stream = ends::Receiver::new(rx).unwrap().into_stream();
            for polls in [0, 1, 3] {
                assert!(impatiently(polls, stream.next()).await.is_none());
            }
            let sender = thread::spawn(move || {
                for number in 0..10_000 {
                    tx.send(number).unwrap();
                }
                tx.cast::<&str>().send("no number").unwrap();
            });
            let mut expected = 0;
            let mut polls = 0;
            while expected < 10_000 {
                polls = (polls + 1) % 4;
                if let Some(message) = impatiently(polls, stream.next()).await {
                    assert_eq!(message.unwrap().unwrap(), expected);
                    expected += 1;
                }
            }
            assert!(matches!(
                stream.next().await,
                Some(Err(Error::Decode { .. }))
            ));
            assert!(stream.next().await.is_none());
            assert!(stream.next().await.is_none());
            sender.join().unwrap();
        });
    });
}

#[test]
fn an_accept_that_is_dropped_loses_no_client() {
    in_own_process(|| {
        run(|| async {
            let name = format!("\0wormhole async {}", std::process::id());
            let listener = wormhole::Listener::<u32>::bind(&name).unwrap();
            let listener = ends::Listener::new(listener).unwrap();
            let clients = thread::spawn(move || {
                for number in 0..1000 {
                    let tx = wormhole::Sender::connect(&name).unwrap();
                    tx.send(number).unwrap();
                }
            });
            let mut dropped = 0;
            for number in 0..1000 {
                let (rx, peer) = loop {
                    match impatiently(dropped % 4, listener.accept()).await {
                        Some(accepted) => break accepted.unwrap(),
                        None => dropped += 1,
                    }
                    if dropped % 4 == 0 {
                        dropped += 1;
                    }
                };
                assert_eq!(peer.pid, Some(std::process::id()));
                assert_eq!(rx.recv().await.unwrap(), number);
                assert!(matches!(rx.recv().await, Err(Error::Disconnected)));
            }
            clients.join().unwrap();
        });
    });
}

#[test]
fn a_connect_waits_for_room_and_one_that_is_dropped_leaves_nothing() {
    in_own_process(|| {
        let (_directory, path) = place();
        let (listener, first) = full_listener(&path);
        let listener = wormhole::Listener::<u32>::try_from(listener).unwrap();
        let accept = || listener.try_accept().unwrap().0;
        run(|| async {
            for polls in 0..4 {
                let connecting = ends::Sender::<u32>::connect(&path);
                assert!(impatiently(polls, connecting).await.is_none());
            }
            // Were it to block, there would never be room.
            let make_room = async {
                Polls(3).await;
                accept()
            };
            let (tx, _first) = join(ends::Sender::<u32>::connect(&path), make_room).await;
            let tx = tx.unwrap();
            let flags = fcntl(tx.get_ref(), FcntlArg::F_GETFL).unwrap();
            assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
            tx.send(5).await.unwrap();
            assert_eq!(accept().recv().unwrap(), 5);
            assert!(matches!(listener.try_accept(), Err(Error::Empty)));
            assert!(matches!(tx.send(6).await, Err(Error::Disconnected)));
        });
        let _second = wormhole::Sender::<u32>::connect(&path).unwrap();
        block_on(async {
            let leave = async {
                Polls(3).await;
                drop((first, listener));
            };
            let (refused, ()) = join(ends::Sender::<u32>::connect(&path), leave).await;
            let Err(Error::Address { source, .. }) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!(source.kind(), std::io::ErrorKind::ConnectionRefused);
        });
    });
}

/// Counts how often a task is woken.
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn what_waits_is_not_woken_for_nothing() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<u32>().unwrap();
            let (tx, rx) = (
                ends::Sender::new(tx).unwrap(),
                ends::Receiver::new(rx).unwrap(),
            );
            let count = Arc::new(Count(AtomicUsize::new(0)));
            let waker = Waker::from(Arc::clone(&count));
            let mut context = Context::from_waker(&waker);
            let mut closed = pin!(tx.closed());
            let mut received = Box::pin({
                let rx = rx.clone();
                async move { rx.recv().await }
            });
            // There is room, and a message comes and goes: neither says that the receiver has left.
            for _ in 0..50 {
                assert!(closed.as_mut().poll(&mut context).is_pending());
                sleep(Duration::from_millis(1)).await;
            }
            let woken = count.0.load(Ordering::Relaxed);
            assert!(woken < 10, "woken {woken} times, with nothing to do");
            assert!(received.as_mut().poll(&mut context).is_pending());
            tx.send(1).await.unwrap();
            assert_eq!(received.as_mut().await.unwrap(), 1);
            assert!(closed.as_mut().poll(&mut context).is_pending());
            drop(rx);
            drop(received);
            closed.await.unwrap();
        });
    });
}

#[test]
fn a_set_of_receivers_is_awaited() {
    in_own_process(|| {
        run(|| async {
            let set = wormhole::ReceiverSet::new().unwrap();
            let mut set = ends::ReceiverSet::new(set).unwrap();
            let mut senders = Vec::new();
            for _ in 0..100 {
                let (tx, rx) = channel::<usize>().unwrap();
                set.get_mut().add(rx).unwrap();
                senders.push(tx);
            }
            let sender = thread::spawn(move || {
                for turn in 0..10_000 {
                    senders[turn % 100].send(turn).unwrap();
                }
            });
            let (mut received, mut polls) = (BTreeSet::new(), 0);
            let mut left = 100;
            while left > 0 {
                polls = (polls + 1) % 4;
                match impatiently(polls, set.recv()).await.transpose().unwrap() {
                    None => {}
                    Some((key, Ok(turn))) => {
                        assert_eq!(key.index(), turn % 100);
                        assert!(received.insert(turn));
                    }
                    Some((_, Err(Error::Disconnected))) => left -= 1,
                    Some((_, Err(error))) => panic!("{error}"),
                }
            }
            assert!(received.into_iter().eq(0..10_000));
            assert!(matches!(set.recv().await, Err(Error::Disconnected)));
            sender.join().unwrap();
        });
    });
}

#[test]
fn the_end_of_a_child_is_awaited() {
    in_own_process(|| {
        let (go, wait) = channel::<u32>().unwrap();
        let child = spawn(wait, |wait: Receiver<u32>| wait.recv().unwrap() + 1).unwrap();
        let killed = spawn((), |()| -> u32 {
            loop {
                thread::park();
            }
        });
        let killed = killed.unwrap();
        block_on(async {
            let mut child = ends::Child::new(child).unwrap();
            for polls in 0..4 {
                assert!(impatiently(polls, child.join()).await.is_none());
            }
            let send = async {
                Polls(3).await;
                go.send(41).unwrap();
            };
            assert_eq!(join(child.join(), send).await.0.unwrap(), 42);
            let Err(Error::Child { end, .. }) = child.join().await else {
                panic!()
            };
            assert_eq!(end, ChildEnd::Joined);

            let mut killed = ends::Child::new(killed).unwrap();
            assert!(impatiently(2, killed.join()).await.is_none());
            killed.get_ref().kill().unwrap();
            let Err(Error::Child { end, .. }) = killed.join().await else {
                panic!()
            };
            assert!(matches!(end, ChildEnd::Killed { signal: 9, .. }));
        });
    });
}

#[test]
fn the_end_of_a_child_that_its_own_child_traces_is_awaited() {
    in_own_process(|| {
        let (returns, tracer) = traced_child(true);
        let (exits, other) = traced_child(false);
        block_on(async {
            let mut child = ends::Child::new(returns).unwrap();
            assert_eq!(child.join().await.unwrap(), 8);
            let mut child = ends::Child::new(exits).unwrap();
            let Err(Error::Child { end, .. }) = child.join().await else {
                panic!()
            };
            assert_eq!(end, ChildEnd::Unknown);
        });
        for tracer in [tracer, other] {
            kill(tracer, Signal::SIGKILL).unwrap();
        }
    });
}

#[test]
fn futures_can_move_between_threads() {
    fn check<T: Send>(_: &T) {}
    let (tx, rx) = channel::<String>().unwrap();
    block_on(async {
        let (tx, rx) = (
            ends::Sender::new(tx).unwrap(),
            ends::Receiver::new(rx).unwrap(),
        );
        check(&tx.send(String::new()));
        check(&tx.send_with_fds(String::new(), &[]));
        check(&tx.closed());
        check(&rx.recv());
        check(&rx.recv_with_fds());
        check(&rx.into_stream());
        check(&ends::Sender::<String>::connect("nowhere"));
    });
}

#[test]
fn the_results_of_a_pool_are_awaited() {
    in_own_process(|| {
        let pool = wormhole::Pool::new(3, |number: u64| {
            assert_ne!(number, 50, "not this one");
            if number == 60 {
                std::process::abort();
            }
            number * 2
        });
        let pool = pool.unwrap();
        block_on(async {
            let mut pool = ends::Pool::new(pool).unwrap();
            let (mut done, mut failed, mut polls) = (BTreeSet::new(), 0, 0);
            let mut next = 0;
            while next < 200 || pool.get_ref().pending() > 0 {
                if next < 200 && pool.get_mut().try_submit(next).is_ok() {
                    next += 1;
                    continue;
                }
                if pool.get_ref().pending() == 0 {
                    // No worker has started, so there is nothing to receive.
                    pool.submit(next).await.unwrap();
                    next += 1;
                    continue;
                }
                polls = (polls + 1) % 4;
                match impatiently(polls, pool.recv()).await {
                    None => {}
                    Some(Ok((_, Ok(number)))) => assert!(done.insert(number)),
                    Some(Ok((_, Err(_)))) => failed += 1,
                    Some(Err(error)) => panic!("{error}"),
                }
            }
            assert_eq!((done.len(), failed), (198, 2));
            assert!(matches!(pool.recv().await, Err(Error::Disconnected)));
        });
    });
}

#[test]
fn a_submit_waits_for_a_worker_and_one_that_is_dropped_gives_no_job() {
    in_own_process(|| {
        let pool = wormhole::Pool::new(1, |(number, wait): (u64, Option<Receiver<()>>)| {
            if let Some(wait) = wait {
                wait.recv().unwrap();
            }
            number
        });
        let (pool, (go, wait)) = (pool.unwrap(), channel().unwrap());
        block_on(async {
            let mut pool = ends::Pool::new(pool).unwrap();
            let first = pool.submit((1, None)).await.unwrap();
            // The outcome of the first is kept.
            let second = pool.submit((2, Some(wait))).await.unwrap();
            let count = Arc::new(Count(AtomicUsize::new(0)));
            let waker = Waker::from(Arc::clone(&count));
            let mut context = Context::from_waker(&waker);
            let mut submitted = Box::pin(pool.submit((3, None)));
            for _ in 0..50 {
                assert!(submitted.as_mut().poll(&mut context).is_pending());
                sleep(Duration::from_millis(1)).await;
            }
            let woken = count.0.load(Ordering::Relaxed);
            assert!(woken < 10, "woken {woken} times, with no worker free");
            drop(submitted);
            let now = Duration::ZERO;
            assert!(becomes_ready(pool.get_ref(), PollFlags::POLLIN, now));
            for polls in 0..4 {
                assert!(impatiently(polls, pool.submit((3, None))).await.is_none());
            }
            let finish = async {
                Polls(3).await;
                go.send(()).unwrap();
            };
            let (fourth, ()) = join(pool.submit_ref(&(4, None)), finish).await;
            let mut outcomes = Vec::new();
            loop {
                match pool.recv().await {
                    Ok((id, result)) => outcomes.push((id, result.unwrap())),
                    Err(Error::Disconnected) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(outcomes, [(first, 1), (second, 2), (fourth.unwrap(), 4)]);
        });
    });
}

#[test]
fn a_submit_hears_that_no_worker_starts() {
    fn fails((): &()) -> Result<(), Failure> {
        Err(Failure::new("no licence"))
    }
    in_own_process(|| {
        // Forked first: the event loop leaves a thread.
        for (is_fresh, workers) in [(false, 2), (true, 1), (true, 2), (true, 3)] {
            let options = wormhole::PoolOptions::new(workers);
            let options = if is_fresh { options.fresh() } else { options };
            let work: fn(&mut (), u64) -> u64 = |(), n| n;
            let pool = options.start((), fails, work).unwrap();
            let error = block_on(async {
                let mut pool = ends::Pool::new(pool).unwrap();
                pool.submit(1).await.unwrap_err()
            });
            let is_right = match &error {
                Error::Child { end, .. } => matches!(end, ChildEnd::Undelivered { .. }),
                // A forked one is not replaced where the event loop has threads.
                Error::MultiThreaded => !is_fresh,
                _ => false,
            };
            assert!(is_right, "{error}");
        }
    });
}

#[test]
fn a_submit_to_a_pool_that_keeps_no_more_outcomes_is_refused() {
    in_own_process(|| {
        let options = wormhole::PoolOptions::new(1).keep(2);
        let pool = options.run(|number: u64| number).unwrap();
        block_on(async {
            let mut pool = ends::Pool::new(pool).unwrap();
            let mut submitted = 0;
            while pool.submit(submitted).await.is_ok() {
                submitted += 1;
            }
            assert!(matches!(pool.submit(9).await, Err(Error::Full)));
            for number in 0..submitted {
                assert_eq!(pool.recv().await.unwrap().1.unwrap(), number);
            }
            pool.submit(9).await.unwrap();
            assert_eq!(pool.recv().await.unwrap().1.unwrap(), 9);
        });
    });
}

#[test]
fn a_receiver_takes_all_that_has_come_at_one_wake_up() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<u32>().unwrap();
            let rx = ends::Receiver::new(rx).unwrap();
            let received = Cell::new(0);
            let mut all = pin!(async {
                for number in 0..100 {
                    assert_eq!(rx.recv().await.unwrap(), number);
                    received.set(number + 1);
                }
            });
            // A late event may wake it in vain.
            let (mut polls, mut useful) = (0, 0);
            poll_fn(|context| {
                polls += 1;
                if polls == 2 {
                    for number in 0..100 {
                        tx.try_send(number).unwrap();
                    }
                }
                let before = received.get();
                let polled = all.as_mut().poll(context);
                useful += u32::from(received.get() > before);
                if polls == 1 {
                    context.waker().wake_by_ref();
                }
                polled
            })
            .await;
            // And one more, if the event loop lets others run just then.
            assert!(useful <= 2, "{useful} for 100 messages");
            assert!(polls <= 10, "{polls} for 100 messages");
        });
    });
}

#[test]
fn a_receive_that_is_not_polled_any_more_keeps_no_message_from_others() {
    in_own_process(|| {
        run(|| async {
            let (tx, rx) = channel::<u32>().unwrap();
            let tx = ends::Sender::new(tx).unwrap();
            let rx = ends::Receiver::new(rx).unwrap();
            let (one, other) = (rx.clone(), rx.clone());
            let mut stuck = [pin!(one.recv()), pin!(rx.recv())];
            let mut context = Context::from_waker(Waker::noop());
            for number in 0..100 {
                for receive in &mut stuck {
                    assert!(receive.as_mut().poll(&mut context).is_pending());
                }
                let send = async {
                    Polls(3).await;
                    tx.send(number).await.unwrap();
                };
                assert_eq!(join(other.recv(), send).await.0.unwrap(), number);
            }
        });
    });
}

#[test]
fn many_messages_in_a_row_let_other_tasks_run() {
    in_own_process(|| {
        run(|| async {
            const MESSAGES: usize = 260; // fit the channel, so no send and no receive waits
            let (tx, rx) = channel::<usize>().unwrap();
            let tx = ends::Sender::new(tx).unwrap();
            let rx = ends::Receiver::new(rx).unwrap();
            let turns = Arc::new(AtomicUsize::new(0));
            let over = Arc::new(AtomicBool::new(false));
            let other = {
                let (turns, over) = (Arc::clone(&turns), Arc::clone(&over));
                async move {
                    while !over.load(Ordering::Relaxed) {
                        turns.fetch_add(1, Ordering::Relaxed);
                        Polls(2).await;
                    }
                    0
                }
            };
            let busy = async move {
                for number in 0..MESSAGES {
                    tx.send(number).await.unwrap();
                }
                let sent = turns.load(Ordering::Relaxed);
                for number in 0..MESSAGES {
                    assert_eq!(rx.recv().await.unwrap(), number);
                }
                let received = turns.load(Ordering::Relaxed) - sent;
                over.store(true, Ordering::Relaxed);
                sent.min(received)
            };
            type Task = std::pin::Pin<Box<dyn Future<Output = usize> + Send>>;
            let tasks: Vec<Task> = vec![Box::pin(busy), Box::pin(other)];
            let turns = all(tasks).await[0];
            assert!(turns > 0 || !ONE_THREAD);
        });
    });
}
