//! How fast lines are, beside the library with texts of the same size: `cargo bench --package wormhole-cli`.
//!
//! All ways take turns, so that what else the machine does concerns them alike. The last column is what matters.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use wormhole::{Listener, Sender, channel, inherit, spawn_command};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wormholectl");
const LINES: u32 = 100_000;
const ROUNDS: usize = 11;

/// A text of 44 bytes, with its quotes.
fn text(number: u32) -> String {
    format!("a line of a log, number {number:018}")
}

fn main() {
    // The other process of the library's own rate.
    if std::env::var_os("WORMHOLE_FD").is_some() {
        let tx: Sender<String> = inherit().expect("a sender");
        for number in 0..LINES {
            tx.send(text(number)).expect("sent");
        }
        return;
    }
    let place = tempfile::tempdir().expect("a directory");
    let lines = place.path().join("lines");
    let all: String = (0..LINES)
        .map(|number| format!("\"{}\"\n", text(number)))
        .collect();
    std::fs::write(&lines, all).expect("a file");
    let address = place.path().join("socket");

    let library = || {
        let (tx, rx) = channel::<String>().expect("a channel");
        let begin = Instant::now();
        let itself = Command::new(std::env::current_exe().expect("a path"));
        let mut child = spawn_command(itself, tx).expect("a child");
        assert_eq!(rx.iter().filter(Result::is_ok).count(), LINES as usize);
        let taken = begin.elapsed();
        child.wait().expect("an end");
        taken
    };
    let send = || {
        let listener = Listener::<String>::bind(&address).expect("a listener");
        let begin = Instant::now();
        let mut child = Command::new(PROGRAM)
            .arg("send")
            .arg(&address)
            .stdin(File::open(&lines).expect("lines"))
            .spawn()
            .expect("a child");
        let (rx, _) = listener.accept().expect("a client");
        assert_eq!(rx.iter().filter(Result::is_ok).count(), LINES as usize);
        let taken = begin.elapsed();
        child.wait().expect("an end");
        taken
    };
    let listen = |output: fn() -> Stdio| {
        let mut child = Command::new(PROGRAM)
            .args(["listen", "--once"])
            .arg(&address)
            .stdout(output())
            .spawn()
            .expect("a child");
        let tx = loop {
            if let Ok(tx) = Sender::<String>::connect(&address) {
                break tx;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let reading = child
            .stdout
            .take()
            .map(|pipe| std::thread::spawn(|| BufReader::new(pipe).lines().count()));
        let begin = Instant::now();
        for number in 0..LINES {
            tx.send(text(number)).expect("sent");
        }
        drop(tx);
        assert!(child.wait().expect("an end").success());
        if let Some(reading) = reading {
            assert_eq!(reading.join().expect("a count"), LINES as usize);
        }
        begin.elapsed()
    };
    let both = || {
        let mut listen = Command::new(PROGRAM)
            .args(["listen", "--once"])
            .arg(&address)
            .stdout(Stdio::null())
            .spawn()
            .expect("a child");
        while !address.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let begin = Instant::now();
        let sent = Command::new(PROGRAM)
            .args(["send", "--wait"])
            .arg(&address)
            .stdin(File::open(&lines).expect("lines"))
            .status();
        assert!(sent.expect("a child").success());
        assert!(listen.wait().expect("an end").success());
        begin.elapsed()
    };

    let ways: [(&str, &dyn Fn() -> Duration); 5] = [
        ("library to library", &library),
        ("file, send, library", &send),
        ("library, listen, /dev/null", &|| listen(Stdio::null)),
        ("library, listen, pipe, reader", &|| listen(Stdio::piped)),
        ("file, send, listen, /dev/null", &both),
    ];
    let mut taken = [const { Vec::new() }; 5];
    for _ in 0..ROUNDS {
        for ((_, way), taken) in ways.iter().zip(&mut taken) {
            taken.push(way());
        }
    }
    let medians = taken.each_mut().map(|taken| {
        taken.sort();
        taken[ROUNDS / 2]
    });
    println!(
        "{LINES} texts of {} bytes, median of {ROUNDS} rounds",
        text(0).len() + 2
    );
    println!("{:32} {:>10} {:>14}", "", "ns each", "of the library");
    for ((name, _), median) in ways.iter().zip(&medians) {
        let nanos = median.as_nanos() / u128::from(LINES);
        let share = medians[0].as_secs_f64() / median.as_secs_f64();
        println!("{name:32} {nanos:>10} {share:>14.2}");
    }
}
