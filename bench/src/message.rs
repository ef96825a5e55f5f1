//! What is sent.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A message of any type that contenders encode themselves.
pub(crate) trait Message:
    Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static
{
}

impl<T: Serialize + DeserializeOwned + Clone + PartialEq + Send + Sync + 'static> Message for T {}

/// A small message, of three fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Small {
    a: u32,
    b: String,
    c: Vec<i32>,
}

/// The small message that all contenders send.
pub(crate) fn small() -> Small {
    Small {
        a: 1776,
        b: "hello world!".to_owned(),
        c: vec![5, 4, 3, 2, 1],
    }
}

/// An entry of a list, such as a program might keep of its users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    id: u64,
    name: String,
    score: f64,
    active: bool,
    tags: Vec<String>,
}

const WORDS: [&str; 16] = [
    "the", "kernel", "has", "a", "message", "whole", "or", "not", "at", "all", "naïve", "process",
    "waits", "for", "another", "\"one\"",
];

/// A small generator, so that every run sends the same.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn word(&mut self) -> &'static str {
        let low = self.next().to_le_bytes()[0];
        WORDS[usize::from(low) % WORDS.len()]
    }
}

/// Lines of words that take at most `size` bytes of JSON, and nearly as many.
pub(crate) fn text(size: usize) -> String {
    let mut numbers = Numbers(1);
    let mut text = String::with_capacity(size);
    let (mut encoded, mut column) = (2, 0);
    loop {
        let word = numbers.word();
        let escapes = word.matches('"').count();
        let ends_line = column > 64;
        // A new line takes two bytes of JSON.
        encoded += word.len() + escapes + 1 + usize::from(ends_line);
        if encoded > size {
            return text;
        }
        text.push_str(word);
        text.push(if ends_line { '\n' } else { ' ' });
        column = if ends_line { 0 } else { column + word.len() };
    }
}

/// Records that together take about `size` bytes of JSON, one at least.
pub(crate) fn records(size: usize) -> Vec<Record> {
    let mut numbers = Numbers(2);
    let mut records = Vec::new();
    let mut encoded = 0;
    while records.is_empty() || encoded < size {
        let id = numbers.next() >> 40;
        let tags = if size < 100 { 0 } else { records.len() % 4 };
        let record = Record {
            id,
            name: numbers.word().to_owned(),
            score: f64::from(u32::try_from(id % 100_000).unwrap_or_default()) / 8.0,
            active: id % 3 == 0,
            tags: (0..tags).map(|_| numbers.word().to_owned()).collect(),
        };
        encoded += serde_json::to_string(&record).map_or(0, |text| text.len() + 1);
        records.push(record);
    }
    records
}

/// Bytes without a pattern.
pub(crate) fn bytes(size: usize) -> Vec<u8> {
    let mut numbers = Numbers(3);
    let words = std::iter::repeat_with(|| numbers.next().to_le_bytes());
    words.flatten().take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_small_message_is_that_of_the_documentation() {
        let text = serde_json::to_string(&small()).unwrap();
        assert_eq!(text, r#"{"a":1776,"b":"hello world!","c":[5,4,3,2,1]}"#);
    }

    #[test]
    fn texts_have_the_size_that_was_asked_for() {
        for size in [64, 1 << 10, 1 << 20] {
            let encoded = serde_json::to_string(&text(size)).unwrap().len();
            assert!(encoded <= size && encoded + 20 > size, "{size}: {encoded}");
        }
    }

    #[test]
    fn records_have_about_the_size_that_was_asked_for() {
        for size in [64, 1 << 10, 1 << 20] {
            let encoded = serde_json::to_string(&records(size)).unwrap().len();
            assert!(encoded.abs_diff(size) < 120, "{size}: {encoded}");
        }
    }

    #[test]
    fn bytes_are_as_many_as_asked_for() {
        assert_eq!(bytes(1001).len(), 1001);
    }
}
