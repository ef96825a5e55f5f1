//! Descriptors as fields of messages.

use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use wormhole::{Error, Receiver, Sender, channel};

use crate::support::{DescriptorLimit, in_own_process, open_fds, packet, pipe, raw_send};

#[derive(Debug, Serialize, Deserialize)]
struct Fd(#[serde(with = "wormhole::fd")] OwnedFd);

fn null() -> OwnedFd {
    File::open("/dev/null").unwrap().into()
}

#[test]
fn many_types_of_descriptor_are_fields() {
    in_own_process(|| {
        #[derive(Serialize, Deserialize)]
        struct Everything {
            #[serde(with = "wormhole::fd")]
            file: File,
            #[serde(with = "wormhole::fd")]
            reader: File,
            #[serde(with = "wormhole::fd")]
            writer: File,
            #[serde(with = "wormhole::fd")]
            tcp: TcpStream,
            #[serde(with = "wormhole::fd")]
            unix: UnixStream,
            sender: Sender<u8>,
            receiver: Receiver<u8>,
            optional: Option<Fd>,
            several: Vec<Fd>,
        }
        let (reader, writer) = pipe();
        let (sender, receiver) = channel::<u8>().unwrap();
        let (unix, mut unix_peer) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut tcp_peer, _) = listener.accept().unwrap();
        let (tx, rx) = channel::<Everything>().unwrap();
        tx.send(Everything {
            file: File::open("/proc/self/status").unwrap(),
            reader,
            writer,
            tcp,
            unix,
            sender,
            receiver,
            optional: Some(Fd(null())),
            several: vec![Fd(null()), Fd(null())],
        })
        .unwrap();

        let mut all = rx.recv().unwrap();
        let mut text = String::new();
        all.file.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("Name:"));
        all.writer.write_all(b"through the pipe").unwrap();
        let mut bytes = [0; 16];
        all.reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"through the pipe");
        all.tcp.write_all(b"tcp").unwrap();
        tcp_peer.read_exact(&mut bytes[..3]).unwrap();
        assert_eq!(&bytes[..3], b"tcp");
        all.unix.write_all(b"unix").unwrap();
        unix_peer.read_exact(&mut bytes[..4]).unwrap();
        assert_eq!(&bytes[..4], b"unix");
        all.sender.send(9).unwrap();
        assert_eq!(all.receiver.recv().unwrap(), 9);
        assert!(all.optional.is_some());
        assert_eq!(all.several.len(), 2);
    });
}

#[test]
fn sending_moves_a_value_that_is_given_away() {
    in_own_process(|| {
        let (tx, rx) = channel::<Fd>().unwrap();
        let before = open_fds();
        tx.send(Fd(null())).unwrap();
        assert_eq!(open_fds(), before); // the message is on its way, nothing of it is left here
        let borrowed = Fd(null());
        tx.by_ref().send(&borrowed).unwrap();
        assert_eq!(open_fds().len(), before.len() + 1);
        drop((rx.recv().unwrap(), rx.recv().unwrap(), borrowed));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn fields_come_before_descriptors_beside_the_message() {
    in_own_process(|| {
        let (tx, rx) = channel::<(Fd, u8)>().unwrap();
        let (mut first, first_writer) = pipe();
        let (mut second, second_writer) = pipe();
        tx.send_with_fds((Fd(first_writer.into()), 1), &[second_writer.as_fd()])
            .unwrap();
        drop(second_writer);
        let ((Fd(field), _), beside) = rx.recv_with_fds().unwrap();
        assert_eq!(beside.len(), 1);
        File::from(field).write_all(b"field").unwrap();
        for fd in beside {
            File::from(fd).write_all(b"beside").unwrap();
        }
        let mut text = String::new();
        first.read_to_string(&mut text).unwrap();
        second.read_to_string(&mut text).unwrap();
        assert_eq!(text, "fieldbeside");
    });
}

#[test]
fn the_limit_counts_fields_and_descriptors_beside_them() {
    in_own_process(|| {
        let (tx, rx) = channel::<Vec<Fd>>().unwrap();
        let before = open_fds();
        let message: Vec<Fd> = (0..200).map(|_| Fd(null())).collect();
        let beside: Vec<_> = vec![tx.as_fd(); 53];
        tx.by_ref().send_with_fds(&message, &beside).unwrap();
        let (received, fds) = rx.recv_with_fds().unwrap();
        assert_eq!((received.len(), fds.len()), (200, 53));
        drop((received, fds));

        let beside = vec![tx.as_fd(); 54];
        let error = tx.by_ref().send_with_fds(&message, &beside).unwrap_err();
        assert!(matches!(
            error,
            Error::TooManyFds {
                count: 254,
                limit: 253
            }
        ));
        drop(message);
        let message: Vec<Fd> = (0..300).map(|_| Fd(null())).collect();
        let error = tx.send(message).unwrap_err();
        assert!(matches!(
            error,
            Error::TooManyFds {
                count: 300,
                limit: 253
            }
        ));
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn too_many_fields_take_up_no_more_descriptors_than_a_packet_carries() {
    #[derive(Clone, Copy, Serialize)]
    struct Same<'a>(#[serde(with = "wormhole::fd")] BorrowedFd<'a>);
    in_own_process(|| {
        let null = null();
        let (tx, _rx) = channel::<Vec<Same<'_>>>().unwrap();
        let before = open_fds();
        let message = vec![Same(null.as_fd()); 254];
        let limit = DescriptorLimit::new();
        limit.leave_room_for(253);
        let error = tx.by_ref().send(&message).unwrap_err();
        assert!(
            matches!(error, Error::TooManyFds { count: 254, .. }),
            "{error}"
        );
        limit.leave_room_for(252);
        let error = tx.send(message).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        drop(limit);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn descriptors_work_only_inside_a_send_or_receive() {
    in_own_process(|| {
        let (tx, _rx) = channel::<u8>().unwrap();
        let error = serde_json::to_string(&tx).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a descriptor or a channel end can only be serialized by a wormhole send"
        );
        assert!(serde_json::to_string(&Fd(null())).is_err());
        let error = serde_json::from_str::<Fd>("0").unwrap_err();
        assert_eq!(
            error.to_string(),
            "a descriptor or a channel end can only be deserialized by a wormhole receive"
        );
        assert!(serde_json::from_str::<Sender<u8>>("0").is_err());
        assert!(serde_json::from_str::<Receiver<u8>>("0").is_err());
    });
}

#[test]
fn wrong_indices_are_errors_that_name_them() {
    in_own_process(|| {
        let (tx, rx) = channel::<Vec<Fd>>().unwrap();
        let before = open_fds();
        let null = null();
        let reason = |text: &str| {
            raw_send(&tx, &packet(text.as_bytes()), &[null.as_fd(), null.as_fd()]);
            match rx.recv().unwrap_err() {
                Error::Decode { reason, .. } => reason,
                error => panic!("{text}: {error:?}"),
            }
        };
        assert_eq!(
            reason("[0,0]"),
            "descriptor 0 was taken before at line 1 column 5"
        );
        assert_eq!(
            reason("[0,2]"),
            "descriptor 2 of a message that carries 2 (the first is 0) at line 1 column 5"
        );
        assert!(reason("[18446744073709551615]").contains("18446744073709551615"));
        for wrong in [
            "[-1]", "[\"0\"]", "[0.0]", "[null]", "[[0]]", "[{}]", "[1e0]",
        ] {
            reason(wrong);
        }
        drop(null);
        assert_eq!(open_fds(), before);
    });
}

/// A message whose own serialization uses another channel, before and after its descriptor.
struct Nesting {
    fd: OwnedFd,
}

thread_local! {
    static INNER: RefCell<Option<(Sender<Fd>, Receiver<Fd>)>> = const { RefCell::new(None) };
}

fn use_inner_channel() {
    INNER.with_borrow(|inner| {
        let (tx, rx) = inner.as_ref().unwrap();
        tx.send(Fd(null())).unwrap();
        drop(rx.recv().unwrap());
        tx.send_with_fds(Fd(null()), &[tx.as_fd()]).unwrap();
        assert!(matches!(rx.recv(), Err(Error::UnexpectedFds { count: 1 })));
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    });
}

impl Serialize for Nesting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(3)?;
        use_inner_channel();
        tuple.serialize_element("a text long enough to notice when its buffer is overwritten")?;
        use_inner_channel();
        tuple.serialize_element(&Fd(self.fd.try_clone().unwrap()))?;
        use_inner_channel();
        tuple.serialize_element(&7)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Nesting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inside(String, Fd, u8);
        impl<'de> Deserialize<'de> for Inside {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                use_inner_channel();
                let (text, fd, number) = Deserialize::deserialize(deserializer)?;
                use_inner_channel();
                Ok(Inside(text, fd, number))
            }
        }
        use_inner_channel();
        let Inside(text, Fd(fd), number) = Inside::deserialize(deserializer)?;
        assert_eq!(number, 7);
        assert!(text.starts_with("a text long"));
        Ok(Nesting { fd })
    }
}

#[test]
fn a_message_may_use_other_channels_while_it_is_encoded_and_decoded() {
    in_own_process(|| {
        INNER.set(Some(channel().unwrap()));
        let (tx, rx) = channel::<Vec<Nesting>>().unwrap();
        let before = open_fds();
        let (mut reader, writer) = pipe();
        let fd = OwnedFd::from(writer);
        let copy = fd.try_clone().unwrap();
        tx.send(vec![Nesting { fd }, Nesting { fd: copy }]).unwrap();
        for Nesting { fd } in rx.recv().unwrap() {
            File::from(fd).write_all(b"x").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "xx");
        drop(reader);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_failed_or_panicking_message_leaves_nothing_for_the_next_one() {
    in_own_process(|| {
        struct Breaks {
            panics: bool,
        }
        impl Serialize for Breaks {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::{Error, SerializeTuple};
                let mut tuple = serializer.serialize_tuple(2)?;
                tuple.serialize_element(&Fd(null()))?;
                assert!(!self.panics, "on purpose");
                Err(S::Error::custom("on purpose"))
            }
        }
        let (tx, rx) = channel::<Fd>().unwrap();
        let breaking = Sender::<Breaks>::try_from(tx.as_fd().try_clone_to_owned().unwrap());
        let breaking = breaking.unwrap();
        let before = open_fds();

        let error = breaking.send(Breaks { panics: false }).unwrap_err();
        assert!(error.to_string().ends_with(": on purpose"), "{error}");
        assert_eq!(open_fds(), before);

        let panicked = std::panic::catch_unwind(|| breaking.send(Breaks { panics: true }));
        assert!(panicked.is_err());
        assert_eq!(open_fds(), before);
        assert!(serde_json::to_string(&Fd(null())).is_err()); // no list is left in charge

        tx.send(Fd(null())).unwrap();
        let (_, beside) = rx.recv_with_fds().unwrap();
        assert_eq!(beside.len(), 0);
    });
}

#[test]
fn a_panic_while_decoding_leaves_nothing_behind() {
    in_own_process(|| {
        struct Panics;
        impl<'de> Deserialize<'de> for Panics {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let _fd = Fd::deserialize(deserializer)?;
                panic!("on purpose");
            }
        }
        let (tx, rx) = channel::<Fd>().unwrap();
        let breaking = Receiver::<Panics>::try_from(rx.as_fd().try_clone_to_owned().unwrap());
        let breaking = breaking.unwrap();
        let before = open_fds();
        tx.send_with_fds(Fd(null()), &[tx.as_fd()]).unwrap();
        assert!(std::panic::catch_unwind(|| breaking.recv().is_ok()).is_err());
        assert_eq!(open_fds(), before);
        tx.send(Fd(null())).unwrap();
        rx.recv().unwrap();
        assert!(serde_json::from_str::<Fd>("0").is_err());
    });
}

#[test]
fn thread_local_destructors_may_use_channels() {
    in_own_process(|| {
        struct SendsLate(Sender<(u8, Option<Fd>)>);
        impl Drop for SendsLate {
            fn drop(&mut self) {
                self.0.send((1, None)).unwrap();
                let _ = self.0.send((2, Some(Fd(null())))); // `Ok` or an error, but no panic
            }
        }
        thread_local! {
            static LATE: RefCell<Option<SendsLate>> = const { RefCell::new(None) };
        }
        let (tx, rx) = channel::<(u8, Option<Fd>)>().unwrap();
        let thread = std::thread::spawn(move || {
            LATE.set(Some(SendsLate(tx.clone()))); // registered first, so destroyed last
            tx.send((0, None)).unwrap();
        });
        thread.join().unwrap();
        assert_eq!(rx.recv().unwrap().0, 0);
        assert_eq!(rx.recv().unwrap().0, 1);
    });
}
