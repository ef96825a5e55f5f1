//! What the programs of all languages say to each other. `peer.py`, `go/main.go` and `peer.c` have the same types.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, Write};

use serde::{Deserialize, Serialize};
use wormhole::{Blob, Receiver, Sender};

/// A message whose every field follows from its number.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    number: u64,
    text: String,
    wide: u64,
    negative: i64,
    third: f64,
    list: Vec<u8>,
    maybe: Option<String>,
}

impl Letter {
    pub(crate) fn new(number: u64) -> Self {
        Letter {
            number,
            text: format!("letter {number}: é 😀 \0 \" \\ \n </b>"),
            wide: number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            negative: -i64::try_from(number).unwrap(),
            third: f64::from(u32::try_from(number).unwrap()) / 3.0,
            list: vec![7; usize::try_from(number % 5).unwrap()],
            maybe: (number % 2 == 0).then(|| number.to_string()),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Input(#[serde(with = "wormhole::fd")] pub(crate) File);

/// A message with descriptors of all kinds, and a text of any length.
#[derive(Serialize, Deserialize)]
pub(crate) struct Parcel {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Input>,
    pub(crate) reply: Sender<String>,
    pub(crate) words: Receiver<String>,
    pub(crate) data: Blob,
}

/// The reading ends of streams.
#[derive(Serialize, Deserialize)]
pub(crate) struct Streams {
    pub(crate) pipe: Input,
    pub(crate) connection: Input,
}

/// A text of about that many bytes.
pub(crate) fn long_text(size: usize) -> String {
    "wörmhole ".repeat(size / 10 + 1)
}

pub(crate) fn file(content: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

pub(crate) fn content(mut file: &File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// What a program that sends letters or parcels is handed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Sending<T> {
    pub(crate) to: Sender<T>,
    /// How many letters; or the sizes of the parcels.
    pub(crate) plan: Vec<usize>,
    pub(crate) report: Sender<String>,
    /// Nothing ever comes out of it: to wait until one is killed.
    pub(crate) forever: Receiver<u8>,
}

/// What a program that receives them is handed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Receiving<T> {
    pub(crate) source: Receiver<T>,
    pub(crate) plan: Vec<usize>,
    pub(crate) report: Sender<String>,
    pub(crate) forever: Receiver<u8>,
}

/// What a program is handed that starts another one.
#[derive(Serialize, Deserialize)]
pub(crate) struct Starting {
    pub(crate) command: Vec<String>,
    pub(crate) environment: HashMap<String, String>,
    pub(crate) to: Sender<String>,
    /// It goes on when this is disconnected.
    pub(crate) until: Receiver<u8>,
}

/// What a program is handed that is to say which language it is written in: there, or to who listens at `address`.
#[derive(Serialize, Deserialize)]
pub(crate) struct Saying {
    pub(crate) to: Option<Sender<String>>,
    pub(crate) address: Option<String>,
}

/// What a program that passes an end on is handed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Passing {
    pub(crate) source: Receiver<Sender<String>>,
    pub(crate) to: Sender<Sender<String>>,
}

/// What a worker is handed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Working {
    pub(crate) jobs: Receiver<Job>,
    pub(crate) results: Sender<Done>,
    /// Lets those go on who wait with a job.
    pub(crate) gate: Receiver<u8>,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) number: u64,
    /// Whether to wait at the gate before the next one.
    pub(crate) wait: bool,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) number: u64,
    pub(crate) square: u64,
    pub(crate) language: String,
}
