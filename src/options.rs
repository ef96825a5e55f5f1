//! Settings of a channel.

use std::time::Duration;

/// The longest text, in bytes, that an end sends and receives unless it is told otherwise.
pub(crate) const DEFAULT_MAX_MESSAGE_LEN: usize = 64 * 1024 * 1024;

/// How long an end spins unless it is told otherwise.
pub(crate) const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// Settings for a new channel. [`channel`](crate::channel) uses the defaults, as do
/// [`Listener::bind`](crate::Listener::bind) and [`Sender::connect`](crate::Sender::connect).
///
/// # Examples
///
/// ```
/// use wormhole::{Error, Options};
///
/// let (tx, rx) = Options::new().max_message_len(16).channel::<String>()?;
/// tx.send("short".to_owned())?;
/// assert_eq!(rx.recv()?, "short");
///
/// let error = tx.send("a text that is longer".to_owned()).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "message of 23 bytes is longer than the limit of 16 bytes"
/// );
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    pub(crate) max_message_len: usize,
    pub(crate) buffer: Option<usize>,
    pub(crate) spin: Duration,
}

impl Options {
    /// Starts from the defaults: messages of at most 64 MiB, the kernel's default buffer.
    #[must_use]
    pub fn new() -> Self {
        Options {
            max_message_len: DEFAULT_MAX_MESSAGE_LEN,
            buffer: None,
            spin: DEFAULT_SPIN,
        }
    }

    /// Sets the longest message, in bytes of its JSON text. 64 MiB by default.
    ///
    /// It holds for both ends, and for their copies in other processes after a fork. An end that is sent
    /// in a message arrives with the default, as the limit protects the process that receives:
    /// [`Receiver::set_max_message_len`](crate::Receiver::set_max_message_len) sets it there.
    #[must_use]
    pub fn max_message_len(mut self, bytes: usize) -> Self {
        self.max_message_len = bytes;
        self
    }

    /// Sets the size of the kernel's buffer in bytes: how much may be sent that is not yet received.
    ///
    /// This is `SO_SNDBUF` of [`socket(7)`](https://man7.org/linux/man-pages/man7/socket.7.html): the
    /// kernel doubles the number to make room for its bookkeeping (some 770 bytes for a small message),
    /// and raises one that is below its minimum. The default is `net.core.wmem_default`, usually
    /// 212,992 bytes, in which 278 messages of up to 184 bytes fit. Of a longer message than the buffer
    /// takes, or than 256 KiB, the rest is in a memfd and does not count.
    #[must_use]
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = Some(bytes);
        self
    }

    /// Sets how long a call that waits stays awake before it sleeps. 50 µs by default, zero turns it off.
    ///
    /// While answers come that fast, an end waits for them awake, looking again and again and letting other
    /// processes run in between ([`sched_yield(2)`](https://man7.org/linux/man-pages/man2/sched_yield.2.html)),
    /// because to be woken takes longer. It stops doing so as soon as it has been in vain. It holds for both
    /// ends, for `recv`, `send` and their forms with a timeout, and for [`select!`](crate::select!) and
    /// [`ReceiverSet`](crate::ReceiverSet); an end that is sent in a message arrives with the default.
    #[must_use]
    pub fn spin(mut self, limit: Duration) -> Self {
        self.spin = limit;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}
