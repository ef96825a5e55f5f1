//! What a queue, a bridge and a pool cost, beside async-nats used by hand for the same work.
//!
//! `cargo bench -p wormhole-nats --bench jobs` takes about a minute. Both ways take one message at a time for each
//! worker, have it done in a worker process, store the result, and acknowledge the job with a confirmation.
//! All ways take turns, round by round; what it prints are medians, and ratios of medians. With a word after it (`-- sleep`)
//! it measures only what has that word in its title.

#![allow(missing_docs, reason = "a program")]

#[allow(unreachable_pub, reason = "several programs include it")]
#[path = "../tests/support/server.rs"]
mod server;

use std::env;
use std::io::{BufRead, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{RetentionPolicy, Stream};
use async_nats::jetstream::{self, Context, stream};
use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use wormhole::PoolOptions;
use wormhole_nats::{BridgeOptions, Options, Queue};

/// Workers of a bridge.
const WORKERS: usize = 2;

#[derive(Serialize, Deserialize)]
struct Job {
    number: u64,
    pause: Duration,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Done {
    number: u64,
    length: usize,
}

/// What is done for a job, in either way.
fn work(job: Job) -> Done {
    if job.pause > Duration::ZERO {
        std::thread::sleep(job.pause);
    }
    Done {
        number: job.number,
        length: job.text.len(),
    }
}

fn job(number: u64, pause: Duration) -> Vec<u8> {
    let text = "x".repeat(200);
    serde_json::to_vec(&Job {
        number,
        pause,
        text,
    })
    .unwrap()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Hand,
    Wormhole,
}

/// A way, its bridges, and what tells how far it is.
struct Way {
    kind: Kind,
    bridges: usize,
    processes: Vec<Child>,
    jobs: String,
    results: Stream,
    done: Subscriber,
}

impl Drop for Way {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn names(kind: Kind, bridges: usize) -> (String, String) {
    let kind = match kind {
        Kind::Hand => "hand",
        Kind::Wormhole => "wormhole",
    };
    (
        format!("{kind}-{bridges}-jobs"),
        format!("{kind}-{bridges}-results"),
    )
}

impl Way {
    async fn new(url: &str, client: &Client, kind: Kind, bridges: usize) -> Way {
        let context = jetstream::new(client.clone());
        let (jobs, results) = names(kind, bridges);
        match kind {
            Kind::Hand => {
                by_hand::stream(&context, &jobs).await;
                by_hand::stream(&context, &results).await;
            }
            Kind::Wormhole => {
                let open = |name| Queue::<Job>::open(client.clone(), name, Options::default());
                open(&jobs).await.unwrap();
                open(&results).await.unwrap();
            }
        }
        let subject = |stream: &Stream| stream.cached_info().config.subjects[0].clone();
        let results = context.get_stream(results).await.unwrap();
        let done = client.subscribe(subject(&results)).await.unwrap();
        client.flush().await.unwrap();
        let start = || {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--bridge", url, names(kind, bridges).0.as_str()]);
            command.args([names(kind, bridges).1.as_str()]);
            command.arg(if kind == Kind::Hand {
                "hand"
            } else {
                "wormhole"
            });
            command.stdin(Stdio::null()).spawn().unwrap()
        };
        Way {
            kind,
            bridges,
            processes: (0..bridges).map(|_| start()).collect(),
            jobs: subject(&context.get_stream(jobs).await.unwrap()),
            results,
            done,
        }
    }

    /// From the first job that is sent to the last result that is.
    async fn round(&mut self, context: &Context, jobs: u64, pause: Duration) -> Duration {
        let start = Instant::now();
        let mut stored = Vec::new();
        for number in 0..jobs {
            let job = job(number, pause).into();
            stored.push(context.publish(self.jobs.clone(), job).await.unwrap());
        }
        for stored in stored {
            stored.await.unwrap();
        }
        let mut sum = 0;
        for _ in 0..jobs {
            let next = tokio::time::timeout(Duration::from_secs(60), self.done.next()).await;
            let done: Done = serde_json::from_slice(&next.unwrap().unwrap().payload).unwrap();
            sum += done.number;
        }
        let taken = start.elapsed();
        assert_eq!(sum, jobs * (jobs - 1) / 2); // each of them once
        self.results.purge().await.unwrap();
        taken
    }

    fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Hand => "by hand",
            Kind::Wormhole => "wormhole-nats",
        };
        format!("{kind}, {} x {WORKERS} workers", self.bridges)
    }
}

/// As a program does it that has async-nats, and processes whose standard streams are lines.
mod by_hand {
    use super::*;

    pub(super) async fn stream(context: &Context, name: &str) {
        let config = stream::Config {
            name: name.to_owned(),
            subjects: vec![name.to_owned()],
            retention: RetentionPolicy::WorkQueue,
            ..stream::Config::default()
        };
        context.create_stream(config).await.unwrap();
    }

    pub(super) async fn bridge(url: &str, jobs: &str, results: &'static str) {
        let context = jetstream::new(async_nats::connect(url).await.unwrap());
        let config = pull::Config {
            durable_name: Some("workers".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ..pull::Config::default()
        };
        let stream = context.get_stream(jobs).await.unwrap();
        let consumer = stream.get_or_create_consumer("workers", config).await;
        let consumer: PullConsumer = consumer.unwrap();
        let workers = (0..WORKERS).map(|_| worker(context.clone(), consumer.clone(), results));
        futures_util::future::join_all(workers.map(tokio::spawn)).await;
    }

    async fn worker(context: Context, consumer: PullConsumer, results: &'static str) {
        let mut process = tokio::process::Command::new(env::current_exe().unwrap())
            .arg("--worker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut jobs = process.stdin.take().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let mut line = Vec::new();
        loop {
            let one = consumer.batch().max_messages(1);
            let mut one = one
                .expires(Duration::from_secs(30))
                .messages()
                .await
                .unwrap();
            while let Some(message) = one.next().await {
                let message = message.unwrap();
                line.clear();
                line.extend_from_slice(&message.payload);
                line.push(b'\n');
                jobs.write_all(&line).await.unwrap();
                line.clear();
                lines.read_until(b'\n', &mut line).await.unwrap();
                let result = line.trim_ascii_end().to_vec();
                // So that a job which is done again after its bridge died has one result nevertheless.
                let mut headers = HeaderMap::new();
                let id = message.info().unwrap().stream_sequence;
                headers.insert(async_nats::header::NATS_MESSAGE_ID, id.to_string());
                let stored = context.publish_with_headers(results, headers, result.into());
                stored.await.unwrap().await.unwrap();
                message.double_ack().await.unwrap();
            }
        }
    }

    /// The worker process: a job a line, a result a line.
    pub(super) fn lines() {
        let mut out = std::io::stdout().lock();
        for line in std::io::stdin().lock().lines() {
            let done = work(serde_json::from_str(&line.unwrap()).unwrap());
            let mut line = serde_json::to_vec(&done).unwrap();
            line.push(b'\n');
            out.write_all(&line).unwrap();
            out.flush().unwrap();
        }
    }
}

async fn with_wormhole(url: &str, jobs: &str, results: &str) {
    let client = async_nats::connect(url).await.unwrap();
    let jobs = Queue::<Job>::open(client.clone(), jobs, Options::default());
    let results = Queue::<Done>::open(client, results, Options::default());
    let (jobs, results) = (jobs.await.unwrap(), results.await.unwrap());
    let pool = PoolOptions::new(WORKERS)
        .fresh()
        .end_with_parent()
        .run(work);
    let (jobs, results) = (jobs.receiver(), results.sender());
    let options = BridgeOptions::new(0);
    let mut bridge = wormhole_nats::pool(jobs, pool.unwrap(), results, options).unwrap();
    bridge.wait().await.unwrap();
}

/// Runs the ways in turn, and prints how long an operation of each takes.
async fn measure(
    title: &str,
    context: &Context,
    ways: &mut [&mut Way],
    (rounds, jobs, pause): (usize, u64, Duration),
) {
    let mut words = env::args().skip(1).filter(|word| !word.starts_with('-'));
    if !words.all(|word| title.contains(&word)) {
        return;
    }
    let mut times = vec![Vec::new(); ways.len()];
    for number in 0..rounds {
        for turn in 0..ways.len() {
            let way = (number + turn) % ways.len(); // none always comes after the same one
            // What comes after the last result, the acknowledgement and the next request, is not this one's.
            tokio::time::sleep(Duration::from_millis(3)).await;
            times[way].push(ways[way].round(context, jobs, pause).await);
        }
    }
    println!("\n{title}");
    let mut by_hand = None;
    for (way, times) in ways.iter().zip(&mut times) {
        times.sort_unstable();
        let median = times[times.len() / 2].as_secs_f64() / jobs as f64;
        print!("  {:32} {:7.0} us", way.name(), median * 1e6);
        if jobs > 1 {
            print!(" {:7.0} jobs/s", 1.0 / median);
        }
        match way.kind {
            Kind::Hand => by_hand = Some(median),
            Kind::Wormhole => print!(", {:.2} of by hand", by_hand.unwrap() / median),
        }
        println!();
    }
}

fn main() {
    wormhole::process::init();
    let arguments: Vec<String> = env::args().collect();
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    match arguments.get(1).map(String::as_str) {
        Some("--worker") => return by_hand::lines(),
        Some("--bridge") => {
            let [url, jobs, results, kind] = &arguments[2..] else {
                panic!("--bridge URL JOBS RESULTS KIND");
            };
            match kind.as_str() {
                "hand" => runtime().block_on(by_hand::bridge(url, jobs, results.clone().leak())),
                _ => runtime().block_on(with_wormhole(url, jobs, results)),
            }
            return;
        }
        _ => {}
    }
    // `cargo bench` passes `--bench`; `cargo test --benches` does not.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    runtime().block_on(all());
}

async fn all() {
    let Some(program) = server::newest() else {
        return;
    };
    let server = server::Server::start(&program);
    let client = async_nats::connect(server.url()).await.unwrap();
    let context = jetstream::new(client.clone());
    let mut ways = Vec::new();
    for bridges in [1, 2, 4] {
        for kind in [Kind::Hand, Kind::Wormhole] {
            ways.push(Way::new(&server.url(), &client, kind, bridges).await);
        }
    }
    // Everything has started, and is warm.
    for way in &mut ways {
        way.round(&context, 200, Duration::ZERO).await;
    }
    let mut all: Vec<&mut Way> = ways.iter_mut().collect();
    let (zero, short) = (Duration::ZERO, Duration::from_millis(5));
    let title = "One job at a time: from sending it to its result";
    measure(title, &context, &mut all[..2], (300, 1, zero)).await;
    let title = "Many jobs that take no time";
    measure(title, &context, &mut all, (15, 400, zero)).await;
    let title = "Many jobs of 5 ms, in which their workers sleep";
    measure(title, &context, &mut all, (9, 200, short)).await;
}
