//! A job in hand: done, given back, refused, and kept by signs of life.

use std::time::Duration;

use wormhole_nats::{Error, Options};

use crate::support::{
    LONG, SOON, connect, consumer, heard, next_message, on_every_server, open, publish, until,
};

#[test]
fn a_dropped_job_is_with_another_receiver_at_once() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let other = open::<u32>(&server, "jobs", Options::new()).await;
        queue.sender().send(5).await.unwrap();
        let job = queue.receiver().recv().await.unwrap();
        let waiting = tokio::spawn(async move { other.receiver().recv_timeout(SOON).await });
        drop(job);
        let job = waiting.await.unwrap().unwrap();
        assert_eq!((*job, job.deliveries()), (5, 2));
        job.done().await.unwrap();
    });
}

#[test]
fn a_job_can_be_dropped_in_a_thread_without_a_runtime() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        queue.sender().send(5).await.unwrap();
        let job = queue.receiver().recv().await.unwrap();
        std::thread::spawn(move || drop(job)).join().unwrap();
        let job = queue.receiver().recv_timeout(SOON).await.unwrap();
        assert_eq!(job.deliveries(), 2);
    });
}

#[test]
fn a_task_that_panics_gives_its_job_back() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        queue.sender().send(5).await.unwrap();
        let job = queue.receiver().recv().await.unwrap();
        let task = tokio::spawn(async move { assert_eq!(*job, 6, "on purpose") });
        assert!(task.await.unwrap_err().is_panic());
        let job = queue.receiver().recv_timeout(SOON).await.unwrap();
        assert_eq!(job.deliveries(), 2);
    });
}

#[test]
fn signs_of_life_keep_a_job_that_takes_many_ack_waits() {
    on_every_server(|server| async move {
        let ack_wait = Duration::from_millis(400);
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(ack_wait)).await;
        queue.sender().send(5).await.unwrap();
        let job = queue.receiver().recv().await.unwrap();
        let other = open::<u32>(&server, "jobs", Options::new())
            .await
            .receiver();
        let received = other.recv_timeout(5 * ack_wait).await;
        assert!(
            matches!(received, Err(Error::TimedOut { .. })),
            "{received:?}"
        );
        job.done().await.unwrap();
        assert!(queue.is_empty().await.unwrap());
    });
}

#[test]
fn a_job_without_signs_of_life_is_with_another_receiver_after_the_ack_wait() {
    on_every_server(|server| async move {
        let options = Options::new().ack_wait(Duration::from_millis(200));
        let queue = open::<u32>(&server, "jobs", options).await;
        queue.sender().send(5).await.unwrap();
        // A client that takes it and is never heard of again.
        let client = connect(&server).await;
        let message = next_message(&client, "jobs").await;
        assert_eq!(&*message.payload, b"5");
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!((*job, job.deliveries()), (5, 2));
        job.done().await.unwrap();
    });
}

#[test]
fn a_retried_job_comes_after_its_time() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        queue.sender().send(5).await.unwrap();
        rx.recv()
            .await
            .unwrap()
            .retry(Duration::ZERO)
            .await
            .unwrap();
        let job = rx.recv_timeout(SOON).await.unwrap();
        assert_eq!(job.deliveries(), 2);
        job.retry(Duration::from_millis(300)).await.unwrap();
        assert!(matches!(rx.try_recv().await, Err(Error::Empty { .. })));
        let job = rx.recv_timeout(SOON).await.unwrap();
        assert_eq!(job.deliveries(), 3);
        job.retry(LONG).await.unwrap();
        assert!(matches!(rx.try_recv().await, Err(Error::Empty { .. })));
        assert_eq!(queue.len().await.unwrap(), 1);
    });
}

#[test]
fn a_job_can_be_given_back_for_a_time_without_end() {
    on_every_server(|server| async move {
        // The server looks at jobs that were given back whenever an ack wait is over.
        let ack_wait = Duration::from_millis(100);
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(ack_wait)).await;
        let rx = queue.receiver();
        for number in 1..=2 {
            queue.sender().send(number).await.unwrap();
            let job = rx.recv_timeout(SOON).await.unwrap();
            assert_eq!(*job, number);
            job.retry(Duration::MAX).await.unwrap();
        }
        let received = rx.recv_timeout(10 * ack_wait).await;
        assert!(
            matches!(received, Err(Error::TimedOut { .. })),
            "{received:?}"
        );
        assert_eq!(queue.len().await.unwrap(), 2);
    });
}

#[test]
fn a_refused_job_is_gone_on_every_server() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        queue.sender().send(5).await.unwrap();
        let client = connect(&server).await;
        let mut advisories = client.subscribe("$JS.EVENT.ADVISORY.>").await.unwrap();
        heard(&client).await;
        let job = queue.receiver().recv().await.unwrap();
        job.refuse("a picture\r\nwithout an \u{202e}end")
            .await
            .unwrap();
        until(|| async { queue.is_empty().await.unwrap() }).await;
        assert_eq!(consumer(&client, "jobs", "num_ack_pending").await, 0);

        use futures_util::StreamExt;
        loop {
            let advisory = advisories.next().await.unwrap();
            if !advisory.subject.contains("TERMINATED") {
                continue;
            }
            let text = String::from_utf8_lossy(&advisory.payload).into_owned();
            assert!(text.contains("\"stream_seq\":1"), "{text}");
            if !server.version().starts_with("2.9") {
                assert!(
                    text.contains(r"a picture\\r\\nwithout an \\u{202e}end"),
                    "{text}"
                );
            }
            break;
        }
    });
}

#[test]
fn the_value_of_a_job_can_be_moved_away() {
    on_every_server(|server| async move {
        let queue = open::<String>(&server, "jobs", Options::new()).await;
        queue.sender().send("moved".to_owned()).await.unwrap();
        let (value, delivery) = queue.receiver().recv().await.unwrap().into_parts();
        assert_eq!(
            (value, delivery.sequence(), delivery.deliveries()),
            ("moved".to_owned(), 1, 1)
        );
        delivery.done().await.unwrap();
        assert!(queue.is_empty().await.unwrap());
    });
}

#[test]
fn any_client_of_nats_can_publish_and_work() {
    on_every_server(|server| async move {
        let queue = open::<Vec<u32>>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let client = connect(&server).await;
        publish(&client, "jobs", Default::default(), b"[1, 2]").await;
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!(
            (&**job, job.id(), job.sequence()),
            (&[1, 2][..], "jobs/1", 1)
        );
        job.done().await.unwrap();

        queue.sender().send(vec![3]).await.unwrap();
        let message = next_message(&client, "jobs").await;
        assert_eq!(&*message.payload, b"[3]");
        let reply = message.reply.unwrap();
        client.request(reply, "+ACK".into()).await.unwrap();
        assert!(queue.is_empty().await.unwrap());
    });
}
