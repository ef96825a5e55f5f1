//! What names, ids and numbers may be.

use crate::error::{Error, Result};
use crate::excerpt::excerpt;

const NAME: &str = "a name is 1 to 64 characters, each an ASCII letter, a digit, `-` or `_`";

const ID: &str = "an id is 1 to 255 visible ASCII characters, without blanks";

/// How many requests for a job the server keeps for one queue.
pub(crate) const MAX_REQUESTS: usize = 16_384;

const IN_FLIGHT: &str = "it is at most 16384, as many as the server keeps requests";

/// Checks the name of a queue: it becomes a stream, a subject and a folder of the server.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    check("name of a queue", NAME, name, 64, is_fine)
}

/// Checks the id of a job: it becomes a header.
pub(crate) fn check_id(id: &str) -> Result<()> {
    check("id of a job", ID, id, 255, |byte| byte.is_ascii_graphic())
}

/// Checks how many jobs a bridge has in flight: it makes a request for each.
pub(crate) fn check_in_flight(jobs: usize) -> Result<()> {
    match jobs {
        ..=MAX_REQUESTS => Ok(()),
        _ => Err(Error::Invalid {
            what: "number of jobs in flight",
            value: jobs.to_string(),
            rule: IN_FLIGHT,
        }),
    }
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
    fn jobs_in_flight_are_bounded() {
        assert!(IN_FLIGHT.contains(&MAX_REQUESTS.to_string()));
        check_in_flight(0).unwrap();
        check_in_flight(MAX_REQUESTS).unwrap();
        let error = check_in_flight(MAX_REQUESTS + 1).unwrap_err().to_string();
        let start = "invalid number of jobs in flight `16385`: it is at most 16384";
        assert!(error.starts_with(start), "{error}");
    }

    #[test]
    fn ids_cannot_end_a_header() {
        check_id("order:17/a%").unwrap();
        for id in ["", "a b", "a\r\nX: y", "é", "a\0", &"x".repeat(256)] {
            check_id(id).unwrap_err();
        }
    }
}
