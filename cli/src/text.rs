//! Texts that pass through undecoded: what is checked of them, and how they become lines.

use std::fmt::Write;

/// The deepest nesting that receivers take.
const MAX_DEPTH: u32 = 127;

/// Checks a text that is JSON by its grammar for what receivers refuse nevertheless: nesting that is too deep, and
/// escapes that are half of a character.
pub(crate) fn check(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let column = at + 1;
                    return Err(format!(
                        "nested deeper than {MAX_DEPTH} levels at column {column}"
                    ));
                }
            }
            b']' | b'}' => depth -= 1,
            b'"' => at = check_string(bytes, at)?,
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// Checks the string that begins at `start`, and gives the place of the quote that ends it.
fn check_string(bytes: &[u8], start: usize) -> Result<usize, String> {
    let mut at = start + 1;
    while let Some(found) = bytes
        .get(at..)
        .and_then(|rest| memchr::memchr2(b'"', b'\\', rest))
    {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return Ok(at);
        }
        let column = at + 1;
        match unit(bytes, at) {
            Some(0xd800..=0xdbff) => match unit(bytes, at + 6) {
                Some(0xdc00..=0xdfff) => at += 12,
                _ => return Err(format!("lone leading surrogate at column {column}")),
            },
            Some(0xdc00..=0xdfff) => {
                return Err(format!("lone trailing surrogate at column {column}"));
            }
            _ => at += 2,
        }
    }
    Ok(bytes.len())
}

/// The UTF-16 unit that a `\u` escape at a place stands for.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Appends a text as a line. Line feeds, which JSON allows between values, become spaces.
pub(crate) fn push_line(line: &mut Vec<u8>, text: &str) {
    let start = line.len();
    line.extend_from_slice(text.as_bytes());
    for byte in line.iter_mut().skip(start) {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
    line.push(b'\n');
}

/// Makes bytes of a stranger fit for a terminal, and no wider than `width` characters.
pub(crate) fn excerpt(bytes: &[u8], width: usize) -> String {
    let mut excerpt = String::new();
    // A character has at most 4 bytes; what is cut off has at least one.
    let seen = bytes
        .get(..width.saturating_mul(4).saturating_add(4))
        .unwrap_or(bytes);
    for (count, character) in String::from_utf8_lossy(seen).chars().enumerate() {
        if count >= width {
            excerpt.push_str("...");
            break;
        }
        if is_plain(character) {
            excerpt.push(character);
        } else {
            let _ = write!(excerpt, "{}", character.escape_default());
        }
    }
    excerpt
}

/// Whether a character takes up a place and changes nothing around it: no control character, nothing invisible, nothing
/// that turns the direction of writing.
fn is_plain(character: char) -> bool {
    character == ' '
        || character.escape_debug().len() == 1
        || matches!(character, '"' | '\'' | '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_ends_at_127_levels() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        check(&nested(127)).unwrap();
        let error = check(&nested(128)).unwrap_err();
        assert_eq!(error, "nested deeper than 127 levels at column 128");
        check(&format!("[{0},{0}]", nested(126))).unwrap();
        check(&format!("\"{}\"", "[".repeat(500))).unwrap();
    }

    #[test]
    fn escapes_are_whole_characters() {
        for good in [
            r#""\ud83d\ude00""#,
            r#""\\ud800""#,
            r#""\u0000\"[""#,
            r#"{"a\\":"\\"}"#,
            "\"é😀\"",
        ] {
            check(good).unwrap();
        }
        for bad in [
            r#""\ud800""#,
            r#""\udc00""#,
            r#""\ud800\ud800""#,
            r#""\ud800x""#,
            r#"[1,"\\\udfff"]"#,
        ] {
            assert!(check(bad).unwrap_err().contains("surrogate"), "{bad}");
        }
        assert!(
            check(r#"["",0,"\uDC00"]"#)
                .unwrap_err()
                .ends_with("column 8")
        );
    }

    #[test]
    fn a_line_is_one_line() {
        let mut line = Vec::new();
        push_line(&mut line, "[1,\n\"a\\nb\"]");
        assert_eq!(line, b"[1, \"a\\nb\"]\n");
    }

    #[test]
    fn an_excerpt_is_harmless_and_short() {
        assert_eq!(excerpt(b"{\"a\":\"b\"}", 80), "{\"a\":\"b\"}");
        assert_eq!(
            excerpt("a\u{1b}[2J\u{202e}é".as_bytes(), 80),
            "a\\u{1b}[2J\\u{202e}é"
        );
        assert_eq!(excerpt("ééééé".as_bytes(), 3), "ééé...");
        assert_eq!(excerpt(b"\xff\xfe", 80), "\u{fffd}\u{fffd}");
    }
}
