//! The events of the feature `tracing`: `cargo test --all-features --test it events`.

use std::fmt::{Debug, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::with_default;
use tracing::{Event, Level, Metadata, Subscriber};
use wormhole::{Listener, Sender, channel, spawn, spawn_command};

use crate::support::in_own_process;

/// Writes down the events from some level on, a line each.
struct Log {
    level: Level,
    lines: Arc<Mutex<Vec<String>>>,
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "wormhole" && *metadata.level() <= self.level
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("spans are the caller's")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What is logged while `f` runs.
fn logged(level: Level, f: impl FnOnce()) -> Vec<String> {
    let lines = Arc::default();
    let log = Log {
        level,
        lines: Arc::clone(&lines),
    };
    with_default(log, f);
    std::mem::take(&mut *lines.lock().unwrap())
}

#[test]
fn each_message_is_an_event_without_its_contents() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let (sends, receives) = (tx.as_raw_fd(), rx.as_raw_fd());
        let lines = logged(Level::TRACE, || {
            tx.send("a secret".to_owned()).unwrap();
            tx.send_with_fds("and".to_owned(), &[rx.as_fd()]).unwrap();
            rx.recv().unwrap();
            rx.recv_with_fds().unwrap();
            assert!(rx.try_recv().is_err());
        });
        let expected = [
            format!("TRACE message=message sent end={sends} bytes=10 descriptors=0"),
            format!("TRACE message=message sent end={sends} bytes=5 descriptors=1"),
            format!("TRACE message=message received end={receives} bytes=10 descriptors=0"),
            format!("TRACE message=message received end={receives} bytes=5 descriptors=1"),
        ];
        assert_eq!(lines, expected);
        assert!(logged(Level::DEBUG, || tx.send(String::new()).unwrap()).is_empty());
    });
}

#[test]
fn a_long_message_is_an_event_with_its_whole_length() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let lines = logged(Level::TRACE, || {
            tx.send("x".repeat(300_000)).unwrap();
            rx.recv().unwrap();
        });
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].ends_with("bytes=300002 descriptors=0"),
            "{lines:?}"
        );
        assert!(
            lines[1].ends_with("bytes=300002 descriptors=0"),
            "{lines:?}"
        );
    });
}

#[test]
fn children_and_clients_are_events() {
    in_own_process(|| {
        let (mut child_pid, mut program_pid) = (0, 0);
        let lines = logged(Level::DEBUG, || {
            let child = spawn(1, |n: u32| n).unwrap();
            child_pid = child.pid();
            child.join().unwrap();
            let mut program = spawn_command(Command::new("true"), ()).unwrap();
            program_pid = program.id();
            program.wait().unwrap();
        });
        let expected = [
            format!("DEBUG message=child started pid={child_pid}"),
            format!("DEBUG message=child ended pid={child_pid} end=Exited {{ code: 0 }}"),
            format!("DEBUG message=child started pid={program_pid}"),
        ];
        assert_eq!(lines, expected);

        let name = format!("\0wormhole events {}", std::process::id());
        let listener = Listener::<u32>::bind(&name).unwrap();
        let _client = Sender::<u32>::connect(&name).unwrap();
        let mut end = 0;
        let lines = logged(Level::DEBUG, || {
            end = listener.accept().unwrap().0.as_raw_fd();
        });
        let pid = std::process::id();
        assert_eq!(
            lines,
            [format!("DEBUG message=client accepted end={end} pid={pid}")]
        );
    });
}
