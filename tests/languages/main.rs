//! The protocol in other languages: the same packets read by all, and programs that talk to each other.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod conformance;
mod python;
