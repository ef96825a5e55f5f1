//! Where a channel is: a path, an abstract name, or a descriptor that is open already.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// The longest name of a socket.
const MAX_NAME: usize = 107;

/// The lowest descriptor that may be named: those below are the standard streams.
pub(crate) const FIRST_FD: RawFd = 3;

/// What stands for `ADDR` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `path`, or `@name`, an abstract name. As the library takes it: an abstract name begins with a NUL.
    Name(PathBuf),
    /// `fd:N`.
    Fd(RawFd),
}

impl Address {
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }

    fn parse(text: OsString) -> Result<Self, String> {
        let bytes = text.into_vec();
        if let Some(number) = bytes.strip_prefix(b"fd:") {
            let number = std::str::from_utf8(number).ok().map(RawFd::from_str);
            return match number {
                Some(Ok(number)) if number >= FIRST_FD => Ok(Address::Fd(number)),
                _ => Err(format!(
                    "after `fd:` comes the number of an open descriptor, {FIRST_FD} or more; \
                     a file of that name is `./fd:...`"
                )),
            };
        }
        let (name, kind) = match bytes.strip_prefix(b"@") {
            Some(name) => (name, "an abstract name"),
            None => (&*bytes, "the path of a socket"),
        };
        if name.is_empty() {
            return Err(format!("{kind} cannot be empty"));
        }
        if name.len() > MAX_NAME {
            let len = name.len();
            return Err(format!(
                "{kind} has at most {MAX_NAME} bytes, this one has {len}"
            ));
        }
        let name = match bytes.strip_prefix(b"@") {
            Some(name) => [b"\0", name].concat(),
            None => bytes,
        };
        Ok(Address::Name(OsString::from_vec(name).into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Fd(number) => write!(f, "fd:{number}"),
            Address::Name(name) => match name.as_os_str().as_bytes().strip_prefix(b"\0") {
                Some(name) => write!(f, "@{}", OsStr::from_bytes(name).display()),
                None => write!(f, "{}", name.display()),
            },
        }
    }
}

/// What stands for a descriptor on the command line: a number, or a file to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FdArgument {
    /// Digits alone.
    Number(RawFd),
    /// Anything else.
    File(PathBuf),
}

impl FdArgument {
    pub(crate) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().try_map(Self::parse)
    }

    fn parse(text: OsString) -> Result<Self, String> {
        let bytes = text.as_bytes();
        if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_digit) {
            return Ok(FdArgument::File(Path::new(&text).to_owned()));
        }
        let number = text.to_str().map(RawFd::from_str);
        match number {
            Some(Ok(number)) => Ok(FdArgument::Number(number)),
            _ => {
                Err("there is no descriptor of that number; a file of that name is `./...`".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_a_name_or_a_descriptor() {
        let parse = |text: &str| Address::parse(text.into());
        assert_eq!(parse("/run/x").unwrap(), Address::Name("/run/x".into()));
        assert_eq!(parse("@x").unwrap(), Address::Name("\0x".into()));
        assert_eq!(parse("./@x").unwrap(), Address::Name("./@x".into()));
        assert_eq!(parse("fd:12").unwrap(), Address::Fd(12));
        assert_eq!(parse("./fd:12").unwrap(), Address::Name("./fd:12".into()));
        for bad in ["", "@", "fd:", "fd:2", "fd:x", "fd:99999999999"] {
            parse(bad).unwrap_err();
        }
        let longest = "x".repeat(MAX_NAME);
        parse(&longest).unwrap();
        parse(&format!("@{longest}")).unwrap();
        let error = parse(&format!("{longest}x")).unwrap_err();
        assert_eq!(
            error,
            "the path of a socket has at most 107 bytes, this one has 108"
        );
    }

    #[test]
    fn a_descriptor_is_a_number_or_a_file() {
        let parse = |text: &str| FdArgument::parse(text.into());
        assert_eq!(parse("7").unwrap(), FdArgument::Number(7));
        assert_eq!(parse("./7").unwrap(), FdArgument::File("./7".into()));
        assert_eq!(parse("x7").unwrap(), FdArgument::File("x7".into()));
        parse("99999999999").unwrap_err();
    }
}
