//! Which files to count.

use std::path::PathBuf;

/// Finds the files, in the order in which they are printed. `false`: some directory could not be read.
pub(crate) fn find(mut roots: Vec<PathBuf>) -> (Vec<PathBuf>, bool) {
    let by_default = roots.is_empty();
    if by_default {
        roots.push(env!("CARGO_MANIFEST_DIR").into());
    }
    let is_wanted = |entry: &walkdir::DirEntry| {
        let is_foreign = entry.file_name() == ".git" || entry.file_name() == "target";
        !(by_default && entry.depth() > 0 && is_foreign)
    };
    let (mut files, mut complete) = (Vec::new(), true);
    for root in roots {
        let is_named = !root.is_dir(); // whatever it is, and be it missing: to open it will tell
        let walk = walkdir::WalkDir::new(&root).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(is_wanted).filter(|_| !is_named) {
            match entry {
                Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
                Ok(_) => {}
                Err(error) => {
                    eprintln!("wordcount: {error}");
                    complete = false;
                }
            }
        }
        files.extend(is_named.then_some(root));
    }
    (files, complete)
}
