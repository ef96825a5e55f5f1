//! Running a program that kills and stops others, to its end.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Gives its exit status and what it printed.
pub(crate) fn run(mut program: Command) -> (Option<i32>, String) {
    let program = program.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = program.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (done, end) = mpsc::channel();
    thread::spawn(move || {
        let mut text = String::new();
        let _ = stdout.read_to_string(&mut text);
        let _ = done.send(text);
    });
    // The program has deadlines of its own, which are much shorter.
    let text = end.recv_timeout(Duration::from_secs(300));
    if text.is_err() {
        child.kill().unwrap();
    }
    (child.wait().unwrap().code(), text.expect("a hang"))
}
