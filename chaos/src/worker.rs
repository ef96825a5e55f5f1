//! A process that lives through all epochs and carries out one assignment after the other, which come in messages. So it
//! shows what adds up: memory, and descriptors.

use std::process::ExitCode;

use wormhole::{Error, Receiver};

use crate::assignment::Assignment;
use crate::ledger::{Count, ledger};
use crate::run_assignment::{open_fds, run_assignment};
use crate::sabotage::Sabotage;
use crate::settle;

/// Carries out assignments until there are no more.
pub(crate) fn serve() -> anyhow::Result<ExitCode> {
    settle()?;
    let assignments = wormhole::inherit::<Receiver<Assignment>>()?;
    let mut leaked = Vec::new();
    loop {
        let before = open_fds();
        let assignment = match assignments.recv() {
            Ok(assignment) => assignment,
            Err(Error::Disconnected) => return Ok(ExitCode::SUCCESS),
            Err(error) => {
                ledger().violation(&format!("a worker gets no assignment: {error}"));
                return Ok(ExitCode::FAILURE);
            }
        };
        if assignment.sabotage == Some(Sabotage::LeakMemory) {
            ledger().add(Count::Sabotaged, 1);
            leaked.push(vec![1_u8; 32 << 20]);
        }
        run_assignment(assignment, Some(before));
    }
}
