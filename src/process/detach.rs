//! Finding the ends that a value holds, by serializing it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::message::fields::{self, Given, Survey};
use crate::sys::registry::FdSet;
use crate::sys::socket::Socket;

fn survey_of<A: Serialize>(args: &A, moves: HashMap<RawFd, Arc<Socket>>) -> Result<Survey> {
    let survey = Survey {
        moves,
        ..Survey::default()
    };
    // What JSON lacks is no fault here: a forked child takes its arguments as they lie in memory.
    fields::search(survey, || {
        serde_json::to_writer(io::sink(), args).map_err(Error::encode::<A>)
    })
}

/// Makes `args` independent of everything else in this process: its ends share their sockets with no
/// clone that is not in it. Gives the numbers of its descriptors, and what wants to know once a child has them.
pub(crate) fn detach<A: Serialize>(args: &A) -> Result<(FdSet, Given)> {
    let found = survey_of(args, HashMap::new())?;
    let mut numbers = FdSet::default();
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
        survey_of(args, moves)?;
    }
    Ok((numbers, found.given))
}
