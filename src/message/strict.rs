//! Serializing nothing that would arrive as something else.
//!
//! serde_json writes NaN and the infinities as `null`, so they would arrive as `None`, or not at all; and `Some` of what
//! is `null` itself, as `None` and `()` are, would arrive as `None`. Here they are refused. All else passes through:
//! these wrappers cost nothing at run time.

use std::fmt;

use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};
use serde::{Serialize, Serializer};

/// Around a reference to a value: one that must be what JSON has. Around a serializer: one that takes nothing else.
pub(crate) struct Strict<T> {
    inner: T,
    /// Whether it stands in a `Some`, so that it must not be `null`.
    in_some: bool,
}

impl<T> Strict<T> {
    #[inline]
    pub(crate) fn new(inner: T) -> Self {
        Strict {
            inner,
            in_some: false,
        }
    }
}

impl<T: Serialize + ?Sized> Serialize for Strict<&T> {
    #[inline]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.inner.serialize(Strict {
            inner: serializer,
            in_some: self.in_some,
        })
    }
}

/// Methods that hand on to the same method of what is inside.
macro_rules! pass_on {
    ($($name:ident($($argument:ident: $Type:ty),*) -> $Result:ty $(as $wrap:ident)?;)*) => {$(
        #[inline]
        fn $name(self, $($argument: $Type),*) -> Result<$Result, S::Error> {
            self.inner.$name($($argument),*)$(.map(Strict::$wrap))?
        }
    )*};
}

impl<S: Serializer> Serializer for Strict<S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Strict<S::SerializeSeq>;
    type SerializeTuple = Strict<S::SerializeTuple>;
    type SerializeTupleStruct = Strict<S::SerializeTupleStruct>;
    type SerializeTupleVariant = Strict<S::SerializeTupleVariant>;
    type SerializeMap = Strict<S::SerializeMap>;
    type SerializeStruct = Strict<S::SerializeStruct>;
    type SerializeStructVariant = Strict<S::SerializeStructVariant>;

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => self.inner.serialize_f32(value),
            false => Err(no_number(value)),
        }
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<S::Ok, S::Error> {
        match value.is_finite() {
            true => self.inner.serialize_f64(value),
            false => Err(no_number(value)),
        }
    }

    pass_on! {
        serialize_bool(value: bool) -> S::Ok;
        serialize_i8(value: i8) -> S::Ok;
        serialize_i16(value: i16) -> S::Ok;
        serialize_i32(value: i32) -> S::Ok;
        serialize_i64(value: i64) -> S::Ok;
        serialize_i128(value: i128) -> S::Ok;
        serialize_u8(value: u8) -> S::Ok;
        serialize_u16(value: u16) -> S::Ok;
        serialize_u32(value: u32) -> S::Ok;
        serialize_u64(value: u64) -> S::Ok;
        serialize_u128(value: u128) -> S::Ok;
        serialize_char(value: char) -> S::Ok;
        serialize_str(value: &str) -> S::Ok;
        serialize_bytes(value: &[u8]) -> S::Ok;
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str) -> S::Ok;
        serialize_seq(len: Option<usize>) -> Self::SerializeSeq as new;
        serialize_tuple(len: usize) -> Self::SerializeTuple as new;
        serialize_tuple_struct(name: &'static str, len: usize) -> Self::SerializeTupleStruct as new;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> Self::SerializeTupleVariant as new;
        serialize_map(len: Option<usize>) -> Self::SerializeMap as new;
        serialize_struct(name: &'static str, len: usize) -> Self::SerializeStruct as new;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize)
            -> Self::SerializeStructVariant as new;
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&Strict {
            inner: value,
            in_some: true,
        })
    }

    #[inline]
    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        match self.in_some {
            false => self.inner.serialize_none(),
            true => Err(null_in_some()),
        }
    }

    #[inline]
    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        match self.in_some {
            false => self.inner.serialize_unit(),
            true => Err(null_in_some()),
        }
    }

    #[inline]
    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        match self.in_some {
            false => self.inner.serialize_unit_struct(name),
            true => Err(null_in_some()),
        }
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = Strict {
            inner: value,
            in_some: self.in_some, // JSON shows nothing of such a struct
        };
        self.inner.serialize_newtype_struct(name, &value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = Strict::new(value);
        self.inner
            .serialize_newtype_variant(name, index, variant, &value)
    }

    #[inline]
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

#[cold]
fn no_number<E: serde::ser::Error>(value: impl fmt::Display) -> E {
    E::custom(format_args!("JSON has no number for {value}"))
}

#[cold]
fn null_in_some<E: serde::ser::Error>() -> E {
    E::custom("JSON has no `Some` of `null`: it would arrive as `None`")
}

/// The parts of what has several: elements, or fields with a `key`.
macro_rules! pass_on_parts {
    ($($Trait:ident: $($name:ident($($key:ident: $Key:ty)?)),*;)*) => {$(
        impl<S: $Trait> $Trait for Strict<S> {
            type Ok = S::Ok;
            type Error = S::Error;

            $(
                #[inline]
                fn $name<T: Serialize + ?Sized>(
                    &mut self,
                    $($key: $Key,)?
                    value: &T,
                ) -> Result<(), S::Error> {
                    self.inner.$name($($key,)? &Strict::new(value))
                }
            )*

            #[inline]
            fn end(self) -> Result<S::Ok, S::Error> {
                self.inner.end()
            }
        }
    )*};
}

pass_on_parts! {
    SerializeSeq: serialize_element();
    SerializeTuple: serialize_element();
    SerializeTupleStruct: serialize_field();
    SerializeTupleVariant: serialize_field();
    SerializeMap: serialize_key(), serialize_value();
    SerializeStruct: serialize_field(key: &'static str);
    SerializeStructVariant: serialize_field(key: &'static str);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;

    #[derive(Serialize)]
    struct Unit;

    #[derive(Serialize)]
    struct Newtype<T>(T);

    #[derive(Serialize)]
    struct Pair<T>(u8, T);

    #[derive(Serialize)]
    struct Struct<T> {
        first: T,
        second: T,
    }

    #[derive(Serialize)]
    enum Enum<T> {
        Unit,
        Newtype(T),
        Pair(u8, T),
        Struct { inner: T },
    }

    /// Whose text is written piece by piece.
    struct Collected;

    impl Serialize for Collected {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            assert!(serializer.is_human_readable());
            serializer.collect_str(&format_args!("{}-{}", 1, 2))
        }
    }

    struct Bytes;

    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(&[1, 2])
        }
    }

    fn passes<T: Serialize>(value: T) {
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::to_string(&Strict::new(&value)).unwrap(), text);
    }

    #[test]
    fn what_json_has_is_written_as_without_it() {
        passes((true, 'c', "text", (), Unit, None::<u8>, Some(1)));
        passes((i8::MIN, i16::MIN, i32::MIN, i64::MIN, i128::MIN));
        passes((u8::MAX, u16::MAX, u32::MAX, u64::MAX, u128::MAX));
        passes((f32::MIN, f32::MAX, f64::MIN, f64::MAX, -0.0, 1e-320));
        passes((Newtype(1), Pair(1, "a"), vec![1; 3], [0; 0]));
        passes([Enum::Unit, Enum::Newtype(1), Enum::Pair(2, 3)]);
        passes(Enum::Struct { inner: 1 });
        passes(Struct {
            first: 1,
            second: 2,
        });
        passes(BTreeMap::from([(1_u128, 2), (3, 4)]));
        passes(BTreeMap::from([('a', vec![Some(1.5), None])]));
        passes((Collected, Bytes));
        passes(RawValue::from_string("[1, 2.50]".to_owned()).unwrap());
        passes(serde_json::json!({"a": [1, 2.5, null], "b": {"c": -1}}));
    }

    fn is_null_in_some(value: impl Serialize) {
        let error = serde_json::to_string(&Strict::new(&value)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("JSON has no `Some` of `null`")
        );
    }

    #[test]
    fn some_of_what_is_null_is_refused_wherever_it_is() {
        is_null_in_some(Some(None::<u8>));
        is_null_in_some(Some(()));
        is_null_in_some(Some(Unit));
        is_null_in_some(Some(serde_json::Value::Null));
        is_null_in_some(Some(Newtype(None::<u8>)));
        is_null_in_some(vec![Some(Some(1)), Some(None)]);
        is_null_in_some(Enum::Struct { inner: Some(()) });
        passes((Some([None::<u8>]), Some(((), ())), Some([Unit])));
        passes((Some(Some(1)), Some(Enum::Newtype(None::<u8>))));
        passes(Some(Struct {
            first: None,
            second: Some(1),
        }));
    }

    fn refuses(value: impl Serialize, name: &str) {
        let error = serde_json::to_string(&Strict::new(&value)).unwrap_err();
        assert_eq!(error.to_string(), format!("JSON has no number for {name}"));
    }

    #[test]
    fn what_it_lacks_is_refused_wherever_it_is() {
        const NAN: f64 = f64::NAN;
        refuses(NAN, "NaN");
        refuses(f64::INFINITY, "inf");
        refuses(f64::NEG_INFINITY, "-inf");
        refuses(f32::NAN, "NaN");
        refuses(f32::INFINITY, "inf");
        refuses(Some(NAN), "NaN");
        refuses((1, NAN), "NaN");
        refuses(vec![1.0, NAN], "NaN");
        refuses(Newtype(NAN), "NaN");
        refuses(Pair(1, NAN), "NaN");
        refuses(
            Struct {
                first: 1.0,
                second: NAN,
            },
            "NaN",
        );
        refuses(Enum::Newtype(NAN), "NaN");
        refuses(Enum::Pair(1, NAN), "NaN");
        refuses(Enum::Struct { inner: NAN }, "NaN");
        refuses(BTreeMap::from([(1, NAN)]), "NaN");
        refuses(Newtype(Some(vec![BTreeMap::from([(1, (1, NAN))])])), "NaN");
    }
}
