//! What the crate promises, on every server that is found. A file for each part of it.

#[path = "../support/mod.rs"]
#[allow(unreachable_pub, reason = "other programs include its files as well")]
mod support;

mod bridges;
mod cancelling;
mod hostile;
mod jobs;
mod opening;
mod outages;
mod pools;
mod receiving;
mod sending;
mod trust;

wormhole::init_tests!();
