//! The recipes of docs/shell.md, word for word.

use crate::support::{Place, bash, program, run};

const PAGE: &str = include_str!("../../../docs/shell.md");

/// A block of the page: its language, and its text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut blocks = Vec::new();
    let mut rest = PAGE;
    while let Some((_, block)) = rest.split_once("\n```") {
        let (language, block) = block.split_once('\n').unwrap();
        let (text, after) = block.split_once("\n```\n").unwrap();
        blocks.push((language, text));
        rest = after;
    }
    assert!(blocks.len() > 10);
    blocks
}

/// The scripts that are files of their own.
pub(crate) fn scripts() -> Vec<&'static str> {
    let blocks = blocks().into_iter().map(|(_, text)| text);
    blocks.filter(|text| text.starts_with("#!")).collect()
}

#[test]
fn recipes_print_what_the_page_says() {
    let blocks = blocks();
    let mut count = 0;
    for (index, &(language, text)) in blocks.iter().enumerate() {
        if language != "bash" || text.starts_with("#!") {
            continue;
        }
        let place = Place::new();
        program(&place, "worker", scripts()[0]);
        let expected = match blocks.get(index + 1) {
            Some(("text", expected)) => format!("{expected}\n"),
            _ => String::new(),
        };
        let ended = run(bash(text, place.path()), b"");
        assert_eq!(
            (ended.code(), &ended.out),
            (0, &expected),
            "{text}\n{}",
            ended.err
        );
        count += 1;
    }
    assert_eq!(count, 7);
}

#[test]
fn the_page_has_the_exit_statuses_of_the_help() {
    let help = run(crate::support::ctl(["--help"]), b"").done();
    for status in 0..=7 {
        assert!(PAGE.contains(&format!("| {status} | ")), "{status}");
        assert!(
            help.contains(&format!("\n  {status}  ")),
            "{status}: {help}"
        );
    }
}
