//! What a publisher that means harm can do to a receiver: nothing.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wormhole_nats::async_nats::HeaderMap;
use wormhole_nats::{Error, Options, Queue};

use crate::support::{LONG, Server, api, connect, heard, on_every_server, open, publish, until};

/// A client that writes what it likes.
struct Raw(BufReader<TcpStream>);

impl Raw {
    fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut raw = Raw(BufReader::new(stream));
        assert!(raw.line().starts_with("INFO "));
        raw.write(b"CONNECT {\"verbose\":false,\"headers\":true}\r\nPING\r\n");
        assert_eq!(raw.line(), "PONG\r\n");
        raw
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// Publishes a message whose headers are these bytes, and waits until the server has it.
    fn publish(&mut self, subject: &str, headers: &[u8], text: &[u8]) {
        let total = headers.len() + text.len();
        self.write(format!("HPUB {subject} {} {total}\r\n", headers.len()).as_bytes());
        self.write(headers);
        self.write(text);
        self.write(b"\r\nPING\r\n");
        assert_eq!(self.line(), "PONG\r\n");
    }
}

#[test]
fn headers_that_look_like_a_word_of_the_server_are_those_of_a_job() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        let mut raw = Raw::connect(&server);
        let words = [
            "100 Idle Heartbeat",
            "404 No Messages",
            "408 Request Timeout",
            "409 Consumer Deleted",
            "503",
        ];
        for (number, word) in words.iter().enumerate() {
            let headers = format!("NATS/1.0 {word}\r\n\r\n");
            raw.publish("jobs", headers.as_bytes(), number.to_string().as_bytes());
        }
        for number in 0..5 {
            let job = rx.recv().await.unwrap();
            assert_eq!((*job, job.deliveries()), (number, 1));
            job.done().await.unwrap();
        }
        assert!(queue.is_empty().await.unwrap());
    });
}

#[test]
fn ids_and_headers_of_any_kind_do_no_harm() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        let mut raw = Raw::connect(&server);
        let mut many = "NATS/1.0\r\n".to_owned();
        for number in 0..2000 {
            let _ = write!(many, "X-{number}: {number}\r\n");
        }
        many.push_str("\r\n");
        let long = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n\r\n", "x".repeat(500_000));
        let headers: [&[u8]; 8] = [
            b"NATS/1.0\r\n: \r\n\r\n",
            b"NATS/1.0\r\nNats-Msg-Id: \x1b[31mred\r\n\r\n",
            "NATS/1.0\r\nNats-Msg-Id: \u{202e}drawkcab\r\n\r\n".as_bytes(),
            b"NATS/1.0\r\nNats-Msg-Id:\r\n\r\n",
            b"NATS/1.0\r\nNats-Msg-Id: a b\r\nNats-Msg-Id: c\r\n\r\n",
            b"NATS/1.0\r\nNats-Expected-Stream: jobs\r\nTTL: 5\r\n\r\n",
            long.as_bytes(),
            many.as_bytes(),
        ];
        for headers in headers {
            raw.publish("jobs", headers, b"7");
        }
        let stored = queue.len().await.unwrap();
        assert!(stored >= 7, "{stored} were stored");
        for _ in 0..stored {
            let job = rx.recv().await.unwrap();
            assert_eq!(*job, 7);
            assert_eq!(job.id(), format!("jobs/{}", job.sequence()));
            job.done().await.unwrap();
        }
        assert!(queue.is_empty().await.unwrap());
    });
}

#[test]
fn bytes_that_are_no_headers_do_not_stop_a_receiver() {
    on_every_server(|server| async move {
        let queue = open::<u32>(
            &server,
            "jobs",
            Options::new().ack_wait(Duration::from_secs(10)),
        )
        .await;
        let rx = queue.receiver();
        for headers in UNREADABLE {
            Raw::connect(&server).publish("jobs", headers, b"1");
        }
        queue.sender().send(2).await.unwrap();
        loop {
            match rx.recv_timeout(Duration::from_secs(20)).await {
                Ok(job) if *job == 2 => break job.done().await.unwrap(),
                Ok(job) => job.done().await.unwrap(),
                Err(error) => panic!("{error:#}"),
            }
        }
    });
}

#[test]
fn headers_that_the_client_cannot_read_end_a_connection_again_and_again() {
    on_every_server(|server| async move {
        let client = connect(&server).await;
        let statistics = client.statistics();
        let connects = || statistics.connects.load(Ordering::Relaxed);
        let options = Options::new()
            .ack_wait(Duration::from_millis(100))
            .max_deliveries(1);
        let queue = Queue::<u32>::open(client, "jobs", options).await.unwrap();
        let before = connects();
        for headers in UNREADABLE {
            Raw::connect(&server).publish("jobs", headers, b"1");
        }
        let other = connect(&server).await;
        let info = api(&other, "STREAM.INFO.jobs", "").await;
        assert_eq!(info["state"]["messages"], UNREADABLE.len(), "{info}");
        let rx = queue.receiver();
        let receiving = tokio::spawn({
            let rx = rx.clone();
            async move { rx.recv().await }
        });
        // Each of them at least twice, which is more often than a job may be delivered.
        let often = before + 2 * UNREADABLE.len() as u64;
        until(|| async { connects() >= often }).await;
        assert_eq!((rx.exhausted(), rx.refused()), (0, 0));
        assert!(!receiving.is_finished());
        // Whoever looks after the queue removes them.
        for sequence in 1..=UNREADABLE.len() {
            let question = format!(r#"{{"seq":{sequence}}}"#);
            api(&other, "STREAM.MSG.DELETE.jobs", &question).await;
        }
        publish(&other, "jobs", HeaderMap::new(), b"2").await;
        let job = receiving.await.unwrap().unwrap();
        assert_eq!(*job, 2);
        job.done().await.unwrap();
        assert!(queue.is_empty().await.unwrap());
    });
}

/// Headers that servers store, and that the client takes for an error of the connection.
const UNREADABLE: [&[u8]; 4] = [
    b"NATS/1.0\r\na b: c\r\n\r\n",
    b"NATS/1.0\r\n\xff\xfe: \xff\r\n\r\n",
    b"NATS/1.0 abc\r\n\r\n",
    b"NATS/1.0\r\nX\r\n\r\n",
];

#[test]
fn an_error_shows_what_a_publisher_wrote_escaped_and_cut() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().max_deliveries(1)).await;
        let rx = queue.receiver();
        let client = connect(&server).await;
        let text = format!("\"\u{202e}\u{1b}[2J{}\"", "long".repeat(10_000));
        publish(&client, "jobs", HeaderMap::new(), text.as_bytes()).await;
        let error = rx.recv().await.unwrap_err();
        let Error::Decode { reason, .. } = &error else {
            panic!("{error}");
        };
        assert!(
            reason.len() < 1200 && !reason.contains(['\u{202e}', '\u{1b}']),
            "{reason}"
        );
        until(|| async { queue.is_empty().await.unwrap() }).await;

        let queue = open::<String>(&server, "texts", Options::new().max_deliveries(1)).await;
        let text = format!("\"\u{202e}{}\"", "long".repeat(10_000));
        publish(&client, "texts", HeaderMap::new(), text.as_bytes()).await;
        drop(queue.receiver().recv().await.unwrap());
        let error = queue.receiver().recv().await.unwrap_err().to_string();
        assert!(
            error.len() < 1500 && !error.contains(['\u{202e}', '\u{1b}']),
            "{error}"
        );
    });
}

#[test]
fn a_message_to_an_inbox_is_no_job() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new().ack_wait(LONG)).await;
        let rx = queue.receiver();
        let client = connect(&server).await;
        let mut requests = client
            .subscribe("$JS.API.CONSUMER.MSG.NEXT.>")
            .await
            .unwrap();
        heard(&client).await;
        let waiting = tokio::spawn(async move { (rx.recv().await, rx) });

        use futures_util::StreamExt;
        let inbox = requests.next().await.unwrap().reply.unwrap();
        for reply in [
            "x",
            "$JS.ACK.other.workers.1.1.1.1.1",
            "$JS.ACK.jobs.workers.a.b.c.d.e",
            "$JS.ACK.",
        ] {
            let text = "6".into();
            client
                .publish_with_reply(inbox.clone(), reply, text)
                .await
                .unwrap();
        }
        client.publish(inbox, "6".into()).await.unwrap();
        heard(&client).await;
        queue.sender().send(5).await.unwrap();
        let (job, _rx) = waiting.await.unwrap();
        let job = job.unwrap();
        assert_eq!((*job, job.sequence()), (5, 1));
        job.done().await.unwrap();
    });
}

#[test]
fn an_answer_that_is_not_that_of_jetstream_is_an_error() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let tx = queue.sender();
        queue.delete().await.unwrap();
        let client = connect(&server).await;
        let mut jobs = client.subscribe("jobs").await.unwrap();
        heard(&client).await;
        let answers = [
            "hello",
            "{}",
            "[]",
            "{\"seq\":1}",
            "{\"stream\":\"other\",\"seq\":1}",
            "",
        ];
        let answering = tokio::spawn(async move {
            use futures_util::StreamExt;
            for answer in answers {
                let reply = jobs.next().await.unwrap().reply.unwrap();
                client.publish(reply, answer.into()).await.unwrap();
            }
            (client, jobs) // dropped, they would take the last answer along
        });
        for answer in answers {
            let error = tx.send(1).await.unwrap_err();
            assert!(matches!(error, Error::Server { .. }), "{answer}: {error}");
            assert!(
                format!("{error:#}").contains("not that of JetStream"),
                "{error:#}"
            );
        }
        drop(answering.await.unwrap());
    });
}
