//! Programs in Rust, Python and Go that talk to each other, in real processes.
//!
//! Without Python or Go they are skipped and say so, unless the environment variable CI is set.

mod crowds;
mod go;
mod messages;
mod pairs;
mod peer;
mod programs;
