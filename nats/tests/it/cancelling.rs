//! A receive that is dropped loses nothing and keeps nothing from others.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Handle;
use wormhole_nats::async_nats::Client;
use wormhole_nats::{Error, Options, Queue, Receiver, Sender};

use crate::support::{LONG, SOON, connect, consumer, on_every_server, open, until};

/// Polls a future so many times, each time after other tasks had a turn, and drops it.
async fn polled<T>(future: impl Future<Output = T>, times: u32) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..times {
        let polled = poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await;
        if let Poll::Ready(output) = polled {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[test]
fn a_loop_that_is_interrupted_all_the_time_gets_every_job_once() {
    on_every_server(|server| async move {
        const JOBS: u32 = 100;
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let tx = queue.sender();
        let sending = tokio::spawn(async move {
            for number in 0..JOBS {
                tx.send(number).await.unwrap();
            }
        });
        let rx = queue.receiver();
        let (mut dropped, mut got) = (0_u64, 0);
        while got < JOBS {
            match polled(rx.recv(), 1 + got % 5).await {
                Some(job) => {
                    let job = job.unwrap();
                    assert_eq!(
                        (*job, job.deliveries()),
                        (got, 1),
                        "after {dropped} dropped"
                    );
                    job.done().await.unwrap();
                    got += 1;
                }
                None => dropped += 1,
            }
        }
        assert!(dropped > 0, "none was dropped");
        sending.await.unwrap();
        assert!(queue.is_empty().await.unwrap());
    });
}

/// Runs a test in a thread and a runtime of its own, in which nothing goes on while the test blocks.
async fn in_one_thread<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(body());
    };
    tokio::task::spawn_blocking(thread).await.unwrap();
}

/// A program that sends a job when it is told to, and says when it is stored.
struct Other {
    tell: mpsc::Sender<u32>,
    told: mpsc::Receiver<()>,
}

impl Other {
    fn new(runtime: Handle, tx: Sender<u32>) -> Self {
        let (tell, jobs) = mpsc::channel();
        let (stored, told) = mpsc::channel();
        std::thread::spawn(move || {
            for job in jobs {
                runtime.block_on(tx.send(job)).unwrap();
                stored.send(()).unwrap();
            }
        });
        Other { tell, told }
    }

    /// Blocks until the server has stored a job.
    fn send(&self, job: u32) {
        self.tell.send(job).unwrap();
        self.told.recv_timeout(SOON).unwrap();
    }

    /// Sends a job for which a call has asked that is dropped just before. Gives the time when it was.
    async fn send_to_a_dropped_call(
        &self,
        client: &Client,
        rx: &Receiver<u32>,
        job: u32,
    ) -> Instant {
        let mut receiving = Box::pin(rx.recv());
        assert!(polled(&mut receiving, 3).await.is_none());
        until(|| async { consumer(client, "jobs", "num_waiting").await >= 1 }).await;
        drop(receiving);
        let since = Instant::now();
        self.send(job);
        since
    }
}

#[test]
fn a_job_on_its_way_to_a_dropped_receive_is_there_for_try_recv() {
    on_every_server(|server| async move {
        let runtime = Handle::current();
        let sends = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let other = Other::new(runtime, sends.sender());
        in_one_thread(move || async move {
            let queue = open::<u32>(&server, "jobs", Options::new()).await;
            let client = connect(&server).await;
            let rx = queue.receiver();
            let mut number = 0;
            loop {
                number += 1;
                let since = other.send_to_a_dropped_call(&client, &rx, number).await;
                // It has come to this process, which has not read it yet.
                let received = rx.try_recv().await;
                if since.elapsed() < Duration::from_millis(90) {
                    let job = received.unwrap();
                    assert_eq!(*job, number);
                    return job.done().await.unwrap();
                }
                // It took so long that the request was withdrawn, perhaps.
                let job = match received {
                    Ok(job) => job,
                    Err(_) => rx.recv_timeout(SOON).await.unwrap(),
                };
                job.done().await.unwrap();
            }
        })
        .await;
    });
}

#[test]
fn a_job_that_has_waited_for_the_next_receive_is_kept_although_the_ack_wait_is_short() {
    on_every_server(|server| async move {
        let ack_wait = Duration::from_millis(980);
        let sends = open::<u32>(&server, "jobs", Options::new().ack_wait(ack_wait)).await;
        let other = Other::new(Handle::current(), sends.sender());
        in_one_thread(move || async move {
            let queue = open::<u32>(&server, "jobs", Options::new()).await;
            let client = connect(&server).await;
            let rx = queue.receiver();
            let mut number = 0;
            loop {
                number += 1;
                let since = other.send_to_a_dropped_call(&client, &rx, number).await;
                // This machine is busy, for so long that a third of the ack wait later is too late.
                let busy = Duration::from_millis(700);
                assert!(other.told.recv_timeout(busy).is_err());
                let job = rx.recv_timeout(SOON).await.unwrap();
                if since.elapsed() < Duration::from_millis(730) {
                    assert_eq!((*job, job.deliveries()), (number, 1));
                    let second = queue.receiver().recv_timeout(ack_wait).await;
                    assert!(matches!(second, Err(Error::TimedOut { .. })), "{second:?}");
                    return job.done().await.unwrap();
                }
                job.done().await.unwrap();
            }
        })
        .await;
    });
}

#[test]
fn a_job_for_a_dropped_receive_is_with_another_receiver_at_once() {
    on_every_server(|server| async move {
        const ROUNDS: u32 = 60;
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let other = open::<u32>(&server, "jobs", Options::new())
            .await
            .receiver();
        let (tx, rx) = (queue.sender(), queue.receiver());
        let mut again = 0;
        for round in 0..ROUNDS {
            // The request may be made, answered, or withdrawn, when the job comes.
            let sent = tx.send(round);
            let received = polled(rx.recv(), 1 + round % 7);
            let (sent, received) = tokio::join!(sent, received);
            sent.unwrap();
            drop(received); // with the job, if it was that fast
            let job = other.recv_timeout(SOON).await.unwrap();
            assert_eq!(*job, round);
            assert!(job.deliveries() <= 2);
            again += u32::from(job.deliveries() == 2);
            job.done().await.unwrap();
        }
        eprintln!("{again} of {ROUNDS} came to the dropped receive first");
    });
}

#[test]
fn a_request_that_is_withdrawn_while_its_job_is_on_the_way_strands_nothing() {
    on_every_server(|server| async move {
        const ROUNDS: u32 = 200;
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let other = open::<u32>(&server, "jobs", Options::new())
            .await
            .receiver();
        let tx = queue.sender();
        let mut again = 0;
        for round in 0..ROUNDS {
            // With the last handle of its queue the request is withdrawn at once.
            let short = open::<u32>(&server, "jobs", Options::new()).await;
            let rx = short.receiver();
            drop(short);
            let received = async {
                polled(rx.recv(), 2 + round % 5).await;
                drop(rx);
            };
            let (sent, ()) = tokio::join!(tx.send(round), received);
            sent.unwrap();
            let job = other.recv_timeout(SOON).await.unwrap();
            assert_eq!(*job, round);
            again += u32::from(job.deliveries() == 2);
            job.done().await.unwrap();
        }
        eprintln!("{again} of {ROUNDS} were on the way");
    });
}

#[test]
fn a_request_that_is_withdrawn_at_a_server_that_is_stopped_strands_nothing() {
    on_every_server(|server| async move {
        const ROUNDS: u32 = 15;
        let pid = Pid::from_raw(server.pid().unwrap().cast_signed());
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let other = open::<u32>(&server, "jobs", Options::new())
            .await
            .receiver();
        let client = connect(&server).await;
        let sends = connect(&server).await;
        let receives = connect(&server).await;
        let mut again = 0;
        for round in 0..ROUNDS {
            let short = Queue::<u32>::open(receives.clone(), "jobs", Options::new());
            let rx = short.await.unwrap().receiver();
            let mut receiving = Box::pin(rx.recv());
            assert!(polled(&mut receiving, 3).await.is_none());
            until(|| async { consumer(&client, "jobs", "num_waiting").await == 1 }).await;
            // When it goes on, the server finds the job and the withdrawal, in any order.
            kill(pid, Signal::SIGSTOP).unwrap();
            sends
                .publish("jobs", round.to_string().into())
                .await
                .unwrap();
            sends.flush().await.unwrap();
            drop(receiving);
            drop(rx);
            for _ in 0..10 {
                tokio::task::yield_now().await;
                receives.flush().await.unwrap();
            }
            kill(pid, Signal::SIGCONT).unwrap();
            let job = other.recv_timeout(SOON).await.unwrap();
            assert_eq!(*job, round);
            again += u32::from(job.deliveries() == 2);
            job.done().await.unwrap();
            until(|| async { consumer(&client, "jobs", "num_waiting").await == 0 }).await;
        }
        assert!(queue.is_empty().await.unwrap());
        eprintln!("{again} of {ROUNDS} came first");
    });
}

#[test]
fn a_dropped_receive_leaves_no_request_at_the_server() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        let receiving: Vec<_> = (0..20)
            .map(|_| rx.recv_timeout(Duration::from_millis(5)))
            .collect();
        for received in futures_util::future::join_all(receiving).await {
            assert!(matches!(received, Err(Error::TimedOut { .. })));
        }
        // The server counts requests whose inbox is gone until it looks at them: a job makes it look.
        queue.sender().send(5).await.unwrap();
        let other = open::<u32>(&server, "jobs", Options::new())
            .await
            .receiver();
        let job = other.recv_timeout(SOON).await.unwrap();
        assert!(job.deliveries() <= 2, "{}", job.deliveries());
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_waiting").await == 0 }).await;
        job.done().await.unwrap();
    });
}

#[test]
fn a_dropped_send_has_stored_the_job_or_not_and_can_be_made_again() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let tx = queue.sender();
        for number in 0..50 {
            let id = number.to_string();
            let _ = polled(tx.send_with_id(&id, number), number % 6).await;
            tx.send_with_id(&id, number).await.unwrap();
        }
        assert_eq!(queue.len().await.unwrap(), 50);
    });
}

#[test]
fn a_done_that_is_dropped_is_done_or_given_back() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let (tx, rx) = (queue.sender(), queue.receiver());
        for number in 0..30 {
            tx.send(number).await.unwrap();
            let job = rx.recv_timeout(SOON).await.unwrap();
            let _ = polled(job.done(), number % 4).await;
            // Nothing that waits for the ack wait is left.
            while !queue.is_empty().await.unwrap() {
                match rx.try_recv().await {
                    Ok(job) => job.done().await.unwrap(),
                    Err(Error::Empty { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
}
