//! Lines of standard input, of a bounded length, while watching that somebody still wants them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};

use crate::failure::{Failure, Outcome};

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    /// A line, without its end. The last one may have had none.
    Line(&'a [u8]),
    /// A line of more bytes than the limit, this many, which have been skipped.
    TooLong(u64),
    /// The end of the input.
    End,
    /// The receiver has gone.
    Gone,
}

#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    buffer: Vec<u8>,
    /// Where in `buffer` the next line begins, and up to where there is no end of a line.
    start: usize,
    searched: usize,
    /// Bytes of the present line that have been dropped since it is too long.
    dropped: u64,
    ended: bool,
}

impl Lines {
    /// Lines have at most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Lines {
            limit,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            dropped: 0,
            ended: false,
        }
    }

    /// Waits for the next line from `input`, or for a hang-up of `sender`.
    pub(crate) fn next(&mut self, input: BorrowedFd<'_>, sender: &impl AsFd) -> Outcome<Next<'_>> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(found) = memchr::memchr(b'\n', rest) {
                let end = self.searched + found;
                return Ok(self.cut(end, end + 1));
            }
            self.searched = self.buffer.len();
            if self.ended {
                if self.start == self.buffer.len() && self.dropped == 0 {
                    return Ok(Next::End);
                }
                let end = self.buffer.len();
                return Ok(self.cut(end, end));
            }
            let unfinished = self.buffer.len() - self.start;
            if self.dropped > 0 || unfinished > self.limit {
                self.dropped += unfinished as u64;
                self.start = self.buffer.len();
            }
            self.buffer.drain(..self.start);
            (self.start, self.searched) = (0, self.buffer.len());
            if !self.fill(input, sender)? {
                return Ok(Next::Gone);
            }
        }
    }

    fn cut(&mut self, end: usize, next: usize) -> Next<'_> {
        let start = std::mem::replace(&mut self.start, next);
        self.searched = next;
        let dropped = std::mem::take(&mut self.dropped);
        let len = end - start;
        if dropped > 0 || len > self.limit {
            return Next::TooLong(dropped + len as u64);
        }
        Next::Line(self.buffer.get(start..end).unwrap_or_default())
    }

    /// Reads more. `false`: the receiver has gone.
    fn fill(&mut self, input: BorrowedFd<'_>, sender: &impl AsFd) -> Outcome<bool> {
        let failed = |errno: Errno| Failure::system("read standard input", io::Error::from(errno));
        loop {
            let mut polled = [
                PollFd::from_borrowed_fd(input, PollFlags::IN),
                // KERNEL: a hang-up is reported unasked, see `Select::closed`.
                PollFd::from_borrowed_fd(sender.as_fd(), PollFlags::empty()),
            ];
            match poll(&mut polled, None) {
                Err(Errno::INTR) => continue,
                polled => polled.map_err(failed)?,
            };
            let [input_events, sender_events] = polled.map(|fd| fd.revents());
            if !sender_events.is_empty() {
                return Ok(false);
            }
            if input_events.is_empty() {
                continue;
            }
            let len = self.buffer.len();
            self.buffer.resize(len + CHUNK, 0);
            let count = read(input, self.buffer.get_mut(len..).unwrap_or_default());
            self.buffer.truncate(len + count.unwrap_or(0));
            match count {
                Ok(0) => {
                    self.ended = true;
                    return Ok(true);
                }
                Ok(_) => return Ok(true),
                // Somebody else has read it, or has made it non-blocking.
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}
