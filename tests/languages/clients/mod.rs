//! Programs in Rust, Python, Go and C that talk to each other, in real processes.
//!
//! Without Python, Go or a C compiler they are skipped and say so, unless the environment variable CI is set.

mod c;
mod crowds;
mod go;
mod messages;
mod pairs;
mod peer;
mod programs;
mod table;
