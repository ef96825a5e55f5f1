//! Bridges between a queue and local processes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::Runtime;
use wormhole::{Child, PoolOptions, Receiver, Sender, channel, spawn_fresh};
use wormhole_nats::{Bridge, BridgeOptions, Error, Handed, Options, inbound, outbound, pool};

use crate::support::{
    LONG, SOON, Server, connect, consumer, in_own_process, on_every_server, on_every_server_with,
    open, open_descriptors, publish, run, server, until,
};

/// What a worker tells: its process, and what it works on.
type News = (u32, u32);

/// Doubles numbers. 13 takes until it is killed, 14 is dropped without a word, 15 waits for a word of the test.
fn work((jobs, news, go_on): (Receiver<Handed<u32>>, Sender<News>, Receiver<()>)) {
    while let Ok(Handed { value, done }) = jobs.recv() {
        news.send((std::process::id(), value)).unwrap();
        match value {
            13 => drop(go_on.recv_timeout(LONG)),
            14 => continue,
            15 => go_on.recv().unwrap(),
            _ => {}
        }
        // The bridge may have ended.
        let _ = done.send(());
    }
}

/// Workers on one machine, and a bridge to them.
struct Machine {
    bridge: Bridge,
    news: wormhole::tokio::Receiver<News>,
    go_on: Sender<()>,
    workers: Vec<Child<()>>,
}

impl Machine {
    /// Each has a connection of its own, as if it were one.
    async fn start(server: &Server, workers: usize) -> Self {
        let queue = open::<u32>(server, "jobs", Options::new().ack_wait(LONG)).await;
        let (tx, rx) = channel().unwrap();
        let (news, hears) = channel().unwrap();
        let (go_on, goes) = channel().unwrap();
        let start = |_| spawn_fresh((rx.clone(), news.clone(), goes.clone()), work).unwrap();
        let workers = (0..workers).map(start).collect::<Vec<_>>();
        let options = BridgeOptions::new(workers.len());
        Machine {
            bridge: inbound(queue.receiver(), tx, options).unwrap(),
            news: wormhole::tokio::Receiver::new(hears).unwrap(),
            go_on,
            workers,
        }
    }

    async fn stop(self) {
        self.bridge.stop().await.unwrap();
        for worker in self.workers {
            worker.join().unwrap();
        }
    }
}

fn kill_pid(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

#[test]
fn jobs_reach_local_workers_and_are_done_when_they_say_so() {
    on_every_server(|server| async move {
        let machine = Machine::start(&server, 2).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        for number in 100..120 {
            queue.sender().send(number).await.unwrap();
        }
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push(machine.news.recv().await.unwrap().1);
        }
        seen.sort_unstable();
        assert_eq!(seen, (100..120).collect::<Vec<_>>());
        until(|| async { queue.is_empty().await.unwrap() }).await;
        until(|| async { machine.bridge.report().done == 20 }).await;
        assert_eq!(machine.bridge.report().given_back, 0);
        machine.stop().await;
    });
}

#[test]
fn as_many_jobs_are_in_flight_as_there_are_workers() {
    on_every_server(|server| async move {
        let machine = Machine::start(&server, 2).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        for _ in 0..5 {
            queue.sender().send(15).await.unwrap();
        }
        let client = connect(&server).await;
        for _ in 0..2 {
            machine.news.recv().await.unwrap();
        }
        assert_eq!(consumer(&client, "jobs", "num_ack_pending").await, 2);
        assert_eq!(consumer(&client, "jobs", "num_waiting").await, 0);
        assert_eq!(consumer(&client, "jobs", "num_pending").await, 3);
        for _ in 0..5 {
            machine.go_on.send(()).unwrap();
        }
        until(|| async { queue.is_empty().await.unwrap() }).await;
        machine.stop().await;
    });
}

#[test]
fn the_job_of_a_killed_worker_is_with_another_machine_at_once() {
    on_every_server(|server| async move {
        let one = Machine::start(&server, 1).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        queue.sender().send(13).await.unwrap();
        let (pid, _) = one.news.recv().await.unwrap();
        let other = Machine::start(&server, 1).await;
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_waiting").await == 1 }).await;
        kill_pid(pid);
        // The ack wait is an hour.
        let (again, value) = other.news.recv().await.unwrap();
        assert_eq!((value, other.workers[0].pid()), (13, again));
        // All its workers are gone.
        let Machine { mut bridge, .. } = one;
        let error = bridge.wait().await.unwrap_err();
        assert!(matches!(&error, Error::Local { .. }), "{error}");
        assert!(format!("{error:#}").contains("disconnected"), "{error:#}");
        assert_eq!(bridge.report().given_back, 1);
        bridge.wait().await.unwrap(); // said once

        other.go_on.send(()).unwrap();
        until(|| async { queue.is_empty().await.unwrap() }).await;
        other.stop().await;
    });
}

#[test]
fn a_job_that_a_worker_drops_is_given_back() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        queue.sender().send(14).await.unwrap();
        let machine = Machine::start(&server, 1).await;
        for _ in 0..3 {
            assert_eq!(machine.news.recv().await.unwrap().1, 14);
        }
        until(|| async { machine.bridge.report().given_back >= 3 }).await;
        machine.stop().await;
        let job = queue.receiver().recv_timeout(SOON).await.unwrap();
        // Where the bridge withdraws its request at that moment, this server may begin to count anew.
        if !server.version().starts_with("2.9") {
            assert!(job.deliveries() >= 4, "{job:?}");
        }
        job.done().await.unwrap();
    });
}

#[test]
fn stop_takes_no_more_and_waits_for_what_is_open() {
    on_every_server(|server| async move {
        let machine = Machine::start(&server, 1).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        queue.sender().send(15).await.unwrap();
        queue.sender().send(16).await.unwrap();
        machine.news.recv().await.unwrap();
        let Machine { bridge, go_on, .. } = machine;
        let mut stopping = Box::pin(bridge.stop());
        let stopped = tokio::time::timeout(Duration::from_millis(50), &mut stopping).await;
        assert!(stopped.is_err(), "it does not wait");
        go_on.send(()).unwrap();
        stopping.await.unwrap();
        assert_eq!(queue.len().await.unwrap(), 1);
        let job = queue.receiver().try_recv().await.unwrap();
        assert_eq!((*job, job.deliveries()), (16, 1));
        job.done().await.unwrap();
        // The consumer is there for the next one.
        let client = connect(&server).await;
        assert_eq!(consumer(&client, "jobs", "num_ack_pending").await, 0);
    });
}

#[test]
fn stop_within_gives_back_what_takes_too_long() {
    on_every_server(|server| async move {
        let machine = Machine::start(&server, 1).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        queue.sender().send(15).await.unwrap();
        machine.news.recv().await.unwrap();
        let Machine { bridge, go_on, .. } = machine;
        bridge.stop_within(Duration::from_millis(20)).await.unwrap();
        let job = queue.receiver().recv_timeout(SOON).await.unwrap();
        assert_eq!((*job, job.deliveries()), (15, 2));
        go_on.send(()).unwrap(); // the worker says that it is done to nobody
        job.done().await.unwrap();
        assert!(queue.is_empty().await.unwrap());
    });
}

/// Stops a bridge in a runtime of its own, as if that were a program that ends then.
async fn stop_in(runtime: &Runtime, bridge: Bridge) {
    let stopped = runtime.spawn(bridge.stop_within(Duration::from_millis(20)));
    stopped.await.unwrap().unwrap();
}

#[test]
fn a_program_may_end_when_its_bridge_is_stopped() {
    on_every_server(|server| async move {
        let server = Arc::new(server);
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let results = open::<u32>(&server, "results", Options::new()).await;
        let client = connect(&server).await;
        let (tx, rx) = (queue.sender(), queue.receiver());
        for (is_pool, is_idle) in [(false, true), (false, false), (true, true), (true, false)] {
            let (job, jobs) = channel::<Handed<u32>>().unwrap();
            let runtime = Runtime::new().unwrap();
            let program = Arc::clone(&server);
            let started = runtime.spawn(async move {
                let queue = open::<u32>(&program, "jobs", Options::new()).await;
                let results = open::<u32>(&program, "results", Options::new()).await;
                let bridge = if is_pool {
                    let workers = PoolOptions::new(2).fresh().run(wait_without_end).unwrap();
                    let options = BridgeOptions::new(2);
                    pool(queue.receiver(), workers, results.sender(), options).unwrap()
                } else {
                    inbound(queue.receiver(), job, BridgeOptions::new(2)).unwrap()
                };
                (bridge, queue)
            });
            // Without the last handle of a queue its requests would be withdrawn in any case.
            let (bridge, _queue) = started.await.unwrap();
            until(|| async { consumer(&client, "jobs", "num_waiting").await >= 2 }).await;
            if !is_idle {
                tx.send(1).await.unwrap();
                until(|| async { consumer(&client, "jobs", "num_ack_pending").await == 1 }).await;
            }
            stop_in(&runtime, bridge).await;
            if is_idle {
                tx.send(1).await.unwrap();
            }
            runtime.shutdown_background();
            let received = rx.recv_timeout(SOON).await;
            let job = received.unwrap_or_else(|error| panic!("{is_pool}, {is_idle}: {error}"));
            job.done().await.unwrap();
            drop(jobs);
        }
        assert!(queue.is_empty().await.unwrap());
        assert!(results.is_empty().await.unwrap());
    });
}

fn wait_without_end(_: u32) -> u32 {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_bridge_stops_although_the_server_is_away() {
    on_every_server(|mut server| async move {
        let machine = Machine::start(&server, 2).await;
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_waiting").await == 2 }).await;
        server.kill();
        let stopped = tokio::time::timeout(SOON, machine.stop());
        stopped.await.unwrap();
    });
}

#[test]
fn a_dropped_bridge_gives_back_at_once() {
    on_every_server(|server| async move {
        let machine = Machine::start(&server, 1).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        queue.sender().send(15).await.unwrap();
        machine.news.recv().await.unwrap();
        let Machine { bridge, go_on, .. } = machine;
        drop(bridge);
        let job = queue.receiver().recv_timeout(SOON).await.unwrap();
        assert_eq!((*job, job.deliveries()), (15, 2));
        go_on.send(()).unwrap();
        job.done().await.unwrap();
    });
}

#[test]
fn a_bridge_goes_on_after_poisoned_text_and_tells_of_it() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let client = connect(&server).await;
        publish(&client, "jobs", Default::default(), b"poison").await;
        queue.sender().send(7).await.unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let (tx, rx) = channel::<Handed<u32>>().unwrap();
        let options = BridgeOptions::new(1).on_problem({
            let told = Arc::clone(&told);
            move |error| told.lock().unwrap().push(error.to_string())
        });
        let bridge = inbound(queue.receiver(), tx, options).unwrap();
        let rx = wormhole::tokio::Receiver::new(rx).unwrap();
        let Handed { value, done } = rx.recv().await.unwrap();
        assert_eq!(value, 7);
        done.send(()).unwrap();
        until(|| async { bridge.report().done == 1 }).await;
        assert_eq!(bridge.report().refused, 1);
        let told = told.lock().unwrap().concat();
        assert!(
            told.contains("cannot decode message 1 of stream `jobs`"),
            "{told}"
        );
        bridge.stop().await.unwrap();
    });
}

#[test]
fn a_bridge_without_a_queue_ends_with_disconnected() {
    on_every_server(|server| async move {
        let mut machine = Machine::start(&server, 2).await;
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_waiting").await == 2 }).await;
        open::<u32>(&server, "jobs", Options::new())
            .await
            .delete()
            .await
            .unwrap();
        let error = machine.bridge.wait().await.unwrap_err();
        assert!(matches!(error, Error::Disconnected { .. }), "{error}");
        machine.stop().await;
    });
}

#[test]
fn an_outage_ends_no_bridge() {
    on_every_server(|mut server| async move {
        let machine = Machine::start(&server, 2).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        queue.sender().send(15).await.unwrap();
        machine.news.recv().await.unwrap();
        server.kill();
        machine.go_on.send(()).unwrap(); // done, while the server is away
        server.restart();
        for number in 100..110 {
            queue.sender().send(number).await.unwrap();
        }
        let mut left: BTreeSet<_> = (100..110).collect();
        while !left.is_empty() {
            let (_, number) = machine.news.recv().await.unwrap();
            if number == 15 {
                // The server has forgotten that it had delivered it.
                machine.go_on.send(()).unwrap();
            }
            left.remove(&number);
        }
        until(|| async { queue.is_empty().await.unwrap() }).await;
        machine.stop().await;
    });
}

#[test]
fn a_worker_hears_that_what_it_handed_over_is_stored() {
    fn produce(results: Sender<Handed<u32>>) -> u32 {
        let mut confirmed = 0;
        for value in 0..10 {
            let (done, stored) = channel().unwrap();
            results.send(Handed { value, done }).unwrap();
            stored.recv().unwrap();
            confirmed += 1;
        }
        confirmed
    }

    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "results", Options::new()).await;
        let (tx, rx) = channel().unwrap();
        let workers = [spawn_fresh(tx.clone(), produce), spawn_fresh(tx, produce)];
        let mut bridge = outbound(rx, queue.sender(), BridgeOptions::new(2)).unwrap();
        bridge.wait().await.unwrap(); // ends with its senders
        for worker in workers {
            assert_eq!(worker.unwrap().join().unwrap(), 10);
        }
        assert_eq!(bridge.report().done, 20);
        assert_eq!(queue.len().await.unwrap(), 20);
    });
}

#[test]
fn what_cannot_be_stored_is_not_confirmed_and_a_full_queue_holds_back() {
    on_every_server_with("max_payload: 4096", |server| async move {
        let queue = open::<String>(&server, "results", Options::new().max_messages(1)).await;
        let (tx, rx) = channel().unwrap();
        let bridge = outbound(rx, queue.sender(), BridgeOptions::new(1)).unwrap();
        let hand_over = |value: String| {
            let (done, stored) = channel::<()>().unwrap();
            tx.send(Handed { value, done }).unwrap();
            wormhole::tokio::Receiver::new(stored).unwrap()
        };
        let stored = hand_over("x".repeat(5000));
        assert!(matches!(
            stored.recv().await,
            Err(wormhole::Error::Disconnected)
        ));
        assert_eq!(bridge.report().refused, 1);

        hand_over("first".to_owned()).recv().await.unwrap();
        let second = hand_over("second".to_owned());
        let waits = tokio::time::timeout(Duration::from_millis(50), second.recv()).await;
        assert!(waits.is_err(), "the queue is full");
        queue.receiver().recv().await.unwrap().done().await.unwrap();
        second.recv().await.unwrap();
        bridge.stop().await.unwrap();
    });
}

#[test]
fn stop_of_an_outbound_bridge_says_to_those_who_wait_that_nothing_was_stored() {
    on_every_server(|mut server| async move {
        let queue = open::<u32>(&server, "results", Options::new()).await;
        let (tx, rx) = channel().unwrap();
        let bridge = outbound(rx, queue.sender(), BridgeOptions::new(1)).unwrap();
        server.kill();
        let mut waiting = Vec::new();
        for value in 0..3 {
            let (done, stored) = channel::<()>().unwrap();
            tx.send(Handed { value, done }).unwrap();
            waiting.push(wormhole::tokio::Receiver::new(stored).unwrap());
        }
        bridge.stop_within(Duration::from_millis(50)).await.unwrap();
        for stored in waiting {
            assert!(matches!(
                stored.recv().await,
                Err(wormhole::Error::Disconnected)
            ));
        }
        let (done, _stored) = channel::<()>().unwrap();
        assert!(matches!(
            tx.send(Handed { value: 9, done }),
            Err(wormhole::Error::Disconnected)
        ));
    });
}

#[test]
fn bridges_and_queues_leave_no_descriptors_open() {
    in_own_process(
        "bridges::bridges_and_queues_leave_no_descriptors_open",
        || {
            let Some(program) = server::newest() else {
                return;
            };
            let server = Server::start(&program);
            run(async {}); // the first runtime of a process leaves two open, for signals
            let before = open_descriptors();
            run(async {
                for _ in 0..3 {
                    let machine = Machine::start(&server, 2).await;
                    let queue = open::<u32>(&server, "jobs", Options::new()).await;
                    queue.sender().send(14).await.unwrap();
                    queue.sender().send(1).await.unwrap();
                    machine.news.recv().await.unwrap();
                    machine.stop().await;
                    queue.delete().await.unwrap();
                }
            });
            assert_eq!(open_descriptors(), before);
        },
    );
}
