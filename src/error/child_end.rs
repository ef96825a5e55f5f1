//! How a child process ended.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::excerpt::excerpt;

/// How a child ended that did not return a value.
///
/// It can be sent and logged: serialized it is a map, such as `{"exited":3}` or
/// `{"killed":6,"core_dumped":true}`.
///
/// # Examples
///
/// ```
/// use wormhole::{ChildEnd, Error, channel};
///
/// let end = ChildEnd::Killed { signal: 6, core_dumped: false };
/// assert_eq!(end.to_string(), "child process was killed by signal 6 (SIGABRT)");
///
/// let (tx, rx) = channel::<ChildEnd>()?;
/// tx.send(end.clone())?;
/// assert_eq!(rx.recv()?, end);
/// assert!(serde_json::from_str::<ChildEnd>(r#"{"vanished":1}"#).is_err());
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildEnd {
    /// Its function panicked. Its exit status was 101.
    Panicked {
        /// The message of the panic. The text of the error shows the beginning of it, on one line.
        message: String,
    },
    /// It exited by itself, for instance with [`std::process::exit`], with this status, which may be 0.
    Exited {
        /// The exit status.
        code: i32,
    },
    /// A signal ended it.
    Killed {
        /// The signal's number, see `signal(7)`.
        signal: i32,
        /// Whether the kernel wrote a core dump.
        core_dumped: bool,
    },
    /// Its function returned, but the value could not be sent: it cannot be written as JSON, or has more than
    /// 64 MiB of text, or too many descriptors. Or the function was not called at all, because the child could not
    /// get ready for it: its arguments did not arrive, say.
    Undelivered {
        /// The error of the send.
        reason: String,
    },
    /// It ended, and something else took its exit status: a `waitpid` for any child in this process, a `SIGCHLD`
    /// that is ignored, or a debugger that has not let go of it.
    Unknown,
    /// Its value, or how it ended, was taken before.
    Joined,
}

impl ChildEnd {
    /// Writes the text, with the process id where it is known.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, pid: Option<u32>) -> fmt::Result {
        f.write_str("child process ")?;
        if let Some(pid) = pid {
            write!(f, "{pid} ")?;
        }
        match self {
            // A child that has been taken over may claim anything.
            ChildEnd::Panicked { message } => write!(f, "panicked: {}", excerpt(message)),
            ChildEnd::Exited { code } => write!(f, "exited with status {code}"),
            ChildEnd::Killed {
                signal,
                core_dumped,
            } => {
                write!(f, "was killed by signal {signal}")?;
                if let Some(name) = signal_name(*signal) {
                    write!(f, " ({name})")?;
                }
                f.write_str(if *core_dumped {
                    ", with a core dump"
                } else {
                    ""
                })
            }
            ChildEnd::Undelivered { reason } => {
                write!(f, "could not deliver its result: {}", excerpt(reason))
            }
            ChildEnd::Unknown => {
                f.write_str("ended without a result, and something else took its exit status")
            }
            ChildEnd::Joined => f.write_str("was joined already"),
        }
    }
}

impl fmt::Display for ChildEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, None)
    }
}

// By hand, as a child may have panicked with 30 MB of text.
impl fmt::Debug for ChildEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildEnd::Panicked { message } => f
                .debug_struct("Panicked")
                .field("message", &excerpt(message))
                .finish(),
            ChildEnd::Exited { code } => f.debug_struct("Exited").field("code", code).finish(),
            ChildEnd::Killed {
                signal,
                core_dumped,
            } => f
                .debug_struct("Killed")
                .field("signal", signal)
                .field("core_dumped", core_dumped)
                .finish(),
            ChildEnd::Undelivered { reason } => f
                .debug_struct("Undelivered")
                .field("reason", &excerpt(reason))
                .finish(),
            ChildEnd::Unknown => f.write_str("Unknown"),
            ChildEnd::Joined => f.write_str("Joined"),
        }
    }
}

/// What `signal(7)` calls a signal, except those for real-time use.
fn signal_name(signal: i32) -> Option<&'static str> {
    macro_rules! names {
        ($($name:ident)*) => {
            [$((libc::$name, stringify!($name))),*]
        };
    }
    let names = names!(
        SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2
        SIGPIPE SIGALRM SIGTERM SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU
        SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO SIGPWR SIGSYS
    );
    let found = names.iter().find(|(number, _)| *number == signal);
    found.map(|(_, name)| *name)
}

const PANICKED: &str = "panicked";
const EXITED: &str = "exited";
const KILLED: &str = "killed";
const CORE_DUMPED: &str = "core_dumped";
const UNDELIVERED: &str = "undelivered";
const UNKNOWN: &str = "unknown";
const JOINED: &str = "joined";

impl Serialize for ChildEnd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            ChildEnd::Panicked { message } => map.serialize_entry(PANICKED, message)?,
            ChildEnd::Exited { code } => map.serialize_entry(EXITED, code)?,
            ChildEnd::Killed {
                signal,
                core_dumped,
            } => {
                map.serialize_entry(KILLED, signal)?;
                map.serialize_entry(CORE_DUMPED, core_dumped)?;
            }
            ChildEnd::Undelivered { reason } => map.serialize_entry(UNDELIVERED, reason)?,
            ChildEnd::Unknown => map.serialize_entry(UNKNOWN, &())?,
            ChildEnd::Joined => map.serialize_entry(JOINED, &())?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ChildEnd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Form)
    }
}

struct Form;

impl<'de> Visitor<'de> for Form {
    type Value = ChildEnd;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("how a child process ended")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ChildEnd, A::Error> {
        let mut end = None;
        let mut dumped = false;
        while let Some(key) = map.next_key::<String>()? {
            end = Some(match key.as_str() {
                PANICKED => ChildEnd::Panicked {
                    message: map.next_value()?,
                },
                EXITED => ChildEnd::Exited {
                    code: map.next_value()?,
                },
                KILLED => ChildEnd::Killed {
                    signal: map.next_value()?,
                    core_dumped: false,
                },
                UNDELIVERED => ChildEnd::Undelivered {
                    reason: map.next_value()?,
                },
                UNKNOWN => map.next_value().map(|IgnoredAny| ChildEnd::Unknown)?,
                JOINED => map.next_value().map(|IgnoredAny| ChildEnd::Joined)?,
                CORE_DUMPED => {
                    dumped = map.next_value()?;
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            });
        }
        match end {
            Some(ChildEnd::Killed { signal, .. }) => Ok(ChildEnd::Killed {
                signal,
                core_dumped: dumped,
            }),
            Some(end) => Ok(end),
            None => Err(A::Error::custom("no way in which a child process ends")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_arrives_as_it_left() {
        let text = |text: &str| text.to_owned();
        let ends = [
            (
                ChildEnd::Panicked { message: text("a") },
                r#"{"panicked":"a"}"#,
            ),
            (ChildEnd::Exited { code: -3 }, r#"{"exited":-3}"#),
            (
                ChildEnd::Killed {
                    signal: 11,
                    core_dumped: true,
                },
                r#"{"killed":11,"core_dumped":true}"#,
            ),
            (
                ChildEnd::Undelivered { reason: text("b") },
                r#"{"undelivered":"b"}"#,
            ),
            (ChildEnd::Unknown, r#"{"unknown":null}"#),
            (ChildEnd::Joined, r#"{"joined":null}"#),
        ];
        for (end, expected) in ends {
            assert_eq!(serde_json::to_string(&end).unwrap(), expected);
            assert_eq!(serde_json::from_str::<ChildEnd>(expected).unwrap(), end);
        }
        for wrong in ["{}", "[]", r#"{"exited":"x"}"#, r#"{"core_dumped":true}"#] {
            assert!(serde_json::from_str::<ChildEnd>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_text_of_an_end_is_longer_than_people_read() {
        let message = "x".repeat(1_000_000);
        let end = ChildEnd::Panicked { message };
        assert!(format!("{end:?}").len() < 1200 && end.to_string().len() < 1200);
        let end = ChildEnd::Killed {
            signal: 40,
            core_dumped: false,
        };
        assert_eq!(end.to_string(), "child process was killed by signal 40");
    }
}
