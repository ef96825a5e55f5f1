//! The tests of the Go client, which are written in Go.

use std::fs;

use super::programs::{Go, can_run, go, root};
use crate::support::output_within;

#[test]
fn the_go_client_passes_its_own_tests() {
    if can_run(&[Go]) {
        for arguments in [["vet", "./..."], ["test", "./..."]] {
            let mut command = go("clients/go");
            command.args(arguments);
            let output = output_within(std::time::Duration::from_secs(300), command);
            assert!(output.status.success(), "{output:?}");
        }
    }
}

#[test]
fn the_go_sources_are_formatted() {
    if can_run(&[Go]) {
        let mut command = std::process::Command::new("gofmt");
        command.arg("-l").current_dir(root());
        let output = command
            .args(["clients/go", "tests/languages/clients/go"])
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stdout.is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn the_program_of_the_readme_builds() {
    if can_run(&[Go]) {
        let client = root().join("clients/go");
        let readme = fs::read_to_string(client.join("README.md")).unwrap();
        let block = |language: &str| {
            let (_, rest) = readme.split_once(&format!("```{language}\n")).unwrap();
            rest.split("```").next().unwrap().to_owned()
        };
        let folder = tempfile::tempdir().unwrap();
        let imports = ["context", "errors", "log", "os", "wormhole"];
        let imports = imports.map(|name| format!("import \"{name}\"\n")).concat();
        let program = format!("package main\n{imports}{}", block("go"));
        fs::write(folder.path().join("main.go"), program).unwrap();
        fs::write(folder.path().join("go.mod"), "module readme\n\ngo 1.19\n").unwrap();
        let command = block("sh").replace("/path/to/clients/go", client.to_str().unwrap());
        let words: Vec<_> = command.split_whitespace().collect();
        for arguments in [
            &words[1..],
            &["vet", "."],
            &["build", "-o", "/dev/null", "."],
        ] {
            let output = go(folder.path()).args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
    }
}
