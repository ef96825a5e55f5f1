//! The packets of `conformance/`: what is a message for a receiver of any value is a line here.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{Place, ctl, packet, raw_client, send_packet, start};

/// Bytes as the cases write them.
fn bytes(written: &Value) -> Vec<u8> {
    let hex = |text: &str| -> Vec<u8> {
        let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    };
    match written {
        Value::String(text) => hex(text),
        Value::Array(parts) => parts.iter().flat_map(bytes).collect(),
        Value::Object(part) => {
            let once = match (part.get("ascii"), part.get("hex")) {
                (Some(text), _) => text.as_str().unwrap().as_bytes().to_vec(),
                (_, Some(text)) => hex(text.as_str().unwrap()),
                _ => panic!("{written}"),
            };
            let times = part.get("times").map_or(1, |times| {
                let text = times.as_str().map(str::to_owned);
                text.unwrap_or_else(|| times.to_string()).parse().unwrap()
            });
            once.repeat(times)
        }
        _ => panic!("{written}"),
    }
}

#[test]
fn a_message_of_any_value_is_a_line_and_nothing_else_is() {
    let place = Place::new();
    let running = start(ctl(["listen", &place.at("a"), "--keep-going", "--once"]));
    let client = raw_client(place.join("a"));
    let (mut lines, mut refused) = (0, 0);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance");
    for file in ["packets", "text", "numbers", "values"] {
        let cases = fs::read_to_string(folder.join(file).with_extension("json")).unwrap();
        let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
        for case in cases {
            let name = case["name"].as_str().unwrap();
            if case.get("fds").is_some() || case.get("max_message_len").is_some() {
                continue;
            }
            let is_any = case["type"] == "any";
            // A number passes, however large it is. A text can be no value of a type, and a message nevertheless.
            let is_large = is_any && name.contains("1e309");
            let is_line = match case["error"].as_str() {
                None => true,
                Some("Malformed" | "TooLarge") => false,
                Some("Decode") if is_large => true,
                Some("Decode") if is_any => false,
                Some(_) => continue,
            };
            let sent = bytes(&case["packet"]);
            if sent.len() > 200_000 {
                continue; // more than the client's buffer
            }
            send_packet(&client, &sent, &[]);
            send_packet(&client, &packet(b"\"the end of the case\""), &[]);
            let first = running.line();
            if is_line {
                let text = String::from_utf8(sent[8..].to_vec()).unwrap();
                let text = text
                    .trim_matches([' ', '\t', '\r', '\n'])
                    .replace('\n', " ");
                assert_eq!(first, format!("{text}\n"), "{file}: {name}");
                assert_eq!(
                    running.line(),
                    "\"the end of the case\"\n",
                    "{file}: {name}"
                );
                lines += 1;
            } else {
                assert_eq!(first, "\"the end of the case\"\n", "{file}: {name}");
                refused += 1;
            }
        }
    }
    assert!(lines > 100 && refused > 15, "{lines} {refused}");
    drop(client);
    let ended = running.end();
    assert_eq!(
        (ended.code(), ended.err.lines().count()),
        (7, refused),
        "{ended:?}"
    );
}
