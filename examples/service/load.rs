//! A bounded load: so many clients, so many requests of each, one after the other.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Asks for the primes below 2000, and checks the answer.
async fn client(address: SocketAddr, requests: usize) -> std::io::Result<Vec<Duration>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let mut times = Vec::new();
    let mut line = String::new();
    for _ in 0..requests {
        let start = Instant::now();
        stream.write_all(b"2000\n").await?;
        line.clear();
        stream.read_line(&mut line).await?;
        if line != "303\n" {
            return Err(std::io::Error::other(format!("answered {line:?}")));
        }
        times.push(start.elapsed());
    }
    Ok(times)
}

/// Puts a service under load, and prints how long the answers took.
pub(crate) async fn run(
    address: SocketAddr,
    clients: usize,
    requests: usize,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let clients: Vec<_> = (0..clients)
        .map(|_| tokio::spawn(client(address, requests)))
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    let took = start.elapsed();
    times.sort_unstable();
    println!("{} requests, all answered", times.len());
    if let (Some(last), false) = (times.len().checked_sub(1), took.is_zero()) {
        let share = |percent: usize| times[last * percent / 100];
        let rate = times.len() as f64 / took.as_secs_f64();
        println!("{rate:.0} a second");
        for percent in [50, 99, 100] {
            println!("{percent:3} % within {:?}", share(percent));
        }
    }
    Ok(())
}
