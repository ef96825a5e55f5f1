//! tokio with two threads.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use wormhole::{Error, Receiver, Sender, channel, spawn, spawn_fresh};

use crate::support::in_own_process;

pub(super) use wormhole::tokio as ends;

#[path = "cases.rs"]
mod cases;

pub(super) const MESSAGES: u64 = 1_000_000;

/// Whether tasks run only while others let them.
pub(super) const ONE_THREAD: bool = false;

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

pub(super) async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

pub(super) async fn all<F>(tasks: Vec<F>) -> Vec<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(task.await.unwrap());
    }
    outputs
}

#[test]
fn a_runtime_that_ends_ends_the_waits_in_it() {
    in_own_process(|| {
        let (one, other) = (runtime(), runtime());
        let (tx, rx) = channel::<u32>().unwrap();
        let (full, _rx) = channel::<u32>().unwrap();
        while full.try_send(0).is_ok() {}
        let (rx, full) = one.block_on(async {
            let rx = ends::Receiver::new(rx).unwrap();
            (rx, ends::Sender::new(full).unwrap())
        });
        let (begun, begin) = std::sync::mpsc::channel();
        let receive = other.spawn({
            let (rx, begun) = (rx.clone(), begun.clone());
            async move {
                begun.send(()).unwrap();
                rx.recv().await
            }
        });
        let send = other.spawn(async move {
            begun.send(()).unwrap();
            full.send(1).await
        });
        begin.recv().unwrap();
        begin.recv().unwrap();
        drop(one);
        for waited in [
            other.block_on(receive),
            other.block_on(send).map(|sent| sent.map(|()| 0)),
        ] {
            let Err(error @ Error::Io { .. }) = waited.unwrap() else {
                panic!()
            };
            assert_eq!(error.to_string(), "cannot wait in the event loop");
        }
        // The end itself has lost nothing, and goes on elsewhere.
        tx.send(7).unwrap();
        other.block_on(async {
            let rx = ends::Receiver::new(rx.into_inner()).unwrap();
            assert_eq!(rx.recv().await.unwrap(), 7);
        });
    });
}

#[test]
fn an_end_outside_of_a_runtime_is_refused() {
    let (_tx, rx) = channel::<u32>().unwrap();
    let error = ends::Receiver::new(rx).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    assert!(format!("{error:#}").starts_with(
        "cannot register a descriptor with the event loop: there is no reactor running"
    ));
}

#[test]
fn both_flavours_talk_across_processes() {
    in_own_process(|| {
        let (ask, questions) = channel::<u64>().unwrap();
        let (answer, answers) = channel::<u64>().unwrap();
        fn increment((questions, answer): (Receiver<u64>, Sender<u64>)) {
            let mut builder = Builder::new_current_thread();
            builder.enable_all().build().unwrap().block_on(async {
                let questions = ends::Receiver::new(questions).unwrap();
                let answer = ends::Sender::new(answer).unwrap();
                while let Ok(number) = questions.recv().await {
                    answer.send(number + 1).await.unwrap();
                }
            });
        }
        let child = spawn((questions, answer), increment).unwrap();
        block_on(async {
            let ask = ends::Sender::new(ask).unwrap();
            let answers = ends::Receiver::new(answers).unwrap();
            for number in 0..1000 {
                ask.send(number).await.unwrap();
                assert_eq!(answers.recv().await.unwrap(), number + 1);
            }
        });
        child.join().unwrap();
    });
}

/// Doubles numbers, in an event loop of its own.
fn double((numbers, doubles): (Receiver<u64>, Sender<u64>)) -> u64 {
    block_on(async {
        let numbers = ends::Receiver::new(numbers).unwrap();
        let doubles = ends::Sender::new(doubles).unwrap();
        let mut count = 0;
        while let Ok(number) = numbers.recv().await {
            doubles.send(number * 2).await.unwrap();
            count += 1;
        }
        count
    })
}

#[test]
fn a_runtime_starts_fresh_processes_and_talks_to_them() {
    let deadline = Duration::from_secs(120);
    let talk = async {
        let (number, numbers) = channel().unwrap();
        let (doubled, doubles) = channel().unwrap();
        let child = spawn_fresh((numbers, doubled), double).unwrap();
        let mut child = ends::Child::new(child).unwrap();
        let number = ends::Sender::new(number).unwrap();
        let doubles = ends::Receiver::new(doubles).unwrap();
        for n in 0..100 {
            number.send(n).await.unwrap();
            assert_eq!(doubles.recv().await.unwrap(), 2 * n);
        }
        drop(number);
        assert_eq!(child.join().await.unwrap(), 100);
        assert!(matches!(doubles.recv().await, Err(Error::Disconnected)));
    };
    block_on(async { tokio::time::timeout(deadline, talk).await.unwrap() });
}
