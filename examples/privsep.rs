//! Privilege separation: the process that reads hostile input may not open files, and vice versa.
//!
//! The child works through a script that somebody else wrote. Before it looks at it, a seccomp filter
//! takes away all system calls but those that it needs to compute, and to send and receive. It gets
//! files as descriptors from its parent, which opens what is on a list, and nothing else.
//!
//!     cargo run --example privsep

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};

use nix::libc;
use seccompiler::{SeccompAction, SeccompFilter, apply_filter};
use serde::{Deserialize, Serialize};
use wormhole::{Receiver, Sender, channel, spawn};

const SCRIPT: &str =
    "lines LICENSE-MIT\nlines /etc/passwd\nopen /etc/passwd\nlines ../../..\n\u{7f}ELF";
const LISTED: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];

#[derive(Serialize, Deserialize)]
enum Answer {
    Opened(#[serde(with = "wormhole::fd")] File),
    Refused(String),
}

/// The parent's part: decides on a name that comes from the child, which may be anybody's by now.
fn open(name: &str) -> Answer {
    if !LISTED.contains(&name) {
        return Answer::Refused("not on the list".to_owned());
    }
    match File::open(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))) {
        Ok(file) => Answer::Opened(file),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// The child's part.
fn work((script, ask, answers): (String, Sender<String>, Receiver<Answer>)) -> Vec<String> {
    confine().expect("a filter");
    let lines = |name: &str| {
        ask.send(name.to_owned())?;
        match answers.recv()? {
            Answer::Opened(file) => Ok(format!("{} lines", BufReader::new(file).lines().count())),
            Answer::Refused(reason) => Err(reason.into()),
        }
    };
    let run = |line: &str| -> Result<String, Box<dyn Error>> {
        match line.split_once(' ') {
            Some(("lines", name)) => lines(name),
            Some(("open", name)) => Ok(format!("{:?}", File::open(name)?)), // without asking
            _ => Err("what?".into()),
        }
    };
    let shown = script.lines().map(|line| match run(line) {
        Ok(result) => format!("{line:?}: {result}"),
        Err(error) => format!("{line:?}: refused: {error}"),
    });
    shown.collect()
}

/// Gives up all system calls but these.
fn confine() -> Result<(), Box<dyn Error>> {
    let transfer = [libc::SYS_sendto, libc::SYS_recvmsg, libc::SYS_ppoll];
    let files = [libc::SYS_read, libc::SYS_write, libc::SYS_close];
    let memory = [
        libc::SYS_mmap,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_brk,
    ];
    let end = [libc::SYS_exit_group, libc::SYS_rt_sigreturn];
    let other = [
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
    ];
    let all = [&transfer[..], &files, &memory, &end, &other].concat();
    let rules: BTreeMap<_, _> = all.into_iter().map(|number| (number, vec![])).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture)?;
    let program: seccompiler::BpfProgram = filter.try_into()?;
    Ok(apply_filter(&program)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let (ask, questions) = channel::<String>()?;
    let (answer, answers) = channel()?;
    // First thing, as the child gets a copy of all memory and descriptors. Later: `spawn_command`.
    let child = spawn((SCRIPT.to_owned(), ask, answers), work)?;
    for name in &questions {
        answer.send(open(&name?))?;
    }
    println!("{}", child.join()?.join("\n"));
    Ok(())
}
