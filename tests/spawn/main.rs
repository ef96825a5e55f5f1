//! Processes that the crate starts: `spawn`, `Child`, `spawn_command` and `inherit`.

#[path = "../support/mod.rs"]
mod support;

mod children;
mod commands;
mod examples;
mod listeners;
mod runtime;
mod strays;
