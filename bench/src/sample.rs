//! What a measurement gives.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a measurement has taken, all processes together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// From the common start to the end of the leader's part.
    pub(crate) wall: Duration,
    /// Time on the processors, of all sides.
    pub(crate) cpu: Duration,
}

/// What one run of a measurement found, per operation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// What the row is about: nanoseconds, unless the row says otherwise.
    pub(crate) value: f64,
    /// Nanoseconds on the processors, of all sides together.
    pub(crate) cpu: f64,
}

impl Usage {
    /// Shares it out among `operations`.
    pub(crate) fn per(self, operations: u64) -> Sample {
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        let operations = operations as f64;
        Sample {
            value: self.wall.as_secs_f64() * 1e9 / operations,
            cpu: self.cpu.as_secs_f64() * 1e9 / operations,
        }
    }
}
