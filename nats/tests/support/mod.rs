//! What the tests share: every server in turn, a deadline for each, and a client without a library around it.

use std::env;
use std::future::Future;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;
use wormhole_nats::async_nats::{self, Client, ConnectOptions, HeaderMap};
use wormhole_nats::{Options, Queue};

#[path = "server.rs"]
pub mod server;

pub use server::Server;

/// How long a test may take on one server. Far more than it needs: only a hang gets there.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Much less than an ack wait of [`LONG`], so what comes within it did not wait for that.
pub const SOON: Duration = Duration::from_secs(20);

/// An ack wait that no test waits for.
pub const LONG: Duration = Duration::from_secs(3600);

/// Runs a test on every server that is found, each time on one of its own.
pub fn on_every_server<F: Future<Output = ()>>(body: impl Fn(Server) -> F) {
    on_every_server_with("", body);
}

/// The same, with more lines in the servers' configuration.
pub fn on_every_server_with<F: Future<Output = ()>>(settings: &str, body: impl Fn(Server) -> F) {
    if server::newest().is_none() {
        return;
    }
    for program in server::programs() {
        eprintln!("nats-server {}", program.version);
        let server = Server::start_with(program, settings);
        run(body(server));
    }
}

/// Runs a future in a runtime of its own, and fails when it takes too long.
pub fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let ended = runtime.block_on(async { timeout(DEADLINE, body).await });
    runtime.shutdown_timeout(DEADLINE);
    ended.expect("the test takes too long")
}

/// Connects, and tries again every few milliseconds when the server is away.
pub async fn connect(server: &Server) -> Client {
    ConnectOptions::new()
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .connect(server.url())
        .await
        .expect("a connection")
}

/// Opens a queue over a connection of its own.
pub async fn open<T>(server: &Server, name: &str, options: Options) -> Queue<T>
where
    T: Serialize + DeserializeOwned,
{
    let client = connect(server).await;
    Queue::open(client, name, options).await.expect("a queue")
}

/// Publishes as any client does, and waits until it is stored.
pub async fn publish(client: &Client, subject: &str, headers: HeaderMap, text: &[u8]) -> Value {
    let request = async_nats::Request::new()
        .headers(headers)
        .payload(text.to_vec().into());
    let answer = client.send_request(subject.to_owned(), request).await;
    let answer = answer.expect("an acknowledgement");
    serde_json::from_slice(&answer.payload).expect("an acknowledgement")
}

/// Takes the next message of a queue as any client does, and says nothing more about it.
pub async fn next_message(client: &Client, queue: &str) -> async_nats::Message {
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{queue}.workers");
    // An inbox of its own: the message comes with the subject that it was published to.
    let request = async_nats::Request::new()
        .inbox(client.new_inbox())
        .payload("1".into());
    let message = client.send_request(next, request).await;
    message.expect("a message")
}

/// Asks JetStream something.
pub async fn api(client: &Client, verb: &str, question: &str) -> Value {
    let subject = format!("$JS.API.{verb}");
    let answer = client.request(subject, question.to_owned().into()).await;
    serde_json::from_slice(&answer.expect("an answer").payload).expect("an answer")
}

/// Waits until the server has heard what this client has said so far, its subscriptions above all.
pub async fn heard(client: &Client) {
    api(client, "INFO", "").await;
}

/// A number of the consumer of a queue, such as `num_ack_pending`.
pub async fn consumer(client: &Client, queue: &str, number: &str) -> u64 {
    let info = api(client, &format!("CONSUMER.INFO.{queue}.workers"), "").await;
    info[number].as_u64().expect("a number of the consumer")
}

/// Looks again and again until something holds, at most until the deadline of the test.
pub async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    while !holds().await {
        tokio::task::yield_now().await;
    }
}

/// Runs a test's body in a process of its own, so that the descriptors which it counts are its own. To be called once, with
/// the name of the test, as the whole test.
pub fn in_own_process(test: &str, body: impl FnOnce()) {
    const VARIABLE: &str = "TEST_IN_OWN_PROCESS";
    if env::var(VARIABLE).is_ok_and(|running| running == test) {
        return body();
    }
    let mut child = Command::new(env::current_exe().expect("this program"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, test)
        .stdin(Stdio::null())
        .spawn()
        .expect("this program again");
    let until = Instant::now() + 3 * DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child") {
            break status;
        }
        if Instant::now() > until {
            child.kill().expect("kill the child");
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{test} in a process of its own: {status}");
}

/// How many descriptors this process has open.
pub fn open_descriptors() -> usize {
    let folder = std::fs::read_dir("/proc/self/fd").expect("the descriptors");
    folder.count() - 1 // that of the folder itself
}
