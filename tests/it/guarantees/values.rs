//! Guarantee 10: numbers and strings arrive exactly as they left. Arbitrary values, there and back.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wormhole::channel;

fn there_and_back<T: Serialize + DeserializeOwned>(value: &T) -> T {
    let (tx, rx) = channel::<T>().unwrap();
    tx.by_ref().send(value).unwrap();
    rx.recv().unwrap()
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(Option<i64>),
    Text { text: String, tag: char },
    Branch(Vec<Tree>),
    Map(BTreeMap<String, Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        any::<Option<i64>>().prop_map(Tree::Leaf),
        any::<(String, char)>().prop_map(|(text, tag)| Tree::Text { text, tag }),
    ];
    leaf.prop_recursive(8, 200, 10, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..10).prop_map(Tree::Branch),
            prop::collection::btree_map(any::<String>(), inner, 0..10).prop_map(Tree::Map),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn g10_finite_f64_arrives_exactly(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        prop_assert_eq!(there_and_back(&value).to_bits(), bits);
    }

    #[test]
    fn g10_finite_f32_arrives_exactly(bits in any::<u32>()) {
        let value = f32::from_bits(bits);
        prop_assume!(value.is_finite());
        prop_assert_eq!(there_and_back(&value).to_bits(), bits);
    }

    #[test]
    fn g10_integers_arrive_exactly(a in any::<i128>(), b in any::<u128>(), c in any::<i64>(), d in any::<u64>()) {
        prop_assert_eq!(there_and_back(&(a, b, c, d)), (a, b, c, d));
    }

    #[test]
    fn g10_strings_arrive_exactly(text in any::<String>(), chars in any::<Vec<char>>()) {
        let value = (text, chars);
        prop_assert_eq!(&there_and_back(&value), &value);
    }

}

proptest! {
    // Each of them is hundreds of the above.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn g10_nested_values_arrive_exactly(value in tree()) {
        prop_assert_eq!(&there_and_back(&value), &value);
    }
}

#[test]
fn g10_numbers_at_the_edges_arrive_exactly() {
    for value in [
        0.0,
        -0.0,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        f64::MIN,
        f64::EPSILON,
        9_007_199_254_740_993.0,
        0.1,
        1e23,
    ] {
        assert_eq!(there_and_back(&value).to_bits(), value.to_bits());
    }
    for value in [i128::MIN, i128::MAX, 0, -1] {
        assert_eq!(there_and_back(&value), value);
    }
    assert_eq!(there_and_back(&u128::MAX), u128::MAX);
    assert_eq!(there_and_back(&u64::MAX), u64::MAX);
}
