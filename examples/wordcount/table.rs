//! The output, byte for byte that of `wc`.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::{Results, count::Counts};

/// The width of the columns: that of the sum of the sizes, or seven if some file has no size.
pub(crate) fn width(paths: &[PathBuf]) -> usize {
    let files: Vec<_> = paths.iter().flat_map(fs::metadata).collect();
    let regular = files.iter().filter(|file| file.is_file());
    let sum: u64 = regular.map(Metadata::len).sum();
    let is_known = files.iter().all(Metadata::is_file);
    sum.to_string().len().max(if is_known { 1 } else { 7 })
}

/// Prints a row for each file that was counted, and the total. Reports the others. `false`: there were some.
pub(crate) fn print(paths: &[PathBuf], results: &Results, width: usize) -> io::Result<bool> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut row = |[lines, words, bytes]: Counts, name: &OsStr| {
        write!(out, "{lines:>width$} {words:>width$} {bytes:>width$} ")?;
        out.write_all(&[name.as_bytes(), b"\n"].concat())
    };
    let mut total = [0; 3];
    for (path, result) in paths.iter().zip(results.values()) {
        match result {
            Ok(counts) => {
                row(*counts, path.as_os_str())?;
                total = std::array::from_fn(|column| total[column] + counts[column]);
            }
            Err(reason) => eprintln!("wordcount: {}: {reason}", path.display()),
        }
    }
    if paths.len() > 1 {
        row(total, OsStr::new("total"))?;
    }
    out.flush()?;
    Ok(results.values().all(Result::is_ok))
}
