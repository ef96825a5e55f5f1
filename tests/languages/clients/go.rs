//! The tests of the Go client, which are written in Go, and what only it does with the others.

use std::fs;

use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, Sender, channel};

use super::messages::{Receiving, Sending, Streams};
use super::programs::{Go, Language, Python, Rust, can_run, go, root};
use crate::support::{in_own_process, output_within};

#[test]
#[ignore = "CI runs them by themselves, with the race detector: `.ci/run client_go`"]
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
        let module = "github.com/wormhole-rs/wormhole-rs/clients/go";
        let imports = ["context", "errors", "log", "os", module];
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

/// The runtime of Go makes pipes and connections non-blocking, which no other program expects.
fn reads_what_comes_from_go(language: Language) {
    let (to, source) = channel::<Streams>().unwrap();
    let (report, reports) = channel().unwrap();
    let (gate, closed) = channel::<u8>().unwrap();
    let sending = Sending {
        to,
        plan: vec![],
        report: channel().unwrap().0, // not this one: if the other dies it is the end
        forever: closed.clone(),
    };
    let receiving = Receiving {
        source,
        plan: vec![],
        report,
        forever: closed,
    };
    let receiver = language.start("receive streams", receiving);
    let sender = Go.start("send streams", sending);
    assert_eq!(reports.recv().unwrap(), "reading");
    drop(gate); // only now something is written
    assert_eq!(reports.recv().unwrap(), "from a pipe, from the net");
    assert!(matches!(reports.recv(), Err(Error::Disconnected)));
    sender.succeeds();
    receiver.succeeds();
}

macro_rules! readers {
    ($($name:ident: $language:ident;)*) => {
        $(
            #[test]
            fn $name() {
                if can_run(&[Go, $language]) {
                    in_own_process(|| reads_what_comes_from_go($language));
                }
            }
        )*
    };
}

readers! {
    pipes_and_connections_of_go_block_in_rust: Rust;
    pipes_and_connections_of_go_block_in_python: Python;
    pipes_and_connections_of_go_block_in_go: Go;
}

/// What a worker of a pool answers.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Failed {
    message: String,
    place: Option<String>,
    backtrace: Option<String>,
}

#[test]
fn a_program_in_go_is_the_worker_of_a_pool() {
    if can_run(&[Go]) {
        in_own_process(|| {
            let (jobs, source): (Sender<String>, Receiver<String>) = channel().unwrap();
            let (answers, results) = channel::<Result<u64, Failed>>().unwrap();
            let worker = Go.start("pool", (source, answers));
            for job in ["12", "many", "panic", "7"] {
                jobs.send(job.to_owned()).unwrap();
            }
            assert_eq!(results.recv().unwrap(), Ok(12));
            let failed = results.recv().unwrap().unwrap_err();
            assert!(failed.message.contains("invalid syntax"), "{failed:?}");
            assert_eq!((failed.place, failed.backtrace), (None, None));
            let failed = results.recv().unwrap().unwrap_err();
            assert_eq!(failed.message, "no such number");
            assert!(failed.place.unwrap().contains("main.go:"));
            assert!(failed.backtrace.unwrap().contains("main.pool"));
            assert_eq!(results.recv().unwrap(), Ok(7));
            drop(jobs);
            assert!(matches!(results.recv(), Err(Error::Disconnected)));
            worker.succeeds();
        });
    }
}
