//! A worker: counts the open files that it is handed, and opens none itself. It is not confined, but could be: it
//! needs no file system.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use serde::{Deserialize, Serialize};
use wormhole::{Receiver, Result, Sender};

/// A file to be counted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Stands for the path, which need not be UTF-8 and which a worker has no use for.
    pub(crate) index: usize,
    #[serde(with = "wormhole::fd")]
    pub(crate) file: File,
    /// Nothing is ever sent through it. It is open for as long as there is the job, in the queue or in
    /// a worker; so it tells the parent when a job went down with its worker.
    pub(crate) lifeline: Sender<()>,
}

/// What became of a job. The error is the reason why the file could not be read.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) index: usize,
    pub(crate) counts: Result<Counts, String>,
}

/// What `wc` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    pub(crate) words: u64,
    pub(crate) bytes: u64,
}

/// Works until there are no jobs left and no sender for more.
pub(crate) fn run(jobs: &Receiver<Job>, answers: &Sender<Answer>) -> Result<()> {
    for job in jobs {
        let Job {
            index,
            file,
            lifeline,
        } = job?;
        let counts = count(file).map_err(|error| error.to_string());
        answers.send(Answer { index, counts })?;
        drop(lifeline); // only now: once it is closed the answer is there
    }
    Ok(())
}

/// Counts what is left of an open file, a line at a time: its text is never in memory as a whole.
fn count(file: File) -> io::Result<Counts> {
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    let mut counts = Counts::default();
    while file.read_until(b'\n', &mut line)? > 0 {
        counts.lines += u64::from(line.ends_with(b"\n"));
        counts.words += words(&line);
        counts.bytes += line.len() as u64;
        line.clear();
    }
    Ok(counts)
}

/// Counts words as `wc` does in a UTF-8 locale. What cannot be printed neither begins nor ends a word:
/// control characters and, which is the same to `wc`, bytes that are not UTF-8. (So it is in version 9.1.
/// Newer ones take all of them for letters.)
fn words(line: &[u8]) -> u64 {
    let mut words = 0;
    let mut in_word = false;
    for character in line.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
        match character {
            // White space to Unicode, control characters to the C library.
            '\u{85}' | '\u{2028}' | '\u{2029}' => {}
            // The word joiner: to `wc` the no-break spaces separate words, and it is one of them.
            '\u{2060}' => in_word = false,
            _ if character.is_whitespace() => in_word = false,
            _ if character.is_control() || in_word => {}
            _ => {
                in_word = true;
                words += 1;
            }
        }
    }
    words
}
