//! What people type: every form of sending and receiving that compiles with `std::sync::mpsc` and crossbeam-channel
//! compiles here, without a type more.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::iter::FusedIterator;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use wormhole::{Error, Receiver, ReceiverSet, Select, Sender, channel, select};

const SOON: Duration = Duration::from_millis(1);
const LATE: Duration = Duration::from_secs(60);

/// A channel for each form, so that its type follows from that form alone or from the type given.
macro_rules! forms {
    ($($name:ident: $type:ty, |$tx:ident| $send:expr, $expected:expr;)+) => {
        $(
            #[test]
            fn $name() {
                let ($tx, rx) = channel::<$type>().unwrap();
                $send.unwrap();
                assert_eq!(rx.recv().unwrap(), $expected);
            }
        )+
    };
}

forms! {
    a_literal_into_a_string: String, |tx| tx.send("text".into()), "text";
    a_literal_to_owned: String, |tx| tx.send("text".to_owned()), "text";
    a_literal_to_string: String, |tx| tx.send("text".to_string()), "text";
    string_from: String, |tx| tx.send(String::from("text")), "text";
    a_format: String, |tx| tx.send(format!("{}{}", "te", "xt")), "text";
    a_default: u32, |tx| tx.send(Default::default()), 0;
    a_collection: Vec<u32>, |tx| tx.send((1..4).collect()), [1, 2, 3];
    a_collected_string: String, |tx| tx.send("text".chars().rev().collect()), "txet";
    a_collected_map: HashMap<String, u32>, |tx| tx.send([("one".into(), 1)].into_iter().collect()),
        HashMap::from([("one".to_owned(), 1)]);
    a_parse: u16, |tx| tx.send("7".parse().unwrap()), 7;
    a_sum: i64, |tx| tx.send([1_i64, 2, 3].iter().sum()), 6;
    a_product: i64, |tx| tx.send([2_i64, 3].iter().product()), 6;
    a_try_into: u8, |tx| tx.send(300_u32.wrapping_sub(45).try_into().unwrap()), 255;
    an_into: u64, |tx| tx.send(7_u32.into()), 7;
    a_cast: u32, |tx| tx.send(b'\x07' as _), 7;
    a_literal: u8, |tx| tx.send(7), 7;
    an_expression: u8, |tx| tx.send(1 << 3), 8;
    an_array: [u8; 2], |tx| tx.send([1, 2]), [1, 2];
    a_tuple: (u8, String), |tx| tx.send((1, "a".into())), (1, "a".to_owned());
    a_unit: (), |tx| tx.send(()), ();
    a_vec: Vec<u8>, |tx| tx.send(vec![1]), [1];
    an_empty_vec: Vec<u8>, |tx| tx.send(Vec::new()), [0_u8; 0];
    a_some: Option<u8>, |tx| tx.send(Some(1)), Some(1);
    a_none: Option<u8>, |tx| tx.send(None), None;
    an_ok: Result<u8, String>, |tx| tx.send(Ok(1)), Ok(1);
    an_err: Result<u8, String>, |tx| tx.send(Err("no".into())), Err("no".to_owned());
    a_box: Box<u8>, |tx| tx.send(Box::new(1)), Box::new(1);
    an_if: u8, |tx| tx.send(if true { 1 } else { 2 }), 1;
    a_block: u8, |tx| tx.send({ let a = 1; a + 1 }), 2;
    a_match: String, |tx| tx.send(match 1 { 1 => "one".into(), _ => "many".into() }), "one";
    a_closure_call: u8, |tx| { let f = |n: u8| n + 1; tx.send(f(1)) }, 2;
    a_clone: String, |tx| { let text = String::from("text"); tx.send(text.clone()) }, "text";
    a_max: u32, |tx| tx.send([1, 3, 2].into_iter().max().unwrap()), 3;
    a_fold: u32, |tx| tx.send((1..4).fold(0, |a, b| a * 2 + b)), 11;
    an_unwrap_or_default: u32, |tx| tx.send("x".parse().unwrap_or_default()), 0;
    a_concatenation: String, |tx| tx.send(["te", "xt"].concat()), "text";
    a_duration: Duration, |tx| tx.send(Duration::from_secs(1)), Duration::from_secs(1);
    by_reference: String, |tx| tx.by_ref().send(&"text".into()), "text";
    with_a_timeout: String, |tx| tx.send_timeout("text".into(), LATE), "text";
    with_a_deadline: String, |tx| tx.send_deadline("text".into(), Instant::now() + LATE), "text";
    without_waiting: String, |tx| tx.try_send("text".into()), "text";
    with_descriptors: String, |tx| tx.send_with_fds("text".into(), &[]), "text";
    in_a_select: String, |tx| select! { send(tx, "text".into()) -> sent => sent }, "text";
}

#[test]
fn the_type_of_a_channel_follows_from_what_is_sent() {
    let (tx, rx) = channel().unwrap();
    tx.send(5_u8).unwrap();
    assert_eq!(rx.recv().unwrap(), 5);

    let (tx, rx) = channel().unwrap();
    tx.send("text".to_owned()).unwrap();
    let text: String = rx.recv().unwrap();
    assert_eq!(text, "text");
}

#[test]
fn a_todo_compiles_as_a_message() {
    let (tx, _rx) = channel::<u8>().unwrap();
    let unfinished = || -> u8 { todo!() };
    let panicked = std::panic::catch_unwind(|| tx.send(unfinished()));
    assert!(panicked.is_err());
}

#[test]
fn a_message_sent_by_reference_is_kept_and_sent_to_many() {
    let (tx, rx) = channel::<Vec<String>>().unwrap();
    let message = vec!["one".to_owned()];
    let by_ref = tx.by_ref();
    by_ref.send(&message).unwrap();
    tx.by_ref().send(&message).unwrap();
    assert_eq!(tx.as_raw_fd(), by_ref.as_raw_fd(), "one descriptor");
    drop(by_ref);
    tx.send(message).unwrap();
    drop(tx);
    assert!(
        rx.iter()
            .map(Result::unwrap)
            .all(|received| received == ["one"])
    );
}

#[test]
fn an_end_that_is_cast_keeps_its_settings() {
    let (tx, rx) = wormhole::Options::new()
        .max_message_len(4)
        .channel::<u32>()
        .unwrap();
    let (tx, rx) = (tx.cast::<String>(), rx.cast::<String>());
    tx.send("ab".into()).unwrap();
    assert_eq!(rx.recv().unwrap(), "ab");
    let error = tx.send("abc".into()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 5, limit: 4 }));
}

#[test]
fn ends_of_one_channel_know_each_other_however_they_came() {
    let (tx, rx) = channel::<u8>().unwrap();
    let (other, _other_rx) = channel::<u8>().unwrap();
    let (send, receive) = channel::<(Sender<u8>, Receiver<u8>)>().unwrap();
    send.send((tx.clone(), rx.clone())).unwrap();
    let (tx2, rx2) = receive.recv().unwrap();
    assert_ne!(tx.as_raw_fd(), tx2.as_raw_fd());
    assert!(tx.same_channel(&tx2).unwrap());
    assert!(rx.same_channel(&rx2).unwrap());
    assert!(!tx.same_channel(&other).unwrap());
}

#[test]
fn every_form_of_the_verbs_with_descriptors_carries_them() {
    let (tx, rx) = channel::<u8>().unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fds = [null.as_fd()];
    let late = || Instant::now() + LATE;
    tx.send_with_fds(1, &fds).unwrap();
    tx.try_send_with_fds(2, &fds).unwrap();
    tx.send_with_fds_timeout(3, &fds, LATE).unwrap();
    tx.send_with_fds_deadline(4, &fds, late()).unwrap();
    let count = |(message, fds): (u8, Vec<_>)| (message, fds.len());
    assert_eq!(rx.recv_with_fds().map(count).unwrap(), (1, 1));
    assert_eq!(rx.try_recv_with_fds().map(count).unwrap(), (2, 1));
    assert_eq!(rx.recv_with_fds_timeout(LATE).map(count).unwrap(), (3, 1));
    assert_eq!(
        rx.recv_with_fds_deadline(late()).map(count).unwrap(),
        (4, 1)
    );

    assert!(matches!(rx.try_recv_with_fds(), Err(Error::Empty)));
    assert!(matches!(
        rx.recv_with_fds_timeout(SOON),
        Err(Error::TimedOut { .. })
    ));
    let soon = Instant::now() + SOON;
    assert!(matches!(
        rx.recv_with_fds_deadline(soon),
        Err(Error::TimedOut { .. })
    ));
    assert!(
        matches!(rx.recv_deadline(soon), Err(Error::TimedOut { .. })),
        "it has passed"
    );
    while tx.try_send(0).is_ok() {}
    assert!(matches!(tx.try_send_with_fds(1, &fds), Err(Error::Full)));
    assert!(matches!(
        tx.send_with_fds_timeout(1, &fds, SOON),
        Err(Error::TimedOut { .. })
    ));
    let error = tx.send_with_fds_deadline(1, &fds, soon).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }));
    assert!(matches!(
        tx.send_deadline(1, soon),
        Err(Error::TimedOut { .. })
    ));
    assert_eq!(rx.recv().unwrap(), 0, "nothing of those came through");
}

#[test]
fn a_set_of_receivers_takes_descriptors_in_every_form() {
    let mut set = ReceiverSet::new().unwrap();
    let (tx, rx) = channel::<u8>().unwrap();
    let key = set.add(rx).unwrap();
    let null = std::fs::File::open("/dev/null").unwrap();
    for message in 1..=4 {
        tx.send_with_fds(message, &[null.as_fd(), null.as_fd()])
            .unwrap();
    }
    let late = Instant::now() + LATE;
    let received = [
        set.recv_with_fds().unwrap(),
        set.try_recv_with_fds().unwrap(),
        set.recv_with_fds_timeout(LATE).unwrap(),
        set.recv_with_fds_deadline(late).unwrap(),
    ];
    for (expected, (from, message)) in (1..).zip(received) {
        let (message, fds) = message.unwrap();
        assert_eq!((from, message, fds.len()), (key, expected, 2));
    }
    assert!(matches!(set.try_recv_with_fds(), Err(Error::Empty)));
    let soon = Instant::now() + SOON;
    assert!(matches!(
        set.recv_deadline(soon),
        Err(Error::TimedOut { .. })
    ));
    assert!(matches!(
        set.recv_with_fds_deadline(soon),
        Err(Error::TimedOut { .. })
    ));
}

#[test]
fn keys_of_a_set_index_and_never_mean_another_receiver() {
    let mut set = ReceiverSet::new().unwrap();
    let add = |set: &mut ReceiverSet<u8>| {
        let (tx, rx) = channel().unwrap();
        (set.add(rx).unwrap(), tx)
    };
    let (first, _tx) = add(&mut set);
    let (second, tx2) = add(&mut set);
    assert_eq!((first.index(), second.index()), (0, 1));
    assert!(set.remove(first).is_some());
    assert!(set.remove(first).is_none());
    let (third, tx3) = add(&mut set);
    assert_eq!(third.index(), 0, "the lowest that is free");
    assert_ne!(first, third);
    assert!(set.get(first).is_none() && set.get(third).is_some());
    tx3.send(3).unwrap();
    drop(tx2);
    let mut seen: Vec<_> = (0..2)
        .map(|_| set.recv().unwrap())
        .map(|(key, got)| (key, got.ok()))
        .collect();
    seen.sort();
    let mut expected = [(third, Some(3)), (second, None)];
    expected.sort();
    assert_eq!(seen, expected);
    assert_eq!(set.len(), 1);
}

#[test]
fn a_select_waits_until_a_deadline() {
    let (_tx, rx) = channel::<u8>().unwrap();
    let mut select = Select::new();
    select.recv(&rx);
    let deadline = Instant::now() + SOON;
    let error = select.select_deadline(deadline).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }));
    assert!(Instant::now() >= deadline);
}

#[test]
fn iterators_that_end_at_the_end_of_the_channel_are_fused() {
    fn is_fused<I: FusedIterator>(mut iter: I) {
        assert!(iter.next().is_some());
        assert!(iter.next().is_none());
        assert!(iter.next().is_none());
    }
    let one = || {
        let (tx, rx) = channel::<u8>().unwrap();
        tx.send(1).unwrap();
        rx
    };
    is_fused(one().iter());
    is_fused(one().into_iter());
}

#[test]
fn an_error_is_an_io_error_of_the_fitting_kind() {
    let (tx, rx) = channel::<u8>().unwrap();
    let kind = |error: Error| std::io::Error::from(error).kind();
    assert_eq!(kind(rx.try_recv().unwrap_err()), ErrorKind::WouldBlock);
    assert_eq!(
        kind(rx.recv_timeout(SOON).unwrap_err()),
        ErrorKind::TimedOut
    );
    tx.by_ref().cast::<&str>().send("x").unwrap();
    assert_eq!(kind(rx.recv().unwrap_err()), ErrorKind::InvalidData);
    let missing = Sender::<u8>::connect("/nowhere/at/all").unwrap_err();
    assert_eq!(kind(missing), ErrorKind::NotFound);
    drop(tx);
    let error = std::io::Error::from(rx.recv().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    let inner = error.get_ref().unwrap().downcast_ref::<Error>();
    assert!(matches!(inner, Some(Error::Disconnected)));
}

#[test]
fn the_alternate_form_of_an_error_names_its_cause() {
    let error = Sender::<u8>::connect("/nowhere/at/all").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.to_string(), "cannot connect to `/nowhere/at/all`");
    assert_eq!(format!("{error:#}"), format!("{error}: {source}"));
    assert_eq!(format!("{:#}", Error::Empty), Error::Empty.to_string());
}

#[test]
fn an_error_that_is_late_names_the_operation_and_the_time() {
    let (tx, rx) = channel::<u8>().unwrap();
    let text = rx.recv_timeout(SOON).unwrap_err().to_string();
    assert_eq!(text, "cannot receive a message: timed out after 1ms");
    while tx.try_send(0).is_ok() {}
    let text = tx.send_timeout(1, SOON).unwrap_err().to_string();
    assert_eq!(text, "cannot send a message: timed out after 1ms");
}

#[test]
fn an_error_shows_no_character_that_deceives() {
    let (tx, rx) = channel::<String>().unwrap();
    let hostile = "a\u{202e}b\u{2066}c\u{200b}d\u{2028}e\u{feff}f\u{ad}g\u{e0041}h\u{7}i";
    tx.cast::<HashMap<&str, u8>>()
        .send(HashMap::from([(hostile, 1)]))
        .unwrap();
    let rx = rx.cast::<std::collections::BTreeMap<String, Strict>>();
    let text = rx.recv().unwrap_err().to_string();
    assert!(
        text.contains(r"a\u{202e}b\u{2066}c\u{200b}d\u{2028}e\u{feff}f\u{ad}g\u{e0041}h\u{7}i"),
        "{text}"
    );

    #[derive(Debug, serde::Deserialize)]
    #[serde(try_from = "u8")]
    struct Strict;

    impl TryFrom<u8> for Strict {
        type Error = String;

        fn try_from(_: u8) -> Result<Self, String> {
            Err("a\u{202e}b\u{2066}c\u{200b}d\u{2028}e\u{feff}f\u{ad}g\u{e0041}h\u{7}i".to_owned())
        }
    }
}

#[test]
fn a_set_whose_receiver_was_lent_to_a_child_forgets_it_when_it_is_removed() {
    crate::support::in_own_process(|| {
        let mut set = ReceiverSet::new().unwrap();
        let (tx, rx) = channel::<u8>().unwrap();
        let (_other_tx, other) = channel::<u8>().unwrap();
        let key = set.add(rx).unwrap();
        set.add(other).unwrap();
        let lent = wormhole::spawn(set.get(key).unwrap(), |rx| rx.recv().unwrap()).unwrap();
        tx.send(5).unwrap();
        assert_eq!(lent.join().unwrap(), 5);
        let removed = set.remove(key).unwrap();
        tx.send(6).unwrap();
        // The kernel has forgotten it as well, or each wait would be a busy one.
        let readable = nix::poll::PollFlags::POLLIN;
        assert!(!crate::support::becomes_ready(&set, readable, SOON));
        assert!(matches!(set.try_recv(), Err(Error::Empty)));
        assert!(matches!(
            set.recv_timeout(SOON),
            Err(Error::TimedOut { .. })
        ));
        assert_eq!(removed.recv().unwrap(), 6);
    });
}

#[test]
fn the_longest_time_to_spin_loses_no_message() {
    crate::support::in_own_process(|| {
        let options = wormhole::Options::new().spin(Duration::MAX);
        let (tx, rx) = options.channel::<u8>().unwrap();
        let child = crate::support::forked(|| assert_eq!(rx.recv().unwrap(), 7));
        crate::support::until_asleep(child.pid); // so that it learns from having waited
        tx.send(7).unwrap();
        child.join();
    });
}
