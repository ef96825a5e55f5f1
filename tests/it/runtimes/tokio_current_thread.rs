//! tokio with one thread, which is that of the test.

use std::future::Future;
use std::time::Duration;

use wormhole::{Error, Sender, channel, spawn};

use crate::support::in_own_process;

pub(super) use wormhole::tokio as ends;

#[path = "cases.rs"]
mod cases;

pub(super) const MESSAGES: u64 = 100_000;

/// Whether tasks run only while others let them.
pub(super) const ONE_THREAD: bool = true;

pub(super) fn block_on<F: Future>(future: F) -> F::Output {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap().block_on(future)
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
fn an_end_is_registered_while_a_child_gets_a_clone_of_it() {
    in_own_process(|| {
        block_on(async {
            let (tx, rx) = channel::<u32>().unwrap();
            let (asynchronous, rx) = (
                ends::Sender::new(tx.clone()).unwrap(),
                ends::Receiver::new(rx).unwrap(),
            );
            // Moves the clone to a socket of its own in the child.
            let child = spawn(tx, |tx: Sender<u32>| tx.send(1).unwrap()).unwrap();
            ends::Child::new(child).unwrap().join().await.unwrap();
            assert_eq!(rx.recv().await.unwrap(), 1);
            asynchronous.send(2).await.unwrap();
            assert_eq!(rx.recv().await.unwrap(), 2);
            drop(asynchronous);
            assert!(matches!(rx.recv().await, Err(Error::Disconnected)));
        });
    });
}
