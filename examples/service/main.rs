//! A TCP service in tokio whose heavy work is done by a pool of fresh processes: a line with a number, and the answer is how
//! many primes are below it.
//!
//! If a worker dies, that costs one answer, which says so, and another worker takes its place.
//!
//! It serves on a free port of 127.0.0.1, puts itself under load, and prints how long answers took.
//! `cargo run --release --features tokio --example service [clients] [requests of each]`

mod dispatch;
mod load;

use std::error::Error;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use wormhole::PoolOptions;
use wormhole::tokio::Pool;

use self::dispatch::{Request, dispatch};

/// What a worker does.
fn count_primes(below: u32) -> usize {
    let is_prime = |n: &u32| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    (2..below).filter(is_prime).count()
}

/// Serves one client until it leaves.
async fn serve(
    client: TcpStream,
    jobs: mpsc::Sender<Request>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (read, mut write) = client.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = match line.trim().parse() {
            Ok(number) => {
                let (reply, result) = oneshot::channel();
                jobs.send((number, reply)).await?; // waits while too many are under way
                let result = result.await?;
                result.map_or_else(
                    |error| Err(error.to_string()),
                    |count| Ok(count.to_string()),
                )
            }
            Err(error) => Err(format!("{line:?} is no number: {error}")),
        };
        let answer = answer.unwrap_or_else(|error| format!("error: {error}"));
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

#[tokio::main]
async fn run(clients: usize, requests: usize) -> Result<(), Box<dyn Error>> {
    let pool = PoolOptions::new(0).fresh().run(count_primes)?; // 0: as many as processors
    let (jobs, asked) = mpsc::channel(64);
    let dispatch = tokio::spawn(dispatch(Pool::new(pool)?, asked));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let accept = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, jobs.clone()));
        }
    });
    load::run(address, clients, requests).await?;
    accept.abort(); // and with it goes the last sender of jobs, once all clients have left
    Ok(dispatch.await??)
}

fn main() -> Result<(), Box<dyn Error>> {
    wormhole::process::init(); // here the workers begin, and end
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse());
    let clients = arguments.next().transpose()?.unwrap_or(32);
    let requests = arguments.next().transpose()?.unwrap_or(50);
    run(clients, requests)
}
