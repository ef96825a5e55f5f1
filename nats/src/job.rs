//! A job: a value and its acknowledgement.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::delivery::Delivery;
use crate::error::Result;

/// A received job, which no other receiver gets while this one has it. It derefs to its value.
///
/// Say [`done`](Self::done) when it is done. **Dropped without a word it is given back at once**, for another receiver,
/// also by a panic; see [`Delivery`] for what that needs. While it is held the server hears of it, so a job may take as
/// long as it likes.
pub struct Job<T> {
    value: T,
    delivery: Delivery,
}

impl<T> Job<T> {
    pub(crate) fn new(value: T, delivery: Delivery) -> Self {
        Job { value, delivery }
    }

    /// Returns the value and the acknowledgement, to move the value away.
    #[must_use = "a job whose acknowledgement is dropped is given back"]
    pub fn into_parts(self) -> (T, Delivery) {
        (self.value, self.delivery)
    }

    /// Returns the job's id: see [`Delivery::id`].
    pub fn id(&self) -> &str {
        self.delivery.id()
    }

    /// Returns the job's number in the stream.
    pub fn sequence(&self) -> u64 {
        self.delivery.sequence()
    }

    /// Returns how often the job was delivered, this time included: 1 for the first time.
    pub fn deliveries(&self) -> u64 {
        self.delivery.deliveries()
    }

    /// Returns how long ago the job was stored, by the clocks of the server and of this machine.
    pub fn age(&self) -> Duration {
        self.delivery.age()
    }

    /// Says that the job is done, and waits for the server to confirm that: see [`Delivery::done`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::done`].
    pub async fn done(self) -> Result<()> {
        self.delivery.done().await
    }

    /// Gives the job back, for another receiver to have it after that time: see [`Delivery::retry`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::done`].
    pub async fn retry(self, after: Duration) -> Result<()> {
        self.delivery.retry(after).await
    }

    /// Refuses the job for good: see [`Delivery::refuse`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::done`].
    pub async fn refuse(self, reason: &str) -> Result<()> {
        self.delivery.refuse(reason).await
    }
}

impl<T> Deref for Job<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("value", &self.value)
            .field("delivery", &self.delivery)
            .finish()
    }
}
