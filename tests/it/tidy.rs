//! The repository's own rules.

use std::collections::{BTreeMap, BTreeSet};
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
    code(source).lines().count()
}

/// A file's code: no comments, no blank lines, no unit tests, and nothing that is there for documentation alone.
fn code(source: &str) -> String {
    let mut code = String::new();
    let (mut for_docs, mut for_tests) = (false, false);
    for line in source.lines() {
        for_tests |= line == "#[cfg(test)]";
        if for_tests {
            // To the end of the item after it: a brace of its own, or a `mod` or `use` of one line.
            for_tests = line != "}" && (line.starts_with(' ') || !line.ends_with(';'));
            continue;
        }
        match line.trim() {
            "#[cfg(doc)]" => for_docs = true,
            line if line.is_empty() || line.starts_with("//") => {}
            // The item after it is a `use` of one line.
            line if for_docs => for_docs = !line.ends_with(';'),
            line => {
                code.push_str(line);
                code.push('\n');
            }
        }
    }
    code
}

/// Files whose code is longer than 400 lines, and why.
const LONG: [(&str, &str); 0] = [];

#[test]
fn a_file_holds_one_concept() {
    let mut over = Vec::new();
    for folder in [
        "src",
        "bench/src",
        "chaos/src",
        "cli/src",
        "nats/src",
        "nats/chaos/src",
    ] {
        for file in rust_files(folder) {
            let lines = code_lines(&read(&file));
            let name = file.strip_prefix(root()).unwrap().display().to_string();
            if lines > 400 && !LONG.iter().any(|(known, _)| *known == name) {
                over.push(format!("{name}: {lines} lines of code"));
            }
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}

/// The floors of `src/`, from bottom to top. ARCHITECTURE.md says what they are.
const FLOORS: &[&[&str]] = &[
    &["limits", "error", "options", "trace"],
    &["wait", "sys"],
    &["message"],
    &["channel", "fd", "blob", "raw"],
    &["listener", "select"],
    &["process"],
    &["runtime", "tokio", "async_io"],
    &["lib"],
];

/// On which floor a module is.
fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// The paths that a file's code names, with the module that is the file itself as `self`: those that begin with
/// `crate`, `super` or `self`, and those of `use` declarations.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut declared = String::new();
    for statement in code.split_inclusive(';') {
        let begin = statement
            .match_indices("use ")
            .map(|(at, _)| at)
            .find(|&at| is_start_of_use(statement, at));
        if let Some(begin) = begin {
            let tree = statement[begin + 4..].trim_end_matches(';');
            expand(tree.trim(), &[], &mut paths);
            declared.push_str(&statement[..begin]);
        } else {
            declared.push_str(statement);
        }
    }
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in declared.match_indices(root) {
            let before = declared[..at].chars().next_back();
            // Not `$crate`, and not the end of a longer path.
            if before.is_some_and(|c| c == '$' || c == ':' || c.is_alphanumeric() || c == '_') {
                continue;
            }
            let path =
                declared[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let path = path.into_iter().next().unwrap().trim_end_matches(':');
            paths.push(path.split("::").map(str::to_owned).collect());
        }
    }
    paths
}

fn is_start_of_use(statement: &str, at: usize) -> bool {
    let before = statement[..at].trim_end();
    let before = before.strip_suffix(')').map_or(before, |visibility| {
        visibility.rsplit_once('(').map_or("", |(before, _)| before)
    });
    let before = before.strip_suffix("pub").unwrap_or(before).trim_end();
    before.is_empty() || before.ends_with([';', '{', '}', ']'])
}

/// Expands the braces of a `use`.
fn expand(tree: &str, prefix: &[String], paths: &mut Vec<Vec<String>>) {
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head.trim_end_matches("::"), group.strip_suffix('}')),
        None => (tree.split(" as ").next().unwrap(), None),
    };
    let mut path = prefix.to_vec();
    path.extend(
        head.split("::")
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned),
    );
    let Some(group) = group else {
        paths.push(path);
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = group[start..at].trim();
                if !part.is_empty() {
                    expand(part, &path, paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// A module's path, `["sys", "socket"]` for `src/sys/socket.rs`.
type Module = Vec<String>;

/// Which modules each module imports from.
fn imports(sources: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut imports = BTreeMap::new();
    for (module, source) in sources {
        let code = code(source);
        let mut from = BTreeSet::new();
        for path in paths(&code) {
            let mut names = path.iter();
            let mut at = module.clone();
            match path[0].as_str() {
                "crate" => {
                    names.next();
                    at.clear();
                }
                "self" => {
                    names.next();
                }
                "super" => {}
                // A child of this module, or another crate.
                name => {
                    let mut child = module.clone();
                    child.push(name.to_owned());
                    if !sources.contains_key(&child) {
                        continue;
                    }
                }
            }
            for name in names {
                if name == "super" {
                    at.pop();
                    continue;
                }
                let mut inner = at.clone();
                inner.push(name.clone());
                if !sources.contains_key(&inner) {
                    break;
                }
                at = inner;
            }
            // What a module only hands on it does not need.
            let last = path.last().unwrap();
            let mut words = code.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            let is_used = words.by_ref().filter(|word| word == last).count() > 1;
            if at != *module && (at.len() <= module.len() || is_used) {
                from.insert(at);
            }
        }
        imports.insert(module.clone(), from);
    }
    imports
}

/// What is wrong with the imports: those that run upwards, and those in a circle.
fn against_the_floors(sources: &BTreeMap<Module, String>) -> Vec<String> {
    let imports = imports(sources);
    let name = |module: &Module| match module.is_empty() {
        true => "lib".to_owned(),
        false => module.join("::"),
    };
    let mut wrong = Vec::new();
    for (module, from) in &imports {
        let Some(here) = module.first().map_or(floor("lib"), |top| floor(top)) else {
            wrong.push(format!("{} is on no floor", name(module)));
            continue;
        };
        for other in from {
            let there = other.first().map_or(floor("lib"), |top| floor(top));
            if there.is_some_and(|there| there > here) {
                wrong.push(format!(
                    "{} imports from {}, a floor above",
                    name(module),
                    name(other)
                ));
            }
        }
        // Whatever it imports must not lead back to it.
        let (mut seen, mut next) = (BTreeSet::new(), from.iter().collect::<Vec<_>>());
        while let Some(other) = next.pop() {
            if seen.insert(other) {
                next.extend(imports.get(other).into_iter().flatten());
            }
        }
        if seen.contains(module) && !module.is_empty() {
            wrong.push(format!("{} imports itself in a circle", name(module)));
        }
    }
    wrong
}

#[test]
fn code_is_what_is_left_without_comments_and_tests() {
    let source = "//! Docs.\n\nuse a;\n#[cfg(doc)]\nuse b;\n/// As in `#[cfg(test)]`.\nfn c() {\n    d();\n}\n\n\
                  #[cfg(test)]\nmod tests {\n    use super::*;\n    fn e() {\n    }\n}\n\
                  #[cfg(test)]\nmod more;\nfn f() {}\n";
    assert_eq!(code(source), "use a;\nfn c() {\nd();\n}\nfn f() {}\n");
    assert_eq!(code_lines(source), 5);
}

#[test]
fn no_import_runs_upwards_and_none_in_a_circle() {
    let src = root().join("src");
    let mut sources = BTreeMap::new();
    for file in rust_files("src") {
        let path = file.strip_prefix(&src).unwrap().with_extension("");
        let mut module: Module = path
            .iter()
            .map(|part| part.to_str().unwrap().to_owned())
            .collect();
        module.retain(|part| part != "mod" && part != "lib");
        sources.insert(module, read(&file));
    }
    let wrong = against_the_floors(&sources);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_against_the_floors_are_found() {
    let wrong = |files: &[(&str, &str)]| {
        let module = |path: &str| path.split('/').map(str::to_owned).collect::<Module>();
        let sources = files
            .iter()
            .map(|(path, source)| (module(path), source.to_string()));
        against_the_floors(&sources.collect())
    };
    let up = ("error", "use crate::channel::Sender;\n");
    assert_eq!(
        wrong(&[up, ("channel", "")]),
        ["error imports from channel, a floor above"]
    );
    let inline = ("wait", "fn f() {\n    crate::select::run();\n}\n");
    assert_eq!(
        wrong(&[inline, ("select", "")]),
        ["wait imports from select, a floor above"]
    );
    let circle = [
        ("sys", ""),
        ("sys/socket", "use super::{memfd::create, recvmsg};\n"),
        (
            "sys/memfd",
            "use std::{fmt, io};\nuse crate::{\n    error::Error,\n    sys::socket::Socket,\n};\n",
        ),
        ("sys/recvmsg", ""),
        ("error", ""),
    ];
    let found = [
        "sys::memfd imports itself in a circle",
        "sys::socket imports itself in a circle",
    ];
    assert_eq!(wrong(&circle), found);
    let fine = [
        ("message", "mod fields;\npub(crate) use fields::Fields;\n"),
        (
            "message/fields",
            "// use crate::process::spawn;\nuse super::Item;\n#[cfg(doc)]\nuse crate::process::spawn;\n",
        ),
        ("process", "use crate::message::Fields;\n"),
    ];
    assert_eq!(wrong(&fine), [] as [&str; 0]);
    assert_eq!(wrong(&[("cellar", "")]), ["cellar is on no floor"]);
}

#[test]
fn examples_fit_on_two_screens() {
    let examples = ["examples", "nats/examples"].map(rust_files);
    for file in examples.iter().flatten() {
        let lines = read(file).lines().count();
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
    assert!(readme.contains(&format!("/rust-{rust}%2B-")), "the badge");
    let install = format!("rustup toolchain install {rust} ");
    assert!(read(".github/workflows/ci.yml").contains(&install));
    let name = value("name");
    assert!(readme.contains(&format!("`cargo add {name}`")));
}

/// The names of all tests.
fn tests() -> Vec<String> {
    let mut tests = Vec::new();
    let files = ["tests", "nats/tests"].map(rust_files);
    for file in files.iter().flatten() {
        let source = read(file);
        for test in source.split("#[test]\n").skip(1) {
            let functions = test.lines().map(str::trim);
            let name = functions.filter_map(|line| line.strip_prefix("fn ")).next();
            tests.push(name.unwrap().split('(').next().unwrap().to_owned());
        }
    }
    // Those of the clients in other languages.
    for (folder, extension, start) in [
        ("clients/python/tests", "py", "    def test_"),
        ("clients/go", "go", "func Test"),
        ("clients/c/tests", "c", "static void "),
    ] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|found| found == extension) {
                for line in read(path).lines().filter(|line| line.starts_with(start)) {
                    let declared = line.split('(').next().unwrap();
                    tests.push(declared.split(' ').next_back().unwrap().to_owned());
                }
            }
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
        "max_blob_len",
        "max_message_len",
        "spawn_command",
        "max_deliveries",
        "max_payload",
    ];
    let names = |text: &str| -> Vec<String> {
        let is_name = |span: &&str| {
            let is_word = span
                .chars()
                .all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'));
            let is_in_go = span.strip_prefix("Test").is_some_and(|rest| {
                rest.starts_with(char::is_uppercase) && rest.chars().all(char::is_alphanumeric)
            });
            is_in_go || is_word && span.contains('_') && !api.contains(span)
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
