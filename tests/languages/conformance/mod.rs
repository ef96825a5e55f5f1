//! The packets of `conformance/`, which every language's tests read, through real receivers.

mod data;
mod types;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use serde_json::{Value, json};
use wormhole::{Blob, Error, Options, Receiver, Sender, channel};

use crate::support::{in_own_process, open_fds, raw_recv, raw_send};
use data::{Descriptors, bytes, descriptors, normal};
use types::{Choice, Descriptor, Job, Named, Record};

/// The cases of a file.
fn cases(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("conformance")
        .join(file);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn run_all(file: &str) {
    // The first case of each type that gives a value.
    let mut good = HashMap::new();
    for file in FILES {
        for case in cases(file) {
            if !case["value"].is_null() && case["max_message_len"].is_null() {
                let name = case["type"].as_str().unwrap().to_owned();
                good.entry(name).or_insert(case);
            }
        }
    }
    for case in cases(file) {
        let good = &good[case["type"].as_str().unwrap()];
        let run = match case["type"].as_str().unwrap() {
            "u8" => run::<u8>,
            "i64" => run::<i64>,
            "u64" => run::<u64>,
            "i128" => run::<i128>,
            "u128" => run::<u128>,
            "f64" => run::<f64>,
            "optional_f64" => run::<Option<f64>>,
            "bool" => run::<bool>,
            "string" => run::<String>,
            "list" => run::<Vec<i64>>,
            "map" => run::<HashMap<String, i64>>,
            "any" => run::<Value>,
            "record" => run::<Record>,
            "choice" => run::<Choice>,
            "job" => run::<Job>,
            "descriptor" => run::<Descriptor>,
            "descriptors" => run::<Vec<Descriptor>>,
            "sender" => run::<Sender<u32>>,
            "receiver" => run::<Receiver<u32>>,
            "blob" => run::<Blob>,
            other => panic!("what is a `{other}`?"),
        };
        let before = open_fds();
        run(&case, good);
        assert_eq!(open_fds(), before, "{}", case["name"]);
    }
}

/// Receives the packet of a case, and after it that of a good one.
fn run<T: Named>(case: &Value, good: &Value) {
    let name = &case["name"];
    // The largest packet that there can be takes a buffer of twice this.
    let options = Options::new().buffer(212_992);
    let (tx, mut rx) = options.channel::<T>().unwrap();
    let limit = case["max_message_len"].as_u64();
    if let Some(limit) = limit {
        rx.set_max_message_len(usize::try_from(limit).unwrap());
    }
    let mut kept = put(&tx, case);
    let mut kept_of_good = put(&tx, good);

    let before = open_fds().len();
    let asks = !case["beside"].is_null();
    match take(&rx, asks) {
        Ok((value, beside)) => {
            let expected = expected(case, "value");
            assert_eq!(value.shown(&mut kept), normal(&expected), "{name}");
            let beside: Vec<_> = beside.into_iter().map(Descriptor).collect();
            assert_eq!(beside.shown(&mut kept), shown_beside(case), "{name}");
            if let Some(how) = case["encode"].as_str() {
                let (bytes_again, again) = sent_again(&value, &beside);
                assert_eq!(again.shown(&mut kept), normal(&expected), "{name}, again");
                assert!(how == "same value" || how == "same bytes", "{how}");
                if how == "same bytes" {
                    assert_eq!(bytes_again, bytes(&case["packet"]), "{name}");
                }
            }
        }
        Err(error) => {
            let expected = expected(case, "error");
            assert_eq!(json!(variant(&error)), expected, "{name}: {error}");
            assert_eq!(open_fds().len(), before, "{name}");
        }
    }

    rx.set_max_message_len(64 << 20);
    let (value, _) = take(&rx, !good["beside"].is_null())
        .unwrap_or_else(|error| panic!("after {name}: {error}"));
    let shown = value.shown(&mut kept_of_good);
    assert_eq!(shown, normal(&good["value"]), "after {name}");
    assert!(matches!(rx.try_recv(), Err(Error::Empty)), "after {name}");
}

/// Sends the packet of a case as it is.
fn put<T>(tx: &Sender<T>, case: &Value) -> Descriptors {
    let mut fds = descriptors(&case["fds"]);
    let borrowed: Vec<_> = fds.sent.iter().map(AsFd::as_fd).collect();
    raw_send(tx, &bytes(&case["packet"]), &borrowed);
    fds.sent.clear();
    fds
}

fn take<T: Named>(rx: &Receiver<T>, with_fds: bool) -> Result<(T, Vec<OwnedFd>), Error> {
    match with_fds {
        true => rx.recv_with_fds(),
        false => Ok((rx.recv()?, Vec::new())),
    }
}

/// What this language makes of a case: its value or its error.
fn expected(case: &Value, what: &str) -> Value {
    let own = &case["but"]["rust"];
    let expected = if own.is_null() { case } else { own };
    assert!(
        !expected[what].is_null(),
        "{}: a {what} instead of {expected}",
        case["name"]
    );
    expected[what].clone()
}

/// The descriptors beside the message that a case expects, as values.
fn shown_beside(case: &Value) -> Value {
    let mut fds = descriptors(&case["beside"]);
    let fds: Vec<_> = fds.sent.drain(..).map(Descriptor).collect();
    fds.shown(&mut Descriptors::default())
}

/// Sends a value. Gives its packet, and what comes out of it.
fn sent_again<T: Named>(value: &T, beside: &[Descriptor]) -> (Vec<u8>, T) {
    let (tx, rx) = channel::<T>().unwrap();
    let beside: Vec<_> = beside.iter().map(|Descriptor(fd)| fd.as_fd()).collect();
    tx.by_ref().send_with_fds(value, &beside).unwrap();
    let (bytes, fds) = raw_recv(&rx);
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    raw_send(&tx, &bytes, &fds);
    (bytes, rx.recv_with_fds().unwrap().0)
}

/// The name of an error.
fn variant(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split(|c: char| !c.is_alphanumeric())
        .next()
        .unwrap()
        .to_owned()
}

const FILES: [&str; 5] = [
    "packets.json",
    "text.json",
    "numbers.json",
    "values.json",
    "descriptors.json",
];

#[test]
fn packets() {
    in_own_process(|| run_all("packets.json"));
}

#[test]
fn text() {
    in_own_process(|| run_all("text.json"));
}

#[test]
fn numbers() {
    in_own_process(|| run_all("numbers.json"));
}

#[test]
fn values() {
    in_own_process(|| run_all("values.json"));
}

#[test]
fn descriptors_and_ends() {
    in_own_process(|| run_all("descriptors.json"));
}

#[test]
fn every_file_is_read_and_every_name_used_once() {
    let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    let mut known = FILES;
    files.sort();
    known.sort_unstable();
    assert_eq!(files, known);
    for file in FILES {
        let mut names = std::collections::HashSet::new();
        for case in cases(file) {
            assert!(names.insert(case["name"].to_string()), "{}", case["name"]);
            let gives = case["value"].is_null() ^ case["error"].is_null();
            assert!(gives, "{}: a value or an error", case["name"]);
        }
    }
}

/// What a table calls what comes out.
fn outcome(case: &Value, language: &str) -> String {
    let own = &case["but"][language.to_lowercase()];
    let expected = if own.is_null() { case } else { own };
    if !expected["error"].is_null() {
        return "refused".to_owned();
    }
    let kind = expected["value"].as_object().unwrap().keys().next();
    match (kind.unwrap().as_str(), case["type"].as_str().unwrap()) {
        ("int", _) => "integer",
        ("f64", _) => "float",
        ("object", name @ ("record" | "map")) => name,
        (kind, _) => kind,
    }
    .to_owned()
}

#[test]
fn the_table_of_the_protocol_says_what_the_data_says() {
    let document = include_str!("../../../PROTOCOL.md");
    let (_, table) = document.split_once("| text | expected |").unwrap();
    let cases: Vec<Value> = FILES.into_iter().flat_map(cases).collect();
    let mut rows = 0;
    for line in table.lines().skip(2).take_while(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [_, _, rust, python, go, name] = cells[..] else {
            panic!("{line}");
        };
        let case = cases.iter().find(|case| case["name"] == name);
        let case = case.unwrap_or_else(|| panic!("no case `{name}`"));
        for (language, cell) in [("Rust", rust), ("Python", python), ("Go", go)] {
            assert_eq!(cell, outcome(case, language), "{language}: {line}");
        }
        rows += 1;
    }
    assert!(rows > 20, "{rows}");
}
