//! The library and the system under it: calls that fail, calls that are denied, and how far it goes.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod sandboxing;
mod scale;
