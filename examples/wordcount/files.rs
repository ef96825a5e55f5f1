//! Which files to count.

use std::io;
use std::path::PathBuf;

use walkdir::{DirEntry, WalkDir};

/// Finds the files, in the order in which they are printed. `false`: some directory could not be read.
pub(crate) fn find(mut roots: Vec<PathBuf>) -> (Vec<PathBuf>, bool) {
    let by_default = roots.is_empty();
    if by_default {
        roots.push(env!("CARGO_MANIFEST_DIR").into());
    }
    // Directories that were asked for are counted whole.
    let wanted = |entry: &DirEntry| !by_default || is_source(entry);
    let mut files = Vec::new();
    let mut complete = true;
    for root in roots {
        if !root.is_dir() {
            files.push(root); // whatever it is, and be it missing: to open it will tell
            continue;
        }
        let walk = WalkDir::new(&root).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(wanted) {
            match entry {
                Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().unwrap_or(&root).display();
                    let reason = error.io_error().map(io::Error::to_string);
                    let reason = reason.unwrap_or_else(|| error.to_string());
                    eprintln!("wordcount: {path}: {reason}");
                    complete = false;
                }
            }
        }
    }
    (files, complete)
}

/// Whether an entry of the repository belongs to it, rather than to git or cargo.
fn is_source(entry: &DirEntry) -> bool {
    entry.depth() != 1 || (entry.file_name() != ".git" && entry.file_name() != "target")
}
