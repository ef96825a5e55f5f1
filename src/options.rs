//! Settings of a channel.

use std::time::Duration;

/// How long an end spins unless it is told otherwise.
pub(crate) const DEFAULT_SPIN: Duration = Duration::from_micros(50);

/// The largest messages that one handle of an end sends and receives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of the text.
    pub(crate) message_len: usize,
    /// Bytes of all blobs of a received message together.
    pub(crate) blob_len: u64,
}

impl Limits {
    pub(crate) const DEFAULT: Self = Limits {
        message_len: 64 * 1024 * 1024,
        blob_len: 1024 * 1024 * 1024,
    };
}

/// How large the kernel's buffer is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BufferSize {
    /// As large as the kernel makes it.
    Default,
    /// That many bytes, or it is an error.
    Exactly(usize),
    /// That many bytes, or as many as are allowed.
    UpTo(usize),
}

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
    pub(crate) limits: Limits,
    pub(crate) buffer: BufferSize,
    pub(crate) spin: Duration,
}

impl Options {
    /// Starts from the defaults: messages of at most 64 MiB, blobs of at most 1 GiB, the kernel's default
    /// buffer.
    #[must_use]
    pub fn new() -> Self {
        Options {
            limits: Limits::DEFAULT,
            buffer: BufferSize::Default,
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
        self.limits.message_len = bytes;
        self
    }

    /// Sets how many bytes the [`Blob`](crate::Blob)s of one received message may have together. 1 GiB by default.
    ///
    /// A message with more is an [`Error::Decode`](crate::Error::Decode) that names both numbers; nothing of it
    /// has been mapped then. It holds for receivers only, as it protects the process that receives: a blob that
    /// costs its sender nothing, because it has used no memory yet, takes up address space here. Sending has no
    /// such limit. A receiver that is sent in a message arrives with the default:
    /// [`Receiver::set_max_blob_len`](crate::Receiver::set_max_blob_len) sets it there.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Blob, Error, Options};
    ///
    /// let (tx, rx) = Options::new().max_blob_len(1000).channel::<Vec<Blob>>()?;
    /// let blob = Blob::from_bytes(&[7; 400])?;
    /// tx.send(vec![blob.clone(), blob.clone()])?;
    /// assert_eq!(rx.recv()?.len(), 2);
    ///
    /// tx.send(vec![blob.clone(), blob.clone(), blob])?;
    /// let error = rx.recv().unwrap_err();
    /// assert!(matches!(error, Error::Decode { .. }));
    /// assert!(error.to_string().contains("blobs of 1200 bytes are longer than the limit of 1000 bytes"));
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn max_blob_len(mut self, bytes: u64) -> Self {
        self.limits.blob_len = bytes;
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
        self.buffer = BufferSize::Exactly(bytes);
        self
    }

    /// Sets the size of the kernel's buffer, as [`buffer`](Self::buffer) does, or makes it as large as
    /// `net.core.wmem_max` allows if that is less. `usize::MAX` asks for as much as is allowed.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::{Error, Options};
    ///
    /// let (tx, rx) = Options::new().buffer_up_to(usize::MAX).channel::<u32>()?;
    /// while tx.try_send(7).is_ok() {}
    /// assert!(rx.try_iter().count() >= 278); // as many as without, or more
    /// assert!(Options::new().buffer(usize::MAX).channel::<u32>().is_err());
    /// # Ok::<(), Error>(())
    /// ```
    #[must_use]
    pub fn buffer_up_to(mut self, bytes: usize) -> Self {
        self.buffer = BufferSize::UpTo(bytes);
        self
    }

    /// Sets for how long a call that waits spins before it sleeps. 50 µs by default, zero turns it off.
    ///
    /// While answers come that fast, an end spins: it looks again and again and lets other processes run in
    /// between ([`sched_yield(2)`](https://man7.org/linux/man-pages/man2/sched_yield.2.html)), because waking up
    /// takes longer than that. It stops doing so as soon as it has been in vain; where messages have been coming late,
    /// most calls sleep without even one look before. The setting holds for both
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
