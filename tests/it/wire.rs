//! The bytes on the wire: every worked packet of PROTOCOL.md, in both directions.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};
use wormhole::{Options, Sender, channel};

use crate::support::{in_own_process, raw_recv, raw_send};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct TestMessage {
    a: u32,
    b: String,
    c: Vec<u8>,
}

fn test_message() -> TestMessage {
    TestMessage {
        a: 1776,
        b: "hello world!".to_owned(),
        c: vec![5, 4, 3, 2, 1],
    }
}

/// The packets of PROTOCOL.md, each a code block that starts with `packet NAME`.
fn worked_packet(name: &str) -> Vec<u8> {
    let document = include_str!("../../PROTOCOL.md");
    let start = format!("```text\npacket {name}\n");
    let (_, block) = document.split_once(&start).expect(name);
    let (block, _) = block.split_once("```").unwrap();
    let mut bytes = Vec::new();
    for line in block.lines() {
        // "0008  7b 22  {\"": offset, bytes, and the same as text.
        let hex = line.split("  ").nth(1).unwrap();
        assert_eq!(
            usize::from_str_radix(line.split("  ").next().unwrap(), 16).unwrap(),
            bytes.len()
        );
        bytes.extend(
            hex.split(' ')
                .map(|byte| u8::from_str_radix(byte, 16).unwrap()),
        );
    }
    bytes
}

#[test]
fn a_plain_message_is_as_specified() {
    in_own_process(|| {
        let (tx, rx) = channel::<TestMessage>().unwrap();
        tx.send(test_message()).unwrap();
        let (bytes, fds) = raw_recv(&rx);
        assert_eq!(bytes, worked_packet("plain"));
        assert!(fds.is_empty());

        raw_send(&tx, &worked_packet("plain"), &[]);
        assert_eq!(rx.recv().unwrap(), test_message());
    });
}

#[derive(Debug, Serialize, Deserialize)]
struct Job {
    name: String,
    #[serde(with = "wormhole::fd")]
    input: File,
    reply: Sender<u32>,
}

#[test]
fn a_message_with_descriptors_is_as_specified() {
    in_own_process(|| {
        let (tx, rx) = channel::<Job>().unwrap();
        let (reply, answer) = channel::<u32>().unwrap();
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(b"input").unwrap();
        let mut beside = tempfile::tempfile().unwrap();
        beside.write_all(b"beside").unwrap();
        let name = "count".to_owned();
        tx.send_with_fds(Job { name, input, reply }, &[beside.as_fd()])
            .unwrap();

        let (bytes, fds) = raw_recv(&rx);
        assert_eq!(bytes, worked_packet("with descriptors"));
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        raw_send(&tx, &bytes, &borrowed);
        drop(fds);

        let (mut job, beside) = rx.recv_with_fds().unwrap();
        assert_eq!(job.name, "count");
        let contents = |file: &mut File| {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(contents(&mut job.input), "input");
        let mut beside: Vec<File> = beside.into_iter().map(File::from).collect();
        assert_eq!(contents(&mut beside[0]), "beside");
        job.reply.send(3).unwrap();
        assert_eq!(answer.recv().unwrap(), 3);
    });
}

#[test]
fn a_spilled_message_is_as_specified() {
    in_own_process(|| {
        // 4608 bytes is the smallest buffer there is, so packets of at most 4576 bytes.
        let (tx, rx) = Options::new().buffer(1).channel::<String>().unwrap();
        let message = "ab".repeat(2400);
        tx.by_ref().send(&message).unwrap();
        let (bytes, fds) = raw_recv(&rx);
        assert_eq!(bytes.len(), 4576);
        let worked = worked_packet("spilled");
        assert_eq!(bytes[..worked.len()], worked);
        let [memfd] = <[OwnedFd; 1]>::try_from(fds).unwrap();
        let mut rest = String::new();
        let mut memfd = File::from(memfd);
        memfd.rewind().unwrap();
        memfd.read_to_string(&mut rest).unwrap();
        assert_eq!(4576 - 8 + rest.len(), 4802);
        assert_eq!(rest, format!("{}\"", &message[4567..]));

        // A foreign sender may put any part of the text into the packet, even none, and any offset is fine.
        for inline in [0, 1, 4567, 4568] {
            let text = serde_json::to_vec(&message).unwrap();
            let mut memfd = File::from(
                nix::sys::memfd::memfd_create(c"rest", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
                    .unwrap(),
            );
            memfd.write_all(&text[inline..]).unwrap();
            let packet = [&4802u64.to_le_bytes(), &text[..inline]].concat();
            raw_send(&tx, &packet, &[memfd.as_fd()]);
            assert_eq!(rx.recv().unwrap(), message);
        }
    });
}

#[test]
fn white_space_and_escapes_are_as_free_as_in_json() {
    in_own_process(|| {
        let (tx, rx) = channel::<TestMessage>().unwrap();
        let text = " {\n\"c\" : [5,4 ,3,2,1],\t\"b\":\"\\u0068ello world\\u0021\",\r\"a\":1776} ";
        raw_send(&tx, &crate::support::packet(text.as_bytes()), &[]);
        assert_eq!(rx.recv().unwrap(), test_message());
    });
}

#[test]
fn numbers_are_read_as_specified() {
    in_own_process(|| {
        fn reads<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
            let (tx, rx) = channel::<T>().unwrap();
            raw_send(&tx, &crate::support::packet(text.as_bytes()), &[]);
            rx.recv().ok()
        }
        for refused in ["1.0", "1e0", "-0", "300", "-1", "null", "\"1\""] {
            assert_eq!(reads::<u8>(refused), None, "{refused}");
        }
        assert_eq!(reads::<i128>("-0"), Some(0));
        assert_eq!(reads::<f64>("1"), Some(1.0));
        assert_eq!(reads::<f64>("1e999"), None);
        assert_eq!(reads::<f64>("null"), None);
        assert_eq!(reads::<Option<f64>>("null"), Some(None));
        assert_eq!(reads::<f64>("NaN"), None);
        assert_eq!(
            reads::<u128>("340282366920938463463374607431768211455"),
            Some(u128::MAX)
        );
        let loose =
            reads::<serde_json::Value>("[18446744073709551615,18446744073709551616]").unwrap();
        assert_eq!(loose[0].as_u64(), Some(u64::MAX));
        assert!(loose[1].is_f64());
    });
}
