//! Opening queues: names, settings, and what is there already.

use std::time::Duration;

use wormhole_nats::async_nats::{Client, ConnectOptions};
use wormhole_nats::{Error, Options, Queue, Storage};

use crate::support::{SOON, api, connect, on_every_server, on_every_server_with, open, until};

#[test]
fn a_queue_is_made_as_the_options_say_and_found_again() {
    on_every_server(|server| async move {
        let options = Options::new()
            .ack_wait(Duration::from_secs(7))
            .max_bytes(1 << 20)
            .max_messages(9)
            .storage(Storage::Memory)
            .replicas(1)
            .duplicate_window(Duration::from_secs(3));
        let queue = open::<u32>(&server, "jobs", options.clone()).await;
        assert_eq!(queue.name(), "jobs");
        queue.sender().send(5).await.unwrap();

        let client = connect(&server).await;
        let info = api(&client, "STREAM.INFO.jobs", "").await;
        let config = &info["config"];
        assert_eq!(config["subjects"], serde_json::json!(["jobs"]));
        assert_eq!(config["retention"], "workqueue");
        assert_eq!(config["discard"], "new");
        assert_eq!(config["storage"], "memory");
        assert_eq!(config["max_bytes"], 1 << 20);
        assert_eq!(config["max_msgs"], 9);
        assert_eq!(config["duplicate_window"], 3_000_000_000_u64);
        let info = api(&client, "CONSUMER.INFO.jobs.workers", "").await;
        assert_eq!(info["config"]["ack_wait"], 7_000_000_000_u64);
        assert_eq!(info["config"]["max_deliver"], -1);

        // With the same options, and with none.
        for options in [options, Options::new()] {
            let again = open::<u32>(&server, "jobs", options).await;
            assert_eq!(again.len().await.unwrap(), 1);
            assert!(!again.is_empty().await.unwrap());
        }
    });
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    on_every_server(|server| async move {
        open::<u32>(&server, "jobs", Options::new()).await;
        let client = connect(&server).await;
        let info = api(&client, "STREAM.INFO.jobs", "").await;
        let config = &info["config"];
        assert_eq!(config["storage"], "file");
        assert_eq!(config["max_bytes"], 1 << 30);
        assert_eq!(config["max_msgs"], -1);
        assert_eq!(config["num_replicas"], 1);
        assert_eq!(config["duplicate_window"], 120_000_000_000_u64);
        let info = api(&client, "CONSUMER.INFO.jobs.workers", "").await;
        assert_eq!(info["config"]["ack_wait"], 30_000_000_000_u64);
    });
}

#[test]
fn a_queue_with_other_settings_is_refused_and_what_differs_is_named() {
    on_every_server(|server| async move {
        let options = Options::new()
            .max_messages(5)
            .ack_wait(Duration::from_secs(2));
        open::<u32>(&server, "jobs", options).await;
        let other = Options::new()
            .max_messages(6)
            .ack_wait(Duration::from_millis(500))
            .storage(Storage::Memory)
            .replicas(1);
        let client = connect(&server).await;
        let error = Queue::<u32>::open(client.clone(), "jobs", other)
            .await
            .unwrap_err();
        let Error::Mismatch { place, differences } = &error else {
            panic!("{error}");
        };
        assert_eq!((place.stream(), place.subject()), ("jobs", "jobs"));
        assert!(
            place.server().contains(&server.port().to_string()),
            "{place}"
        );
        let expected = [
            "`max_msgs` is 5 and not 6",
            "`storage` is \"file\" and not \"memory\"",
            "`ack_wait` is 2s and not 500ms",
        ];
        assert_eq!(*differences, expected);
        // Nothing was changed.
        let info = api(&client, "STREAM.INFO.jobs", "").await;
        assert_eq!(info["config"]["max_msgs"], 5);
    });
}

#[test]
fn a_stream_that_is_no_work_queue_is_refused() {
    on_every_server(|server| async move {
        let client = connect(&server).await;
        let config = r#"{"name":"log","subjects":["log"],"retention":"limits","discard":"old"}"#;
        api(&client, "STREAM.CREATE.log", config).await;
        let error = Queue::<u32>::open(client, "log", Options::new())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`retention` is \"limits\" and not \"workqueue\""),
            "{text}"
        );
        assert!(
            text.contains("`discard` is \"old\" and not \"new\""),
            "{text}"
        );
    });
}

#[test]
fn a_consumer_that_jobs_are_pushed_to_is_refused() {
    on_every_server(|server| async move {
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let client = connect(&server).await;
        replace_consumer(&client, r#""deliver_subject":"elsewhere""#).await;
        let error = Queue::<u32>::open(client, "jobs", Options::new()).await;
        let error = error.unwrap_err().to_string();
        let expected = "`deliver_subject` is \"elsewhere\" and not null";
        assert!(error.contains(expected), "{error}");
        // Who had opened it before hears of it as well.
        let error = queue.receiver().recv_timeout(SOON).await.unwrap_err();
        assert!(matches!(error, Error::Server { .. }), "{error:#}");
        assert!(format!("{error:#}").contains("push"), "{error:#}");
    });
}

#[test]
fn a_consumer_that_allows_no_such_requests_is_an_error_of_the_server() {
    on_every_server(|server| async move {
        let client = connect(&server).await;
        open::<u32>(&server, "jobs", Options::new()).await;
        replace_consumer(&client, r#""max_expires":1000000000"#).await;
        let queue = open::<u32>(&server, "jobs", Options::new()).await;
        let rx = queue.receiver();
        for _ in 0..2 {
            let error = rx.recv_timeout(SOON).await.unwrap_err();
            assert!(matches!(error, Error::Server { .. }), "{error:#}");
            assert!(
                format!("{error:#}").contains("MaxRequestExpires"),
                "{error:#}"
            );
        }
        // A request that does not wait is none of these.
        assert!(matches!(rx.try_recv().await, Err(Error::Empty { .. })));
    });
}

/// Makes the consumer of a queue anew, with another setting.
async fn replace_consumer(client: &Client, setting: &str) {
    api(client, "CONSUMER.DELETE.jobs.workers", "").await;
    let config = format!(r#"{{"durable_name":"workers","ack_policy":"explicit",{setting}}}"#);
    let question = format!(r#"{{"stream_name":"jobs","config":{config}}}"#);
    let made = api(client, "CONSUMER.DURABLE.CREATE.jobs.workers", &question).await;
    assert!(made.get("error").is_none(), "{made}");
}

#[test]
fn names_and_options_that_break_a_rule_are_refused_before_the_server_is_asked() {
    on_every_server(|mut server| async move {
        let client = connect(&server).await;
        server.kill(); // whatever asks it would wait
        for name in ["", "a.b", "a b", "*", ">", "../x", "jobs\r\n", "jöbs"] {
            let error = Queue::<u32>::open(client.clone(), name, Options::new()).await;
            let error = error.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Invalid {
                        what: "name of a queue",
                        ..
                    }
                ),
                "{error}"
            );
            assert!(error.to_string().contains("1 to 64 characters"), "{error}");
        }
        for options in [
            Options::new().ack_wait(Duration::ZERO),
            Options::new().duplicate_window(Duration::from_millis(99)),
            Options::new().max_bytes(0),
            Options::new().max_messages(u64::MAX),
            Options::new().max_deliveries(0),
            Options::new().replicas(6),
        ] {
            let error = Queue::<u32>::open(client.clone(), "jobs", options)
                .await
                .unwrap_err();
            assert!(matches!(error, Error::Invalid { .. }), "{error}");
        }
    });
}

#[test]
fn a_queue_that_many_open_at_once_is_made_once() {
    on_every_server(|server| async move {
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let client = connect(&server).await;
            opening.spawn(async move {
                let options = Options::new().max_messages(3);
                Queue::<u32>::open(client, "jobs", options)
                    .await
                    .map(|_| ())
            });
        }
        while let Some(opened) = opening.join_next().await {
            opened.unwrap().unwrap();
        }
    });
}

#[test]
fn a_server_without_room_for_the_queue_says_so() {
    let settings = "jetstream { max_file_store: 1048576 }";
    on_every_server_with(settings, |server| async move {
        let client = connect(&server).await;
        let error = Queue::<u32>::open(client, "jobs", Options::new())
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "{error:#}");
    });
}

#[test]
fn a_deleted_queue_can_be_deleted_and_made_again() {
    on_every_server(|server| async move {
        let first = open::<u32>(&server, "jobs", Options::new()).await;
        let second = open::<u32>(&server, "jobs", Options::new()).await;
        first.sender().send(1).await.unwrap();
        first.delete().await.unwrap();
        let error = second.len().await.unwrap_err();
        assert!(matches!(error, Error::Disconnected { .. }), "{error}");
        second.delete().await.unwrap();
        let third = open::<u32>(&server, "jobs", Options::new()).await;
        until(|| async { third.is_empty().await.unwrap() }).await;
    });
}

#[test]
fn a_user_who_lacks_permissions_hears_of_it() {
    let settings = "authorization { users: [{ user: u, password: p, \
                    permissions: { publish: { deny: [\"$JS.API.>\"] } } }] }";
    on_every_server_with(settings, |server| async move {
        let options = ConnectOptions::with_user_and_password("u".to_owned(), "p".to_owned());
        let client = options.connect(server.url()).await.unwrap();
        let opened = Queue::<u32>::open(client, "jobs", Options::new()).await;
        let error = opened.unwrap_err();
        assert!(matches!(error, Error::Server { .. }), "{error}");
        assert!(
            format!("{error:#}").contains("may not publish"),
            "{error:#}"
        );
    });
}
