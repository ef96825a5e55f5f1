//! Receiving: one job at a time, what is no job, ends.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wormhole_nats::{Error, Options};

use crate::support::{LONG, SOON, api, connect, consumer, on_every_server, open, publish, until};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Resize {
    picture: String,
    width: u32,
}

#[test]
fn a_job_arrives_as_it_was_sent_and_says_what_it_is() {
    on_every_server(|server| async move {
        let queue = open::<Resize>(&server, "jobs", Options::new()).await;
        let picture = "worm.png".to_owned();
        let sent = Resize {
            picture,
            width: 640,
        };
        queue
            .sender()
            .by_ref()
            .send_with_id("order-17", &sent)
            .await
            .unwrap();
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!(*job, sent);
        assert_eq!(
            (job.id(), job.sequence(), job.deliveries()),
            ("order-17", 1, 1)
        );
        assert!(job.age() < SOON, "{:?}", job.age());
        assert_eq!(
            queue.len().await.unwrap(),
            1,
            "a job in hand is in the queue"
        );
        job.done().await.unwrap();
        assert_eq!(queue.len().await.unwrap(), 0);
    });
}

#[test]
fn an_idle_worker_gets_the_next_job_while_a_slow_one_has_one() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let slow = queue.receiver();
        let idle = open::<u32>(&server, "jobs", Options::new())
            .await
            .receiver();
        for number in 1..=4 {
            queue.sender().send(number).await.unwrap();
        }
        let long = slow.recv().await.unwrap();
        let client = connect(&server).await;
        // The slow one has asked for one, and not for more.
        assert_eq!(consumer(&client, "jobs", "num_ack_pending").await, 1);
        assert_eq!(consumer(&client, "jobs", "num_waiting").await, 0);
        for number in 2..=4 {
            let job = idle.recv().await.unwrap();
            assert_eq!((*job, job.deliveries()), (number, 1));
            job.done().await.unwrap();
        }
        assert_eq!(*long, 1);
        long.done().await.unwrap();
        assert!(queue.is_empty().await.unwrap());
    });
}

#[test]
fn each_job_reaches_one_of_many_receivers() {
    on_every_server(|server| async move {
        const JOBS: u32 = 200;
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let mut receiving = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let rx = queue.receiver();
            for rx in [rx.clone(), rx] {
                receiving.spawn(async move {
                    let mut got = Vec::new();
                    while let Ok(job) = rx.recv().await {
                        assert_eq!(job.deliveries(), 1);
                        if *job == JOBS {
                            job.retry(Duration::ZERO).await.unwrap();
                            break;
                        }
                        got.push(*job);
                        job.done().await.unwrap();
                    }
                    got
                });
            }
        }
        let tx = queue.sender();
        for number in 0..JOBS {
            tx.send(number).await.unwrap();
        }
        until(|| async { queue.is_empty().await.unwrap() }).await;
        queue.delete().await.unwrap();
        let mut all = receiving.join_all().await.concat();
        all.sort_unstable();
        assert_eq!(all, (0..JOBS).collect::<Vec<_>>());
    });
}

#[test]
fn try_recv_says_empty_and_takes_what_is_there() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let rx = queue.receiver();
        let error = rx.try_recv().await.unwrap_err();
        assert!(matches!(error, Error::Empty { .. }), "{error}");
        assert!(
            error
                .to_string()
                .contains("stream `jobs` (subject `jobs`) at 127.0.0.1:"),
            "{error}"
        );
        queue.sender().send(5).await.unwrap();
        let job = rx.try_recv().await.unwrap();
        assert_eq!(*job, 5);
        assert!(matches!(rx.try_recv().await, Err(Error::Empty { .. })));
        job.done().await.unwrap();
    });
}

#[test]
fn a_receive_with_a_timeout_gives_up_and_takes_nothing() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        let time = Duration::from_millis(30);
        let error = rx.recv_timeout(time).await.unwrap_err();
        assert!(
            matches!(error, Error::TimedOut { after, .. } if after == time),
            "{error}"
        );
        queue.sender().send(5).await.unwrap();
        let job = rx.recv_timeout(SOON).await.unwrap();
        assert_eq!(*job, 5);
    });
}

#[test]
fn poisoned_text_is_refused_counted_and_not_in_the_way() {
    on_every_server(|server| async move {
        let queue = open::<Resize>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        let client = connect(&server).await;
        let poison: [&[u8]; 7] = [
            b"",
            b"not json",
            b"\xff\xfe",
            br#"{"picture":"a"}"#,
            br#"{"picture":"a","width":-1}"#,
            br#"{"picture":"a","width":1} x"#,
            &[b'['; 100_000],
        ];
        for text in poison {
            publish(&client, "jobs", Default::default(), text).await;
        }
        publish(
            &client,
            "jobs",
            Default::default(),
            br#" {"width":1,"picture":"a","x":[]} "#,
        )
        .await;
        for number in 1..=7 {
            let error = rx.recv().await.unwrap_err();
            let Error::Decode {
                place,
                sequence,
                type_name,
                ..
            } = &error
            else {
                panic!("{error}");
            };
            assert_eq!(
                (place.stream(), place.subject(), *sequence),
                ("jobs", "jobs", number)
            );
            assert!(type_name.ends_with("Resize"));
            assert_eq!(rx.refused(), number);
        }
        let job = rx.recv().await.unwrap();
        assert_eq!((job.width, job.id(), job.deliveries()), (1, "jobs/8", 1));
        job.done().await.unwrap();
        until(|| async { queue.is_empty().await.unwrap() }).await;
        assert!(matches!(rx.try_recv().await, Err(Error::Empty { .. })));
    });
}

#[test]
fn a_job_with_an_end_in_it_is_no_job() {
    on_every_server(|server| async move {
        let queue = open::<wormhole::Sender<u32>>(&server, "jobs", Options::new()).await;
        let client = connect(&server).await;
        publish(&client, "jobs", Default::default(), b"0").await;
        let error = queue.receiver().recv().await.unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{error}");
    });
}

#[test]
fn a_job_that_is_delivered_too_often_is_refused_counted_and_shown() {
    on_every_server(|server| async move {
        let options = Options::new().ack_wait(LONG).max_deliveries(3);
        let queue = open::<u32>(&server, "jobs", options).await;
        let rx = queue.receiver();
        queue.sender().send_with_id("bad", 13).await.unwrap();
        for number in 1..=3 {
            let job = rx.recv().await.unwrap();
            assert_eq!(job.deliveries(), number);
            drop(job); // as if its worker had died
        }
        let error = rx.recv().await.unwrap_err();
        let Error::Exhausted {
            sequence: 1,
            id,
            deliveries: 3,
            text,
            ..
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!((&**id, &**text), ("bad", "13"));
        assert_eq!((rx.exhausted(), rx.refused()), (1, 0));
        until(|| async { queue.is_empty().await.unwrap() }).await;
    });
}

#[test]
fn a_receive_that_waits_hears_that_the_stream_is_deleted() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let rx = queue.receiver();
        let waiting = tokio::spawn(async move { (rx.recv().await, rx) });
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_waiting").await == 1 }).await;
        let tx = queue.sender();
        queue.delete().await.unwrap();
        let (received, rx) = waiting.await.unwrap();
        let error = received.unwrap_err();
        assert!(
            matches!(&error, Error::Disconnected { reason, .. } if reason.contains("stream")),
            "{error}"
        );
        // And so does what comes later.
        assert!(matches!(rx.recv().await, Err(Error::Disconnected { .. })));
        assert!(matches!(
            rx.try_recv().await,
            Err(Error::Disconnected { .. })
        ));
        assert!(matches!(tx.send(1).await, Err(Error::Disconnected { .. })));
    });
}

#[test]
fn a_receive_hears_that_the_consumer_is_deleted() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let rx = queue.receiver();
        let waiting = tokio::spawn(async move { (rx.recv().await, rx) });
        let client = connect(&server).await;
        until(|| async { consumer(&client, "jobs", "num_waiting").await == 1 }).await;
        api(&client, "CONSUMER.DELETE.jobs.workers", "").await;
        let (received, rx) = waiting.await.unwrap();
        let error = received.unwrap_err();
        assert!(
            matches!(&error, Error::Disconnected { reason, .. } if reason.contains("consumer")),
            "{error}"
        );
        assert!(matches!(rx.recv().await, Err(Error::Disconnected { .. })));
        // The jobs are there, and so is the consumer when the queue is opened again.
        queue.sender().send(5).await.unwrap();
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        assert_eq!(*queue.receiver().recv().await.unwrap(), 5);
    });
}

#[test]
fn a_closed_client_disconnects() {
    on_every_server(|server| async move {
        let client = connect(&server).await;
        let queue = wormhole_nats::Queue::<u32>::open(client.clone(), "jobs", Options::new());
        let queue = queue.await.unwrap();
        let (tx, rx) = (queue.sender(), queue.receiver());
        tx.send(1).await.unwrap();
        let job = rx.recv().await.unwrap();
        let waiting = tokio::spawn(async move { rx.recv().await });
        let other = connect(&server).await;
        until(|| async { consumer(&other, "jobs", "num_waiting").await == 1 }).await;
        client.drain().await.unwrap();
        let error = waiting.await.unwrap().unwrap_err();
        assert!(
            matches!(&error, Error::Disconnected { reason, .. } if reason.contains("client")),
            "{error}"
        );
        assert!(matches!(job.done().await, Err(Error::Disconnected { .. })));
        assert!(matches!(tx.send(1).await, Err(Error::Disconnected { .. })));
        assert!(matches!(queue.len().await, Err(Error::Disconnected { .. })));
    });
}
