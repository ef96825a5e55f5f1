//! A server that is away is waited for, within the caller's timeout.

use std::time::Duration;

use futures_util::StreamExt;
use wormhole_nats::async_nats::ConnectOptions;
use wormhole_nats::{Error, Options, Queue};

use crate::support::{
    LONG, SOON, connect, consumer, on_every_server, on_every_server_with, open, until,
};

/// So short that the server is not back by then.
const SHORT: Duration = Duration::from_millis(50);

#[test]
fn a_send_waits_for_a_server_that_is_away() {
    on_every_server(|mut server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        server.kill();
        let error = queue.sender().send_timeout(4, SHORT).await.unwrap_err();
        assert!(
            matches!(error, Error::TimedOut { after: SHORT, .. }),
            "{error}"
        );
        let error = queue
            .sender()
            .send_with_id_timeout("a", 4, SHORT)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("send to stream `jobs`"),
            "{error}"
        );

        let tx = queue.sender();
        let mut sending = tokio::spawn(async move { tx.send_with_id("b", 5).await });
        let sent = tokio::time::timeout(SHORT, &mut sending).await;
        assert!(sent.is_err(), "it does not wait");
        server.restart();
        assert!(!sending.await.unwrap().unwrap().is_duplicate);
        assert!(
            queue
                .sender()
                .send_with_id("b", 6)
                .await
                .unwrap()
                .is_duplicate
        );
    });
}

#[test]
fn a_receive_waits_for_a_server_that_is_away_and_gets_the_next_job() {
    on_every_server(|mut server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        let waiting = {
            let rx = rx.clone();
            tokio::spawn(async move { rx.recv().await })
        };
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_waiting").await == 1 }).await;
        server.kill();
        assert!(matches!(
            rx.recv_timeout(SHORT).await,
            Err(Error::TimedOut { .. })
        ));
        server.restart();
        queue.sender().send(5).await.unwrap();
        let job = waiting.await.unwrap().unwrap();
        assert_eq!(*job, 5);
        job.done().await.unwrap();
    });
}

#[test]
fn a_job_that_is_done_while_the_server_is_away_is_done() {
    on_every_server(|mut server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        for number in 0..3 {
            queue.sender().send(number).await.unwrap();
        }
        let rx = queue.receiver();
        let done = rx.recv().await.unwrap();
        let refused = rx.recv().await.unwrap();
        let dropped = rx.recv().await.unwrap();
        server.kill();
        let done = tokio::spawn(done.done());
        let refused = tokio::spawn(async move { refused.refuse("no").await });
        drop(dropped);
        server.restart();
        done.await.unwrap().unwrap();
        refused.await.unwrap().unwrap();
        let job = rx.recv_timeout(SOON).await.unwrap();
        job.done().await.unwrap();
        // A server that is killed may forget what it has delivered, and deliver it again.
        while !queue.is_empty().await.unwrap() {
            if let Ok(job) = rx.try_recv().await {
                job.done().await.unwrap();
            }
        }
    });
}

#[test]
fn a_queue_can_be_opened_before_the_server_is_there() {
    on_every_server(|mut server| async move {
        server.kill();
        let client = ConnectOptions::new()
            .retry_on_initial_connect()
            .reconnect_delay_callback(|_| Duration::from_millis(20))
            .connect(server.url())
            .await
            .unwrap();
        let opening = Queue::<u32>::open(client.clone(), "jobs", Options::new());
        assert!(tokio::time::timeout(SHORT, opening).await.is_err());
        let opening = tokio::spawn(Queue::<u32>::open(client, "jobs", Options::new()));
        server.restart();
        let queue = opening.await.unwrap().unwrap();
        queue.sender().send(5).await.unwrap();
        assert_eq!(queue.len().await.unwrap(), 1);
    });
}

#[test]
fn what_was_in_hand_when_the_server_died_is_delivered_again_or_done() {
    on_every_server(|mut server| async move {
        const JOBS: u32 = 50;
        let options = Options::new().ack_wait(Duration::from_secs(1));
        let queue = open::<u32>(&server, "jobs", options).await;
        let sending = {
            let tx = queue.sender();
            tokio::spawn(async move {
                for number in 0..JOBS {
                    tx.send(number).await.unwrap();
                }
            })
        };
        let working = {
            let rx = queue.receiver();
            tokio::spawn(async move {
                let mut seen = vec![0_u32; JOBS as usize];
                while seen.contains(&0) {
                    let job = rx.recv().await.unwrap();
                    seen[*job as usize] += 1;
                    job.done().await.unwrap();
                }
                seen
            })
        };
        for _ in 0..3 {
            server.kill();
            server.restart();
            queue.len().await.unwrap();
        }
        sending.await.unwrap();
        let seen = working.await.unwrap();
        eprintln!(
            "{} of {JOBS} more than once",
            seen.iter().filter(|count| **count > 1).count()
        );
        until(|| async { queue.is_empty().await.unwrap() }).await;
    });
}

#[test]
fn a_queue_is_opened_however_long_a_cluster_votes() {
    on_every_server_with("jetstream: false", |server| async move {
        let client = connect(&server).await;
        let mut questions = client.subscribe("$JS.API.>").await.unwrap();
        client.flush().await.unwrap();
        let opening = Queue::<u32>::open(connect(&server).await, "jobs", Options::new());
        let opening = tokio::spawn(opening);
        // A question takes a tenth of a second, and ten seconds without an answer are too long.
        let votes =
            r#"{"error":{"code":503,"err_code":10008,"description":"temporarily unavailable"}}"#;
        for _ in 0..110 {
            let question = questions.next().await.unwrap();
            client
                .publish(question.reply.unwrap(), votes.into())
                .await
                .unwrap();
        }
        let question = questions.next().await.unwrap();
        let refused = r#"{"error":{"code":500,"err_code":1,"description":"the vote is over"}}"#;
        client
            .publish(question.reply.unwrap(), refused.into())
            .await
            .unwrap();
        let error = opening.await.unwrap().unwrap_err();
        assert!(
            format!("{error:#}").contains("the vote is over"),
            "{error:#}"
        );
    });
}

/// A server with an account that has none.
const WITHOUT_JETSTREAM: &str =
    "no_auth_user: a\naccounts { A { users: [{ user: a, password: a }] } }";

#[test]
fn a_server_without_jetstream_says_so() {
    on_every_server_with(WITHOUT_JETSTREAM, |server| async move {
        let client = connect(&server).await;
        let error = Queue::<u32>::open(client, "jobs", Options::new())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Server { .. }), "{error}");
        assert!(format!("{error:#}").contains("JetStream"), "{error:#}");
    });
}
