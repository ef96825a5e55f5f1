//! Writes the seeds: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use wormhole::{Blob, Receiver, Sender};
use wormhole_fuzz::{Fd, Job, Kind, Message, Order, Request, Shape, Tree};

fn main() {
    seeds("packets", packets());
    seeds("fields", fields());
    seeds("round_trip", round_trip());
    seeds("operations", operations());
}

fn seeds(target: &str, seeds: Vec<Vec<u8>>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("{number:02}")), seed).unwrap();
    }
    println!("{}: {} seeds", folder.display(), seeds.len());
}

/// A packet as `Packet::read` takes it.
fn packet(header: u8, spilled: u8, kinds: &[Kind], text: &str) -> Vec<u8> {
    let kinds: Vec<u8> = kinds.iter().map(|&kind| number(kind)).collect();
    let len = u16::try_from(text.len()).unwrap().to_le_bytes();
    let count = u8::try_from(kinds.len()).unwrap();
    [&[header, spilled, count], &kinds[..], &len, text.as_bytes()].concat()
}

fn number(kind: Kind) -> u8 {
    let place = Kind::ALL.iter().position(|&other| other == kind);
    u8::try_from(place.unwrap()).unwrap()
}

/// The good message of each type of `packets`, in its order.
const GOOD: [(&str, &[Kind]); 16] = [
    u32::GOOD,
    String::GOOD,
    Vec::<u8>::GOOD,
    <(f64, i64, bool)>::GOOD,
    Option::<BTreeMap<String, ()>>::GOOD,
    Order::GOOD,
    Shape::GOOD,
    serde_json::Value::GOOD,
    <()>::GOOD,
    Fd::GOOD,
    Sender::<u8>::GOOD,
    Receiver::<String>::GOOD,
    Blob::GOOD,
    Job::GOOD,
    Request::GOOD,
    Tree::GOOD,
];

fn packets() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    // Each type: its good message whole, through a memfd, and with one descriptor more.
    for (number, (text, kinds)) in (0..).zip(GOOD) {
        let long = [&[Kind::Rest], kinds].concat();
        let more = [kinds, &[Kind::Null]].concat();
        seeds.push(
            [
                vec![number, number],
                packet(0, 0, kinds, text),
                packet(0, 128, &long, text),
                packet(0, 255, &long, text),
                packet(0, 0, &more[..more.len().min(7)], text),
            ]
            .concat(),
        );
    }
    // Each kind of descriptor in place of the memfd, and in place of one that a field wants.
    for kinds in Kind::ALL.chunks(4) {
        let wrong: Vec<u8> = kinds
            .iter()
            .flat_map(|&kind| packet(0, 200, &[kind], "\"some text\""))
            .collect();
        seeds.push([&[1, 1], &wrong[..]].concat());
        for wanted in [9, 10, 12] {
            let fields: Vec<u8> = kinds
                .iter()
                .flat_map(|&kind| packet(0, 0, &[kind], "0"))
                .collect();
            seeds.push([&[wanted, 0], &fields[..]].concat());
        }
    }
    // Each lie of the length field.
    let lies =
        (4..8).flat_map(|header| [packet(header, 0, &[], "\"text\""), vec![255; 8]].concat());
    seeds.push([1, 2].into_iter().chain(lies).collect());
    seeds
}

fn fields() -> Vec<Vec<u8>> {
    // A third of the text through a memfd, and more descriptors than there are fields.
    let input = |message, form, spilled, count, first, text: &str| {
        [&[message, form, spilled, count, first], text.as_bytes()].concat()
    };
    let mut seeds = Vec::new();
    let job = r#"{"name":"","input":0,"reply":1,"data":2}"#;
    let all = r#"{"name":"a","input":7,"reply":1,"more":[0,3],"log":5,"jobs":8,"data":2,"by_name":{"b":6,"c":4}}"#;
    let twice = r#"{"name":"a","input":0,"reply":1,"by_name":{"b":2,"b":3,"c":4}}"#;
    for (form, (count, text)) in (0..).zip([(3, job), (9, all), (5, twice), (4, job)]) {
        seeds.push(input(0, form, 0, count, 0, text));
        seeds.push(input(0, form, 85, count, 0, text));
    }
    for index in [
        "0",
        "1",
        "-1",
        "-0",
        "1.0",
        "1e0",
        "18446744073709551615",
        "\"0\"",
        "null",
        "[0]",
        "00",
    ] {
        seeds.push(input(3, 0, 0, 1, 0, index));
        seeds.push(input(1, 1, 0, 2, 0, &format!("{{\"Two\":[0,{index}]}}")));
        seeds.push(input(
            2,
            1,
            0,
            2,
            0,
            &format!("[{index},[[1,[]],[null,[]]]]"),
        ));
    }
    let request = r#"{"List":["Nothing",{"Ends":{"rx":1,"tx":8}},{"Two":[3,0]},{"Data":4},{"Either":{"Err":3}}]}"#;
    seeds.push(input(1, 0, 0, 11, 0, request));
    seeds.push(input(4, 1, 0, 2, 0, "1"));
    seeds.push(input(5, 1, 0, 3, 0, "2"));
    seeds
}

fn round_trip() -> Vec<Vec<u8>> {
    // What the bytes mean is up to the crate `arbitrary`, so they may as well be noise.
    let mut state = 1_u64;
    let mut noise = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..24)
        .map(|number| (0..16 << (number % 8)).map(|_| noise()).collect())
        .collect()
}

fn operations() -> Vec<Vec<u8>> {
    let sequences: [&[u8]; 13] = [
        // Send and receive; then nothing is there; then nobody.
        &[5, 0, 0, 0, 0, 7, 0, 4, 7, 0, 4, 2, 0, 7, 0, 4],
        // The receiver goes first.
        &[5, 0, 0, 0, 0, 4, 0, 5, 0, 0, 0, 0],
        // Clones of both, one after the other gone.
        &[
            1, 0, 3, 0, 2, 0, 5, 0, 0, 0, 0, 4, 1, 7, 0, 4, 2, 0, 7, 0, 2,
        ],
        // Until it is full.
        &[9, 0, 5, 0, 0, 0, 0, 3, 7, 0, 4, 5, 0, 0, 0, 0, 3],
        &[0, 1, 9, 1, 5, 1, 0, 0, 0, 2, 7, 1, 4],
        // Long ones, through memfds.
        &[
            0, 1, 6, 60, 1, 4, 0, 0, 0, 7, 1, 0, 6, 255, 1, 0, 0, 0, 3, 7, 1, 4,
        ],
        // Longer than the limit; and for the receiver only, as an end that was a descriptor has the default.
        &[0, 3, 6, 50, 1, 0, 0, 0, 3, 7, 1, 4],
        &[0, 3, 11, 0, 1, 6, 50, 1, 0, 0, 0, 3, 7, 1, 4, 7, 1, 4],
        // The second channel's ends through the first, dropped here, and used from there.
        &[
            0, 0, 5, 0, 3, 1, 1, 0, 2, 1, 4, 1, 7, 0, 0, 5, 1, 0, 0, 0, 0, 7, 1, 4,
        ],
        // The only receiver dies in a message that nobody receives.
        &[
            0, 0, 5, 0, 2, 0, 1, 3, 4, 1, 5, 1, 0, 0, 0, 0, 4, 0, 5, 1, 0, 0, 0, 3,
        ],
        // Descriptors beside a message, asked for and not.
        &[5, 0, 4, 0, 0, 193, 7, 0, 1, 5, 0, 4, 0, 0, 65, 7, 0, 4],
        // A choice, a set, garbage, ends made of descriptors.
        &[
            0, 0, 10, 2, 0, 1, 1, 0, 0, 0, 0, 0, 10, 2, 0, 1, 0, 1, 13, 2, 0, 1, 12, 0, 7, 0, 4,
        ],
        &[
            11, 0, 0, 11, 1, 0, 5, 0, 7, 0, 0, 2, 12, 0, 13, 1, 0, 13, 1, 0, 2, 0, 13, 1, 0,
        ],
    ];
    sequences.iter().map(|sequence| sequence.to_vec()).collect()
}
