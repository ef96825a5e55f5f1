//! What the crate promises, on every server that is found.

#[path = "../support/server.rs"]
mod server;
