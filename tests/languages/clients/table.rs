//! The table "What JSON cannot carry" of PROTOCOL.md between the languages: what a program in Python or Go makes of what
//! Rust sends, and what Rust makes of what it sends. What Rust makes of it by itself is in `tests/it/json.rs`, and what the
//! other languages do in the tests of their clients.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wormhole::{Error, Raw, Receiver, Sender, channel};

use super::programs::{Go, Language, Program, Python, can_run};
use crate::support::buffered::{Flattened, Inner, Tagged};
use crate::support::in_own_process;

/// What the program is handed.
#[derive(Serialize)]
struct Table {
    /// `read TYPE`: receive a message of that type and send it back. `send VALUE`. If that is refused, send "refused".
    steps: Receiver<String>,
    source: Receiver<Raw>,
    to: Sender<Raw>,
}

struct Other {
    steps: Sender<String>,
    tx: Sender<Raw>,
    rx: Receiver<Raw>,
    program: Program,
}

impl Other {
    fn start(language: Language) -> Self {
        let (steps, to_do) = channel().unwrap();
        let (tx, source) = channel().unwrap();
        let (to, rx) = channel().unwrap();
        let table = Table {
            steps: to_do,
            source,
            to,
        };
        let program = language.start("table", table);
        Self {
            steps,
            tx,
            rx,
            program,
        }
    }

    /// The text of what it has received as a value of that type.
    fn makes<T: Serialize>(&self, of_type: &str, message: T) -> String {
        self.steps.send(format!("read {of_type}")).unwrap();
        self.tx.clone().cast::<T>().send(message).unwrap();
        self.rx.recv().unwrap().text().to_owned()
    }

    fn sends<T: DeserializeOwned>(&self, value: &str) -> Result<T, Error> {
        self.steps.send(format!("send {value}")).unwrap();
        self.rx.clone().cast::<T>().recv()
    }

    fn is_refused<T: DeserializeOwned + Debug>(&self, value: &str) {
        let error = self.sends::<T>(value).unwrap_err();
        assert!(matches!(error, Error::Decode { .. }), "{value}: {error}");
    }

    fn ends(self) {
        drop(self.steps);
        self.program.succeeds();
        assert!(matches!(self.rx.recv(), Err(Error::Disconnected)));
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum FloatFirst {
    Float(f64),
    Integer(u64),
}

const LARGE: u64 = (1 << 53) + 1;

fn nested(levels: usize) -> Value {
    (1..levels).fold(Value::Array(vec![]), |inner, _| Value::Array(vec![inner]))
}

fn what_comes_from_rust(language: Language) {
    let other = Other::start(language);
    assert_eq!(other.makes("optional float", None::<f64>), "null");
    assert_eq!(other.makes("optional float", Some(0.5)), "0.5");
    // What serde buffers they do not.
    let inner = BTreeMap::from([(7_u32, 2_u32)]);
    let part = Inner { inner };
    assert_eq!(
        other.makes("keys", Flattened { part }),
        r#"{"inner":{"7":2}}"#
    );
    let wide = Tagged::One(Inner { inner: u128::MAX });
    let text = r#"{"kind":"One","inner":340282366920938463463374607431768211455}"#;
    assert_eq!(other.makes("wide", wide), text);
    for wide in [i128::MIN, i128::MAX, i128::from(LARGE)] {
        assert_eq!(other.makes("anything", wide), wide.to_string());
    }
    // A float field has the floats' digits.
    assert_eq!(other.makes("float", LARGE), "9007199254740992.0");
    assert_eq!(other.makes("float", FloatFirst::Float(0.1)), "0.1");
    assert_eq!(other.makes("float", 0.1_f32), "0.1");
    assert_eq!(other.makes("float", -0.0), "-0.0");
    assert_eq!(other.makes("anything", -0.0), "-0.0");
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
    let text = r#"{"secs_since_epoch":1,"nanos_since_epoch":500000000}"#;
    assert_eq!(other.makes("time", time), text);
    assert_eq!(other.makes("bytes", [0_u8, 255]), "[0,255]");
    let text = "\u{0}\u{1f600}\u{2028}\u{ffff}".to_owned();
    assert_eq!(
        other.makes("anything", text.clone()),
        serde_json::to_string(&text).unwrap()
    );
    let deepest = nested(127);
    assert_eq!(other.makes("anything", &deepest), deepest.to_string());
    other.ends();
}

fn what_comes_to_rust(language: Language) {
    let other = Other::start(language);
    for value in [
        "NaN",
        "infinity",
        "no Unicode",
        "a key that is no Unicode",
        "128 levels",
        "keys that are lists",
        "keys that are written alike",
        "something that is written null",
    ] {
        assert_eq!(other.sends::<String>(value).unwrap(), "refused", "{value}");
    }
    // Rust refuses, or changes, what only it knows to be too much.
    other.is_refused::<u64>("2^64+1");
    assert_eq!(other.sends::<u128>("2^64+1").unwrap(), (1 << 64) + 1);
    let changed = other.sends::<Value>("2^64+1").unwrap();
    assert_eq!(changed.as_f64(), Some(18_446_744_073_709_551_616.0));
    other.is_refused::<Flattened<u128>>("2^64+1 in a record");
    other.is_refused::<Flattened<BTreeMap<u32, u32>>>("keys");
    assert_eq!(
        other.sends::<Inner<BTreeMap<u32, u32>>>("keys").unwrap(),
        Inner {
            inner: BTreeMap::from([(7, 2)])
        }
    );
    let changed = other.sends::<FloatFirst>("2^53+1").unwrap();
    assert_eq!(changed, FloatFirst::Float(9_007_199_254_740_992.0));
    assert_eq!(other.sends::<u64>("2^53+1").unwrap(), LARGE);
    let zero = other.sends::<f64>("minus zero").unwrap();
    assert_eq!(zero.to_bits(), (-0.0_f64).to_bits());
    assert_eq!(other.sends::<Option<f64>>("nothing").unwrap(), None);
    let deepest = other.sends::<Value>("127 levels").unwrap();
    assert_eq!(deepest, nested(127));
    other.ends();
}

macro_rules! tests {
    ($($name:ident: $run:ident($language:ident);)*) => {
        $(
            #[test]
            fn $name() {
                if can_run(&[$language]) {
                    in_own_process(|| $run($language));
                }
            }
        )*
    };
}

tests! {
    python_makes_of_what_rust_sends_what_the_table_says: what_comes_from_rust(Python);
    go_makes_of_what_rust_sends_what_the_table_says: what_comes_from_rust(Go);
    rust_makes_of_what_python_sends_what_the_table_says: what_comes_to_rust(Python);
    rust_makes_of_what_go_sends_what_the_table_says: what_comes_to_rust(Go);
}
