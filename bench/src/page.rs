//! The results page.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;

use crate::Outcome;
use crate::machine;
use crate::measure::Table;
use crate::plot;
use crate::report::{self, Format};
use crate::work::ITEMS;

/// Writes the page and its plots into a folder.
pub(crate) fn write(folder: &Path, tables: &[Table]) -> Outcome<()> {
    fs::create_dir_all(folder)?;
    for (item, title, _) in ITEMS {
        if let Some(svg) = plot::item(item, title, tables)? {
            let path = folder.join(plot::file_name(item));
            fs::write(&path, svg).with_context(|| format!("write {}", path.display()))?;
        }
    }
    let path = folder.join("benchmarks.md");
    fs::write(&path, page(tables)).with_context(|| format!("write {}", path.display()))
}

const HEAD: &str = "\
# Benchmarks

wormhole and its peers at the same work. This page and its plots are written by a program:

```sh
cargo run --release -p wormhole-bench -- --write-docs
```

Every measurement is made by two or more real processes, forked for it, in an optimized build. All contenders
are measured in one run, one after the other in each round, so that whatever disturbs the machine disturbs all
alike. A figure is the median of the rounds. “× wormhole” is the contender's figure divided by wormhole's of the
same round: the median of these ratios, and the range of the middle half of them. Above 1 wormhole is faster, or
smaller. Processor time is that of all processes together. Every receiver compares what it received with what
was sent, in the time that is measured, and every sender makes its message anew. The cores are fixed where it says
so: left alone, the kernel puts two processes that wake each other sometimes on one core and sometimes on two, and a
round trip then takes ten times as long.

The contenders:

- **wormhole**: JSON over a SOCK_SEQPACKET socket, with the default options.
- **raw socket**: the system calls on such a socket with bytes of the same length, nothing encoded. The floor.
- **ipc-channel**: postcard, a binary encoding, over SOCK_SEQPACKET.
- **unix-ipc**: bincode, a binary encoding, over a stream socket.
- **tiny-nix-ipc**: JSON over SOCK_SEQPACKET, on the wire the same as wormhole.
- **JSON lines**: a `UnixStream` with a line of JSON for each message, the way people write it by hand.
- **Python Pipe**, **Python Process**: `multiprocessing`, pickle, between two Pythons.
- **wormhole, Python to Rust**: the client in `clients/python`, with this crate at the other end.
- **mpsc (threads)**: `std::sync::mpsc::sync_channel` between threads of one process, for scale. It encodes and
  copies nothing. Beside processes: a thread of `std::thread`.
- **tokio-seqpacket**: serde_json by hand on a SOCK_SEQPACKET socket in tokio, with `recv`, which loses descriptors; **fds**:
  with room for those that may come. **ipc-channel, stream**: its stream, in
  tokio, which has a thread of its own; the sender blocks. **JSON lines, tokio**: a line for each message through tokio's
  `UnixStream`.
- **raw fork**: `fork` and `waitpid`, and a child that ends at once. The floor.

";

/// What no program finds out: the reasons, and what was tried.
const TRIED: &str = include_str!("tried.md");

/// The page.
fn page(tables: &[Table]) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("## The machine\n\n| | |\n|---|---|\n");
    for (name, value) in machine::description() {
        let _ = writeln!(page, "| {name} | {value} |");
    }
    let verdict = report::verdict(tables);
    let lists = [
        (
            "Where wormhole is behind",
            "In three quarters of the rounds or more the peer took less.",
            verdict.behind,
        ),
        (
            "Where wormhole is ahead",
            "In three quarters of the rounds or more the peer took more.",
            verdict.ahead,
        ),
        (
            "Where the rounds do not agree",
            "Sometimes one took less and sometimes the other.",
            verdict.even,
        ),
    ];
    for (title, what, lines) in lists {
        let _ = write!(page, "\n## {title}\n\n{what}\n\n");
        for line in &lines {
            let _ = writeln!(page, "- {line}");
        }
        if lines.is_empty() {
            page.push_str("Nowhere.\n");
        }
    }
    for (item, title, what) in ITEMS {
        let own: Vec<&Table> = tables.iter().filter(|table| table.item == item).collect();
        if own.is_empty() {
            continue;
        }
        let _ = write!(page, "\n## {title}\n\n{what}\n\n");
        let _ = write!(page, "![{title}]({})\n\n", plot::file_name(item));
        page.push_str(&report::item(&own, Format::Markdown));
    }
    page.push('\n');
    page.push_str(TRIED);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_stands_without_results() {
        let page = page(&[]);
        assert!(page.contains("## Where wormhole is behind"));
        assert!(page.contains("| kernel | "));
    }
}
