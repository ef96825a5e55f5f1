//! Arbitrary JSON into messages with descriptor fields, with any number of descriptors beside it.
//!
//! Either each field has the file that its index says, and each index is used once; or there is an error and
//! all are closed. The input: a byte for the type of the message, one for the form of receiving, one for how
//! much of the text goes through a memfd, one for the number of descriptors, one for the kind of the first
//! (the others are the kinds that follow); the rest is the text.

#![no_main]

use std::fmt;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use wormhole::{Blob, Error, Options, Sender};
use wormhole_fuzz::{
    Fd, File, Input, Job, Kind, LIMIT, Message, Packet, Request, Tree, check, open_descriptors,
    raw_send, verdict,
};

/// Few enough that a type finds what it wants.
const KINDS: [Kind; 7] = [
    Kind::Null,
    Kind::End,
    Kind::Blob,
    Kind::PipeReader,
    Kind::EmptyBlob,
    Kind::Stream,
    Kind::EmptyMemfd,
];

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let run = match input.below(6) {
        0 => run::<Job>,
        1 => run::<Request>,
        2 => run::<Tree>,
        3 => run::<Fd>,
        4 => run::<Sender<u8>>,
        _ => run::<Blob>,
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
    let spilled = usize::from(input.byte());
    let count = match input.byte() {
        255 => 252,
        count => usize::from(count % 12),
    };
    let first = input.below(KINDS.len());
    let text = input.0;

    let (inline, rest) = text.split_at(text.len() - text.len() * spilled / 255);
    let memfd = (!rest.is_empty()).then(|| File::open(Kind::Rest, rest));
    let others = (0..count).map(|i| File::open(KINDS[(first + i) % KINDS.len()], b""));
    let packet = Packet {
        bytes: [&(text.len() as u64).to_le_bytes(), inline].concat(),
        fds: memfd.into_iter().chain(others).collect(),
    };
    raw_send(&tx, &packet);
    let verdict = verdict::<M>(&packet);
    drop(packet);

    let with_fds = matches!(form % 4, 0 | 2);
    let received = match form % 4 {
        0 | 2 => rx.recv_with_fds(),
        1 => rx.recv().map(|message| (message, vec![])),
        _ => rx
            .recv_timeout(Duration::ZERO)
            .map(|message| (message, vec![])),
    };
    // What was received goes on as it came: the indices are counted anew, the files are the same.
    if let Ok((message, _)) = &received {
        let mut files = Vec::new();
        message.holds(&mut files);
        again(message, &files);
    }
    check(&verdict, received, with_fds);
    drop(tx);
    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
}

fn again<M: Message>(message: &M, files: &[wormhole_fuzz::Inode]) {
    let (tx, rx) = Options::new().channel::<M>().unwrap();
    tx.by_ref().try_send(message).unwrap();
    let mut found = Vec::new();
    rx.try_recv().unwrap().holds(&mut found);
    assert_eq!(found, files);
}
