//! The table "What JSON cannot carry", row by row: what happens is what the table says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wormhole::{Error, Raw, channel, select, spawn, spawn_command, spawn_fresh};

use crate::support::buffered::{Flattened, Inner, Tagged};
use crate::support::{in_own_process, open_fds};

/// Sends a value and receives what arrives.
fn arrives<T: Serialize + DeserializeOwned>(value: T) -> Result<T, Error> {
    let (tx, rx) = channel::<T>().unwrap();
    tx.send(value)?;
    rx.try_recv()
}

fn is_refused_by_its_sender<T: Serialize>(value: T) {
    let (tx, rx) = channel::<T>().unwrap();
    assert!(matches!(tx.send(value), Err(Error::Encode { .. })));
    let rx = rx.cast::<serde_json::Value>();
    assert!(matches!(rx.try_recv(), Err(Error::Empty)));
}

fn is_refused_by_its_receiver<T: Serialize + DeserializeOwned + Debug>(value: T) {
    let error = arrives(value).unwrap_err();
    assert!(matches!(error, Error::Decode { .. }), "{error}");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged<T> {
    One(Inner<T>),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value")]
enum Adjacent<T> {
    One(Inner<T>),
}

#[test]
fn nan_and_infinities_are_refused_by_the_sender() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        is_refused_by_its_sender(value);
        is_refused_by_its_sender(Some(value));
        is_refused_by_its_sender(vec![(1, BTreeMap::from([(2, value)]))]);
        let part = || Inner { inner: value };
        is_refused_by_its_sender(Flattened { part: part() });
        is_refused_by_its_sender(Tagged::One(part()));
        is_refused_by_its_sender(Untagged::One(part()));
        is_refused_by_its_sender(Adjacent::One(part()));
    }
    is_refused_by_its_sender(f32::NAN);
    let (tx, rx) = channel::<(f64, Option<f64>)>().unwrap();
    let error = tx.send((0.5, Some(f64::NAN))).unwrap_err().to_string();
    assert!(error.ends_with("JSON has no number for NaN"), "{error}");
    // The channel works as before.
    tx.send((0.5, None)).unwrap();
    assert_eq!(rx.recv().unwrap(), (0.5, None));
    assert!(matches!(rx.try_recv(), Err(Error::Empty)));
}

/// Whatever a value is encoded for.
#[test]
fn nan_is_refused_wherever_something_is_sent() {
    fn is_refused<R: Debug>(encoded: Result<R, Error>) {
        assert!(matches!(encoded, Err(Error::Encode { .. })), "{encoded:?}");
    }
    in_own_process(|| {
        let before = open_fds();
        let (tx, rx) = channel::<f64>().unwrap();
        let (long, fds) = (Duration::from_secs(9), [rx.as_fd()]);
        is_refused(tx.try_send(f64::NAN));
        is_refused(tx.send_timeout(f64::NAN, long));
        is_refused(tx.send_with_fds(f64::NAN, &fds));
        is_refused(tx.by_ref().send(&f64::NAN));
        is_refused(select! { send(tx, f64::NAN) -> sent => sent });
        is_refused(Raw::encode(&f64::NAN));
        is_refused(spawn_fresh(f64::NAN, |number| number));
        is_refused(spawn_command(Command::new("true"), f64::NAN));
        // A forked child has its arguments as they lie in memory, and sends its result.
        let is_as_it_was = |(number, unit): (f64, Option<()>)| number.is_nan() && unit.is_some();
        let child = spawn((f64::NAN, Some(())), is_as_it_was).unwrap();
        assert!(child.join().unwrap());
        let child = spawn((), |()| f64::NAN).unwrap();
        let Err(Error::Child { end, .. }) = child.join() else {
            panic!("a child has returned NaN");
        };
        assert!(end.to_string().contains("JSON has no number"), "{end}");
        assert!(matches!(rx.try_recv(), Err(Error::Empty)));
        drop((tx, rx));
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn some_of_what_is_null_is_refused_by_the_sender() {
    is_refused_by_its_sender(Some(None::<u8>));
    is_refused_by_its_sender(Some(()));
    is_refused_by_its_sender(Some(Unit));
    is_refused_by_its_sender(Some(serde_json::Value::Null));
    is_refused_by_its_sender(vec![Some(Some(1)), Some(None)]);
    // Of what is written already nobody can tell: it is text.
    let null = RawValue::from_string("null".to_owned()).unwrap();
    assert!(arrives(Some(null)).unwrap().is_none());
    assert_eq!(arrives(Some(Some(1))).unwrap(), Some(Some(1)));
}

#[test]
fn keys_that_are_no_text_are_refused_by_the_sender() {
    is_refused_by_its_sender(BTreeMap::from([(vec![1], 1)]));
    is_refused_by_its_sender(BTreeMap::from([((1, 2), 1)]));
    let map = BTreeMap::from([(i128::MIN, 'a'), (7, 'b')]);
    assert_eq!(arrives(map.clone()).unwrap(), map);
    let map = BTreeMap::from([(true, 'a')]);
    assert_eq!(arrives(map.clone()).unwrap(), map);
}

#[test]
fn keys_that_are_numbers_do_not_survive_buffering() {
    let map = || Inner {
        inner: BTreeMap::from([(1_u32, 2_u32)]),
    };
    is_refused_by_its_receiver(Flattened { part: map() });
    is_refused_by_its_receiver(Tagged::One(map()));
    is_refused_by_its_receiver(Untagged::One(map()));
    assert_eq!(arrives(Adjacent::One(map())).unwrap(), Adjacent::One(map()));
    assert_eq!(arrives(map()).unwrap(), map());
    let text = || Inner {
        inner: BTreeMap::from([("1".to_owned(), 2_u32)]),
    };
    assert_eq!(
        arrives(Untagged::One(text())).unwrap(),
        Untagged::One(text())
    );
}

#[test]
fn integers_of_128_bits_do_not_survive_buffering() {
    let wide = || Inner { inner: 1_u128 };
    is_refused_by_its_receiver(Flattened { part: wide() });
    is_refused_by_its_receiver(Tagged::One(wide()));
    is_refused_by_its_receiver(Untagged::One(wide()));
    assert_eq!(
        arrives(Adjacent::One(wide())).unwrap(),
        Adjacent::One(wide())
    );
    assert_eq!(arrives(u128::MAX).unwrap(), u128::MAX);
}

#[test]
fn integers_beyond_64_bits_are_floats_without_a_type() {
    let arrives = |number: i128| {
        let (tx, rx) = channel::<i128>().unwrap();
        tx.send(number).unwrap();
        rx.cast::<serde_json::Value>().try_recv().unwrap()
    };
    assert_eq!(arrives(i128::from(u64::MAX)).as_u64(), Some(u64::MAX));
    assert_eq!(arrives(i128::from(i64::MIN)).as_i64(), Some(i64::MIN));
    let changed = arrives((1 << 64) + 1);
    assert_eq!(changed.as_f64(), Some(18_446_744_073_709_551_616.0));
    assert!(arrives(i128::from(i64::MIN) - 1).is_f64());
}

#[test]
fn an_integer_that_no_float_has_is_another_number_as_a_float() {
    let (tx, rx) = channel::<u64>().unwrap();
    tx.send((1 << 53) + 1).unwrap();
    let received = rx.cast::<f64>().try_recv().unwrap();
    assert_eq!(received.to_bits(), 9_007_199_254_740_992_f64.to_bits());
    // A float of 32 bits comes with its own few digits.
    let (tx, rx) = channel::<f32>().unwrap();
    tx.send(0.1).unwrap();
    let received = rx.cast::<f64>().try_recv().unwrap();
    assert_eq!(received.to_bits(), 0.1_f64.to_bits());
    assert_ne!(received.to_bits(), f64::from(0.1_f32).to_bits());
    assert_eq!(arrives(0.1_f32).unwrap().to_bits(), 0.1_f32.to_bits());
}

#[test]
fn of_keys_that_are_written_alike_the_last_one_arrives() {
    #[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Key {
        Number(u8),
        Text(String),
    }

    let keys = [Key::Number(1), Key::Text("1".to_owned())];
    let map: BTreeMap<_, _> = keys.into_iter().zip(['a', 'b']).collect();
    let (tx, rx) = channel::<BTreeMap<Key, char>>().unwrap();
    tx.send(map).unwrap();
    let rx = rx.cast::<BTreeMap<String, char>>();
    let arrived = rx.try_recv().unwrap();
    assert_eq!(arrived, BTreeMap::from([("1".to_owned(), 'b')]));
}

#[test]
fn an_untagged_float_before_an_integer_takes_its_place() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum FloatFirst {
        Float(f64),
        Integer(u64),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum IntegerFirst {
        Integer(u64),
        Float(f64),
    }

    let large = (1 << 53) + 1;
    let changed = FloatFirst::Float((1_u64 << 53) as f64);
    assert_eq!(arrives(FloatFirst::Integer(large)).unwrap(), changed);
    for value in [IntegerFirst::Integer(large), IntegerFirst::Float(0.5)] {
        let text = serde_json::to_string(&value).unwrap();
        assert_eq!(
            arrives(value).unwrap(),
            serde_json::from_str(&text).unwrap()
        );
    }
    assert_eq!(
        arrives(IntegerFirst::Integer(large)).unwrap(),
        IntegerFirst::Integer(large)
    );
}

#[test]
fn paths_and_times_that_serde_refuses_are_refused_by_the_sender() {
    is_refused_by_its_sender(PathBuf::from(OsStr::from_bytes(b"\xff")));
    is_refused_by_its_sender(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    assert_eq!(
        arrives(PathBuf::from("/tmp")).unwrap(),
        PathBuf::from("/tmp")
    );
    let now = SystemTime::now();
    assert_eq!(arrives(now).unwrap(), now);
}
