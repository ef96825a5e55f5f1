//! The examples, run as their users run them.

#[path = "../support/mod.rs"]
mod support;

mod processes;
mod wordcount;
