//! The packets, descriptors and values of `conformance/`, as its README describes them.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::SFlag;
use serde_json::{Value, json};

use crate::support::{pipe, two_way_pair};

/// The bytes that stand in the data as digits and pieces.
pub(crate) fn bytes(data: &Value) -> Vec<u8> {
    let pieces = match data {
        Value::Array(pieces) => pieces.as_slice(),
        one => std::slice::from_ref(one),
    };
    pieces.iter().flat_map(piece).collect()
}

fn piece(data: &Value) -> Vec<u8> {
    let once = match (data.as_str(), data["ascii"].as_str()) {
        (None, Some(text)) => text.as_bytes().to_vec(),
        (digits, None) => from_hex(digits.or(data["hex"].as_str()).expect("bytes")),
        _ => unreachable!(),
    };
    once.repeat(times(data))
}

fn times(data: &Value) -> usize {
    data["times"].as_u64().unwrap_or(1).try_into().unwrap()
}

fn from_hex(digits: &str) -> Vec<u8> {
    assert_eq!(digits.len() % 2, 0, "{digits}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(byte).collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A value of the data in the one form in which values are compared: all bytes as one string of digits.
pub(crate) fn normal(value: &Value) -> Value {
    let Value::Object(members) = value else {
        panic!("no value: {value}");
    };
    let levels = |name: &str| value[name].as_u64().unwrap();
    match members.iter().next().expect("a value").0.as_str() {
        kind @ ("text" | "descriptor" | "blob") => json!({ kind: hex(&bytes(&value[kind])) }),
        "list" => json!({ "list": values(&value["list"]) }),
        "object" => {
            let members = value["object"].as_object().unwrap().iter();
            let members = members.map(|(name, value)| (name.clone(), normal(value)));
            json!({ "object": members.collect::<serde_json::Map<_, _>>() })
        }
        "choice" if members.contains_key("value") => {
            json!({ "choice": value["choice"], "value": normal(&value["value"]) })
        }
        "nested" => {
            (1..levels("nested")).fold(json!({ "list": [] }), |inner, _| json!({ "list": [inner] }))
        }
        "nested_objects" => {
            let innermost = json!({ "object": {} });
            (1..levels("nested_objects"))
                .fold(innermost, |inner, _| json!({ "object": { "x": inner } }))
        }
        _ => value.clone(),
    }
}

fn values(list: &Value) -> Vec<Value> {
    list.as_array().unwrap().iter().map(normal).collect()
}

/// What goes with a packet, and what the test keeps of it.
#[derive(Default)]
pub(crate) struct Descriptors {
    pub(crate) sent: Vec<OwnedFd>,
    /// The other ends of channels, those that send and those that receive.
    pub(crate) senders: Vec<OwnedFd>,
    pub(crate) receivers: Vec<OwnedFd>,
}

pub(crate) fn descriptors(data: &Value) -> Descriptors {
    let mut all = Descriptors::default();
    for one in data.as_array().into_iter().flatten() {
        for _ in 0..times(one) {
            all.add(one);
        }
    }
    all
}

impl Descriptors {
    fn add(&mut self, data: &Value) {
        let open = |path| OwnedFd::from(File::open(path).unwrap());
        let fd = match data.as_str() {
            None => memfd(data),
            Some("pipe") => pipe().0.into(),
            Some("stream socket") => std::os::unix::net::UnixStream::pair().unwrap().0.into(),
            Some("unconnected socket") => socket(
                AddressFamily::Unix,
                SockType::SeqPacket,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .unwrap(),
            Some("file") => open("/proc/self/status"),
            Some("directory") => open("/"),
            Some("terminal") => open("/dev/ptmx"),
            Some("dead end") => two_way_pair().0,
            Some(end @ ("sender" | "receiver")) => {
                let (sender, receiver) = wormhole::channel::<u32>().unwrap();
                let (sender, receiver) = (sender.try_into().unwrap(), receiver.try_into().unwrap());
                if end == "sender" {
                    self.receivers.push(receiver);
                    sender
                } else {
                    self.senders.push(sender);
                    receiver
                }
            }
            Some(other) => panic!("what is a `{other}`?"),
        };
        self.sent.push(fd);
    }
}

fn memfd(data: &Value) -> OwnedFd {
    let mut flags = MFdFlags::MFD_CLOEXEC;
    flags.set(
        MFdFlags::MFD_ALLOW_SEALING,
        data.as_object().unwrap().contains_key("seals"),
    );
    let mut file = File::from(memfd_create(c"conformance", flags).unwrap());
    file.write_all(&bytes(&data["memfd"])).unwrap();
    if let Some(size) = data["size"].as_str() {
        file.set_len(size.parse().unwrap()).unwrap();
    }
    for seal in data["seals"].as_array().into_iter().flatten() {
        let seal = match seal.as_str().unwrap() {
            "write" => SealFlag::F_SEAL_WRITE,
            "shrink" => SealFlag::F_SEAL_SHRINK,
            "grow" => SealFlag::F_SEAL_GROW,
            "seal" => SealFlag::F_SEAL_SEAL,
            "future_write" => SealFlag::from_bits_retain(0x10),
            other => panic!("no seal: {other}"),
        };
        fcntl(&file, FcntlArg::F_ADD_SEALS(seal)).unwrap();
    }
    if data["open"] == "write" {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        file = File::options().write(true).open(path).unwrap();
    }
    file.into()
}

/// What the data calls a descriptor of that mode, if that says more than its content.
pub(crate) fn file_type(mode: nix::libc::mode_t) -> Option<&'static str> {
    match SFlag::from_bits_truncate(mode) & SFlag::S_IFMT {
        SFlag::S_IFIFO => Some("pipe"),
        SFlag::S_IFSOCK => Some("socket"),
        SFlag::S_IFDIR => Some("directory"),
        SFlag::S_IFCHR => Some("character device"),
        _ => None,
    }
}
