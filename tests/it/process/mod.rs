//! Processes that the crate starts: `spawn`, `Child`, `spawn_command` and `inherit`.

mod children;
mod commands;
mod listeners;
mod locks;
mod runtime;
mod strays;
