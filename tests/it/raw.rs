//! Undecoded messages, and what a `Serialize` or `Deserialize` can know of the message that it is part of.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use wormhole::{Blob, Error, Raw, Sender, channel, fd};

use crate::support::{in_own_process, open_fds, packet, pipe, raw_send};

#[derive(Debug, Serialize, Deserialize)]
struct Mail {
    subject: String,
    reply: Sender<u32>,
    #[serde(with = "wormhole::fd")]
    file: File,
    attachment: Blob,
}

fn mail(reply: Sender<u32>) -> Mail {
    Mail {
        subject: "hello".to_owned(),
        reply,
        file: File::open("/dev/null").unwrap(),
        attachment: Blob::from_bytes(b"bytes").unwrap(),
    }
}

#[test]
fn a_message_passes_a_proxy_unchanged_with_all_that_it_holds() {
    in_own_process(|| {
        let (tx, rx) = channel::<Mail>().unwrap();
        let (forward, forwarded) = channel::<Mail>().unwrap();
        let (reply, replies) = channel::<u32>().unwrap();
        let before = open_fds();
        let beside = File::open("/dev/zero").unwrap();
        tx.send_with_fds(mail(reply.clone()), &[beside.as_fd()])
            .unwrap();
        drop(beside);

        let message = rx.clone().cast::<Raw>().recv().unwrap();
        let text = r#"{"subject":"hello","reply":0,"file":1,"attachment":2}"#;
        assert_eq!(message.text(), text);
        assert_eq!(message.fds().len(), 4);
        forward.clone().cast::<Raw>().send(message).unwrap();

        let (got, beside) = forwarded.recv_with_fds().unwrap();
        assert_eq!((got.subject.as_str(), beside.len()), ("hello", 1));
        assert_eq!(&*got.attachment, b"bytes");
        got.reply.send(7).unwrap();
        assert_eq!(replies.recv().unwrap(), 7);
        drop((got, beside));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn numbers_keep_their_digits_and_long_texts_their_length() {
    let (tx, rx) = channel::<Raw>().unwrap();
    let long = format!("[{}1]", "0.10000000000000000000000001, ".repeat(20_000));
    for text in [
        "1e400",
        "123456789012345678901234567890",
        "[1.0, 1.00]",
        &long,
    ] {
        tx.send(Raw::from_parts(text.to_owned(), Vec::new()).unwrap())
            .unwrap();
        assert_eq!(rx.recv().unwrap().text(), text);
    }
}

#[test]
fn what_is_no_json_is_refused_on_both_sides() {
    for text in ["", "[1", "{}{}", "nul", "\u{feff}1"] {
        let error = Raw::from_parts(text.to_owned(), Vec::new()).unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{text}");
    }
    let (tx, rx) = channel::<Raw>().unwrap();
    raw_send(&tx, &packet(b"[1"), &[]);
    tx.send(Raw::from_parts("2".to_owned(), Vec::new()).unwrap())
        .unwrap();
    assert!(matches!(rx.recv(), Err(Error::Decode { .. })));
    assert_eq!(rx.recv().unwrap().text(), "2", "in sync");
}

#[test]
fn a_message_can_be_encoded_looked_at_and_decoded_without_a_channel() {
    in_own_process(|| {
        let (reply, replies) = channel::<u32>().unwrap();
        let before = open_fds();
        let message = Raw::encode(&mail(reply.clone())).unwrap();
        let again = message.clone();
        let error = message.clone().decode::<u8>().unwrap_err();
        assert!(matches!(error, Error::Decode { .. }));
        for message in [message, again] {
            let mail: Mail = message.decode().unwrap();
            mail.reply.send(1).unwrap();
            assert_eq!(&*mail.attachment, b"bytes");
            assert_eq!(replies.recv().unwrap(), 1);
        }
        assert_eq!(open_fds(), before);

        let left = Raw::encode(&mail(reply.clone()))
            .unwrap()
            .decode::<serde_json::Value>();
        assert!(matches!(left, Err(Error::UnexpectedFds { count: 3 })));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn an_undecoded_message_is_the_whole_of_a_message() {
    let (_keep, file) = pipe();
    let raw = || {
        let fds = vec![OwnedFd::from(file.try_clone().unwrap())];
        Raw::from_parts("0".to_owned(), fds).unwrap()
    };
    assert!(
        serde_json::to_string(&raw()).is_err(),
        "no send is going on"
    );
    assert!(serde_json::from_str::<Raw>("0").is_err());
    let (tx, rx) = channel::<(Option<Sender<u8>>, Raw)>().unwrap();
    let (sender, _receiver) = channel().unwrap();
    let error = tx.send((Some(sender), raw())).unwrap_err();
    assert!(
        error.to_string().contains("must be the whole of a message"),
        "{error}"
    );
    tx.send((None, raw())).unwrap();
    assert_eq!(rx.recv().unwrap().1.fds().len(), 1);
}

#[test]
fn too_many_descriptors_of_an_undecoded_message_are_refused_with_their_number() {
    in_own_process(|| {
        let (tx, rx) = channel::<Raw>().unwrap();
        let fds = (0..254).map(|_| File::open("/dev/null").unwrap().into());
        let message = Raw::from_parts("0".to_owned(), fds.collect()).unwrap();
        let error = tx.send(message).unwrap_err();
        assert!(matches!(
            error,
            Error::TooManyFds {
                count: 254,
                limit: 253
            }
        ));
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}

#[test]
fn a_value_knows_whether_it_is_part_of_a_message() {
    #[derive(Debug, PartialEq)]
    struct Aware;

    impl Serialize for Aware {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bool(fd::is_encoding())
        }
    }

    impl<'de> Deserialize<'de> for Aware {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let sent = bool::deserialize(deserializer)?;
            assert_eq!(sent, fd::is_decoding());
            Ok(Aware)
        }
    }

    assert_eq!(serde_json::to_string(&Aware).unwrap(), "false");
    assert_eq!(serde_json::from_str::<Aware>("false").unwrap(), Aware);
    let (tx, rx) = channel::<Aware>().unwrap();
    tx.send(Aware).unwrap();
    assert_eq!(rx.recv().unwrap(), Aware);
    assert!(!fd::is_encoding() && !fd::is_decoding());
}
