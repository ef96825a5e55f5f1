//! Descriptors by number: those that this program has inherited, and those that a program it starts is to find.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, FdFlags, dup2, fcntl_dupfd_cloexec, fcntl_getfd};

use crate::address::{FIRST_FD, FdArgument};
use crate::failure::{Failure, Outcome, Status};
use crate::interrupt;

/// Takes descriptors that the program has inherited: they are its own from here on, close-on-exec, and no other copy
/// of them is left in it. The standard streams stay as well.
///
/// To be called once, with all numbers, as the first thing that a command does.
pub(crate) fn inherited(numbers: &[RawFd]) -> Outcome<Vec<OwnedFd>> {
    let mut taken = Vec::new();
    for &number in numbers {
        taken.push(duplicate(number)?);
    }
    let unique: BTreeSet<_> = numbers
        .iter()
        .filter(|&&number| number >= FIRST_FD)
        .collect();
    for &number in unique {
        // SAFETY: it is open, inherited, and so nothing in this program owns it.
        #[allow(unsafe_code, reason = "an inherited descriptor is a mere number")]
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(taken)
}

fn duplicate(number: RawFd) -> Outcome<OwnedFd> {
    let not_open = || {
        let sentence = format!(
            "descriptor {number} is not open: in a shell, `{number}<FILE` after the command opens it"
        );
        Failure::new(Status::System, sentence)
    };
    if number < 0 {
        return Err(not_open());
    }
    // SAFETY: it is only looked at and duplicated here, and the error of one that is closed will do.
    #[allow(unsafe_code, reason = "an inherited descriptor is a mere number")]
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    match fcntl_getfd(fd) {
        Err(Errno::BADF) => return Err(not_open()),
        // Opened by this program itself: what is inherited cannot be.
        Ok(flags) if flags.contains(FdFlags::CLOEXEC) => return Err(not_open()),
        _ => {}
    }
    fcntl_dupfd_cloexec(fd, FIRST_FD)
        .map_err(|errno| Failure::system(format_args!("duplicate descriptor {number}"), errno))
}

/// What the `--fd` options stand for, in their order. Those that are numbers are the next ones of `inherited`.
pub(crate) fn open(
    arguments: &[FdArgument],
    inherited: &mut impl Iterator<Item = OwnedFd>,
) -> Outcome<Vec<OwnedFd>> {
    let mut opened = Vec::new();
    for argument in arguments {
        match argument {
            FdArgument::Number(_) => opened.extend(inherited.next()),
            FdArgument::File(path) => {
                let file = File::open(path).map_err(|error| {
                    Failure::system(format_args!("open {} for reading", path.display()), error)
                })?;
                opened.push(file.into());
            }
        }
    }
    Ok(opened)
}

/// The numbers among `--fd` options.
pub(crate) fn numbers(arguments: &[FdArgument]) -> impl Iterator<Item = RawFd> {
    arguments.iter().filter_map(|argument| match argument {
        FdArgument::Number(number) => Some(*number),
        FdArgument::File(_) => None,
    })
}

/// Descriptors for one program to be started. They are closed here when this is dropped, after the start.
#[derive(Debug)]
pub(crate) struct Handover {
    /// Keeps the numbers occupied that they will have, so that nothing which the start itself needs gets one of them.
    _reserved: Vec<OwnedFd>,
}

/// Makes `command` find `fds` from descriptor 3 on, in their order, and the signals as they were.
pub(crate) fn hand_over(command: &mut Command, fds: Vec<OwnedFd>) -> io::Result<Handover> {
    let count = RawFd::try_from(fds.len()).map_err(|_| Errno::MFILE)?;
    let end = FIRST_FD + count;
    // Out of the way, so that none is overwritten before its turn.
    let moved: Result<Vec<_>, _> = fds.iter().map(|fd| fcntl_dupfd_cloexec(fd, end)).collect();
    let moved = moved?;
    drop(fds);
    let mut reserved = Vec::new();
    if count > 0 {
        loop {
            let placeholder = fcntl_dupfd_cloexec(io::stderr().as_fd(), FIRST_FD)?;
            if placeholder.as_raw_fd() >= end {
                break;
            }
            reserved.push(placeholder);
        }
    }
    let mask = interrupt::original_mask();
    let place = move || {
        for (number, fd) in (FIRST_FD..).zip(&moved) {
            // SAFETY: never dropped, so that nothing closes it. In this process, between fork and exec or about to
            // exec, nothing uses what was there.
            #[allow(unsafe_code, reason = "the number is the point of it")]
            let mut target = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
            dup2(fd, &mut target)?;
        }
        mask.thread_set_mask().map_err(io::Error::from)
    };
    // SAFETY: system calls and nothing else; no memory is allocated.
    #[allow(unsafe_code, reason = "std's only way to run code in the child")]
    unsafe {
        command.pre_exec(place);
    }
    Ok(Handover {
        _reserved: reserved,
    })
}

/// A text, as a line, for a program to read from its standard input. All of it is there already, so nobody waits.
pub(crate) fn as_stdin(line: &[u8]) -> io::Result<Stdio> {
    let mut file = File::from(memfd_create("message", MemfdFlags::CLOEXEC)?);
    file.write_all(line)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file.into())
}
