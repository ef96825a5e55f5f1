//! What other clients of the server can do, by what the server lets them publish: what SECURITY.md says about queues.

use std::time::Duration;

use futures_util::StreamExt;
use wormhole_nats::async_nats::{Client, ConnectOptions, HeaderMap};
use wormhole_nats::{BridgeOptions, Options, Queue};

use crate::support::{
    LONG, Server, connect, next_message, on_every_server, on_every_server_with, open, publish,
    until,
};

/// A publisher, which may send jobs and hear that they are stored, and a worker, which may do all the rest.
const ACCOUNTS: &str = r#"
authorization {
    users: [
        {
            user: publisher, password: p
            permissions: { publish: ["jobs"], subscribe: ["_INBOX_publisher.>"] }
        }
        {
            user: worker, password: w
            permissions: {
                publish: ["jobs", "$JS.API.>", "$JS.ACK.>"], subscribe: ["_INBOX_worker.>"]
            }
        }
    ]
}
"#;

async fn connect_as(server: &Server, user: &str) -> Client {
    let options = ConnectOptions::with_user_and_password(user.to_owned(), user[..1].to_owned());
    let options = options.custom_inbox_prefix(format!("_INBOX_{user}"));
    options.connect(server.url()).await.unwrap()
}

#[test]
fn a_publisher_that_may_do_no_more_can_only_publish() {
    on_every_server_with(ACCOUNTS, |server| async move {
        let worker = connect_as(&server, "worker").await;
        let queue = Queue::<u32>::open(worker, "jobs", Options::new().ack_wait(LONG));
        let queue = queue.await.unwrap();
        let publisher = connect_as(&server, "publisher").await;
        publish(&publisher, "jobs", HeaderMap::new(), b"1").await;
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!(*job, 1);

        // It may not take the job out of the queue, see others, look at the queue, or speak to the worker.
        let mut overheard = publisher.subscribe(">").await.unwrap();
        let sequence = job.sequence();
        let attempts = [
            format!("$JS.ACK.jobs.workers.1.{sequence}.1.1.0"),
            "$JS.API.STREAM.PURGE.jobs".to_owned(),
            "$JS.API.STREAM.DELETE.jobs".to_owned(),
            format!("$JS.API.STREAM.MSG.GET.jobs.{sequence}"),
            "$JS.API.CONSUMER.MSG.NEXT.jobs.workers".to_owned(),
            "_INBOX_worker.x".to_owned(),
        ];
        for subject in attempts {
            publisher.publish(subject, "+ACK".into()).await.unwrap();
        }
        // The server has seen all of that, in this order, when it has stored this.
        publish(&publisher, "jobs", HeaderMap::new(), b"2").await;
        assert_eq!(queue.len().await.unwrap(), 2);
        job.done().await.unwrap();
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!((*job, job.deliveries()), (2, 1));
        job.done().await.unwrap();
        let heard = tokio::time::timeout(Duration::ZERO, overheard.next()).await;
        assert!(heard.is_err(), "{heard:?}");
    });
}

#[test]
fn a_header_of_a_publisher_removes_nothing() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        queue.sender().send(1).await.unwrap();
        let client = connect(&server).await;
        for (name, value) in [
            ("Nats-Rollup", "all"),
            ("Nats-Rollup", "sub"),
            ("Nats-TTL", "1s"),
            ("Nats-Expected-Last-Sequence", "7"),
            ("Nats-Expected-Stream", "others"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value);
            publish(&client, "jobs", headers, b"2").await;
        }
        // All of it is refused, or, by a server that does not know it, a job like others.
        let first = queue.receiver().recv().await.unwrap();
        assert_eq!((*first, first.sequence()), (1, 1));
    });
}

#[test]
fn whoever_may_acknowledge_can_take_a_job_out_of_the_queue() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        queue.sender().send(1).await.unwrap();
        let client = connect(&server).await;
        let message = next_message(&client, "jobs").await;
        let other = connect(&server).await;
        let reply = message.reply.unwrap();
        other.publish(reply, "+ACK".into()).await.unwrap();
        until(|| async { queue.is_empty().await.unwrap() }).await;
    });
}

#[test]
fn nobody_but_the_server_can_hand_a_worker_a_job() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let client = connect(&server).await;
        let mut requests = client
            .subscribe("$JS.API.CONSUMER.MSG.NEXT.>")
            .await
            .unwrap();
        client.flush().await.unwrap();
        let rx = queue.receiver();
        let waiting = tokio::spawn(async move { rx.recv().await });
        let inbox = requests.next().await.unwrap().reply.unwrap();
        // Servers let nobody publish with the subject of an acknowledgement for a reply.
        let reply = "$JS.ACK.jobs.workers.1.1.1.1.0";
        let forged = client.publish_with_reply(inbox, reply, "6".into());
        forged.await.unwrap();
        client.flush().await.unwrap();
        queue.sender().send(5).await.unwrap();
        let job = waiting.await.unwrap().unwrap();
        assert_eq!((*job, job.sequence()), (5, 1));
        job.done().await.unwrap();
    });
}

#[test]
fn whoever_may_publish_results_can_forge_them_and_take_their_ids() {
    on_every_server(|server| async move {
        let options = || Options::new().ack_wait(LONG);
        let jobs = open::<u32>(&server, "jobs", options()).await;
        let results = open::<u32>(&server, "results", options()).await;
        jobs.sender().send(20).await.unwrap();
        // The number of the job and its time are in the subject of its acknowledgement.
        let client = connect(&server).await;
        let reply = next_message(&client, "jobs").await.reply.unwrap();
        let parts: Vec<&str> = reply.split('.').collect();
        let id = format!("jobs/{}/{}", parts[5], parts[7]);
        client.publish(reply.clone(), "-NAK".into()).await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        publish(&client, "results", headers, b"666").await;

        let pool = wormhole::PoolOptions::new(1)
            .fresh()
            .run(|n: u32| n + 1)
            .unwrap();
        let options = BridgeOptions::new(0);
        let bridge = wormhole_nats::pool(jobs.receiver(), pool, results.sender(), options);
        let bridge = bridge.unwrap();
        until(|| async { jobs.is_empty().await.unwrap() }).await;
        assert_eq!(results.len().await.unwrap(), 1);
        assert_eq!(*results.receiver().recv().await.unwrap(), 666);
        bridge.stop().await.unwrap();
    });
}
