//! The types of `conformance/`, and their values as the data writes them.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::sys::stat::fstat;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wormhole::{Blob, Error, Receiver, Sender};

use super::data::{Descriptors, file_type, hex};

/// A type that the data names.
pub(crate) trait Named: Serialize + DeserializeOwned {
    /// The value as the data writes it. `kept` are the other ends of the ends in it.
    fn shown(&self, kept: &mut Descriptors) -> Value;
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Named for $type {
            fn shown(&self, _: &mut Descriptors) -> Value {
                json!({ "int": self.to_string() })
            }
        })*
    };
}

integers!(u8, u32, i64, u64, i128, u128);

impl Named for f64 {
    fn shown(&self, _: &mut Descriptors) -> Value {
        json!({ "f64": format!("{:016x}", self.to_bits()) })
    }
}

impl Named for bool {
    fn shown(&self, _: &mut Descriptors) -> Value {
        json!({ "bool": self })
    }
}

impl Named for String {
    fn shown(&self, _: &mut Descriptors) -> Value {
        json!({ "text": hex(self.as_bytes()) })
    }
}

impl<T: Named> Named for Option<T> {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        match self {
            Some(value) => value.shown(kept),
            None => json!({ "null": true }),
        }
    }
}

impl<T: Named> Named for Vec<T> {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        let values = self.iter().map(|value| value.shown(kept));
        json!({ "list": values.collect::<Vec<_>>() })
    }
}

impl<T: Named> Named for HashMap<String, T> {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        let members = self.iter();
        let members = members.map(|(name, value)| (name.clone(), value.shown(kept)));
        json!({ "object": members.collect::<serde_json::Map<_, _>>() })
    }
}

impl Named for Value {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        match self {
            Value::Null => json!({ "null": true }),
            Value::Bool(value) => value.shown(kept),
            Value::Number(number) if number.is_f64() => number.as_f64().unwrap().shown(kept),
            Value::Number(number) => json!({ "int": number.to_string() }),
            Value::String(text) => text.shown(kept),
            Value::Array(values) => values.shown(kept),
            Value::Object(members) => {
                let members = members.iter();
                let members = members.map(|(name, value)| (name.clone(), value.shown(kept)));
                json!({ "object": members.collect::<serde_json::Map<_, _>>() })
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    a: u32,
    b: String,
    c: Vec<u8>,
}

impl Named for Record {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        let Record { a, b, c } = self;
        json!({ "object": { "a": a.shown(kept), "b": b.shown(kept), "c": c.shown(kept) } })
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Choice {
    Stop,
    Go(u32),
    At(i64, i64),
    Turn { degrees: i64, fast: bool },
}

impl Named for Choice {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        match self {
            Choice::Stop => json!({ "choice": "Stop" }),
            Choice::Go(value) => json!({ "choice": "Go", "value": value.shown(kept) }),
            Choice::At(x, y) => json!({ "choice": "At", "value": vec![*x, *y].shown(kept) }),
            Choice::Turn { degrees, fast } => {
                let fields = json!({ "degrees": degrees.shown(kept), "fast": fast.shown(kept) });
                json!({ "choice": "Turn", "value": { "object": fields } })
            }
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Descriptor(#[serde(with = "wormhole::fd")] pub(crate) OwnedFd);

impl Named for Descriptor {
    fn shown(&self, _: &mut Descriptors) -> Value {
        match file_type(fstat(&self.0).unwrap().st_mode) {
            Some(name) => json!({ "file_type": name }),
            None => json!({ "descriptor": content(&self.0) }),
        }
    }
}

/// The content of a file, from its beginning.
fn content(fd: impl AsFd) -> String {
    let file = File::from(fd.as_fd().try_clone_to_owned().unwrap());
    let mut bytes = vec![0; file.metadata().unwrap().len().try_into().unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    hex(&bytes)
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    name: String,
    input: Descriptor,
    reply: Sender<u32>,
}

impl Named for Job {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        json!({ "object": {
            "name": self.name.shown(kept),
            "input": self.input.shown(kept),
            "reply": self.reply.shown(kept),
        } })
    }
}

impl Named for Sender<u32> {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        match self.send(5) {
            Err(Error::Disconnected) => return json!({ "end": "dead" }),
            sent => sent.unwrap(),
        }
        let other = kept.receivers[0].try_clone().unwrap();
        let other = Receiver::<u32>::try_from(other).unwrap();
        assert_eq!(other.recv().unwrap(), 5);
        json!({ "end": "sender" })
    }
}

impl Named for Receiver<u32> {
    fn shown(&self, kept: &mut Descriptors) -> Value {
        if let Some(other) = kept.senders.first() {
            let other = Sender::<u32>::try_from(other.try_clone().unwrap()).unwrap();
            other.send(5).unwrap();
        }
        match self.recv() {
            Err(Error::Disconnected) => json!({ "end": "dead" }),
            received => {
                assert_eq!(received.unwrap(), 5);
                json!({ "end": "receiver" })
            }
        }
    }
}

impl Named for Blob {
    fn shown(&self, _: &mut Descriptors) -> Value {
        json!({ "blob": hex(self) })
    }
}
