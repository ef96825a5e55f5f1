//! An HTTP server on the loopback interface with worker processes: `prefork [PORT]`.
//!
//! This process accepts connections and hands each to a worker of a pool, which answers it. The crash of a worker loses
//! its own connection and no other. SIGTERM ends it gracefully: what was accepted is answered.
//!
//! Paths: `/` says which worker it was, `/crash` has it abort.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::{Deserialize, Serialize};
use wormhole::process::{Builder, Failure};
use wormhole::{Error, Pool, PoolOptions, select};

const WORKERS: usize = 4;

/// A connection that was accepted.
#[derive(Serialize, Deserialize)]
struct Client(#[serde(with = "wormhole::fd")] TcpStream);

/// What a worker does with a connection.
fn serve(Client(mut client): Client) -> Result<(), Failure> {
    client.set_read_timeout(Some(Duration::from_secs(5)))?; // for clients that connect and say nothing
    let mut request = String::new();
    let mut lines = BufReader::new(&client);
    lines.read_line(&mut request)?;
    let mut header = String::new();
    while lines.read_line(&mut header)? > 2 {
        header.clear();
    }
    let (status, text) = match request.split(' ').nth(1) {
        Some("/") => ("200 OK", format!("worker {}\n", std::process::id())),
        Some("/crash") => std::process::abort(),
        _ => ("404 Not Found", "no such page\n".to_owned()),
    };
    let length = text.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    )?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let port = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    // SIGTERM becomes readable, and is no signal any more. The workers get theirs back.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None)?;
    let terminated = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
    let mut workers = Builder::new();
    workers
        .reset_signals(true)
        .only_arguments(true)
        .name("prefork worker");
    // A request takes this long at most.
    let options = PoolOptions::new(WORKERS)
        .deadline(Duration::from_secs(10))
        .builder(workers);
    let mut pool: Pool<Client, Result<(), Failure>> = options.run(serve)?;

    let listener = TcpListener::bind(("127.0.0.1", port))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        select! {
            ready(terminated) => break,
            ready(pool) => {},
            ready(listener) => {
                let (client, _) = listener.accept()?;
                pool.submit(Client(client))?; // waits while all workers are busy: clients queue in the kernel
            },
        }
        loop {
            match pool.try_recv() {
                Ok((_, outcome)) => report(outcome.map_err(Failure::from)),
                Err(Error::Empty | Error::Disconnected) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    drop(OwnedFd::from(listener)); // nobody is let in any more
    for (_, outcome) in pool.finish()? {
        report(outcome.map_err(Failure::from));
    }
    println!("done");
    Ok(())
}

fn report(outcome: Result<Result<(), Failure>, Failure>) {
    if let Err(failure) = outcome.and_then(|served| served) {
        eprintln!("prefork: {failure}");
    }
}
