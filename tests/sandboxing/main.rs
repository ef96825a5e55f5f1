//! Sandboxes: what `docs/sandboxing.md` says, and what a denied call gives.

#[path = "../support/mod.rs"]
mod support;

mod confined;
mod denied;
mod listed;
