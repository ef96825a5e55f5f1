//! Results as text: numbers, tables, and which contender is ahead of which.

use comfy_table::{ContentArrangement, Table as Grid, presets};

use crate::measure::{Line, Table};
use crate::peer::{THREAD, THREADS, WORMHOLE};
use crate::stats::Spread;
use crate::work::{ITEMS, Unit};

/// Where a table goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A terminal.
    Plain,
    /// The results page.
    Markdown,
}

/// A number with three digits and a unit.
pub(crate) fn quantity(value: f64, unit: Unit) -> String {
    let steps: [(f64, &str); 4] = match unit {
        Unit::Time | Unit::TimeASecond => [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns")],
        Unit::Bytes => [
            (1024.0 * 1024.0 * 1024.0, "GB"),
            (1024.0 * 1024.0, "MB"),
            (1024.0, "KB"),
            (1.0, "B"),
        ],
    };
    let fits = |(step, _): &&(f64, &str)| value >= 0.9995 * step;
    let (step, name) = steps.iter().find(fits).unwrap_or(&steps[3]);
    format!("{} {name}", digits(value / step))
}

/// A number with three digits.
pub(crate) fn digits(number: f64) -> String {
    match number {
        ..9.995 => format!("{number:.2}"),
        ..99.95 => format!("{number:.1}"),
        _ => format!("{number:.0}"),
    }
}

fn range(spread: Spread) -> String {
    format!("{}–{}", digits(spread.low), digits(spread.high))
}

/// The tables of one item, with the reasons why some contenders are missing.
pub(crate) fn item(tables: &[&Table], format: Format) -> String {
    let mut grid = Grid::new();
    grid.load_preset(match format {
        Format::Plain => presets::UTF8_FULL_CONDENSED,
        Format::Markdown => presets::ASCII_MARKDOWN,
    });
    grid.set_content_arrangement(ContentArrangement::Disabled);
    let mut notes = Vec::new();
    match tables {
        [table] => one(table, &mut grid, &mut notes),
        tables => several(tables, &mut grid, &mut notes, format),
    }
    let mut text = grid.to_string();
    text.push('\n');
    if !notes.is_empty() {
        text.push('\n');
    }
    for (number, note) in notes.iter().enumerate() {
        text.push_str(&match format {
            Format::Plain => format!("  [{}] {note}\n", number + 1),
            Format::Markdown => format!("{}. {note}\n", number + 1),
        });
    }
    text
}

/// One row of work: a line per contender.
fn one(table: &Table, grid: &mut Grid, notes: &mut Vec<String>) {
    let mut header = vec!["", "median", "× wormhole", "middle half"];
    let time = table.unit == Unit::Time;
    if time {
        header.push("processor time");
    }
    grid.set_header(header);
    for line in &table.lines {
        let mut cells = vec![line.contender.to_owned()];
        cells.push(match line.value() {
            Some(value) => quantity(value.median, table.unit),
            None => note(notes, line),
        });
        let ratio = table.ratio(line);
        cells.push(ratio.map_or(String::new(), |ratio| digits(ratio.median)));
        cells.push(ratio.map_or(String::new(), range));
        if time {
            let cpu = line.cpu().map(|cpu| quantity(cpu.median, Unit::Time));
            cells.push(cpu.unwrap_or_default());
        }
        grid.add_row(cells);
    }
}

/// Several rows of work, with a column for each.
fn several(tables: &[&Table], grid: &mut Grid, notes: &mut Vec<String>, format: Format) {
    let titles = tables.iter().map(|table| table.title.clone());
    grid.set_header(std::iter::once(String::new()).chain(titles));
    let newline = match format {
        Format::Plain => "\n",
        Format::Markdown => "<br>",
    };
    let Some(first) = tables.first() else { return };
    for (place, line) in first.lines.iter().enumerate() {
        let mut cells = vec![line.contender.to_owned()];
        for table in tables {
            let Some(line) = table.lines.get(place) else {
                continue;
            };
            cells.push(match (line.value(), table.ratio(line)) {
                (None, _) => note(notes, line),
                (Some(value), None) => quantity(value.median, table.unit),
                (Some(value), Some(ratio)) => format!(
                    "{}{newline}× {} ({})",
                    quantity(value.median, table.unit),
                    digits(ratio.median),
                    range(ratio)
                ),
            });
        }
        grid.add_row(cells);
    }
}

/// Refers to a note that says why there is no number. The same note is there once.
fn note(notes: &mut Vec<String>, line: &Line) -> String {
    let problem = line.problem.as_deref().unwrap_or("not measured");
    let text = format!("{}: {problem}", line.contender);
    let place = notes.iter().position(|note| *note == text);
    let place = place.unwrap_or_else(|| {
        notes.push(text);
        notes.len() - 1
    });
    format!("no [{}]", place + 1)
}

/// The heading of a row of work.
fn heading(table: &Table) -> String {
    let title = ITEMS
        .iter()
        .find(|(item, ..)| *item == table.item)
        .map_or(table.item, |(_, title, _)| title);
    format!("{title}, {}", table.title)
}

/// Which contenders do better or worse than wormhole, row by row.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Rows in which peers take less than wormhole in three quarters of the rounds or more.
    pub(crate) behind: Vec<String>,
    /// Rows in which they take more.
    pub(crate) ahead: Vec<String>,
    /// The others.
    pub(crate) even: Vec<String>,
}

/// Compares wormhole with its peers: the floor, threads, and other ways to use wormhole are none.
pub(crate) fn verdict(tables: &[Table]) -> Verdict {
    let mut verdict = Verdict::default();
    for table in tables {
        let (mut behind, mut ahead, mut even) = (Vec::new(), Vec::new(), Vec::new());
        for line in &table.lines {
            let name = line.contender;
            let floor = name.starts_with("raw") || [THREADS, THREAD].contains(&name);
            if name.starts_with(WORMHOLE) || floor {
                continue;
            }
            let Some(ratio) = table.ratio(line) else {
                continue;
            };
            let text = format!("{name} × {} ({})", digits(ratio.median), range(ratio));
            match ratio {
                ratio if ratio.high < 1.0 => behind.push(text),
                ratio if ratio.low > 1.0 => ahead.push(text),
                _ => even.push(text),
            }
        }
        let rows = [
            (&mut verdict.behind, behind),
            (&mut verdict.ahead, ahead),
            (&mut verdict.even, even),
        ];
        for (list, texts) in rows {
            if !texts.is_empty() {
                list.push(format!("{}: {}", heading(table), texts.join(", ")));
            }
        }
    }
    verdict
}

/// Where wormhole itself failed.
pub(crate) fn failures(tables: &[Table]) -> Vec<String> {
    let mut failures = Vec::new();
    for table in tables {
        for line in &table.lines {
            if let (true, Some(problem)) = (line.contender.starts_with(WORMHOLE), &line.problem) {
                failures.push(format!("{}, {}: {problem}", heading(table), line.contender));
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::RAW;
    use crate::sample::Sample;

    fn table(values: &[(&'static str, &[f64])]) -> Table {
        let line = |(contender, values): &(&'static str, &[f64])| Line {
            contender,
            operations: 1,
            samples: values
                .iter()
                .map(|&value| Some(Sample { value, cpu: value }))
                .collect(),
            problem: values.is_empty().then(|| "too small".to_owned()),
        };
        Table {
            item: "stream",
            title: "small message".to_owned(),
            scale: None,
            unit: Unit::Time,
            lines: values.iter().map(line).collect(),
        }
    }

    #[test]
    fn numbers_have_three_digits_and_a_unit() {
        assert_eq!(quantity(1.0, Unit::Time), "1.00 ns");
        assert_eq!(quantity(1234.0, Unit::Time), "1.23 µs");
        assert_eq!(quantity(999_999.0, Unit::Time), "1.00 ms");
        assert_eq!(quantity(2.5e9, Unit::Time), "2.50 s");
        assert_eq!(quantity(0.0, Unit::Bytes), "0.00 B");
        assert_eq!(quantity(2048.0, Unit::Bytes), "2.00 KB");
        assert_eq!(digits(12.34), "12.3");
        assert_eq!(digits(123.4), "123");
    }

    #[test]
    fn peers_are_ahead_behind_or_neither() {
        let verdict = verdict(&[table(&[
            (WORMHOLE, &[10.0, 10.0, 10.0]),
            (RAW, &[1.0, 1.0, 1.0]),
            ("fast", &[8.0, 9.0, 8.0]),
            ("slow", &[20.0, 30.0, 20.0]),
            ("same", &[9.0, 10.0, 11.0]),
            ("none", &[]),
        ])]);
        let heading = "One way, small message";
        assert_eq!(
            verdict.behind,
            [format!("{heading}: fast × 0.80 (0.80–0.85)")]
        );
        assert_eq!(
            verdict.ahead,
            [format!("{heading}: slow × 2.00 (2.00–2.50)")]
        );
        assert_eq!(
            verdict.even,
            [format!("{heading}: same × 1.00 (0.95–1.05)")]
        );
    }

    #[test]
    fn a_table_says_why_a_number_is_missing() {
        let table = table(&[(WORMHOLE, &[1000.0]), ("none", &[])]);
        let text = item(&[&table], Format::Markdown);
        assert!(text.contains("| wormhole | 1.00 µs | 1.00"), "{text}");
        assert!(text.contains("| none     | no [1]"), "{text}");
        assert!(text.ends_with("1. none: too small\n"), "{text}");
    }
}
