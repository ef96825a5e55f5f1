//! Types whose fields serde buffers before it decodes them, and what they have as a part.

use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inner<T> {
    pub(crate) inner: T,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Flattened<T> {
    #[serde(flatten)]
    pub(crate) part: Inner<T>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub(crate) enum Tagged<T> {
    One(Inner<T>),
}
