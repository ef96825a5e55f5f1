//! Finding the ends that a value holds, by serializing it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use serde::Serialize;

use super::registry::Numbers;
use crate::end::End;
use crate::error::{Error, Result};
use crate::fd;
use crate::socket::Socket;

/// What serializing a value has come across.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The ends, by number, and how often each was found.
    ends: HashMap<RawFd, (Arc<Socket>, usize)>,
    /// Other descriptors.
    fds: Vec<RawFd>,
    /// By number, where ends move as soon as they are found.
    moves: HashMap<RawFd, Arc<Socket>>,
}

impl Survey {
    pub(crate) fn found_fd(&mut self, number: RawFd) {
        self.fds.push(number);
    }

    pub(crate) fn found_end(&mut self, end: &End) {
        let number = end.as_fd().as_raw_fd();
        if let Some(fresh) = self.moves.get(&number) {
            end.move_to(Arc::clone(fresh));
        } else {
            let found = || (Arc::clone(end), 0);
            self.ends.entry(number).or_insert_with(found).1 += 1;
        }
    }

    fn of<A: Serialize>(args: &A, moves: HashMap<RawFd, Arc<Socket>>) -> Result<Self> {
        let survey = Survey {
            moves,
            ..Survey::default()
        };
        fd::search(survey, || {
            serde_json::to_writer(io::sink(), args).map_err(Error::encode::<A>)
        })
    }
}

/// Makes `args` independent of everything else in this process: its ends share their sockets with no
/// clone that is not in it. Gives the numbers of its descriptors.
pub(crate) fn detach<A: Serialize>(args: &A) -> Result<Numbers> {
    let found = Survey::of(args, HashMap::new())?;
    let mut numbers = Numbers::default();
    found.fds.iter().for_each(|&number| numbers.insert(number));
    let mut moves = HashMap::new();
    for (number, (socket, count)) in found.ends {
        let here = 1; // `socket` itself
        if Arc::strong_count(&socket) == count + here {
            numbers.insert(number);
        } else {
            let fresh = socket.duplicate()?;
            numbers.insert(fresh.as_fd().as_raw_fd());
            moves.insert(number, Arc::new(fresh));
        }
    }
    if !moves.is_empty() {
        Survey::of(args, moves)?;
    }
    Ok(numbers)
}
