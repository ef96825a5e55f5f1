//! A process that lives through all epochs and plays one part after the other, which come in messages. So it
//! shows what adds up: memory, and descriptors.

use std::process::ExitCode;

use wormhole::{Error, Receiver};

use crate::ledger::{Count, ledger};
use crate::part::Part;
use crate::play::{open_fds, play};
use crate::sabotage::Sabotage;
use crate::settle;

/// Plays parts until there are no more.
pub(crate) fn serve() -> anyhow::Result<ExitCode> {
    settle()?;
    let parts = wormhole::inherit::<Receiver<Part>>()?;
    let mut leaked = Vec::new();
    loop {
        let before = open_fds();
        let part = match parts.recv() {
            Ok(part) => part,
            Err(Error::Disconnected) => return Ok(ExitCode::SUCCESS),
            Err(error) => {
                ledger().violation(&format!("a veteran gets no part: {error}"));
                return Ok(ExitCode::FAILURE);
            }
        };
        if part.sabotage == Some(Sabotage::LeakMemory) {
            ledger().add(Count::Sabotaged, 1);
            leaked.push(vec![1_u8; 32 << 20]);
        }
        play(part, Some(before));
    }
}
