//! Jobs from a queue through a pool, results to another queue.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use wormhole::{Pool, PoolOptions, channel};
use wormhole_nats::{
    BridgeOptions, Error, Options, Outcome, inbound, outbound, pool, pool_outcomes,
};

use crate::support::{
    LONG, SOON, Server, api, connect, consumer, heard, in_own_process, next_message,
    on_every_server, on_every_server_with, open, publish, until,
};

/// Doubles. 13 kills its worker, 14 panics, 15 takes too long, 16 is too large.
fn double(number: u32) -> (u32, String) {
    match number {
        13 => std::process::abort(),
        14 => panic!("fourteen"),
        15 => loop {
            std::thread::park();
        },
        16 => (32, "x".repeat(10_000)),
        _ => (2 * number, String::new()),
    }
}

fn workers(count: usize) -> Pool<u32, (u32, String)> {
    let options = PoolOptions::new(count)
        .fresh()
        .deadline(Duration::from_secs(2));
    options.run(double).unwrap()
}

struct Queues {
    jobs: wormhole_nats::Queue<u32>,
    results: wormhole_nats::Queue<(u32, String)>,
}

impl Queues {
    async fn open(server: &Server, max_deliveries: u64) -> Self {
        let options = Options::new().ack_wait(LONG).max_deliveries(max_deliveries);
        Queues {
            jobs: open(server, "jobs", options).await,
            results: open(server, "results", Options::new().ack_wait(LONG)).await,
        }
    }
}

#[test]
fn results_are_stored_before_jobs_are_done() {
    on_every_server(|server| async move {
        let Queues { jobs, results } = Queues::open(&server, 3).await;
        for number in 100..150 {
            jobs.sender().send(number).await.unwrap();
        }
        let bridge = pool(
            jobs.receiver(),
            workers(2),
            results.sender(),
            BridgeOptions::new(0),
        )
        .unwrap();
        let mut got = Vec::new();
        let rx = results.receiver();
        for _ in 0..50 {
            let job = rx.recv().await.unwrap();
            got.push(job.0);
            job.done().await.unwrap();
        }
        got.sort_unstable();
        assert_eq!(got, (100..150).map(|number| 2 * number).collect::<Vec<_>>());
        until(|| async { jobs.is_empty().await.unwrap() }).await;
        until(|| async { bridge.report().done == 50 }).await;
        bridge.stop().await.unwrap();
        assert!(matches!(rx.try_recv().await, Err(Error::Empty { .. })));
    });
}

#[test]
fn more_jobs_in_flight_than_the_server_keeps_requests_are_refused() {
    on_every_server(|server| async move {
        let Queues { jobs, results } = Queues::open(&server, 3).await;
        let client = connect(&server).await;
        let info = api(&client, "CONSUMER.INFO.jobs.workers", "").await;
        assert_eq!(info["config"]["max_waiting"], 16_384);
        for in_flight in [16_385, usize::MAX] {
            let options = || BridgeOptions::new(in_flight);
            let (tx, rx) = channel().unwrap();
            for refused in [
                inbound(jobs.receiver(), tx, options()),
                outbound(rx, jobs.sender(), options()),
                pool(jobs.receiver(), workers(1), results.sender(), options()),
            ] {
                let error = refused.unwrap_err();
                let Error::Invalid { what, value, .. } = &error else {
                    panic!("{error}");
                };
                assert_eq!(*what, "number of jobs in flight");
                assert_eq!(*value, in_flight.to_string());
            }
        }
    });
}

#[test]
fn a_job_that_is_done_twice_has_one_result() {
    on_every_server(|server| async move {
        let Queues { jobs, results } = Queues::open(&server, 10).await;
        jobs.sender().send(5).await.unwrap();
        // A machine stores the result, and dies before it says that the job is done.
        let client = connect(&server).await;
        let reply = next_message(&client, "jobs").await.reply.unwrap();
        let stored_at = reply.split('.').nth(7).unwrap();
        let id = format!("jobs/1/{stored_at}");
        let result = (10, "by hand".to_owned());
        results.sender().send_with_id(&id, result).await.unwrap();
        client.request(reply, "-NAK".into()).await.unwrap();

        let options = BridgeOptions::new(0);
        let bridge = pool(jobs.receiver(), workers(1), results.sender(), options).unwrap();
        until(|| async { bridge.report().done == 1 }).await;
        bridge.stop().await.unwrap();
        assert!(jobs.is_empty().await.unwrap());
        assert_eq!(results.len().await.unwrap(), 1);
        let result = results.receiver().recv().await.unwrap();
        assert_eq!(result.1, "by hand");
    });
}

#[test]
fn a_bridge_that_is_cut_off_after_the_result_leads_to_no_second_result() {
    on_every_server(|server| async move {
        let Queues { jobs, results } = Queues::open(&server, 10).await;
        let options = BridgeOptions::new(0);
        for number in 0..40 {
            jobs.sender().send(100 + number).await.unwrap();
        }
        // Bridges that are dropped in the middle, one after the other.
        for stored in [5, 10, 15, 20] {
            let bridge = pool(
                jobs.receiver(),
                workers(2),
                results.sender(),
                options.clone(),
            )
            .unwrap();
            until(|| async { results.len().await.unwrap() >= stored }).await;
            drop(bridge);
        }
        let bridge = pool(jobs.receiver(), workers(2), results.sender(), options).unwrap();
        until(|| async { jobs.is_empty().await.unwrap() }).await;
        bridge.stop().await.unwrap();
        assert_eq!(results.len().await.unwrap(), 40);
    });
}

#[test]
fn a_job_that_fails_is_tried_as_often_as_it_may_and_is_not_in_the_way() {
    on_every_server_with("max_payload: 4096", |server| async move {
        let Queues { jobs, results } = Queues::open(&server, 2).await;
        for number in [13, 14, 15, 16, 100] {
            jobs.sender().send(number).await.unwrap();
        }
        let told = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let options = BridgeOptions::new(0).on_problem({
            let told = std::sync::Arc::clone(&told);
            move |error| told.lock().unwrap().push(error.to_string())
        });
        let bridge = pool(jobs.receiver(), workers(2), results.sender(), options).unwrap();
        until(|| async { jobs.is_empty().await.unwrap() }).await;
        until(|| async { bridge.report().refused == 4 && bridge.report().done == 1 }).await;
        assert_eq!(bridge.report().given_back, 4, "each once");
        bridge.stop().await.unwrap();
        assert_eq!(results.len().await.unwrap(), 1);
        let told = told.lock().unwrap().join("\n");
        for reason in [
            "job died with its worker",
            "fourteen",
            "longer than its deadline",
            "limit of 4096",
        ] {
            assert!(told.contains(reason), "{reason} is not in {told}");
        }
    });
}

#[test]
fn outcomes_say_of_each_job_what_became_of_it() {
    on_every_server(|server| async move {
        let options = Options::new().ack_wait(LONG).max_deliveries(2);
        let jobs = open::<u32>(&server, "jobs", options).await;
        let outcomes = open::<Outcome<(u32, String)>>(&server, "outcomes", Options::new()).await;
        for number in [13, 14, 100] {
            jobs.sender()
                .send_with_id(&format!("n{number}"), number)
                .await
                .unwrap();
        }
        let options = BridgeOptions::new(0);
        let bridge =
            pool_outcomes(jobs.receiver(), workers(2), outcomes.sender(), options).unwrap();
        let mut all = BTreeMap::new();
        let rx = outcomes.receiver();
        for _ in 0..3 {
            let (outcome, delivery) = rx.recv().await.unwrap().into_parts();
            all.insert(outcome.job.clone(), outcome.result);
            delivery.done().await.unwrap();
        }
        let reason = |job: &str| all[job].as_ref().unwrap_err().reason.clone();
        assert!(reason("n13").contains("died"), "{}", reason("n13"));
        assert!(reason("n14").contains("fourteen"), "{}", reason("n14"));
        assert_eq!(all["n100"], Ok((200, String::new())));
        until(|| async { jobs.is_empty().await.unwrap() }).await;
        until(|| async { bridge.report().done == 3 }).await;
        bridge.stop().await.unwrap();
    });
}

/// A number that can be read, and written unless it is 18.
#[derive(Deserialize)]
#[serde(transparent)]
struct Fussy(u32);

impl Serialize for Fussy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            18 => Err(S::Error::custom("eighteen")),
            number => number.serialize(serializer),
        }
    }
}

#[test]
fn what_cannot_be_sent_has_an_outcome_that_says_so() {
    fn double_fussy(number: Fussy) -> (u32, String) {
        double(number.0)
    }

    on_every_server_with("max_payload: 4096", |server| async move {
        let options = Options::new().ack_wait(LONG).max_deliveries(2);
        let jobs = open::<Fussy>(&server, "jobs", options).await;
        let outcomes = open::<Outcome<(u32, String)>>(&server, "outcomes", Options::new()).await;
        let client = connect(&server).await;
        // The result of one is too large, and the other cannot be handed to a worker.
        for (number, deliveries) in [("16", 2), ("18", 1)] {
            publish(&client, "jobs", Default::default(), number.as_bytes()).await;
            let workers = PoolOptions::new(1).fresh().run(double_fussy).unwrap();
            let options = BridgeOptions::new(0);
            let bridge = pool_outcomes(jobs.receiver(), workers, outcomes.sender(), options);
            let bridge = bridge.unwrap();
            let outcome = outcomes.receiver().recv().await.unwrap();
            assert_eq!(
                outcome.job,
                format!("jobs/{}", u32::from(number == "18") + 1)
            );
            let reason = &outcome.result.as_ref().unwrap_err().reason;
            let expected = match number {
                "16" => "limit of 4096",
                _ => "eighteen",
            };
            assert!(reason.contains(expected), "{reason}");
            until(|| async { bridge.report().done == 1 }).await;
            assert_eq!(bridge.report().given_back, deliveries - 1);
            assert_eq!(bridge.report().refused, 0);
            bridge.stop().await.unwrap();
            outcome.done().await.unwrap();
            assert!(jobs.is_empty().await.unwrap());
        }
    });
}

#[test]
fn the_jobs_of_a_pool_that_is_stopped_are_given_back() {
    on_every_server(|server| async move {
        let Queues { jobs, results } = Queues::open(&server, 10).await;
        jobs.sender().send(15).await.unwrap();
        let options = PoolOptions::new(1).fresh();
        let workers = options.run(double).unwrap();
        let bridge = pool(
            jobs.receiver(),
            workers,
            results.sender(),
            BridgeOptions::new(0),
        )
        .unwrap();
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_ack_pending").await == 1 }).await;
        bridge.stop_within(Duration::from_millis(20)).await.unwrap();
        let job = jobs.receiver().recv_timeout(SOON).await.unwrap();
        assert_eq!((*job, job.deliveries()), (15, 2));
        job.done().await.unwrap();
    });
}

#[test]
fn a_pool_that_starts_no_more_workers_ends_its_bridge_and_gives_back() {
    fn fail(_: &()) -> Result<(), wormhole::process::Failure> {
        std::process::abort()
    }
    fn work((): &mut (), number: u32) -> (u32, String) {
        (number, String::new())
    }

    on_every_server(|server| async move {
        let Queues { jobs, results } = Queues::open(&server, 10).await;
        jobs.sender().send(5).await.unwrap();
        let workers = PoolOptions::new(1).fresh().start((), fail, work).unwrap();
        let mut bridge = pool(
            jobs.receiver(),
            workers,
            results.sender(),
            BridgeOptions::new(0),
        )
        .unwrap();
        let error = bridge.wait().await.unwrap_err();
        assert!(matches!(error, Error::Local { .. }), "{error}");
        let job = jobs.receiver().recv_timeout(SOON).await.unwrap();
        assert_eq!(*job, 5);
        job.done().await.unwrap();
    });
}

/// While it is there, this process can open no more descriptors.
struct NoDescriptors {
    soft: u64,
    hard: u64,
}

impl NoDescriptors {
    /// So many low numbers are in use by then, as `poll` takes no more descriptors than the limit says.
    const LEFT: u64 = 16;

    fn new() -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, Self::LEFT, hard).unwrap();
        NoDescriptors { soft, hard }
    }
}

impl Drop for NoDescriptors {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard).unwrap();
    }
}

#[test]
fn results_on_their_way_are_stored_although_the_pool_has_come_to_its_end() {
    in_own_process(
        "pools::results_on_their_way_are_stored_although_the_pool_has_come_to_its_end",
        || {
            let low: Vec<_> = (0..NoDescriptors::LEFT)
                .map(|_| File::open("/dev/null").unwrap())
                .collect();
            on_every_server(a_pool_without_descriptors);
            drop(low);
        },
    );
}

async fn a_pool_without_descriptors(server: Server) {
    let jobs = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
    let options = Options::new().max_messages(1);
    let results = open::<(u32, String)>(&server, "results", options).await;
    let client = connect(&server).await;
    // The queue of results is full.
    results.sender().send((1, String::new())).await.unwrap();
    let workers = PoolOptions::new(1).fresh().ahead(1).run(double).unwrap();
    let worker = Pid::from_raw(workers.workers()[0].cast_signed());
    let options = BridgeOptions::new(2);
    let mut bridge = pool(jobs.receiver(), workers, results.sender(), options).unwrap();
    // A result that waits, a job with the worker, and one that waits for the worker.
    for (number, in_hand) in [(100, 1), (15, 2), (101, 3)] {
        jobs.sender().send(number).await.unwrap();
        until(|| async { consumer(&client, "jobs", "num_ack_pending").await == in_hand }).await;
    }
    heard(&client).await;
    let no_descriptors = NoDescriptors::new();
    kill(worker, Signal::SIGKILL).unwrap();
    until(|| async { bridge.report().given_back >= 2 }).await;
    results
        .receiver()
        .recv()
        .await
        .unwrap()
        .done()
        .await
        .unwrap();
    let error = bridge.wait().await.unwrap_err();
    drop(no_descriptors);
    assert!(matches!(error, Error::Local { .. }), "{error:#}");
    assert_eq!(bridge.report().done, 1);
    let result = results.receiver().recv_timeout(SOON).await.unwrap();
    assert_eq!(result.0, 200);
    let mut given_back = Vec::new();
    for _ in 0..2 {
        let job = jobs.receiver().recv_timeout(SOON).await.unwrap();
        given_back.push(*job);
        job.done().await.unwrap();
    }
    given_back.sort_unstable();
    assert_eq!(given_back, [15, 101]);
    assert!(jobs.is_empty().await.unwrap());
}

#[test]
fn a_full_queue_of_results_holds_back_the_jobs() {
    on_every_server(|server| async move {
        let jobs = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let options = Options::new().max_messages(1);
        let results = open::<(u32, String)>(&server, "results", options).await;
        for number in 0..20 {
            jobs.sender().send(100 + number).await.unwrap();
        }
        let bridge = pool(
            jobs.receiver(),
            workers(1),
            results.sender(),
            BridgeOptions::new(0),
        )
        .unwrap();
        let rx = results.receiver();
        for taken in 1..=20 {
            let job = rx.recv().await.unwrap();
            let left = jobs.len().await.unwrap();
            assert!(left >= 20 - taken, "{left} left after {taken}");
            job.done().await.unwrap();
        }
        until(|| async { jobs.is_empty().await.unwrap() }).await;
        bridge.stop().await.unwrap();
    });
}
