//! Measures a row: all its contenders, round by round, so that noise hits them alike.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::peer::WORMHOLE;
use crate::process::isolated;
use crate::sample::Sample;
use crate::stats::{Spread, ratios, spread};
use crate::work::{Entry, Pace, Row, Run, Unit};

/// How thoroughly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Whether this is a quick run.
    pub(crate) quick: bool,
    /// How many rounds, if there is time.
    pub(crate) rounds: usize,
    /// How many at least.
    least: usize,
    /// How long one measurement should take.
    target: Duration,
    /// After which time a row ends, once it has had the least number of rounds.
    budget: Duration,
    /// After which time a measurement counts as hanging.
    deadline: Duration,
}

impl Settings {
    /// Those of a quick run, or of a full one.
    pub(crate) fn new(quick: bool) -> Self {
        if quick {
            Settings {
                quick,
                rounds: 3,
                least: 2,
                target: Duration::from_millis(4),
                budget: Duration::from_millis(250),
                deadline: Duration::from_secs(10),
            }
        } else {
            Settings {
                quick,
                rounds: 25,
                least: 11,
                target: Duration::from_millis(50),
                budget: Duration::from_secs(15),
                deadline: Duration::from_secs(60),
            }
        }
    }
}

/// A measured row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    /// The item that it belongs to.
    pub(crate) item: &'static str,
    /// What was done.
    pub(crate) title: String,
    /// The size or number that distinguishes it from other rows of its item.
    pub(crate) scale: Option<u32>,
    /// What the values are.
    pub(crate) unit: Unit,
    /// The contenders.
    pub(crate) lines: Vec<Line>,
}

/// A contender in a measured row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    /// Its name.
    pub(crate) contender: &'static str,
    /// How many operations each measurement had.
    pub(crate) operations: u64,
    /// One for each round.
    pub(crate) samples: Vec<Option<Sample>>,
    /// Why there are none, or no more.
    pub(crate) problem: Option<String>,
}

impl Line {
    fn values(&self) -> Vec<Option<f64>> {
        let samples = self.samples.iter();
        samples.map(|sample| Some((*sample)?.value)).collect()
    }

    /// The value, over all rounds.
    pub(crate) fn value(&self) -> Option<Spread> {
        spread(self.values().into_iter().flatten())
    }

    /// The processor time in nanoseconds, over all rounds.
    pub(crate) fn cpu(&self) -> Option<Spread> {
        spread(self.samples.iter().flatten().map(|sample| sample.cpu))
    }
}

impl Table {
    /// How a contender's values compare with wormhole's of the same rounds.
    pub(crate) fn ratio(&self, line: &Line) -> Option<Spread> {
        let base = self.lines.iter().find(|line| line.contender == WORMHOLE)?;
        ratios(&line.values(), &base.values())
    }

    /// The same row, about the processor time.
    fn about_cpu(&self, title: &str) -> Table {
        let mut table = self.clone();
        table.title = title.to_owned();
        for line in &mut table.lines {
            for sample in line.samples.iter_mut().flatten() {
                sample.value = sample.cpu;
            }
        }
        table
    }
}

/// Measures a row. Its last table may be about the processor time.
pub(crate) fn measure(row: &Row, settings: Settings, bar: &ProgressBar) -> Vec<Table> {
    bar.set_message(format!("{}, {}", row.item, row.title));
    let entries = (row.entries)();
    let mut lines: Vec<Line> = entries
        .iter()
        .map(|entry| tune(entry, row, settings))
        .collect();
    let begun = Instant::now();
    let mut rounds = 0;
    while rounds < settings.rounds && (rounds < settings.least || begun.elapsed() < settings.budget)
    {
        // Each round begins with another contender.
        for place in 0..lines.len() {
            let index = (rounds + place) % lines.len();
            let (line, entry) = (&mut lines[index], &entries[index]);
            let sample = match (&entry.run, &line.problem) {
                (Ok(run), None) => match once(run, line.operations, settings) {
                    Ok(sample) => Some(sample),
                    Err(problem) => {
                        line.problem = Some(problem);
                        None
                    }
                },
                _ => None,
            };
            line.samples.push(sample);
        }
        rounds += 1;
        bar.inc(1);
    }
    bar.inc((settings.rounds - rounds) as u64);
    let table = Table {
        item: row.item,
        title: row.title.clone(),
        scale: row.scale,
        unit: row.unit,
        lines,
    };
    if row.item != "paced" {
        return vec![table];
    }
    let cpu = table.about_cpu("processor time");
    let title = "delay".to_owned();
    vec![Table { title, ..table }, cpu]
}

fn once(run: &Run, operations: u64, settings: Settings) -> Result<Sample, String> {
    isolated(settings.deadline, || run(operations))
}

/// Finds out how many operations make a measurement of the right length. This warms up as well.
fn tune(entry: &Entry, row: &Row, settings: Settings) -> Line {
    let mut line = Line {
        contender: entry.contender,
        operations: 1,
        samples: Vec::new(),
        problem: None,
    };
    let run = match (&entry.run, row.pace) {
        (Err(reason), _) => {
            line.problem = Some((*reason).to_owned());
            return line;
        }
        (Ok(_), Pace::Fixed(full, quick)) => {
            line.operations = if settings.quick { quick } else { full };
            return line;
        }
        (Ok(run), Pace::Timed) => run,
    };
    loop {
        let mut measured = once(run, line.operations, settings);
        if let (Ok(first), 1) = (&measured, line.operations) {
            // One that something else has held up would pass for a slow operation, of which few are enough.
            let faster = |second: &Sample| second.value < first.value;
            measured = once(run, 1, settings).map(|second| match faster(&second) {
                true => second,
                false => *first,
            });
        }
        match measured {
            Err(problem) => {
                line.problem = Some(problem);
                return line;
            }
            Ok(sample) => {
                let (last, next) = (line.operations, enough(sample.value, settings.target));
                if next <= last.saturating_mul(2) {
                    line.operations = next;
                    return line;
                }
                // A short measurement is dearer than it should be, so it takes some steps.
                line.operations = next.clamp(last * 4, last * 64);
            }
        }
    }
}

/// How many operations of so many nanoseconds take that time.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rough number is wanted"
)]
fn enough(nanos: f64, target: Duration) -> u64 {
    (target.as_secs_f64() * 1e9 / nanos.max(1.0)).clamp(1.0, 1e7) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(contender: &'static str, values: &[f64]) -> Line {
        let sample = |&value| {
            Some(Sample {
                value,
                cpu: value * 2.0,
            })
        };
        Line {
            contender,
            operations: 1,
            samples: values.iter().map(sample).collect(),
            problem: None,
        }
    }

    #[test]
    fn contenders_are_compared_with_wormhole() {
        let table = Table {
            item: "stream",
            title: String::new(),
            scale: None,
            unit: Unit::Time,
            lines: vec![line(WORMHOLE, &[1.0, 2.0]), line("other", &[3.0, 6.0])],
        };
        let ratio = table.ratio(&table.lines[1]).unwrap();
        assert_eq!((ratio.low, ratio.median, ratio.high), (3.0, 3.0, 3.0));
        let cpu = table.about_cpu("processor time");
        assert_eq!(cpu.lines[1].value(), table.lines[1].cpu());
    }

    #[test]
    fn a_measurement_is_as_long_as_asked_for() {
        assert_eq!(enough(1000.0, Duration::from_millis(1)), 1000);
        assert_eq!(enough(1e12, Duration::from_millis(1)), 1);
    }
}
