//! The verbs and the iterators, as a user of `std::sync::mpsc` knows them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wormhole::{
    Blob, Child, Error, Listener, Options, Receiver, ReceiverSet, Select, Sender, channel,
};

use crate::support::{in_own_process, os_error, pipe};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Newtype(String),
    Tuple(i8, Option<char>),
    Struct { map: BTreeMap<u16, Vec<bool>> },
}

fn shapes() -> Vec<Shape> {
    vec![
        Shape::Unit,
        Shape::Newtype("\u{0}\"\\\u{1f980}".to_owned()),
        Shape::Tuple(-128, Some('\u{10ffff}')),
        Shape::Struct {
            map: BTreeMap::from([(0, vec![]), (65535, vec![true, false])]),
        },
    ]
}

#[test]
fn values_arrive_as_they_left() {
    in_own_process(|| {
        let (tx, rx) = channel::<Vec<Shape>>().unwrap();
        tx.send(shapes()).unwrap();
        assert_eq!(rx.recv().unwrap(), shapes());
    });
}

#[test]
fn messages_are_given_away_or_borrowed() {
    in_own_process(|| {
        let (tx, rx) = channel::<Shape>().unwrap();
        for shape in shapes() {
            tx.by_ref().send(&shape).unwrap();
            tx.by_ref().try_send(&shape).unwrap();
            tx.by_ref().send_timeout(&shape, Duration::ZERO).unwrap();
            tx.send(shape.clone()).unwrap();
            for _ in 0..4 {
                assert_eq!(rx.recv().unwrap(), shape);
            }
        }
    });
}

#[test]
fn messages_without_content() {
    in_own_process(|| {
        let (tx, rx) = channel::<()>().unwrap();
        tx.send(()).unwrap();
        rx.recv().unwrap();
        let (tx, rx) = channel::<String>().unwrap();
        tx.send(String::new()).unwrap();
        assert_eq!(rx.recv().unwrap(), "");
    });
}

#[test]
fn literals_need_no_annotation() {
    in_own_process(|| {
        let (tx, rx) = channel::<u64>().unwrap();
        tx.send(5).unwrap();
        tx.send(6).unwrap();
        assert_eq!(rx.recv().unwrap() + rx.recv().unwrap(), 11);
    });
}

#[test]
fn iter_ends_when_disconnected() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        for number in 0..100 {
            tx.send(number).unwrap();
        }
        drop(tx);
        let mut expected = 0;
        for number in &rx {
            assert_eq!(number.unwrap(), expected);
            expected += 1;
        }
        assert_eq!(expected, 100);
        assert!(rx.iter().next().is_none());
        assert!(rx.into_iter().next().is_none());
    });
}

#[test]
fn iter_goes_on_after_an_error() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let numbers = Sender::<u32>::try_from(tx.as_fd().try_clone_to_owned().unwrap()).unwrap();
        tx.send("one".to_owned()).unwrap();
        numbers.send(2).unwrap();
        tx.send("three".to_owned()).unwrap();
        drop((tx, numbers));
        let kinds: Vec<bool> = rx.into_iter().map(|message| message.is_ok()).collect();
        assert_eq!(kinds, [true, false, true]);
    });
}

#[test]
fn try_iter_ends_when_empty_or_disconnected() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        assert_eq!(rx.try_iter().map(Result::unwrap).sum::<u32>(), 3);
        tx.send(3).unwrap();
        drop(tx);
        assert_eq!(rx.try_iter().map(Result::unwrap).sum::<u32>(), 3);
        assert!(rx.try_iter().next().is_none());
    });
}

#[test]
fn blocked_recv_is_woken_by_a_message_and_by_disconnection() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let receiver = thread::spawn(move || (rx.recv().unwrap(), rx.recv().unwrap_err()));
        tx.send(1).unwrap();
        drop(tx);
        let (message, error) = receiver.join().unwrap();
        assert_eq!(message, 1);
        assert!(matches!(error, Error::Disconnected));
    });
}

#[test]
fn blocked_send_is_woken_by_room_and_by_disconnection() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let sender = thread::spawn(move || (0..).find_map(|n| tx.send(n).err().map(|e| (n, e))));
        for expected in 0..10_000 {
            assert_eq!(rx.recv().unwrap(), expected);
        }
        drop(rx);
        let (sent, error) = sender.join().unwrap().unwrap();
        assert!(sent >= 10_000);
        assert!(matches!(error, Error::Disconnected));
    });
}

#[test]
fn timeouts_are_not_short() {
    in_own_process(|| {
        let timeout = Duration::from_millis(30);
        let (tx, rx) = channel::<u32>().unwrap();
        let start = Instant::now();
        assert!(matches!(
            rx.recv_timeout(timeout),
            Err(Error::TimedOut { .. })
        ));
        assert!(start.elapsed() >= timeout);

        while tx.try_send(0).is_ok() {}
        let start = Instant::now();
        let error = tx.send_timeout(0, timeout).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }));
        assert!(start.elapsed() >= timeout);
    });
}

#[test]
fn a_timeout_beyond_the_clock_is_for_ever() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let receiver = thread::spawn(move || rx.recv_timeout(Duration::MAX));
        tx.send_timeout(1, Duration::MAX).unwrap();
        assert_eq!(receiver.join().unwrap().unwrap(), 1);
    });
}

#[test]
fn a_zero_timeout_takes_what_is_there() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        assert!(matches!(
            rx.recv_timeout(Duration::ZERO),
            Err(Error::TimedOut { .. })
        ));
        tx.send_timeout(1, Duration::ZERO).unwrap();
        assert_eq!(rx.recv_timeout(Duration::ZERO).unwrap(), 1);
    });
}

#[test]
fn a_full_channel_keeps_what_it_has() {
    in_own_process(|| {
        let (tx, rx) = channel::<u64>().unwrap();
        let sent = (0..)
            .take_while(|n| tx.by_ref().try_send(n).is_ok())
            .count() as u64;
        assert!(matches!(tx.try_send(sent), Err(Error::Full)));
        assert!(sent > 100);
        assert!(rx.try_iter().map(Result::unwrap).eq(0..sent));
    });
}

#[test]
fn clones_work_side_by_side() {
    in_own_process(|| {
        let (tx, rx) = channel::<u64>().unwrap();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let tx = tx.clone();
                thread::spawn(move || (1..=1000).for_each(|n| tx.send(n).unwrap()))
            })
            .collect();
        let receivers: Vec<_> = (0..4)
            .map(|_| {
                let rx = rx.clone();
                thread::spawn(move || rx.iter().map(Result::unwrap).sum::<u64>())
            })
            .collect();
        drop((tx, rx));
        senders.into_iter().for_each(|s| s.join().unwrap());
        let total: u64 = receivers.into_iter().map(|r| r.join().unwrap()).sum();
        assert_eq!(total, 4 * 500_500);
    });
}

#[test]
fn descriptors_beside_a_message_arrive_in_order() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let (mut readers, writers): (Vec<_>, Vec<_>) = (0..3).map(|_| pipe()).unzip();
        let borrowed: Vec<_> = writers.iter().map(AsFd::as_fd).collect();
        tx.send_with_fds("three".to_owned(), &borrowed).unwrap();
        drop(writers);
        let (text, fds) = rx.recv_with_fds().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("three", 3));
        for (number, fd) in fds.into_iter().enumerate() {
            let mut writer = File::from(fd);
            write!(writer, "pipe {number}").unwrap();
        }
        for (number, reader) in readers.iter_mut().enumerate() {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, format!("pipe {number}"));
        }
    });
}

#[test]
fn recv_with_fds_gives_none_when_none_came() {
    in_own_process(|| {
        let (tx, rx) = channel::<u8>().unwrap();
        tx.send_with_fds(1, &[]).unwrap();
        let (message, fds) = rx.recv_with_fds().unwrap();
        assert_eq!((message, fds.len()), (1, 0));
    });
}

#[test]
fn what_json_cannot_carry_is_as_documented() {
    in_own_process(|| {
        let (tx, rx) = channel::<f64>().unwrap();
        assert!(matches!(tx.send(f64::NAN), Err(Error::Encode { .. })));
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));

        let (tx, rx) = channel::<Option<Option<u8>>>().unwrap();
        assert!(matches!(tx.send(Some(None)), Err(Error::Encode { .. })));
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));

        let (tx, rx) = channel::<HashMap<(u8, u8), u8>>().unwrap();
        let error = tx.send(HashMap::from([((1, 2), 3)])).unwrap_err();
        assert!(matches!(error, Error::Encode { .. }));
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));

        let (tx, rx) = channel::<HashMap<bool, char>>().unwrap();
        tx.send(HashMap::from([(true, 'a')])).unwrap();
        assert_eq!(rx.recv().unwrap(), HashMap::from([(true, 'a')]));

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(untagged)]
        enum Untagged {
            Wide { wide: u128 },
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind")]
        enum Tagged {
            Wide { wide: u128 },
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Wide {
            wide: u128,
        }
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Flattened {
            #[serde(flatten)]
            inner: Wide,
        }
        fn is_refused<T: Serialize + serde::de::DeserializeOwned>(message: &T) {
            let (tx, rx) = channel::<T>().unwrap();
            tx.by_ref().send(message).unwrap();
            assert!(matches!(rx.recv(), Err(Error::Decode { .. })));
        }
        is_refused(&Untagged::Wide { wide: 1 });
        is_refused(&Tagged::Wide { wide: 1 });
        is_refused(&Flattened {
            inner: Wide { wide: 1 },
        });
    });
}

#[test]
fn ends_are_send_and_sync_whatever_the_message() {
    fn check<E: Send + Sync + Unpin>() {}
    check::<Sender<std::rc::Rc<std::cell::Cell<u8>>>>();
    check::<Receiver<*mut u8>>();
    check::<Error>();
    check::<Options>();
    check::<ReceiverSet<*mut u8>>();
    check::<Select<'_>>();
    check::<Listener<*mut u8>>();
    check::<Blob>();
    check::<Child<u8>>();
}

#[test]
fn handles_are_small() {
    // Two words that find the socket, a word for the length of messages, and 8 bytes for that of blobs.
    assert!(size_of::<Sender<[u8; 100]>>() <= 4 * size_of::<usize>() + 8);
    assert!(size_of::<Receiver<[u8; 100]>>() <= 4 * size_of::<usize>() + 8);
    // Where a word has 32 bits, a number of 64 takes two.
    let words = if cfg!(target_pointer_width = "64") {
        6
    } else {
        8
    };
    assert!(size_of::<Error>() <= words * size_of::<usize>());
}

#[test]
fn errors_speak() {
    in_own_process(|| {
        let text = |error: Error| error.to_string();
        let (tx, rx) = channel::<Vec<u8>>().unwrap();
        let words = Sender::<&str>::try_from(tx.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(
            text(rx.try_recv().unwrap_err()),
            "cannot receive now: nothing is waiting"
        );
        words.send("hi").unwrap();
        assert_eq!(
            text(rx.recv().unwrap_err()),
            "cannot decode a message as `alloc::vec::Vec<u8>`: \
         invalid type: string \"hi\", expected a sequence at line 1 column 4"
        );
        let fds: Vec<_> = vec![tx.as_fd(); 300];
        assert_eq!(
            text(tx.send_with_fds(vec![], &fds).unwrap_err()),
            "cannot send 300 descriptors in one message: the limit is 253"
        );
        tx.send_with_fds(vec![], &fds[..3]).unwrap();
        assert_eq!(
            text(rx.recv().unwrap_err()),
            "received a message with 3 descriptors that nothing claims"
        );
        let file = File::open("/dev/null").unwrap();
        let error = Sender::<u8>::try_from(OwnedFd::from(file)).unwrap_err();
        assert_eq!(
            text(error),
            format!(
                "descriptor is not an end of a channel: {}",
                os_error(nix::Error::ENOTSOCK)
            )
        );
        drop((tx, words));
        assert_eq!(
            text(rx.recv().unwrap_err()),
            "channel is disconnected: every copy of its other end is gone"
        );
    });
}

#[test]
fn an_errors_source_is_not_in_its_text() {
    in_own_process(|| {
        let error = Options::new()
            .buffer(usize::MAX)
            .channel::<u8>()
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot set the size of the channel's buffer"
        );
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(!source.is_empty() && !error.to_string().contains(&source));
    });
}
