//! Measures wormhole and its peers on the same work, in the same run, and prints how they compare.
//!
//! `work` says what is done, `peer` how each contender does it, `process` starts the processes that do it,
//! `measure` runs them round by round, and the rest writes down what came out.

mod cli;
mod machine;
mod measure;
mod message;
mod page;
mod peer;
mod place;
mod plot;
mod process;
mod report;
mod sample;
mod stats;
mod work;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cli::Options;
use crate::measure::{Settings, Table, measure};
use crate::report::Format;

/// What a step gives, or everything that is to be said about its failure.
pub(crate) type Outcome<T> = anyhow::Result<T>;

fn main() -> ExitCode {
    wormhole::process::init();
    peer::procspawn::init();
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("wormhole-bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Outcome<ExitCode> {
    let options = Options::parse(std::env::args_os().skip(1))?;
    if options.help {
        print!("{}", cli::help());
        return Ok(ExitCode::SUCCESS);
    }
    let descriptors = raise_descriptor_limit()?;
    if cfg!(debug_assertions) {
        eprintln!("This is a build without optimization: the figures mean nothing. Use --release.");
    }
    let tables = measured(&options, descriptors)?;
    if let Some(path) = &options.json {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        let mut file = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut file, &tables)?;
        file.flush()?;
    }
    if options.write_docs {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        page::write(&docs, &tables)?;
    }
    let failures = report::failures(&tables);
    for failure in &failures {
        eprintln!("failed: {failure}");
    }
    Ok(ExitCode::from(u8::from(!failures.is_empty())))
}

/// Measures what is asked for, and prints it item by item.
fn measured(options: &Options, descriptors: u64) -> Outcome<Vec<Table>> {
    let settings = Settings::new(options.quick);
    let mut rows = work::rows(descriptors);
    rows.retain(|row| options.wants(row.item));
    let bar = ProgressBar::new((rows.len() * settings.rounds) as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {percent:>3} %, {eta} left: {msg:<32}")?,
    );
    let mut tables: Vec<Table> = Vec::new();
    for (item, title, what) in work::ITEMS {
        let mut found = false;
        for row in rows.iter().filter(|row| row.item == item) {
            tables.extend(measure(row, settings, &bar));
            found = true;
        }
        if found {
            let own: Vec<&Table> = tables.iter().filter(|table| table.item == item).collect();
            let text = report::item(&own, Format::Plain);
            bar.suspend(|| println!("{title} ({item})\n{what}\n\n{text}"));
        }
    }
    bar.finish_and_clear();
    if descriptors < 20_100 && options.wants("many") {
        println!(
            "This process may have {descriptors} descriptors (RLIMIT_NOFILE). With 20,100 there would be 10,000 channels."
        );
    }
    Ok(tables)
}

/// Raises this process's limit of open descriptors as far as it may, and returns it.
fn raise_descriptor_limit() -> Outcome<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    ensure!(
        hard >= 1024,
        "{hard} open descriptors (RLIMIT_NOFILE) are too few: 1024 are needed, 20100 for everything"
    );
    Ok(hard)
}
