//! Standard output: each line is one write.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};
use rustix::stdio::stdout;

use crate::failure::{Failure, Outcome};

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is out.
    All,
    /// Nobody reads any more.
    NoReader,
}

/// Writes a line, as one write if the kernel takes it.
pub(crate) fn write_line(mut line: &[u8]) -> Outcome<Written> {
    let output = stdout();
    while !line.is_empty() {
        match write(output, line) {
            Ok(count) => line = line.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE) => return Ok(Written::NoReader),
            // Somebody else has made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(
                    &mut [PollFd::from_borrowed_fd(output, PollFlags::OUT)],
                    None,
                );
            }
            Err(errno) => {
                let error = io::Error::from(errno);
                return Err(Failure::system("write to standard output", error));
            }
        }
    }
    Ok(Written::All)
}

/// To be polled for a hang-up: the reader of a pipe has gone.
pub(crate) fn polled() -> BorrowedFd<'static> {
    stdout()
}

/// Whether it is known that nobody reads any more.
pub(crate) fn has_no_reader() -> bool {
    // KERNEL: that is an error or a hang-up, which come unasked.
    let mut polled = [PollFd::from_borrowed_fd(stdout(), PollFlags::empty())];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}
