//! A TCP service in tokio whose heavy work is done by worker processes: a line with a number, and the answer is how many
//! primes are below it.
//!
//! A request carries the channel for its answer. If its worker dies, that channel says so, to this request alone.
//!
//! Without arguments it serves on a free port of 127.0.0.1, puts itself under load, and prints how long answers took.
//! `cargo run --release --features tokio --example service [clients] [requests of each]`

mod load;

use std::error::Error;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wormhole::tokio::{Receiver, Sender};
use wormhole::{channel, spawn};

#[derive(Serialize, Deserialize)]
struct Job {
    number: u32,
    answer: wormhole::Sender<usize>,
}

/// A worker process: takes jobs until nobody is left who could send one.
fn work(jobs: wormhole::Receiver<Job>) {
    for job in &jobs {
        let job = job.expect("a job");
        let is_prime = |n: &u32| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0);
        let count = (2..job.number).filter(is_prime).count();
        let _ = job.answer.send(count); // whoever asked may have left
    }
}

/// Lets a worker answer one line.
async fn answer(line: &str, jobs: &Sender<Job>) -> Result<String, Box<dyn Error + Send + Sync>> {
    let number = line.trim().parse()?;
    let (answer, answers) = channel()?;
    jobs.send(Job { number, answer }).await?; // waits while too many are under way
    let answers = Receiver::new(answers)?;
    // Safe around any receive: if time is up, nothing has been taken.
    Ok(timeout(Duration::from_secs(10), answers.recv())
        .await??
        .to_string())
}

/// Serves one client until it leaves.
async fn serve(client: TcpStream, jobs: Sender<Job>) -> std::io::Result<()> {
    let (read, mut write) = client.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        let answer = answer(&line, &jobs).await;
        let answer = answer.unwrap_or_else(|error| format!("error: {error}"));
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse());
    let clients = arguments.next().transpose()?.unwrap_or(32);
    let requests = arguments.next().transpose()?.unwrap_or(50);

    // Forked before the runtime has threads.
    let (submit, jobs) = channel()?;
    let count = std::thread::available_parallelism()?.get();
    let workers: Result<Vec<_>, _> = (0..count).map(|_| spawn(jobs.clone(), work)).collect();
    drop(jobs);

    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let jobs = Sender::new(submit)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, jobs.clone()));
            }
        });
        load::run(address, clients, requests).await
    })?;
    drop(runtime); // and with it the last sender of jobs
    for worker in workers? {
        worker.join()?;
    }
    Ok(())
}
