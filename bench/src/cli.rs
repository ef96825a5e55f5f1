//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, bail};
use lexopt::prelude::*;

use crate::Outcome;
use crate::work::ITEMS;

/// What the user wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Fewer and shorter rounds.
    pub(crate) quick: bool,
    /// Only items whose names begin with one of these. All if there are none.
    pub(crate) only: Vec<String>,
    /// Where to write every single measurement.
    pub(crate) json: Option<PathBuf>,
    /// Whether to write the results page and its plots.
    pub(crate) write_docs: bool,
    /// Whether to explain the options and do nothing else.
    pub(crate) help: bool,
}

impl Options {
    /// Reads the arguments, without the program's name.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Outcome<Self> {
        let mut options = Options::default();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => options.quick = true,
                Long("only") => {
                    let name = parser.value()?.string()?;
                    if !ITEMS.iter().any(|(item, ..)| item.starts_with(&name)) {
                        bail!("no item is named `{name}`, see --help");
                    }
                    options.only.push(name);
                }
                Long("json") => options.json = Some(parser.value()?.into()),
                Long("write-docs") => options.write_docs = true,
                Short('h') | Long("help") => options.help = true,
                _ => return Err(argument.unexpected()).context("see --help"),
            }
        }
        if options.write_docs && !options.only.is_empty() {
            bail!("--write-docs writes about all items, so --only does not go with it");
        }
        if options.write_docs && options.quick {
            bail!("--write-docs takes a full run: the figures of --quick are rough");
        }
        Ok(options)
    }

    /// Whether an item is to be measured.
    pub(crate) fn wants(&self, item: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| item.starts_with(name.as_str()))
    }
}

/// What `--help` says.
pub(crate) fn help() -> String {
    let mut text = "\
Measures wormhole and its peers on the same work and prints how they compare.

cargo run --release -p wormhole-bench -- [OPTIONS]

  --quick        Fewer and shorter rounds: under 30 seconds, rough figures
  --only NAME    Only the item of that name, or those whose names begin so; may be repeated
  --json FILE    Write every single measurement to FILE
  --write-docs   Write docs/benchmarks.md and its plots, after a full run of all items
  -h, --help     This text

Items:

"
    .to_owned();
    for (item, title, _) in ITEMS {
        text.push_str(&format!("  {item:<12}   {title}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_understood() {
        let options = Options::parse(["--quick", "--only", "text", "--json=a.json"]).unwrap();
        assert!(options.quick && options.wants("text") && !options.wants("stream"));
        assert_eq!(options.json, Some(PathBuf::from("a.json")));
        assert!(Options::parse([""; 0]).unwrap().wants("stream"));
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            vec!["--only"],
            vec!["--only", "nothing"],
            vec!["file"],
            vec!["--write-docs", "--only", "text"],
            vec!["--write-docs", "--quick"],
        ] {
            assert!(Options::parse(&arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn help_names_all_items() {
        let help = help();
        for (item, ..) in ITEMS {
            assert!(help.contains(item));
        }
    }
}
