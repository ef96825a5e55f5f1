//! How often the kernel is asked for a message that tasks of tokio wait for: `--all-features`.

use std::cell::Cell;
use std::time::Duration;

use futures_util::future::{join, join_all};
use nix::libc::SYS_recvmsg;
use tokio::task::yield_now;
use wormhole::Options;
use wormhole::tokio::Receiver;

use crate::support::in_own_process;
use crate::{may_trace, system_calls};

/// So many tasks wait.
const TASKS: usize = 8;

/// Each of them finds nothing at first. Then messages come one by one: each is found by one task, and another one finds
/// that there is no more, except for the last task, which is alone.
const CALLS: usize = TASKS + 2 * (TASKS - 1) + 1;

/// Tasks that receive a message each, and one that sends them as soon as the one before has been received.
async fn one_by_one() {
    let (tx, rx) = Options::new().spin(Duration::ZERO).channel().unwrap();
    let rx = Receiver::<usize>::new(rx).unwrap();
    let received = Cell::new(0);
    let receive = || async {
        assert_eq!(rx.recv().await.unwrap(), received.get());
        received.set(received.get() + 1);
    };
    let send = async {
        for number in 0..TASKS {
            while received.get() < number {
                yield_now().await;
            }
            tx.try_send(number).unwrap();
        }
    };
    join(join_all((0..TASKS).map(|_| receive())), send).await;
}

fn asked(work: impl Fn()) -> usize {
    let calls = system_calls(work);
    calls.iter().filter(|&&call| call == SYS_recvmsg).count()
}

#[test]
fn of_many_tasks_one_looks_in_vain_for_each_message() {
    in_own_process(|| {
        if !may_trace() {
            return;
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let work = || runtime.block_on(one_by_one());
        assert_eq!(asked(work), CALLS);
    });
}

#[test]
fn an_awaited_message_is_asked_for_once_and_once_in_vain() {
    in_own_process(|| {
        if !may_trace() {
            return;
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let work = || {
            runtime.block_on(async {
                let (tx, rx) = Options::new().spin(Duration::ZERO).channel().unwrap();
                let rx = Receiver::<u32>::new(rx).unwrap();
                for number in 0..10 {
                    let send = async {
                        yield_now().await;
                        tx.try_send(number).unwrap();
                    };
                    assert_eq!(join(rx.recv(), send).await.0.unwrap(), number);
                }
            });
        };
        assert_eq!(asked(work), 10 * 2);
    });
}
