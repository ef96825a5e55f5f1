//! What is watched from outside while an epoch runs: memory, and which process waits where when it takes too long.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use crate::ledger::{self, Count, ROWS, Row, STREAMS, Stream, as_index, ledger, now};
use crate::plan::Plan;
use crate::procs::{own_memory, what_it_does};
use crate::this_process::read_doing;

fn row(row: usize, field: Row) -> u64 {
    ledger().row(row, field).load(Ordering::SeqCst)
}

/// The processes that have begun and have not ended: their rows and ids.
fn alive() -> impl Iterator<Item = (usize, u32)> {
    let rows = 0..ledger().used(Count::NextRow, ROWS);
    rows.filter(|&index| row(index, Row::End) == 0)
        .filter_map(|index| Some((index, u32::try_from(row(index, Row::Pid)).ok()?)))
}

/// The memory of all processes of the epoch, but for what they share.
pub(crate) fn memory_of_all() -> u64 {
    alive().map(|(_, pid)| own_memory(pid)).sum()
}

/// Says which process waits where.
pub(crate) fn dump(plan: &Plan) -> String {
    let mut text = "processes that have not ended, and what they are doing:\n".to_owned();
    for (index, pid) in alive() {
        let actor = as_index(row(index, Row::Actor)).checked_sub(1);
        let who = match actor.and_then(|actor| plan.actors.get(actor)) {
            None => "supervisor".to_owned(),
            Some(plan) => format!(
                "actor {}: {:?} by {:?}, in {:?}, out {:?}",
                actor.unwrap_or_default(),
                plan.role,
                plan.how,
                plan.inputs,
                plan.outputs
            ),
        };
        let (op, channel) = read_doing(row(index, Row::Doing));
        let since = now().saturating_sub(row(index, Row::Since));
        let does = what_it_does(pid);
        let _ = writeln!(
            text,
            "  row {index}, pid {pid}, {who}: {op:?} channel {channel:?} for {since} ms; {does}"
        );
    }
    text.push_str("channels:\n");
    for (index, channel) in plan.channels.iter().enumerate() {
        let get = |field| ledger().channel(index, field).load(Ordering::SeqCst);
        let _ = writeln!(
            text,
            "  {index}: {:?}, buffer {:?}, senders kept {}, receivers kept {}, end seen {}, queued {}",
            channel.kind,
            channel.buffer,
            get(ledger::Channel::SenderKept),
            get(ledger::Channel::ReceiverKept),
            get(ledger::Channel::EndSeen),
            queued(index)
        );
    }
    text
}

/// How many messages of a channel were sent and not received.
fn queued(channel: usize) -> usize {
    let streams = 0..ledger().used(Count::NextStream, STREAMS);
    let get = |stream, field| ledger().stream(stream, field).load(Ordering::SeqCst);
    streams
        .filter(|&stream| get(stream, Stream::Channel) == channel as u64)
        .map(|stream| {
            let numbers = 0..as_index(get(stream, Stream::Count));
            let states = numbers.filter_map(|number| ledger().entry(stream, number));
            let queued = |state: &&std::sync::atomic::AtomicU64| {
                let both = ledger::entry::SENT | ledger::entry::RECEIVED;
                state.load(Ordering::SeqCst) & both == ledger::entry::SENT
            };
            states.filter(queued).count()
        })
        .sum()
}

/// Whether memory stays flat: that of one process, looked at after each epoch.
#[derive(Debug, Default)]
pub(crate) struct Flatness {
    /// The most after any of the first epochs, in which buffers grow to what they need.
    baseline: u64,
    /// After the epochs since then.
    since: Vec<u64>,
}

impl Flatness {
    /// Epochs until the baseline is settled.
    const WARM_UP: usize = 4;
    /// What it may grow by: the library keeps buffers that were needed once, and so does the allocator.
    const SLACK: u64 = 6 << 20;

    /// Adds a figure, and says if it has grown for good: if even the least of the last epochs is more than it was.
    pub(crate) fn add(&mut self, epoch: usize, bytes: u64) -> Option<String> {
        if epoch < Self::WARM_UP {
            self.baseline = self.baseline.max(bytes);
            return None;
        }
        self.since.push(bytes);
        let last = self.since.len().saturating_sub(3);
        let least = self.since[last..].iter().min().copied().unwrap_or_default();
        let (baseline, limit) = (self.baseline, self.baseline + Self::SLACK);
        (self.since.len() >= 3 && least > limit)
            .then(|| format!("memory has grown from {baseline} to {least} bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_noticed_and_a_spike_is_not() {
        let flat = |figures: &[u64]| {
            let mut flatness = Flatness::default();
            let figures = figures.iter().enumerate();
            figures
                .filter_map(|(epoch, mega)| flatness.add(epoch, mega << 20))
                .count()
        };
        assert_eq!(flat(&[5, 9, 9, 9, 50, 9, 9, 50, 9]), 0);
        assert_eq!(flat(&[5, 9, 9, 9, 16, 17, 18]), 1);
        assert_eq!(flat(&[5, 9, 9, 9, 14, 14, 14]), 0);
    }
}
