//! What a run comes to, in figures.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::ledger::{Count, ledger};
use crate::verify::Verdict;

/// Figures of all epochs so far.
#[derive(Debug, Default)]
pub(crate) struct Report {
    seed: u64,
    pub(crate) elapsed: Duration,
    pub(crate) epochs: u64,
    pub(crate) orphans: u64,
    pub(crate) peak_of_one: u64,
    pub(crate) peak_of_all: u64,
    /// Of the processes that lived all the time: after the first epochs, and at the end.
    pub(crate) memory: Vec<(String, u64, u64)>,
    verdicts: Verdict,
    counts: [u64; Count::Len as usize],
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Report {
            seed,
            ..Report::default()
        }
    }

    /// Adds what an epoch came to.
    pub(crate) fn add(&mut self, verdict: &Verdict) {
        self.epochs += 1;
        let all = &mut self.verdicts;
        all.sent += verdict.sent;
        all.received += verdict.received;
        all.sent_unknown += verdict.sent_unknown;
        all.died_in_hands += verdict.died_in_hands;
        all.died_in_queues += verdict.died_in_queues;
        for (index, count) in self.counts.iter_mut().enumerate() {
            *count += ledger().count_at(index);
        }
    }

    fn count(&self, count: Count) -> u64 {
        self.counts[count as usize]
    }

    /// One line, for while it runs.
    pub(crate) fn line(&self) -> String {
        format!(
            "epoch {}: {} messages, {} kills, {} stops",
            self.epochs,
            grouped(self.verdicts.sent),
            grouped(self.count(Count::Kills)),
            grouped(self.count(Count::Stops))
        )
    }

    /// How often sabotage took place.
    pub(crate) fn sabotaged(&self) -> u64 {
        self.count(Count::Sabotaged)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "seed {}, {} epochs in {seconds:.0} s",
            self.seed, self.epochs
        )?;
        let lost = &self.verdicts;
        let faults = self.count(Count::Kills) + self.count(Count::Stops);
        let rows = [
            ("messages sent", lost.sent),
            ("messages received", lost.received),
            (
                "  whose sender was killed before it knew",
                lost.sent_unknown,
            ),
            ("  died with a killed receiver", lost.died_in_hands),
            (
                "  died in the queue of the last reader",
                lost.died_in_queues,
            ),
            ("  lost descriptors (FdsLost)", self.count(Count::FdsLost)),
            ("  unclaimed (UnexpectedFds)", self.count(Count::Unclaimed)),
            (
                "sends put off (TooManyFdsInFlight)",
                self.count(Count::InFlight),
            ),
            (
                "sends refused, out of descriptors",
                self.count(Count::Refused),
            ),
            ("undeliverable at a relay", self.count(Count::Undeliverable)),
            ("bytes of text, at least", self.count(Count::Bytes)),
            ("spilled messages", self.count(Count::Spilled)),
            ("descriptors sent", self.count(Count::Descriptors)),
            ("  blobs", self.count(Count::Blobs)),
            ("  channel ends", self.count(Count::Ends)),
            ("connections to listeners", self.count(Count::Connections)),
            ("disconnects seen", self.count(Count::Disconnects)),
            ("full (try_send)", self.count(Count::Full)),
            ("timed out (send)", self.count(Count::TimedOut)),
            ("actors started", self.count(Count::Spawned)),
            ("  again, after a kill", self.count(Count::Restarts)),
            ("children of actors", self.count(Count::Nested)),
            ("faults survived", faults),
            ("  kill -9", self.count(Count::Kills)),
            ("  SIGSTOP and SIGCONT", self.count(Count::Stops)),
            ("signals of timers", self.count(Count::Ticks)),
            ("orphans reaped", self.orphans),
            (
                "peak memory of a process that lives on, KiB",
                self.peak_of_one / 1024,
            ),
            ("peak memory of all processes, KiB", self.peak_of_all / 1024),
        ];
        let width = rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, number) in rows {
            writeln!(f, "  {name:width$} {:>15}", grouped(number))?;
        }
        for (name, early, late) in &self.memory {
            let (early, late) = (early / 1024, late / 1024);
            writeln!(
                f,
                "  memory of {name}: {early} KiB after the first epochs, {late} KiB at the end"
            )?;
        }
        Ok(())
    }
}

/// A number that can be read.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        let _ = text.write_char(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
    }
}
