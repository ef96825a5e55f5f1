//! An error that can be sent.

use std::error::Error as StdError;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An error as text, with its causes, that a child can return to its parent: `Result<T, Failure>`.
///
/// Every [`std::error::Error`] becomes one, so `?` works in a child's function on the errors of this crate, of the
/// standard library, and of others. Types that hold an error without being one, such as `anyhow::Error` and
/// `Box<dyn Error>`, become one by `.map_err(Failure::new)?`, and so do texts. For the same reason it is no
/// [`std::error::Error`] itself.
///
/// [`Display`](fmt::Display) shows the error and its causes on one line, [`Debug`] each on a line of its own, as a
/// `main` that returns it prints them. As a message it is a list of texts.
///
/// # Examples
///
/// ```
/// use wormhole::process::Failure;
/// use wormhole::{Error, spawn};
///
/// fn port(text: String) -> Result<u16, Failure> {
///     if text.is_empty() {
///         return Err(Failure::new("no port at all"));
///     }
///     Ok(text.parse()?)
/// }
///
/// let child = spawn("8080".to_owned(), port)?;
/// assert_eq!(child.join()?.unwrap(), 8080);
///
/// let child = spawn("http".to_owned(), port)?;
/// assert_eq!(child.join()?.unwrap_err().to_string(), "invalid digit found in string");
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
}

impl Failure {
    /// Makes one of a text, a boxed error, or anything else that can be boxed as an error.
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::of(&*error.into())
    }

    /// Says what was attempted when this happened: the text before that of the error, which becomes its cause.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::process::Failure;
    ///
    /// let error = Failure::new("the disk is full").context("cannot save the page");
    /// assert_eq!(error.to_string(), "cannot save the page: the disk is full");
    /// assert_eq!(error.message(), "cannot save the page");
    /// assert_eq!(error.causes(), ["the disk is full"]);
    /// ```
    #[must_use]
    pub fn context(mut self, attempted: impl Into<String>) -> Self {
        let cause = std::mem::replace(&mut self.message, attempted.into());
        self.causes.insert(0, cause);
        self
    }

    /// Returns the text of the error, without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the texts of its causes, the nearest first.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    fn of(error: &(dyn StdError + 'static)) -> Self {
        let mut causes = Vec::new();
        let mut cause = error.source();
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        let message = error.to_string();
        Failure { message, causes }
    }
}

impl<E: StdError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes
            .iter()
            .try_for_each(|cause| write!(f, "\n    caused by: {cause}"))
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(std::iter::once(&self.message).chain(&self.causes))
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut texts = Vec::<String>::deserialize(deserializer)?.into_iter();
        let message = texts
            .next()
            .ok_or_else(|| serde::de::Error::custom("a failure without a text"))?;
        let causes = texts.collect();
        Ok(Failure { message, causes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_failure_keeps_the_causes_and_arrives_as_it_left() {
        let cause = std::io::Error::other("no room");
        let failure = Failure::from(Error::io("grow", cause)).context("cannot start");
        assert_eq!(failure.to_string(), "cannot start: cannot grow: no room");
        assert_eq!(failure.causes(), ["cannot grow", "no room"]);
        let lines = "cannot start\n    caused by: cannot grow\n    caused by: no room";
        assert_eq!(format!("{failure:?}"), lines);
        let text = serde_json::to_string(&failure).unwrap();
        assert_eq!(text, r#"["cannot start","cannot grow","no room"]"#);
        assert_eq!(serde_json::from_str::<Failure>(&text).unwrap(), failure);
        assert!(serde_json::from_str::<Failure>("[]").is_err());
    }

    #[test]
    fn what_holds_an_error_without_being_one_becomes_a_failure() {
        let boxed: Box<dyn StdError + Send + Sync> = Box::from("boxed");
        assert_eq!(Failure::new(boxed).message(), "boxed");
        assert_eq!(Failure::new("text".to_owned()).message(), "text");
        assert_eq!(Failure::new(std::fmt::Error).causes(), [""; 0]);
    }
}
