//! Each language talks to each, itself included, in both roles. This process only starts them and listens to
//! what they report; the channels between them it has handed on.

use serde::{Deserialize, Serialize};
use wormhole::{Error, Receiver, Sender, channel};

use super::messages::{Letter, Parcel, Receiving, Saying, Sending, Starting};
use super::programs::{C, Go, Language, Program, Python, Rust, can_run};
use crate::support::in_own_process;

/// Two programs, the ends of one channel.
struct Pair {
    sender: Program,
    receiver: Program,
    reports_of_sender: Receiver<String>,
    reports_of_receiver: Receiver<String>,
    /// As long as it is here those wait who wait for ever.
    _forever: Sender<u8>,
}

impl Pair {
    fn start<T>(from: (Language, &str), to: (Language, &str), plan: &[usize]) -> Self
    where
        T: Serialize + for<'de> Deserialize<'de>,
    {
        let (tx, rx) = channel::<T>().unwrap();
        let (report_sender, reports_of_sender) = channel().unwrap();
        let (report_receiver, reports_of_receiver) = channel().unwrap();
        let (forever, never) = channel::<u8>().unwrap();
        let sending = Sending {
            to: tx,
            plan: plan.to_vec(),
            report: report_sender,
            forever: never.clone(),
        };
        let receiving = Receiving {
            source: rx,
            plan: plan.to_vec(),
            report: report_receiver,
            forever: never,
        };
        Pair {
            sender: from.0.start(from.1, sending),
            receiver: to.0.start(to.1, receiving),
            reports_of_sender,
            reports_of_receiver,
            _forever: forever,
        }
    }

    /// Lets both run to their ends.
    fn both_are_done(self) {
        for reports in [&self.reports_of_sender, &self.reports_of_receiver] {
            assert_eq!(reports.recv().unwrap(), "done");
            assert!(matches!(reports.recv(), Err(Error::Disconnected)));
        }
        self.sender.succeeds();
        self.receiver.succeeds();
    }
}

fn talk(from: Language, to: Language) {
    let pair = |sender, receiver| ((from, sender), (to, receiver));

    let (sender, receiver) = pair("send letters", "receive letters");
    Pair::start::<Letter>(sender, receiver, &[3_000]).both_are_done();

    // Descriptors as fields and beside the message, both kinds of ends, a blob; and long texts with all that.
    let (sender, receiver) = pair("send parcels", "receive parcels");
    Pair::start::<Parcel>(sender, receiver, &[10, 1_000_000, 10, 3_000_000]).both_are_done();

    // The receiver is killed while the sender waits for room.
    let (sender, receiver) = pair("fill", "hold");
    let pair_of = Pair::start::<Letter>(sender, receiver, &[]);
    assert_eq!(pair_of.reports_of_sender.recv().unwrap(), "full");
    pair_of.receiver.kill();
    assert_eq!(pair_of.reports_of_sender.recv().unwrap(), "disconnected");
    pair_of.sender.succeeds();

    // The sender is killed while the receiver waits for a message.
    let (sender, receiver) = pair("send one and hold", "wait");
    let pair_of = Pair::start::<Letter>(sender, receiver, &[]);
    assert_eq!(pair_of.reports_of_receiver.recv().unwrap(), "one");
    pair_of.sender.kill();
    assert_eq!(pair_of.reports_of_receiver.recv().unwrap(), "disconnected");
    pair_of.receiver.succeeds();

    // One starts the other, and hands it an end, of which it keeps no copy.
    let (tx, rx) = channel().unwrap();
    let (go_on, until) = channel().unwrap();
    let (command, environment) = to.command("say");
    let starting = Starting {
        command,
        environment,
        to: tx,
        until,
    };
    let program = from.start("start", starting);
    assert_eq!(rx.recv().unwrap(), to.name());
    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    drop(go_on);
    program.succeeds();
}

macro_rules! pairs {
    ($($(#[$attribute:meta])* $name:ident: $from:ident, $to:ident;)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                if can_run(&[$from, $to]) {
                    in_own_process(|| talk($from, $to));
                }
            }
        )*
    };
}

pairs! {
    rust_to_rust: Rust, Rust;
    rust_to_python: Rust, Python;
    rust_to_go: Rust, Go;
    python_to_rust: Python, Rust;
    python_to_python: Python, Python;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    python_to_go: Python, Go;
    go_to_rust: Go, Rust;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    go_to_python: Go, Python;
    go_to_go: Go, Go;
    rust_to_c: Rust, C;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    python_to_c: Python, C;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    go_to_c: Go, C;
    c_to_rust: C, Rust;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    c_to_python: C, Python;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    c_to_go: C, Go;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    c_to_c: C, C;
}

/// A path that is free, and an abstract name.
fn addresses(directory: &tempfile::TempDir) -> [String; 2] {
    let path = directory.path().join("socket");
    let path = path.to_str().unwrap().to_owned();
    [path, format!("\0wormhole-clients-{}", std::process::id())]
}

fn starts_to_say(language: Language, address: String) -> Program {
    let saying = Saying {
        to: None,
        address: Some(address),
    };
    language.start("say", saying)
}

fn connects_to_rust(language: Language) {
    let directory = tempfile::tempdir().unwrap();
    for address in addresses(&directory) {
        let listener = wormhole::Listener::<String>::bind(&address).unwrap();
        let program = starts_to_say(language, address);
        let (rx, _) = listener.accept().unwrap();
        assert_eq!(rx.recv().unwrap(), language.name());
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
        program.succeeds();
    }
}

fn connects_to(listening: Language, language: Language) {
    let directory = tempfile::tempdir().unwrap();
    for address in addresses(&directory) {
        let (to, says) = channel::<String>().unwrap();
        let saying = Saying {
            to: Some(to),
            address: Some(address.clone()),
        };
        let listener = listening.start("listen", saying);
        assert_eq!(says.recv().unwrap(), "listening");
        let program = starts_to_say(language, address);
        assert_eq!(says.recv().unwrap(), language.name());
        assert!(matches!(says.recv(), Err(Error::Disconnected)));
        program.succeeds();
        listener.succeeds();
    }
    // Nothing is left behind.
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

fn connects_to_go(language: Language) {
    connects_to(Go, language);
}

fn connects_to_c(language: Language) {
    connects_to(C, language);
}

macro_rules! connections {
    ($($(#[$attribute:meta])* $name:ident: $to:ident, $from:ident, $($needed:ident)+;)*) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                if can_run(&[$($needed),+]) {
                    in_own_process(|| $to($from));
                }
            }
        )*
    };
}

connections! {
    python_connects_to_rust: connects_to_rust, Python, Python;
    go_connects_to_rust: connects_to_rust, Go, Go;
    rust_connects_to_go: connects_to_go, Rust, Go;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    python_connects_to_go: connects_to_go, Python, Python Go;
    go_connects_to_go: connects_to_go, Go, Go;
    c_connects_to_rust: connects_to_rust, C, C;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    c_connects_to_go: connects_to_go, C, C Go;
    rust_connects_to_c: connects_to_c, Rust, C;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    python_connects_to_c: connects_to_c, Python, Python C;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    go_connects_to_c: connects_to_c, Go, Go C;
    #[ignore = "takes long with its like: CI runs it in `.ci/run crates`"]
    c_connects_to_c: connects_to_c, C, C;
}
