//! Packets as a hostile peer could make them, with descriptors of all kinds, into receivers of several types.
//!
//! Each gives what a model of the protocol says, nothing blocks or leaks, and after each the next good message
//! arrives whole. The input: a byte for the type of the messages, one for the form of receiving, then up to
//! four packets as `Packet::read` has them.

#![no_main]

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use wormhole::{Blob, Error, Options, Receiver, ReceiverSet, Sender, select};
use wormhole_fuzz::{
    Fd, Input, Job, LIMIT, Message, Order, Packet, Request, Shape, Tree, check, open_descriptors,
    raw_send, verdict,
};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let run = match input.below(16) {
        0 => run::<u32>,
        1 => run::<String>,
        2 => run::<Vec<u8>>,
        3 => run::<(f64, i64, bool)>,
        4 => run::<Option<BTreeMap<String, ()>>>,
        5 => run::<Order>,
        6 => run::<Shape>,
        7 => run::<serde_json::Value>,
        8 => run::<()>,
        9 => run::<Fd>,
        10 => run::<Sender<u8>>,
        11 => run::<Receiver<String>>,
        12 => run::<Blob>,
        13 => run::<Job>,
        14 => run::<Request>,
        _ => run::<Tree>,
    };
    let before = open_descriptors();
    run(&mut input);
    assert_eq!(open_descriptors(), before);
});

fn run<M: Message<Mirror: fmt::Debug>>(input: &mut Input<'_>) {
    let (tx, rx) = Options::new()
        .max_message_len(LIMIT)
        .channel::<M>()
        .unwrap();
    let form = input.byte();
    let mut verdicts = Vec::new();
    for _ in 0..4 {
        let packet = Packet::read(input);
        raw_send(&tx, &packet);
        verdicts.push(verdict::<M>(&packet));
        let good = Packet::good::<M>();
        raw_send(&tx, &good);
        verdicts.push(verdict::<M>(&good));
        if input.is_empty() {
            break;
        }
    }
    for verdict in &verdicts {
        let (received, with_fds) = receive(form, &rx);
        check(verdict, received, with_fds);
    }
    assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    drop(tx);
    assert!(matches!(receive(form, &rx).0, Err(Error::Disconnected)));
}

fn receive<M: Message>(form: u8, rx: &Receiver<M>) -> (Result<(M, Vec<OwnedFd>), Error>, bool) {
    let received = match form % 6 {
        0 => return (rx.recv_with_fds(), true),
        1 => rx.recv(),
        2 => rx.try_recv(),
        3 => rx.recv_timeout(Duration::from_secs(1)),
        4 => select! { recv(rx) -> message => message },
        _ => {
            let mut set = ReceiverSet::new().unwrap();
            set.add(rx.clone()).unwrap();
            set.recv().unwrap().1
        }
    };
    (received.map(|message| (message, vec![])), false)
}
