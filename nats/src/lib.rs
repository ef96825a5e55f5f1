//! Job queues between machines, for programs whose workers are local processes.
//!
//! [wormhole] joins the processes of one machine. This crate puts a queue in front of them that many machines share: a
//! stream of [NATS JetStream](https://docs.nats.io/nats-concepts/jetstream), kept by servers that run already or are
//! started with one command. A job is plain JSON, the same text as in a local channel.
//!
//! ```no_run
//! use serde::{Deserialize, Serialize};
//! use wormhole_nats::{Options, Queue, async_nats};
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! struct Resize {
//!     picture: String,
//!     width: u32,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = async_nats::connect("nats://127.0.0.1:4222").await?;
//!     let queue = Queue::<Resize>::open(client, "resize", Options::new()).await?;
//!
//!     let picture = "worm.png".to_owned();
//!     queue.sender().send(Resize { picture, width: 640 }).await?; // stored by the server
//!
//!     let job = queue.receiver().recv().await?; // usually on another machine
//!     println!("{} to {}, delivered for the {}. time", job.picture, job.width, job.deliveries());
//!     job.done().await?; // out of the queue
//!     Ok(())
//! }
//! ```
//!
//! # To local workers
//!
//! Three bridges join a queue to the workers of one machine, as many jobs in flight as there are workers:
//!
//! - [`inbound`] hands each job to a local channel of [`Handed`] jobs. The worker sends on `done`. If it is killed, the
//!   kernel closes `done`, and the job is with another machine at once.
//! - [`outbound`] takes what workers hand over, and confirms it when the server has stored it.
//! - [`pool`] is both around a [`wormhole::Pool`]: jobs from one queue, results to another, and a job is done when its
//!   result is stored. [`pool_outcomes`] stores what has failed as well.
//!
//! # What is promised
//!
//! - [`Sender::send`] is `Ok` when the server has stored the job. Until then it sends again, under the same id, which
//!   the server drops if it knows it.
//! - **At least once**: a job is delivered until a receiver has said that it is done. It may be done twice: by a receiver
//!   that is cut off and by its successor; or because it was stored twice, see [`Sender`]. A worker that must not do a thing
//!   twice looks at [`Job::id`].
//! - A receiver asks for one job, when it is told to. So no job waits behind a long one while another worker is idle.
//! - A job whose receiver drops it, whose worker is killed, or whose bridge stops, is with another one at once. When the
//!   whole process or its machine is gone, that takes the [ack wait](Options::ack_wait).
//! - There is no order among jobs that several workers do, or that were given back.
//! - A message that is no job of the expected type is refused for good and counted: [`Error::Decode`]. So is a job that
//!   was delivered too often: [`Error::Exhausted`]. A message whose headers the client cannot read ends its connection
//!   instead, each time it is delivered: `SECURITY.md` says what helps.
//! - [`Error::TooLarge`] and [`Error::Encode`] come before anything is stored. Descriptors and channel ends do not leave
//!   their machine: they are [`Error::Encode`].
//! - A server that is away is waited for: put a timeout around a call, or use the forms with one. [`Error::Disconnected`]
//!   means that the stream or its consumer was deleted, or that the client is closed.
//! - Dropping a future loses nothing. What a dropped send has done is not known, as with any network.
//!
//! # What it needs
//!
//! A runtime of [tokio] with I/O and time, and servers from 2.9 on with JetStream. Servers, TLS and credentials
//! are options of the client: [`async_nats::ConnectOptions`]. The account needs to publish to the queue's subject,
//! `$JS.API.>` and `$JS.ACK.>`, and to subscribe and to publish to its inboxes. A server that forbids one of these does not
//! answer but reports it to the client ([`event_callback`](async_nats::ConnectOptions::event_callback)): it looks like one
//! that is away, except to [`Queue::open`].

#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a unit test that is surprised should panic"
    )
)]

mod answer;
mod ask;
mod bridge;
mod delivery;
mod error;
mod excerpt;
mod inboxes;
mod job;
mod link;
mod options;
mod queue;
mod receiver;
mod rules;
mod sender;

pub use async_nats;

pub use bridge::{
    Bridge, BridgeOptions, Failed, Handed, Outcome, Report, inbound, outbound, pool, pool_outcomes,
};
pub use delivery::Delivery;
pub use error::{Error, Place, Result};
pub use job::Job;
pub use options::{Options, Storage};
pub use queue::Queue;
pub use receiver::Receiver;
pub use sender::{Sender, Stored};

// The pages that show how it is used; their code is compiled, not run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../docs/many-machines.md")]
struct ManyMachines;
