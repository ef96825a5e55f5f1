//! A program whose workers are Python: they are handed open files, and answer with what they found.
//!
//! Two workers take jobs from one channel. Each job brings the sender for its answer. A worker that raises an
//! exception answers with its traceback and goes on. One that dies drops the sender, so this program, which waits for
//! the answer, is told, and starts another.
//!
//! It needs python3, and finds the package `wormhole_ipc` in this repository.
//!
//!     cargo run --example python_workers

use std::env;
use std::error::Error;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command};

use serde::{Deserialize, Serialize};
use wormhole::{Receiver, Sender, channel, spawn_command};

#[derive(Serialize, Deserialize)]
struct Job {
    name: String,
    #[serde(with = "wormhole::fd")]
    input: File,
    reply: Sender<Answer>,
}

/// In worker.py these are classes, and the enum is a `Union` of them.
#[derive(Serialize, Deserialize)]
enum Answer {
    Counted { lines: u64, words: u64 },
    Failed { traceback: String },
}

fn start(jobs: &Receiver<Job>) -> Result<Child, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command.arg(root.join("examples/python_workers/worker.py"));
    command.env("PYTHONPATH", root.join("clients/python"));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(spawn_command(command, jobs.clone())?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (tx, jobs) = channel()?;
    let mut workers = vec![start(&jobs)?, start(&jobs)?];

    let mut answers = Vec::new();
    for (name, path) in [
        ("license", root.join("LICENSE-MIT")),
        ("program", env::current_exe()?),
        ("crash", "/dev/null".into()),
        ("nothing", "/dev/null".into()),
    ] {
        let (reply, answer) = channel()?;
        let (name, input) = (name.to_owned(), File::open(path)?);
        answers.push((name.clone(), answer));
        tx.send(Job { name, input, reply })?;
    }

    for (name, answer) in answers {
        match answer.recv() {
            Ok(Answer::Counted { lines, words }) => {
                println!("{name}: {lines} lines, {words} words")
            }
            Ok(Answer::Failed { traceback }) => {
                println!("{name}: {}", traceback.lines().last().unwrap_or_default());
            }
            Err(wormhole::Error::Disconnected) => {
                println!("{name}: its worker died");
                workers.push(start(&jobs)?);
            }
            Err(error) => return Err(error.into()),
        }
    }

    drop(tx); // no more jobs: the workers end
    for mut worker in workers {
        println!("a worker ended with {}", worker.wait()?);
    }
    Ok(())
}
