//! The tests of the C client, which are written in C and run by its Makefile.

use std::process::Command;
use std::time::Duration;

use super::programs::{C, can_run, root};
use crate::support::output_within;

/// What needs no more than a C compiler. CI runs `make test` beside this.
#[test]
#[ignore = "CI runs all of them: `.ci/run client_c`"]
fn the_c_client_passes_its_own_tests() {
    if can_run(&[C]) {
        let build = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("c");
        let mut command = Command::new("make");
        command
            .arg("quick")
            .arg(format!("BUILD={}", build.display()))
            .current_dir(root().join("clients/c"));
        let output = output_within(Duration::from_secs(300), command);
        assert!(output.status.success(), "{output:?}");
    }
}
