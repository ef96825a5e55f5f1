//! Sending: what `Ok` means, ids, limits.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wormhole_nats::{Error, Options, Sender, Storage};

use crate::support::{api, connect, on_every_server, on_every_server_with, open, publish};

#[test]
fn an_ok_send_survives_the_death_of_the_server() {
    on_every_server(|mut server| async move {
        let queue = open::<String>(&server, "jobs", Options::new()).await;
        let stored = queue.sender().send("kept".to_owned()).await.unwrap();
        assert_eq!((stored.sequence, stored.is_duplicate), (1, false));
        server.kill();
        server.restart();
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!((&**job, job.sequence()), ("kept", 1));
        job.done().await.unwrap();
    });
}

#[test]
fn an_id_is_stored_once_within_the_window() {
    on_every_server(|server| async move {
        let options = Options::new().duplicate_window(Duration::from_millis(300));
        let queue = open::<u32>(&server, "jobs", options).await;
        let tx = queue.sender();
        let first = tx.send_with_id("a", 1).await.unwrap();
        let again = tx.send_with_id("a", 2).await.unwrap();
        let other = tx.send_with_id("b", 3).await.unwrap();
        assert_eq!((first.sequence, first.is_duplicate), (1, false));
        assert_eq!((again.sequence, again.is_duplicate), (1, true));
        assert_eq!((other.sequence, other.is_duplicate), (2, false));
        assert_eq!(queue.len().await.unwrap(), 2);

        // When it is done already, too.
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!((*job, job.id()), (1, "a"));
        job.done().await.unwrap();
        assert!(tx.send_with_id("b", 4).await.unwrap().is_duplicate);
        // After the window it is another job.
        while tx.send_with_id("a", 5).await.unwrap().is_duplicate {}
    });
}

#[test]
fn every_send_has_an_id_of_its_own() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let (tx, rx) = (queue.sender(), queue.receiver());
        let mut ids = Vec::new();
        for _ in 0..3 {
            assert!(!tx.send(7).await.unwrap().is_duplicate);
            let job = rx.recv().await.unwrap();
            ids.push(job.id().to_owned());
            job.done().await.unwrap();
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 3);
    });
}

#[test]
fn ids_that_would_break_a_header_are_refused() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        for id in ["", "a b", "a\r\nNats-Rollup: all", "é", &"x".repeat(256)] {
            let error = queue.sender().send_with_id(id, 1).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Invalid {
                        what: "id of a job",
                        ..
                    }
                ),
                "{error}"
            );
        }
        queue
            .sender()
            .send_with_id(&"x".repeat(255), 1)
            .await
            .unwrap();
        assert_eq!(queue.len().await.unwrap(), 1);
    });
}

#[test]
fn too_large_a_job_is_refused_before_it_is_sent() {
    on_every_server_with("max_payload: 4096", |server| async move {
        let client = connect(&server).await;
        let statistics = client.statistics();
        let queue = wormhole_nats::Queue::<String>::open(client, "jobs", Options::new());
        let queue = queue.await.unwrap();
        let tx = queue.sender();
        let error = tx.send_with_id("a", "x".repeat(4096)).await.unwrap_err();
        let Error::TooLarge {
            place,
            len,
            limit: 4096,
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!(place.stream(), "jobs");
        // As long as possible, headers included.
        let rest = usize::try_from(4096 - (len - 4096)).unwrap();
        tx.send_with_id("a", "x".repeat(rest)).await.unwrap();
        let error = tx
            .send_with_id("b", "x".repeat(rest + 1))
            .await
            .unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooLarge {
                    len: 4097,
                    limit: 4096,
                    ..
                }
            ),
            "{error}"
        );

        let job = queue.receiver().recv().await.unwrap();
        assert_eq!(job.len(), rest);
        job.done().await.unwrap();
        let connects = statistics
            .connects
            .load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(connects, 1, "the server has disconnected the client");
    });
}

/// How long a text may be so that its message keeps to a limit. One that is a byte longer is refused.
async fn longest(tx: &Sender<String>, limit: u64) -> usize {
    let bytes = usize::try_from(limit).unwrap();
    let error = tx.send_with_id("a", "x".repeat(bytes)).await.unwrap_err();
    let Error::TooLarge { len, limit: of, .. } = error else {
        panic!("{error:#}");
    };
    assert_eq!(of, limit);
    let longest = usize::try_from(limit - (len - limit)).unwrap();
    let error = tx.send_with_id("b", "x".repeat(longest + 1)).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::TooLarge { len, .. } if len == limit + 1),
        "{error:#}"
    );
    longest
}

#[test]
fn a_job_that_the_stream_has_no_room_for_is_too_large() {
    on_every_server(|server| async move {
        for (name, storage) in [("file", Storage::File), ("memory", Storage::Memory)] {
            let options = Options::new().max_bytes(1000).storage(storage);
            let queue = open::<String>(&server, name, options).await;
            let tx = queue.sender();
            let longest = longest(&tx, 1000).await;
            // As long as possible. The server counts it as the library does.
            let stored = tx.send_with_id("c", "x".repeat(longest)).await.unwrap();
            assert_eq!(stored.sequence, 1);
            let client = connect(&server).await;
            let info = api(&client, &format!("STREAM.INFO.{name}"), "").await;
            assert_eq!(info["state"]["bytes"], 1000, "{name}");
            let job = queue.receiver().recv().await.unwrap();
            assert_eq!(job.len(), longest);
            job.done().await.unwrap();
        }
    });
}

#[test]
fn a_job_longer_than_its_stream_takes_is_too_large() {
    on_every_server(|server| async move {
        let client = connect(&server).await;
        let limited = |limit: u32| {
            format!(
                r#"{{"name":"jobs","subjects":["jobs"],"retention":"workqueue","discard":"new","max_msg_size":{limit}}}"#
            )
        };
        api(&client, "STREAM.CREATE.jobs", &limited(500)).await;
        let queue = open::<String>(&server, "jobs", Options::new()).await;
        let tx = queue.sender();
        let longest = longest(&tx, 500).await;
        let job = "x".repeat(longest);
        tx.send_with_id("c", job.clone()).await.unwrap();

        // A limit that was set later is one of the server's answer.
        api(&client, "STREAM.UPDATE.jobs", &limited(499)).await;
        let error = tx.send_with_id("d", job).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::TooLarge {
                    len: 500,
                    limit: 499,
                    ..
                }
            ),
            "{error:#}"
        );
        assert_eq!(queue.len().await.unwrap(), 1);
    });
}

#[test]
fn a_full_stream_is_full_until_a_job_is_done() {
    on_every_server(|server| async move {
        for (name, options) in [
            ("few", Options::new().max_messages(2)),
            ("small", Options::new().max_bytes(3000)),
        ] {
            let queue = open::<String>(&server, name, options).await;
            let (tx, rx) = (queue.sender(), queue.receiver());
            let job = "x".repeat(1000);
            tx.by_ref().send(&job).await.unwrap();
            tx.by_ref().send(&job).await.unwrap();
            let error = tx.by_ref().send(&job).await.unwrap_err();
            assert!(matches!(error, Error::Full { .. }), "{error}");
            assert!(error.to_string().contains("maximum"), "{error}");
            assert_eq!(queue.len().await.unwrap(), 2);
            rx.recv().await.unwrap().done().await.unwrap();
            tx.by_ref().send(&job).await.unwrap();
        }
    });
}

#[test]
fn descriptors_and_channel_ends_do_not_leave_their_machine() {
    on_every_server(|server| async move {
        let queue = open::<wormhole::Sender<u32>>(&server, "ends", Options::new()).await;
        let (tx, _rx) = wormhole::channel().unwrap();
        let error = queue.sender().send(tx).await.unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert!(
            error.to_string().contains("do not leave their machine"),
            "{error}"
        );

        #[derive(Serialize, Deserialize)]
        struct Input(#[serde(with = "wormhole::fd")] std::fs::File);

        let queue = open::<Input>(&server, "files", Options::new()).await;
        let file = std::fs::File::open("/dev/null").unwrap();
        let error = queue.sender().send(Input(file)).await.unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert_eq!(queue.len().await.unwrap(), 0);
    });
}

#[test]
fn what_json_cannot_write_is_encode() {
    on_every_server(|server| async move {
        let queue = open::<BTreeMap<Vec<u8>, u8>>(&server, "jobs", Options::new()).await;
        let job = BTreeMap::from([(vec![1], 2)]);
        let error = queue.sender().send(job).await.unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert_eq!(queue.len().await.unwrap(), 0);
        let queue = open::<f32>(&server, "floats", Options::new()).await;
        let error = queue.sender().send(f32::NAN).await.unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert_eq!(queue.len().await.unwrap(), 0);
    });
}

#[test]
fn the_text_is_that_of_a_local_channel() {
    #[derive(Clone, Serialize, Deserialize)]
    struct All {
        float: f64,
        whole: f64,
        large: u128,
        text: String,
        none: Option<u8>,
        unit: (),
        map: BTreeMap<i8, char>,
    }
    let all = All {
        float: 0.1 + 0.2,
        whole: 1.0,
        large: u128::MAX,
        text: "\u{0}\"\\\u{1f41b}\u{2028}".to_owned(),
        none: None,
        unit: (),
        map: BTreeMap::from([(-3, 'ß')]),
    };
    let (tx, rx) = wormhole::channel::<All>().unwrap();
    tx.send(all.clone()).unwrap();
    let local = rx.cast::<wormhole::Raw>().recv().unwrap().text().to_owned();

    on_every_server(|server| {
        let (all, local) = (all.clone(), local.clone());
        async move {
            let queue = open::<All>(&server, "jobs", Options::new()).await;
            queue.sender().send(all).await.unwrap();
            let client = connect(&server).await;
            let message = api(&client, "STREAM.MSG.GET.jobs", r#"{"seq":1}"#).await;
            let data = message["message"]["data"].as_str().unwrap();
            assert_eq!(decode_base64(data), local.as_bytes());
        }
    });
}

#[test]
fn messages_can_be_passed_on_undecoded() {
    on_every_server(|server| async move {
        let text = r#"{"large":99999999999999999999999,"x":[1.10]}"#;
        let queue = open::<wormhole::Raw>(&server, "jobs", Options::new()).await;
        let raw = wormhole::Raw::from_parts(text.to_owned(), Vec::new()).unwrap();
        queue.sender().send(raw).await.unwrap();
        let job = queue.receiver().recv().await.unwrap();
        assert_eq!(job.text(), text);
        job.done().await.unwrap();
    });
}

fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for group in text.trim_end_matches('=').as_bytes().chunks(4) {
        let digits = group
            .iter()
            .fold(0_u32, |all, byte| all << 6 | u32::from(digit(*byte)));
        let bits = 6 * group.len();
        let whole = digits >> (bits % 8);
        let len = bits / 8;
        bytes.extend_from_slice(&whole.to_be_bytes()[4 - len..]);
    }
    bytes
}

#[test]
fn a_subject_that_another_stream_has_taken_over_is_disconnected() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let tx = queue.sender();
        queue.delete().await.unwrap();
        let client = connect(&server).await;
        api(
            &client,
            "STREAM.CREATE.other",
            r#"{"name":"other","subjects":["jobs"]}"#,
        )
        .await;
        let error = tx.send(1).await.unwrap_err();
        assert!(matches!(error, Error::Disconnected { .. }), "{error:#}");
        let stored = publish(&client, "jobs", Default::default(), b"1").await;
        assert_eq!(stored["seq"], 1, "something was stored before");
    });
}
