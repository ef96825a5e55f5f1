//! The output, byte for byte that of `wc`.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::parent::Results;
use crate::worker::Counts;

/// The width of the columns: that of the sum of the sizes. What is not a regular file has no size to go
/// by, so then there is room for seven digits.
pub(crate) fn width(paths: &[PathBuf]) -> usize {
    let files: Vec<_> = paths.iter().flat_map(fs::metadata).collect();
    let all_regular = files.iter().all(Metadata::is_file);
    let regular = files.iter().filter(|file| file.is_file());
    let sum: u64 = regular.map(Metadata::len).sum();
    sum.to_string().len().max(if all_regular { 1 } else { 7 })
}

/// Prints a row for each file that was counted, and the total if there was more than one to count. Reports
/// the others. `false`: there were some.
pub(crate) fn print(paths: &[PathBuf], results: &Results, width: usize) -> io::Result<bool> {
    let mut complete = true;
    let mut total = Counts::default();
    let mut out = BufWriter::new(io::stdout().lock());
    for (path, result) in paths.iter().zip(results.values()) {
        match result {
            Ok(counts) => {
                row(&mut out, *counts, path.as_os_str(), width)?;
                total.lines += counts.lines;
                total.words += counts.words;
                total.bytes += counts.bytes;
            }
            Err(reason) => {
                eprintln!("wordcount: {}: {reason}", path.display());
                complete = false;
            }
        }
    }
    if paths.len() > 1 {
        row(&mut out, total, OsStr::new("total"), width)?;
    }
    out.flush()?;
    Ok(complete)
}

/// Prints a row. File names are bytes, and as such they are printed.
fn row(out: &mut impl Write, counts: Counts, name: &OsStr, width: usize) -> io::Result<()> {
    let Counts {
        lines,
        words,
        bytes,
    } = counts;
    write!(out, "{lines:>width$} {words:>width$} {bytes:>width$} ")?;
    out.write_all(name.as_bytes())?;
    out.write_all(b"\n")
}
