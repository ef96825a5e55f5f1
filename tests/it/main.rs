//! What the crate promises, part by part: tests/README.md says what goes where.

#[path = "../support/mod.rs"]
mod support;

wormhole::init_tests!();

mod across;
mod api;
mod arms;
mod attacks;
mod blob;
mod builder;
mod directions;
mod ends;
#[cfg(feature = "tracing")]
mod events;
mod fields;
mod forms;
mod fresh;
mod guarantees;
mod hostile;
mod interoperation;
mod json;
mod limits;
mod listener;
mod pool;
mod ported;
mod process;
mod raw;
#[cfg(any(feature = "async-io", feature = "tokio"))]
mod runtimes;
mod select;
mod signals;
mod tidy;
mod waiting;
mod wire;
