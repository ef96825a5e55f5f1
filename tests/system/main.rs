//! The library and the system under it: calls that fail, calls that are denied, and how far it goes.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod programs;
// Where seccompiler knows filters.
#[cfg(any(
    target_arch = "aarch64",
    target_arch = "riscv64",
    target_arch = "x86_64"
))]
mod sandboxing;
mod scale;

wormhole::init_tests!();
