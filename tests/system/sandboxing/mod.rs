//! Sandboxes: what `docs/sandboxing.md` says, and what a denied call gives.

mod confined;
mod denied;
mod listed;
