//! The repository's own rules.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(root().join(folder))
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder}");
    files
}

/// Lines that are neither blank nor comments, up to the unit tests.
fn code_lines(source: &str) -> usize {
    let code = source.split("#[cfg(test)]").next().unwrap();
    code.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

/// What a channel stands on. The rest is built on top and could be left out.
const CORE: [&str; 13] = [
    "ancillary.rs",
    "buffer.rs",
    "error.rs",
    "fd.rs",
    "lib.rs",
    "options.rs",
    "packet.rs",
    "receiver.rs",
    "sender.rs",
    "socket.rs",
    "spill.rs",
    "transfer.rs",
    "wait.rs",
];

#[test]
fn the_source_stays_small() {
    for folder in ["src", "bench/src", "chaos/src"] {
        for file in rust_files(folder) {
            let lines = read(&file).lines().count();
            assert!(lines <= 400, "{}: {lines} lines", file.display());
        }
    }
    let core: usize = CORE
        .iter()
        .map(|file| code_lines(&read(Path::new("src").join(file))))
        .sum();
    assert!(core < 1500, "{core} lines of code");
}

#[test]
fn examples_fit_on_two_screens() {
    for file in rust_files("examples") {
        let lines = read(&file).lines().count();
        assert!(lines < 100, "{}: {lines} lines", file.display());
    }
}

#[test]
fn no_test_sleeps() {
    for file in rust_files("tests") {
        let sleeps = concat!("thread::", "sleep");
        assert!(!read(&file).contains(sleeps), "{}", file.display());
    }
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = read("Cargo.toml");
    let mut explained = false;
    let mut in_dependencies = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if line.starts_with('#') {
            explained = true;
            continue;
        } else if in_dependencies && line.contains(" = ") {
            // Those that one comment explains stand together.
            assert!(explained, "no comment: {line}");
            continue;
        }
        explained = false;
    }
}

#[test]
fn the_readme_has_two_commands_and_ci_runs_them() {
    let readme = read("README.md");
    let commands: Vec<&str> = readme
        .split("```sh\n")
        .skip(1)
        .map(|block| block.split("```").next().unwrap().trim())
        .collect();
    assert_eq!(
        commands,
        ["cargo run --release --example wordcount", "cargo test"]
    );
    let ci = read(".ci/run");
    for command in commands {
        assert!(ci.contains(&format!("step {command}\n")), "{command}");
    }
    assert!(readme.lines().count() <= 100, "more than a page");
}

#[test]
fn the_versions_that_the_readme_names_are_those_of_the_manifest() {
    let (readme, manifest) = (read("README.md"), read("Cargo.toml"));
    let value = |key: &str| {
        let (_, rest) = manifest.split_once(&format!("\n{key} = \"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let rust = value("rust-version");
    assert!(readme.contains(&format!("({rust} or later)")), "{rust}");
    let version = value("version");
    let minor = version.rsplit_once('.').unwrap().0;
    assert!(
        readme.contains(&format!("`wormhole-rs = \"{minor}\"`")),
        "{minor}"
    );
}

/// The names of all tests.
fn tests() -> Vec<String> {
    let mut tests = Vec::new();
    for file in rust_files("tests") {
        let source = read(&file);
        for test in source.split("#[test]\n").skip(1) {
            let functions = test.lines().map(str::trim);
            let name = functions.filter_map(|line| line.strip_prefix("fn ")).next();
            tests.push(name.unwrap().split('(').next().unwrap().to_owned());
        }
    }
    tests
}

#[test]
fn what_security_md_says_is_shown_by_tests_that_exist() {
    let document = read("SECURITY.md");
    let tests = tests();
    let targets: Vec<String> = rust_files("fuzz/fuzz_targets")
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    // Names with underscores that are the library's.
    let api = [
        "try_recv",
        "recv_timeout",
        "try_send",
        "send_timeout",
        "max_message_len",
        "spawn_command",
    ];
    let names = |text: &str| -> Vec<String> {
        let is_name = |span: &&str| {
            let is_word = span
                .chars()
                .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
            is_word && span.contains('_') && !api.contains(span)
        };
        let spans = text.split('`').skip(1).step_by(2);
        let mut names: Vec<&str> = spans.filter(is_name).collect();
        // "fuzz `one`, `two` and `three`"
        for list in text.split("fuzz `").skip(1) {
            let mut spans = list.split('`');
            names.extend(spans.next());
            while spans
                .next()
                .is_some_and(|between| [", ", " and "].contains(&between))
            {
                names.extend(spans.next());
            }
        }
        names.into_iter().map(str::to_owned).collect()
    };
    for name in names(&document) {
        assert!(
            tests.contains(&name) || targets.contains(&name),
            "there is no test {name}"
        );
    }
    // Each claim has one, but for whom one has to trust.
    let (_, claims) = document
        .split_once("\n## What a hostile sender cannot do\n")
        .unwrap();
    let (claims, _) = claims.split_once("\n## Reporting\n").unwrap();
    for claim in claims.split("\n- ").skip(1) {
        assert!(!names(claim).is_empty(), "nothing shows this: {claim}");
    }
}
