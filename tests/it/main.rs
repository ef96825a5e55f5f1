//! What the crate promises, part by part: tests/README.md says what goes where.

#[path = "../support/mod.rs"]
mod support;

mod api;
mod attacks;
mod blob;
mod ends;
mod fields;
mod guarantees;
mod hostile;
mod interoperation;
mod limits;
mod listener;
mod ported;
mod process;
mod properties;
mod select;
mod signals;
mod tidy;
mod waiting;
mod wire;
