//! The plots of the results page.

use anyhow::anyhow;
use plotters::prelude::*;

use crate::Outcome;
use crate::measure::{Line, Table};
use crate::peer::{
    BY_HAND, IPC_CHANNEL, JSON_LINES, PROCSPAWN, PYTHON, PYTHON_POOL, PYTHON_PROCESS, RAW,
    RAW_FORK, THREAD, THREADS, TINY_NIX_IPC, UNIX_IPC, WORMHOLE, awaited,
};
use crate::report::quantity;
use crate::work::Unit;

/// Items whose contenders are lines over a size or a number, which is that of bytes or of something else.
const CURVES: [(&str, &str, Scale); 6] = [
    ("text", "bytes of JSON", Scale::Bytes),
    ("records", "bytes of JSON", Scale::Bytes),
    ("descriptors", "descriptors", Scale::Count),
    ("bulk", "bytes", Scale::Bytes),
    ("share", "bytes", Scale::Bytes),
    ("many", "receivers", Scale::Count),
];

/// What a row's scale counts.
#[derive(Clone, Copy)]
enum Scale {
    Bytes,
    Count,
}

/// Items whose contenders are bars.
const BARS: [&str; 10] = [
    "round-trip",
    "stream",
    "crowd",
    "awaited",
    "create",
    "spawn",
    "pool",
    "paced",
    "idle",
    "memory",
];

/// The size of a plot with curves.
const SIZE: (u32, u32) = (760, 420);
/// The height of a line with a bar.
const LINE: u32 = 30;

/// Room for a letter of a name, wide enough for most, and so for a whole name.
const LETTER: usize = 7;

/// The name of the file with an item's plot.
pub(crate) fn file_name(item: &str) -> String {
    format!("benchmarks-{item}.svg")
}

/// The plot of an item as SVG, if there is something to show.
pub(crate) fn item(item: &str, title: &str, tables: &[Table]) -> Outcome<Option<String>> {
    let own: Vec<&Table> = tables.iter().filter(|table| table.item == item).collect();
    if own.is_empty() {
        return Ok(None);
    }
    let mut svg = String::new();
    if BARS.contains(&item) {
        bars(&mut svg, title, &own).map_err(|error| anyhow!("{error}"))?;
    } else if let Some((_, axis, scale)) = CURVES.iter().find(|(name, ..)| *name == item) {
        curves(&mut svg, title, (axis, *scale), &own).map_err(|error| anyhow!("{error}"))?;
    } else {
        return Ok(None);
    }
    Ok(Some(svg))
}

/// A contender's colour, the same in all plots.
fn colour(contender: &str) -> RGBColor {
    let colours = [
        (WORMHOLE, RGBColor(200, 30, 60)),
        (RAW, RGBColor(110, 110, 110)),
        ("raw stream", RGBColor(110, 110, 110)),
        (IPC_CHANNEL, RGBColor(30, 100, 200)),
        ("ipc-channel, shared memory", RGBColor(30, 100, 200)),
        ("ipc-channel, bytes channel", RGBColor(120, 170, 240)),
        (UNIX_IPC, RGBColor(20, 150, 110)),
        (TINY_NIX_IPC, RGBColor(230, 140, 20)),
        (JSON_LINES, RGBColor(140, 80, 180)),
        (PYTHON, RGBColor(90, 70, 40)),
        (THREADS, RGBColor(170, 170, 170)),
        ("wormhole, small messages", RGBColor(60, 60, 60)),
        (RAW_FORK, RGBColor(110, 110, 110)),
        (THREAD, RGBColor(170, 170, 170)),
        (PYTHON_PROCESS, RGBColor(90, 70, 40)),
        (BY_HAND, RGBColor(110, 110, 110)),
        (PROCSPAWN, RGBColor(20, 150, 110)),
        (PYTHON_POOL, RGBColor(90, 70, 40)),
        (awaited::IPC_STREAM, RGBColor(30, 100, 200)),
        (awaited::SEQPACKET, RGBColor(110, 110, 110)),
        (awaited::SEQPACKET_FDS, RGBColor(230, 140, 20)),
        (awaited::JSON_LINES, RGBColor(140, 80, 180)),
    ];
    let found = colours.iter().find(|(name, _)| *name == contender);
    match found {
        Some((_, colour)) => *colour,
        None if contender.starts_with(WORMHOLE) => RGBColor(240, 140, 160),
        None => BLACK,
    }
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// For each row one bar a contender that was measured, with its figure, from little to much.
fn bars(svg: &mut String, title: &str, tables: &[&Table]) -> Drawn {
    let lines = tables
        .iter()
        .map(|table| sorted(table).len())
        .sum::<usize>();
    let lines = u32::try_from(lines + 2 * tables.len())?;
    let area = SVGBackend::with_string(svg, (SIZE.0, LINE * lines + 8)).into_drawing_area();
    area.fill(&WHITE)?;
    let style = ("sans-serif", 15).into_font();
    let heading = ("sans-serif", 18).into_font();
    let names = tables.iter().flat_map(|table| sorted(table));
    let longest = names.map(|(name, _)| name.len()).max().unwrap_or_default();
    let left = i32::try_from(LETTER * longest)? + 24;
    let room = f64::from(SIZE.0) - f64::from(left) - 100.0;
    let step = i32::try_from(LINE)?;
    let mut top = 0;
    for table in tables {
        let text = format!("{title}, {}", table.title);
        area.draw(&Text::new(text, (16, top + 12), heading.clone()))?;
        top += step + step / 3;
        let bars = sorted(table);
        let longest = bars.last().map_or(1.0, |bar| bar.1).max(1.0);
        for (name, value) in bars {
            #[allow(clippy::cast_possible_truncation, reason = "pixels")]
            let right = left + (value / longest * room).round().max(1.0) as i32;
            let bar = [(left, top), (right, top + step - 10)];
            area.draw(&Text::new(name.to_owned(), (16, top + 2), style.clone()))?;
            area.draw(&Rectangle::new(bar, colour(name).filled()))?;
            let figure = quantity(value, table.unit);
            area.draw(&Text::new(figure, (right + 8, top + 2), style.clone()))?;
            top += step;
        }
        top += step * 2 / 3;
    }
    area.present()?;
    Ok(())
}

/// The contenders that were measured, and their medians, from little to much.
fn sorted(table: &Table) -> Vec<(&'static str, f64)> {
    let measured = |line: &Line| Some((line.contender, line.value()?.median));
    let mut bars: Vec<_> = table.lines.iter().filter_map(measured).collect();
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    bars
}

/// A curve for each contender over the scale of the rows, both axes logarithmic.
fn curves(svg: &mut String, title: &str, (axis, scale): (&str, Scale), tables: &[&Table]) -> Drawn {
    let points = |place: usize| -> Vec<(f64, f64)> {
        let point = |table: &&Table| {
            let median = table.lines.get(place)?.value()?.median;
            Some((f64::from(table.scale?), median))
        };
        tables.iter().filter_map(point).collect()
    };
    let Some(first) = tables.first() else {
        return Ok(());
    };
    let all: Vec<(f64, f64)> = (0..first.lines.len()).flat_map(points).collect();
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MAX, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0, f64::max);
    let x = least(&mut all.iter().map(|point| point.0))..most(&mut all.iter().map(|point| point.0));
    let low = least(&mut all.iter().map(|point| point.1)).max(1.0) / 1.5;
    let y = low..most(&mut all.iter().map(|point| point.1)) * 1.5;
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(x.log_scale().base(4.0), y.log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(axis)
        .x_label_formatter(&|value| match scale {
            Scale::Bytes => quantity(*value, Unit::Bytes),
            Scale::Count => format!("{value:.0}"),
        })
        .y_label_formatter(&|value| quantity(*value, first.unit))
        .label_style(("sans-serif", 13))
        .draw()?;
    // wormhole, the first, on top.
    for (place, line) in first.lines.iter().enumerate().rev() {
        let points = points(place);
        if points.is_empty() {
            continue;
        }
        let colour = colour(line.contender);
        let width = if line.contender == WORMHOLE { 3 } else { 2 };
        chart
            .draw_series(LineSeries::new(points.clone(), colour.stroke_width(width)))?
            .label(line.contender)
            .legend(move |(x, y)| {
                PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(width))
            });
        let dots = points.into_iter();
        chart.draw_series(dots.map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;
    use crate::work::ITEMS;

    fn table(item: &'static str, scale: u32) -> Table {
        let line = |contender, value| Line {
            contender,
            operations: 1,
            samples: vec![Some(Sample { value, cpu: value })],
            problem: None,
        };
        Table {
            item,
            title: format!("of {scale}"),
            scale: Some(scale),
            unit: Unit::Time,
            lines: vec![line(WORMHOLE, f64::from(scale)), line(RAW, 1.0)],
        }
    }

    #[test]
    fn contenders_are_in_the_plots_of_their_items() {
        for name in ["stream", "text"] {
            let tables = [table(name, 10), table(name, 1000)];
            let svg = item(name, "Title", &tables).unwrap().unwrap();
            assert!(svg.contains("Title") && svg.contains(WORMHOLE) && svg.contains(RAW));
        }
    }

    #[test]
    fn every_item_has_a_plot() {
        for (name, ..) in ITEMS {
            let tables = [table(name, 2), table(name, 9)];
            assert!(item(name, "Title", &tables).unwrap().is_some(), "{name}");
        }
    }

    #[test]
    fn an_item_without_results_has_no_plot() {
        assert_eq!(item("text", "Title", &[]).unwrap(), None);
        assert_eq!(
            item("no such", "Title", &[table("no such", 1)]).unwrap(),
            None
        );
    }
}
