//! What a child sends at its end.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The value of the child's function, or why there is none.
///
/// A value is written as a list of one, a failure as `{"panicked": "why"}`. To write an enum's names takes
/// tables of serde_json that an empty child would touch for nothing else, see [`spawn`](super::spawn).
#[derive(Debug)]
pub(super) enum Delivery<R> {
    Value(R),
    /// With its message.
    Panicked(String),
    /// The value could not be sent.
    Undelivered(String),
}

const PANICKED: &str = "panicked";
const UNDELIVERED: &str = "undelivered";

impl<R: Serialize> Serialize for Delivery<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Delivery::Value(value) => (value,).serialize(serializer),
            Delivery::Panicked(message) => serializer.collect_map([(PANICKED, message)]),
            Delivery::Undelivered(reason) => serializer.collect_map([(UNDELIVERED, reason)]),
        }
    }
}

impl<'de, R: DeserializeOwned> Deserialize<'de> for Delivery<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DeliveryVisitor(PhantomData))
    }
}

struct DeliveryVisitor<R>(PhantomData<R>);

impl<'de, R: DeserializeOwned> Visitor<'de> for DeliveryVisitor<R> {
    type Value = Delivery<R>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the value of a child's function, in a list, or why there is none")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Delivery<R>, A::Error> {
        // Decoded by itself, so that it may nest as deep as any message: the list does not count.
        let text: Option<&RawValue> = list.next_element()?;
        let text = text.ok_or_else(|| A::Error::invalid_length(0, &self))?;
        let value = serde_json::from_str(text.get()).map_err(A::Error::custom)?;
        Ok(Delivery::Value(value))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Delivery<R>, A::Error> {
        match map.next_entry::<String, String>()? {
            Some((why, message)) if why == PANICKED => Ok(Delivery::Panicked(message)),
            Some((why, reason)) if why == UNDELIVERED => Ok(Delivery::Undelivered(reason)),
            _ => Err(A::Error::custom("neither a value nor why there is none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_not_mistaken_for_a_failure_nor_a_failure_for_a_value() {
        fn arrives<R: Serialize + DeserializeOwned + fmt::Debug>(sent: Delivery<R>, text: &str) {
            assert_eq!(serde_json::to_string(&sent).unwrap(), text);
            let received: Delivery<R> = serde_json::from_str(text).unwrap();
            assert_eq!(format!("{received:?}"), format!("{sent:?}"));
        }
        let pair = || (PANICKED.to_owned(), "by hand".to_owned());
        arrives(Delivery::Value(()), "[null]");
        arrives(Delivery::Value(None::<u8>), "[null]");
        arrives(Delivery::Value(i128::MIN), &format!("[{}]", i128::MIN));
        let map = std::collections::HashMap::from([pair()]);
        arrives(Delivery::Value(map), r#"[{"panicked":"by hand"}]"#);
        arrives(
            Delivery::<()>::Panicked(pair().1),
            r#"{"panicked":"by hand"}"#,
        );
        arrives(
            Delivery::<()>::Undelivered(pair().1),
            r#"{"undelivered":"by hand"}"#,
        );
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in [
            "[]",
            "[1,2]",
            "{}",
            "1",
            r#"{"late":""}"#,
            r#"{"panicked":1}"#,
        ] {
            assert!(
                serde_json::from_str::<Delivery<u8>>(text).is_err(),
                "{text}"
            );
        }
    }
}
