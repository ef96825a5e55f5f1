//! What a worker says, see PROTOCOL.md: a map with one entry.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a worker sends to its pool.
#[derive(Debug)]
pub(super) enum Answer<R> {
    /// It has started, and takes jobs. Workers that are other programs need not say so.
    Ready,
    /// The result of the job.
    Done(R),
    /// The job failed.
    Failed(Panic),
    /// The job or its result did not get through.
    Undelivered(String),
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Panic {
    pub(super) message: String,
    pub(super) place: Option<String>,
    pub(super) backtrace: Option<String>,
}

const READY: &str = "Ready";
const DONE: &str = "Ok";
const FAILED: &str = "Err";
const UNDELIVERED: &str = "Undelivered";
const MESSAGE: &str = "message";
const PLACE: &str = "place";
const BACKTRACE: &str = "backtrace";

impl<R: Serialize> Serialize for Answer<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Answer::Ready => map.serialize_entry(READY, &())?,
            Answer::Done(result) => map.serialize_entry(DONE, result)?,
            Answer::Failed(panic) => map.serialize_entry(FAILED, panic)?,
            Answer::Undelivered(reason) => map.serialize_entry(UNDELIVERED, reason)?,
        }
        map.end()
    }
}

impl Serialize for Panic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry(MESSAGE, &self.message)?;
        map.serialize_entry(PLACE, &self.place)?;
        map.serialize_entry(BACKTRACE, &self.backtrace)?;
        map.end()
    }
}

/// The kinds of answers, by the key of the entry.
enum Kind {
    Ready,
    Done,
    Failed,
    Undelivered,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;

        impl Visitor<'_> for Key {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Ok`, `Err`, `Ready` or `Undelivered`")
            }

            fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Kind, E> {
                match key {
                    DONE => Ok(Kind::Done),
                    FAILED => Ok(Kind::Failed),
                    READY => Ok(Kind::Ready),
                    UNDELIVERED => Ok(Kind::Undelivered),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }

        deserializer.deserialize_str(Key)
    }
}

impl<'de, R: DeserializeOwned> Deserialize<'de> for Answer<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form<R>(PhantomData<R>);

        impl<'de, R: DeserializeOwned> Visitor<'de> for Form<R> {
            type Value = Answer<R>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the answer of a worker: a map with one entry")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Answer<R>, A::Error> {
                let answer = match map.next_key()? {
                    Some(Kind::Done) => Answer::Done(map.next_value()?),
                    Some(Kind::Failed) => Answer::Failed(map.next_value()?),
                    Some(Kind::Undelivered) => Answer::Undelivered(map.next_value()?),
                    Some(Kind::Ready) => {
                        map.next_value::<IgnoredAny>()?;
                        Answer::Ready
                    }
                    None => return Err(A::Error::invalid_length(0, &self)),
                };
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(answer),
                    Some(_) => Err(A::Error::invalid_length(2, &self)),
                }
            }
        }

        deserializer.deserialize_map(Form(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Panic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Panic;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("why a job failed: `message`, `place` and `backtrace`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Panic, A::Error> {
                let mut panic = Panic::default();
                let mut message = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        MESSAGE => message = Some(map.next_value()?),
                        PLACE => panic.place = map.next_value()?,
                        BACKTRACE => panic.backtrace = map.next_value()?,
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                panic.message = message.ok_or_else(|| A::Error::missing_field(MESSAGE))?;
                Ok(panic)
            }
        }

        deserializer.deserialize_map(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_what_the_protocol_says() {
        let panic = Panic {
            message: "a".to_owned(),
            place: Some("b:1:2".to_owned()),
            backtrace: None,
        };
        let failed = r#"{"Err":{"message":"a","place":"b:1:2","backtrace":null}}"#;
        for (answer, text) in [
            (Answer::Ready, r#"{"Ready":null}"#),
            (
                Answer::Done(i128::MIN),
                &format!("{{\"Ok\":{}}}", i128::MIN),
            ),
            (Answer::Failed(panic), failed),
            (
                Answer::Undelivered("c".to_owned()),
                r#"{"Undelivered":"c"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
            let again: Answer<i128> = serde_json::from_str(text).unwrap();
            assert_eq!(format!("{again:?}"), format!("{answer:?}"));
        }
        let short: Answer<u8> =
            serde_json::from_str(r#"{"Err":{"message":"x","more":[1]}}"#).unwrap();
        assert!(matches!(short, Answer::Failed(panic) if panic.message == "x"));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "{}",
            "[]",
            "1",
            r#"{"ok":1}"#,
            r#"{"Ok":1,"Err":2}"#,
            r#"{"Ok":"x"}"#,
            r#"{"Err":{}}"#,
            r#"{"Err":"x"}"#,
        ] {
            assert!(serde_json::from_str::<Answer<u8>>(text).is_err(), "{text}");
        }
    }
}
