//! A program with a plugin that may crash: the plugin is another program, and what it is handed is a
//! channel.
//!
//! Here it is the same program, started with the argument `plugin`. It takes the receiver of
//! requests with `inherit`. Each request brings the sender for its answer, so a plugin that dies on a
//! request drops that sender: the host, which waits for the answer, is told, and starts another plugin.
//!
//!     cargo run --example plugin

use std::env;
use std::error::Error;
use std::process::{Child, Command};

use serde::{Deserialize, Serialize};
use wormhole::{Receiver, Sender, channel, inherit, spawn_command};

#[derive(Serialize, Deserialize)]
struct Request {
    text: String,
    answer: Sender<String>,
}

fn start() -> Result<(Sender<Request>, Child), Box<dyn Error>> {
    let (sender, requests) = channel()?;
    let mut command = Command::new(env::current_exe()?);
    command.arg("plugin");
    Ok((sender, spawn_command(command, requests)?))
}

fn host() -> Result<(), Box<dyn Error>> {
    let (mut plugin, mut process) = start()?;
    for text in ["parse this", "crash on this", "and parse this"] {
        let (sender, answer) = channel()?;
        plugin.send(Request {
            text: text.to_owned(),
            answer: sender,
        })?;
        match answer.recv() {
            Ok(answer) => println!("{text}: {answer}"),
            Err(wormhole::Error::Disconnected) => {
                println!("{text}: the plugin ended with {}", process.wait()?);
                (plugin, process) = start()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    drop(plugin); // no more requests: it returns
    println!("the last plugin ended with {}", process.wait()?);
    Ok(())
}

fn plugin() -> Result<(), Box<dyn Error>> {
    let requests: Receiver<Request> = inherit()?;
    for request in &requests {
        let Request { text, answer } = request?;
        if text.starts_with("crash") {
            std::process::exit(1);
        }
        answer.send(format!("{} words", text.split(' ').count()))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("plugin") => plugin(),
        _ => host(),
    }
}
