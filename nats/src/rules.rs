//! What names and ids may be.

use crate::error::{Error, Result};
use crate::excerpt::excerpt;

const NAME: &str = "a name is 1 to 64 characters, each an ASCII letter, a digit, `-` or `_`";

const ID: &str = "an id is 1 to 255 visible ASCII characters, without blanks";

/// Checks the name of a queue: it becomes a stream, a subject and a folder of the server.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    check("name of a queue", NAME, name, 64, is_fine)
}

/// Checks the id of a job: it becomes a header.
pub(crate) fn check_id(id: &str) -> Result<()> {
    check("id of a job", ID, id, 255, |byte| byte.is_ascii_graphic())
}

fn check(
    what: &'static str,
    rule: &'static str,
    value: &str,
    limit: usize,
    is_fine: impl Fn(u8) -> bool,
) -> Result<()> {
    if (1..=limit).contains(&value.len()) && value.bytes().all(is_fine) {
        return Ok(());
    }
    Err(Error::Invalid {
        what,
        value: excerpt(value),
        rule,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_token_of_a_subject_and_one_folder() {
        for name in ["jobs", "J-0_b", &"x".repeat(64)] {
            check_name(name).unwrap();
        }
        for name in [
            "",
            "a.b",
            "a b",
            "a*",
            ">",
            "$JS",
            "a/b",
            "..",
            "a\\b",
            "jöbs",
            "a\n",
            &"x".repeat(65),
        ] {
            let error = check_name(name).unwrap_err().to_string();
            assert!(error.contains(NAME), "{error}");
        }
    }

    #[test]
    fn ids_cannot_end_a_header() {
        check_id("order:17/a%").unwrap();
        for id in ["", "a b", "a\r\nX: y", "é", "a\0", &"x".repeat(256)] {
            check_id(id).unwrap_err();
        }
    }
}
