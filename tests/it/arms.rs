//! The arms of `select!`: conditions, options, events of descriptors, and in which order all is evaluated.

use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use wormhole::{Error, Options, Receiver, Select, Sender, channel, select};

use crate::support::{in_own_process, open_fds};

/// A `None` that the compiler does not see through.
fn none<T>() -> Option<T> {
    std::hint::black_box(None)
}

const LATE: Duration = Duration::from_secs(60);

#[test]
fn an_arm_whose_condition_does_not_hold_is_off() {
    let (tx, rx) = channel::<u8>().unwrap();
    tx.send(1).unwrap();
    let got = |open: bool| {
        select! {
            recv(rx) -> message, if open => Some(message.unwrap()),
            default => None,
        }
    };
    assert_eq!(got(false), None);
    assert_eq!(got(true), Some(1));

    let may_send = |open: bool| {
        select! {
            send(tx, 2) -> sent, if open => sent.map(|()| true),
            default => Ok(false),
        }
    };
    assert!(!may_send(false).unwrap());
    assert!(may_send(true).unwrap());
    assert_eq!(rx.recv().unwrap(), 2);
}

#[test]
fn the_message_of_an_arm_that_is_off_is_not_evaluated() {
    let (tx, _rx) = channel::<u8>().unwrap();
    let message = none::<u8>();
    select! {
        send(tx, message.unwrap()) -> _sent, if message.is_some() => panic!("it is off"),
        default => {}
    }
}

#[test]
fn an_arm_may_be_an_option() {
    let (tx, rx) = channel::<u8>().unwrap();
    let (mut receiver, mut sender) = (Some(rx), Some(tx));
    let sent = select! { send(sender, 5) -> sent => sent };
    sent.unwrap();
    let got = select! { recv(receiver) -> message => message };
    assert_eq!(got.unwrap(), 5);
    let borrowed: Option<&Receiver<u8>> = receiver.as_ref();
    select! { recv(borrowed) -> _message => panic!("nothing was sent"), default => {} }

    let file: Option<UnixStream> = None;
    (receiver, sender) = (None, sender.take());
    let run = |sender: &Option<Sender<u8>>, receiver: &Option<Receiver<u8>>| {
        select! {
            recv(receiver) -> _message => "recv",
            ready(file) => "ready",
            writable(file) => "writable",
            closed(sender) => "closed",
            default(LATE) => "default",
        }
    };
    assert_eq!(run(&sender, &receiver), "closed");
    sender = None;
    let none = select! {
        recv(receiver) -> _message => "recv",
        send(sender, 1) -> _sent => "send",
        closed(sender) => "closed",
        default => "default",
    };
    assert_eq!(none, "default");
}

#[test]
#[should_panic(expected = "all arms of `select!` are switched off, and it has no `default`")]
fn a_select_with_nothing_to_wait_for_panics_instead_of_hanging() {
    let (_tx, rx) = channel::<u8>().unwrap();
    select! {
        recv(rx) -> _message, if false => {}
    }
}

#[test]
fn what_derefs_to_an_end_is_one() {
    let (tx, rx) = channel::<u8>().unwrap();
    let (tx, rx) = (Arc::new(tx), Mutex::new(rx));
    select! { send(tx, 7) -> sent => sent.unwrap() }
    // The guard is a temporary, which lives until the arm has run.
    let got = select! { recv(rx.lock().unwrap()) -> message => message.unwrap() };
    assert_eq!(got, 7);

    let (never_tx, never) = channel::<u8>().unwrap();
    let absent = none::<&Receiver<u8>>();
    select! {
        recv(absent.unwrap_or(&never.clone())) -> _message => panic!("nothing was sent"),
        default => {}
    }
    drop(never_tx);
}

#[test]
fn arms_are_evaluated_from_top_to_bottom_channel_condition_message() {
    let log = RefCell::new(Vec::new());
    fn note<T>(log: &RefCell<Vec<&'static str>>, what: &'static str, value: T) -> T {
        log.borrow_mut().push(what);
        value
    }
    let (tx, rx) = channel::<u8>().unwrap();
    let (tx2, rx2) = channel::<u8>().unwrap();
    select! {
        send(note(&log, "channel 1", &tx), note(&log, "message 1", 1)) -> _, if note(&log, "condition 1", true) => {}
        recv(note(&log, "channel 2", &rx2)) -> _, if note(&log, "condition 2", true) => {}
        send(note(&log, "channel 3", &tx2), note(&log, "message 3", 3)) -> _, if note(&log, "condition 3", false) => {}
        default(note(&log, "timeout", LATE)) => {}
    }
    let expected = [
        "channel 1",
        "condition 1",
        "message 1",
        "channel 2",
        "condition 2",
        "channel 3",
        "condition 3",
        "timeout",
    ];
    assert_eq!(*log.borrow(), expected);
    assert_eq!(rx.recv().unwrap(), 1);
}

#[test]
fn a_question_mark_in_an_arms_message_leaves_before_anything_happens() {
    fn send_parsed(tx: &Sender<u32>, text: &str) -> Result<(), Box<dyn std::error::Error>> {
        select! {
            send(tx, text.parse()?) -> sent => Ok(sent?),
        }
    }
    let (tx, rx) = channel().unwrap();
    assert!(send_parsed(&tx, "x").is_err());
    send_parsed(&tx, "5").unwrap();
    assert_eq!(rx.recv().unwrap(), 5);
}

#[test]
fn a_sender_is_closed_when_all_receivers_are_gone_and_not_before() {
    in_own_process(|| {
        let (tx, rx) = channel::<u8>().unwrap();
        let rx2 = rx.clone();
        let is_closed = || {
            let mut select = Select::new();
            select.closed(&tx);
            let by_select = select.try_select().unwrap().is_some();
            let by_macro = select! { closed(tx) => true, default => false };
            assert_eq!([by_select, by_macro], [tx.is_disconnected(); 2]);
            by_macro
        };
        assert!(!is_closed());
        while tx.try_send(0).is_ok() {}
        assert!(!is_closed(), "full is not closed");
        drop(rx);
        assert!(!is_closed());
        let waiting = thread::scope(|scope| {
            let waiting = scope.spawn(|| select! { closed(tx) => true, default(LATE) => false });
            drop(rx2);
            waiting.join().unwrap()
        });
        assert!(waiting);
        assert!(is_closed());
        assert!(matches!(tx.send(1), Err(Error::Disconnected)));
    });
}

#[test]
fn a_stream_is_writable_until_it_is_full() {
    let (mut one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    let is_writable = |stream: &UnixStream| select! { writable(stream) => true, default => false };
    assert!(is_writable(&one));
    while one.write(&[0; 4096]).is_ok() {}
    assert!(!is_writable(&one));
    drop(other);
    assert!(is_writable(&one), "an error is to be written out as well");
}

#[test]
fn default_does_not_run_while_one_of_the_channels_always_has_a_message() {
    // The other thread sends to one channel before it takes from the other, so there is always a message.
    const ROUNDS: usize = 20_000;
    let (tx1, rx1) = channel::<u8>().unwrap();
    let (tx2, rx2) = channel::<u8>().unwrap();
    let start = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                start.wait();
                tx2.send(2).unwrap();
                let _ = rx1.try_recv();
                start.wait();
            }
        });
        let mut in_vain = 0;
        for _ in 0..ROUNDS {
            tx1.send(1).unwrap();
            start.wait();
            let found = select! {
                recv(rx1) -> message => message.is_ok(),
                recv(rx2) -> message => message.is_ok(),
                default => false,
            };
            in_vain += u32::from(!found);
            start.wait();
            while rx1.try_recv().is_ok() {}
            while rx2.try_recv().is_ok() {}
        }
        assert_eq!(in_vain, 0); // not before, or the other thread would wait forever
    });
}

#[test]
fn a_long_message_is_split_once_however_long_it_waits() {
    in_own_process(|| {
        let (tx, rx) = Options::new().channel::<String>().unwrap();
        tx.send("x".repeat(1 << 20)).unwrap(); // fills the channel by itself
        let mut select = Select::new();
        select.send(&tx, "y".repeat(1 << 20));
        // The inodes of the memfds that this process has open.
        let memfds = || -> Vec<u64> {
            let fds = open_fds().into_iter();
            let memfds = fds.filter(|(_, what)| what.contains("memfd:wormhole"));
            memfds
                .map(|(fd, _)| fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino())
                .collect()
        };
        assert!(select.select_timeout(Duration::from_millis(10)).is_err());
        let before = memfds();
        assert_eq!(before.len(), 1);
        assert!(select.select_timeout(Duration::from_millis(300)).is_err());
        assert_eq!(memfds(), before, "the same one");
        assert_eq!(rx.recv().unwrap().len(), 1 << 20);
        select.select_timeout(LATE).unwrap().sent().unwrap();
        assert!(rx.recv().unwrap().starts_with('y'));
    });
}
