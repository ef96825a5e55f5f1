//! The battery: what a channel does within one process, whatever comes in from outside.

#[path = "../support/mod.rs"]
mod support;

mod basics;
mod ends;
mod fields;
mod hostile;
mod interoperation;
mod limits;
mod properties;
mod tidy;
mod waiting;
mod wire;
