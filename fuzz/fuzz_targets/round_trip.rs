//! Arbitrary values, there and back: what arrives is what left, to the bit.

#![no_main]

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wormhole::{Options, select};

/// A float as JSON has it, compared bit by bit. What JSON cannot carry becomes zero.
macro_rules! float {
    ($Name:ident, $float:ty, $bits:ty) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Arbitrary)]
        struct $Name($bits);

        impl Serialize for $Name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$float>::from_bits(self.0).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $Name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok($Name(<$float>::deserialize(deserializer)?.to_bits()))
            }
        }

        impl $Name {
            fn make_finite(&mut self) {
                if !<$float>::from_bits(self.0).is_finite() {
                    self.0 = 0;
                }
            }
        }
    };
}

float!(F64, f64, u64);
float!(F32, f32, u32);

#[derive(Debug, PartialEq, Serialize, Deserialize, Arbitrary)]
struct Numbers {
    unsigned: (u8, u16, u32, u64, u128),
    signed: (i8, i16, i32, i64, i128),
    floats: Vec<F64>,
    small_floats: [F32; 3],
}

#[derive(Debug, PartialEq, PartialOrd, Eq, Ord, Serialize, Deserialize, Arbitrary)]
enum Key {
    A,
    B,
    #[serde(rename = "\"quoted\"\n")]
    C,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Arbitrary)]
struct Maps {
    texts: BTreeMap<String, String>,
    numbers: BTreeMap<u64, F64>,
    wide: BTreeMap<i128, ()>,
    flags: BTreeMap<bool, char>,
    keys: BTreeMap<Key, BTreeSet<i8>>,
    chars: BTreeMap<char, Option<u8>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize, Arbitrary)]
struct Newtype(Box<str>);

#[derive(Debug, PartialEq, Serialize, Deserialize, Arbitrary)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize, Arbitrary)]
enum Value {
    Unit(Unit),
    Nothing,
    Numbers(Numbers),
    Maps(Maps),
    Text(String),
    Newtype(Newtype),
    Bytes(Vec<u8>),
    Option(Option<Box<Value>>),
    Result(Result<(), char>),
    Tuple(bool, (u8, (i16,)), [char; 2]),
    Struct {
        r#type: String,
        list: VecDeque<Value>,
    },
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// Replaces what the table in the crate's documentation says that JSON cannot carry.
    fn make_sendable(&mut self, depth: usize) {
        match self {
            Value::Numbers(numbers) => {
                numbers.floats.iter_mut().for_each(F64::make_finite);
                numbers.small_floats.iter_mut().for_each(F32::make_finite);
            }
            Value::Maps(maps) => maps.numbers.values_mut().for_each(F64::make_finite),
            // Each level of values is up to three of JSON, of which there may be 127.
            _ if depth == 40 => *self = Value::Nothing,
            Value::Option(Some(value)) => value.make_sendable(depth + 1),
            Value::Struct { list, .. } => {
                list.iter_mut()
                    .for_each(|value| value.make_sendable(depth + 1));
            }
            Value::List(list) => list
                .iter_mut()
                .for_each(|value| value.make_sendable(depth + 1)),
            Value::Map(map) => map
                .values_mut()
                .for_each(|value| value.make_sendable(depth + 1)),
            _ => {}
        }
    }
}

#[derive(Debug, Arbitrary)]
struct Case {
    value: Value,
    small_buffer: bool,
    form: u8,
    /// So often the text is repeated, to make it long.
    times: u8,
}

fuzz_target!(|case: Case| {
    let Case {
        mut value,
        small_buffer,
        form,
        times,
    } = case;
    value.make_sendable(0);
    if let Value::Text(text) = &mut value {
        *text = text.repeat(usize::from(times) + 1);
    }
    there_and_back(&value, small_buffer, form);
});

fn there_and_back<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(
    value: &T,
    small_buffer: bool,
    form: u8,
) {
    let options = if small_buffer {
        Options::new().buffer(1)
    } else {
        Options::new()
    };
    let (tx, rx) = options.channel::<T>().unwrap();
    let tx = tx.by_ref();
    match form % 4 {
        0 => tx.send(value),
        1 => tx.try_send(value),
        2 => tx.send_with_fds(value, &[]),
        _ => select! { send(tx, value) -> sent => sent },
    }
    .unwrap();
    let received = match form / 4 % 4 {
        0 => rx.recv(),
        1 => rx.try_recv(),
        2 => rx.recv_with_fds().map(|(message, _)| message),
        _ => select! { recv(rx) -> message => message },
    };
    assert_eq!(received.unwrap(), *value);
}
