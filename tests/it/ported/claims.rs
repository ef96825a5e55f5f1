//! What `docs/coming-from.md` and `docs/recipes.md` say and no other test does.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wormhole::{Error, Options, Receiver, Select, Sender, channel, select};

use super::join_all;
use crate::support::{forked, in_own_process, until_asleep};

const SHORT: Duration = Duration::from_millis(2);

#[test]
fn no_channel_is_without_a_buffer() {
    in_own_process(|| {
        let (tx, rx) = Options::new().buffer(0).channel().unwrap();
        tx.send(1).unwrap(); // nobody waits for it
        assert_eq!(rx.recv().unwrap(), 1);
    });
}

#[test]
fn the_capacity_counts_bytes_and_278_small_messages_fit() {
    in_own_process(|| {
        let fitting = |len| {
            let (tx, rx) = channel::<String>().unwrap();
            let text = "x".repeat(len);
            while tx.by_ref().try_send(&text).is_ok() {}
            rx.try_iter().count()
        };
        let default = std::fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap();
        if default.trim() == "212992" {
            assert_eq!(fitting(0), 278);
            assert_eq!(fitting(50), 278);
        }
        assert!(fitting(0) > fitting(1000) && fitting(1000) > fitting(30_000));
    });
}

#[test]
fn a_value_that_is_lent_is_still_there_after_an_error_and_one_that_is_given_away_is_dropped() {
    #[derive(Serialize, Deserialize)]
    struct Message {
        reply: Sender<u8>,
    }
    in_own_process(|| {
        let (tx, rx) = channel::<Message>().unwrap();
        drop(rx);
        let (reply, replies) = channel::<u8>().unwrap();
        let message = Message { reply };
        assert!(matches!(
            tx.by_ref().send(&message),
            Err(Error::Disconnected)
        ));
        message.reply.send(1).unwrap();
        assert_eq!(replies.recv().unwrap(), 1);
        assert!(matches!(tx.send(message), Err(Error::Disconnected)));
        assert!(matches!(replies.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_channel_closes_when_all_who_hold_it_have_ended_however_they_ended() {
    in_own_process(|| {
        let (tx, rx) = channel::<()>().unwrap();
        let (leave, left) = channel::<()>().unwrap();
        let good = child!(without (leave.clone()) { left.recv().unwrap() });
        let bad = forked(|| {
            loop {
                nix::unistd::pause();
            }
        });
        drop(tx);
        assert!(matches!(
            rx.recv_timeout(SHORT),
            Err(Error::TimedOut { .. })
        ));
        leave.send(()).unwrap();
        good.join();
        assert!(matches!(
            rx.recv_timeout(SHORT),
            Err(Error::TimedOut { .. })
        ));
        bad.kill();
        assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    });
}

#[test]
fn a_receiver_whose_sender_is_kept_is_an_arm_that_never_happens() {
    in_own_process(|| {
        let (_kept, never) = channel::<()>().unwrap();
        select! { recv(never) -> _ => unreachable!(), default(SHORT) => {} }
        let (_, dropped) = channel::<()>().unwrap();
        select! { recv(dropped) -> message => assert!(message.is_err()), default => unreachable!() }
    });
}

#[test]
fn ticks_come_when_they_are_due_whatever_else_comes() {
    in_own_process(|| {
        let (tx, rx) = channel::<usize>().unwrap();
        let start = Instant::now();
        let mut due = start + SHORT;
        let (mut ticks, mut messages) = (0, 0);
        while ticks < 5 {
            tx.send(messages).unwrap();
            tx.send(messages).unwrap();
            while Instant::now() < due {
                select! {
                    recv(rx) -> message => { message.unwrap(); messages += 1 }
                    default(due.saturating_duration_since(Instant::now())) => {}
                }
            }
            due += SHORT;
            ticks += 1;
        }
        assert!(start.elapsed() >= 5 * SHORT);
        messages += rx.try_iter().filter(Result::is_ok).count();
        assert_eq!(messages, 2 * ticks);
    });
}

#[test]
fn a_deadline_that_has_passed_still_takes_what_is_there() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        let deadline = Instant::now();
        let left = || deadline.saturating_duration_since(Instant::now());
        tx.send_timeout(1, left()).unwrap();
        assert_eq!(rx.recv_timeout(left()).unwrap(), 1);
        assert!(matches!(
            rx.recv_timeout(left()),
            Err(Error::TimedOut { .. })
        ));
    });
}

#[test]
fn a_message_in_a_selection_that_is_dropped_is_lost() {
    in_own_process(|| {
        let (tx, rx) = channel::<u32>().unwrap();
        tx.send(1).unwrap();
        tx.send(2).unwrap();
        let mut select = Select::new();
        select.recv(&rx);
        drop(select.select().unwrap());
        assert_eq!(select.select().unwrap().recv(&rx).unwrap(), 2);
        // A send has happened, whether its result is looked at or not, and does not happen again.
        let mut select = Select::new();
        select.send(&tx, 3);
        drop(select.select().unwrap());
        assert!(select.try_select().unwrap().is_none());
        assert_eq!(rx.try_iter().map(Result::unwrap).collect::<Vec<_>>(), [3]);
    });
}

#[test]
fn a_message_of_another_type_is_an_error_and_the_next_one_comes() {
    in_own_process(|| {
        let (tx, rx) = channel::<String>().unwrap();
        let numbers =
            Receiver::<u32>::try_from(std::os::fd::OwnedFd::try_from(rx).unwrap()).unwrap();
        tx.send("no number".to_owned()).unwrap();
        let other = Sender::<u32>::try_from(std::os::fd::OwnedFd::try_from(tx).unwrap()).unwrap();
        other.send(5).unwrap();
        drop(other);
        let mut items = numbers.iter();
        assert!(matches!(items.next(), Some(Err(Error::Decode { .. }))));
        assert_eq!(items.next().unwrap().unwrap(), 5);
        assert!(items.next().is_none());
    });
}

#[test]
fn errors_go_where_errors_go() {
    fn boxed() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (_, rx) = channel::<()>()?;
        rx.recv()?;
        Ok(())
    }
    in_own_process(|| assert!(boxed().unwrap_err().is::<Error>()));
}

#[derive(Serialize, Deserialize)]
struct Question {
    reply: Sender<u64>,
}

/// Asks a server that ends without an answer, with the question received or still in the queue.
fn ask_in_vain(taken: bool, keeps_questions: bool, lends: bool) -> Error {
    let (ask, questions) = channel::<Question>().unwrap();
    let (go, gone) = channel::<()>().unwrap();
    let server = child!(without (ask, go) {
        let _ = gone.recv();
        if taken {
            drop(questions.recv().unwrap());
        }
    });
    let questions = keeps_questions.then_some(questions);
    let (reply, answer) = channel().unwrap();
    let question = Question { reply };
    ask.by_ref().send(&question).unwrap();
    let question = lends.then_some(question);
    drop(go);
    server.join();
    let error = answer.recv_timeout(SHORT).unwrap_err();
    drop((questions, question));
    error
}

#[test]
fn who_asks_learns_that_nobody_answers_unless_they_hold_what_they_should_not() {
    in_own_process(|| {
        for taken in [false, true] {
            assert!(matches!(
                ask_in_vain(taken, false, false),
                Error::Disconnected
            ));
            assert!(matches!(
                ask_in_vain(taken, false, true),
                Error::TimedOut { .. }
            ));
        }
        assert!(matches!(
            ask_in_vain(false, true, false),
            Error::TimedOut { .. }
        ));
        assert!(matches!(
            ask_in_vain(true, true, false),
            Error::Disconnected
        ));
    });
}

#[test]
fn a_stop_message_reaches_one_process_and_a_closed_channel_all() {
    in_own_process(|| {
        let (stop, stopped) = channel::<()>().unwrap();
        let (report, reports) = channel::<bool>().unwrap();
        let mut children = Vec::new();
        for _ in 0..3 {
            children.push(child!(without (stop) { report.send(stopped.recv().is_ok()).unwrap() }));
        }
        stop.send(()).unwrap();
        assert!(reports.recv().unwrap());
        assert!(matches!(
            reports.recv_timeout(SHORT),
            Err(Error::TimedOut { .. })
        ));
        drop(stop);
        assert!(!reports.recv().unwrap() && !reports.recv().unwrap());
        join_all(children);
    });
}

#[test]
fn who_sends_all_jobs_before_it_receives_results_waits_for_ever() {
    in_own_process(|| {
        let (job, jobs) = channel::<u32>().unwrap();
        let (result, results) = channel::<u32>().unwrap();
        let worker = child!(without (job, results) {
            for number in &jobs {
                result.send(number.unwrap()).unwrap();
            }
        });
        // Until the worker waits for room for a result, and there is no room for a job.
        let mut sent = 0;
        loop {
            while job.try_send(sent).is_ok() {
                sent += 1;
            }
            until_asleep(worker.pid);
            if matches!(job.try_send(sent), Err(Error::Full)) {
                break;
            }
            sent += 1;
        }
        assert!(sent < 1000); // what fits both channels, and one that the worker has in its hands
        drop((job, jobs, result));
        assert!(results.iter().map(Result::unwrap).eq(0..sent));
        worker.join();
    });
}

#[test]
fn a_token_of_a_killed_process_is_lost() {
    in_own_process(|| {
        let (put, take) = channel::<()>().unwrap();
        let (took, taken) = channel::<()>().unwrap();
        (0..2).for_each(|_| put.try_send(()).unwrap());
        let holder = forked(|| {
            take.recv().unwrap();
            took.send(()).unwrap();
            loop {
                nix::unistd::pause();
            }
        });
        taken.recv().unwrap();
        holder.kill();
        take.try_recv().unwrap();
        assert!(matches!(take.try_recv(), Err(Error::Empty)));
    });
}
