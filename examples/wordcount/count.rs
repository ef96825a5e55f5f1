//! What a worker does: it counts the open files that it is handed, and opens none itself.

use std::{fs::File, io::BufRead, io::BufReader};

#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Job(#[serde(with = "wormhole::fd")] pub(crate) File);

/// Lines, words and bytes.
pub(crate) type Counts = [u64; 3];

/// Counts what is left of an open file, a line at a time. The error is why it cannot be read.
pub(crate) fn count(Job(file): Job) -> Result<Counts, String> {
    let (mut file, mut line) = (BufReader::new(file), Vec::new());
    let mut counts = [0; 3];
    while file
        .read_until(b'\n', &mut line)
        .map_err(|error| error.to_string())?
        > 0
    {
        counts[0] += u64::from(line.ends_with(b"\n"));
        counts[1] += words(&line);
        counts[2] += line.len() as u64;
        line.clear();
    }
    Ok(counts)
}

/// Counts words as `wc` 9.1 does in UTF-8: what cannot be printed neither begins nor ends one.
fn words(line: &[u8]) -> u64 {
    let (mut words, mut in_word) = (0, false);
    for character in line.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
        match character {
            '\u{85}' | '\u{2028}' | '\u{2029}' => {} // control characters to the C library
            '\u{2060}' => in_word = false,           // the word joiner, a no-break space to `wc`
            _ if character.is_whitespace() => in_word = false,
            _ if character.is_control() || in_word => {}
            _ => (words, in_word) = (words + 1, true),
        }
    }
    words
}
