//! Bulk data in a message, without JSON and without copies: memory that cannot be changed any more.
//!
//! All `unsafe` of the mapping is in this file. It rests on one fact: the pages that a [`Blob`] shows are
//! those of a memfd with the seals of [`SEALS`], so no process, however hostile, can change, unmap or cut them.

use std::ffi::c_void;
use std::fmt;
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fstat, fstatfs,
};
use rustix::io::{Errno, pread, retry_on_intr};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::error::{Error, Result};
use crate::message::fields::{self, Carried, Found};
use crate::sys::memfd;
use crate::sys::registry::above_streams;

/// What makes a memfd immutable. F_SEAL_FUTURE_WRITE would not: it allows writing through a mapping made before.
// KERNEL: fcntl(2): F_SEAL_WRITE cannot be added while a writable mapping exists, no seal can be removed, and
// writing to a sealed memfd fails in every way (`nobody_can_change_a_blob`).
const SEALS: SealFlags = SealFlags::WRITE
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW);

/// What `statfs` says of memory that comes in pages. That of huge pages is another file system.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// How much memory is asked for, or copied, in one go: little enough to be done before the next signal, normally.
const STEP: usize = 1 << 22;
const LEAST_STEP: usize = 1 << 16;

/// Immutable bytes in shared memory, to send bulk data in a message: made once, sent to many.
///
/// A blob is a field of a message, or a message, like any other value. What is sent is a descriptor, whatever
/// the size, and each process that receives it maps the same memory: no JSON, no copy. It derefs to
/// `[u8]`. A clone shares the descriptor and the mapping.
///
/// The memory is a memfd which is sealed: neither its maker nor anybody else can change it or its size any
/// more. A receiver checks that before it maps what came, so a hostile sender can do no harm to its readers. It
/// lives until the last process that holds the blob, or has it in a message not yet received, has dropped it.
///
/// Making a blob costs a few system calls, so below some tens of kilobytes a `String` or a `Vec` is cheaper.
/// [`max_message_len`](crate::Options::max_message_len) does not count a blob's bytes: mapping one costs address
/// space only, and memory is used up as it is read. [`max_blob_len`](crate::Options::max_blob_len) does, because a
/// sender can make a huge one that has used no memory yet.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use wormhole::{Blob, channel};
///
/// #[derive(Serialize, Deserialize)]
/// struct Picture {
///     width: u32,
///     pixels: Blob,
/// }
///
/// let pixels = Blob::from_bytes(&[127; 640 * 480])?;
/// let (tx, rx) = channel::<Picture>()?;
/// tx.send(Picture { width: 640, pixels: pixels.clone() })?;
/// tx.send(Picture { width: 480, pixels })?;
///
/// let picture = rx.recv()?; // usually in another process
/// assert_eq!(picture.pixels.len(), 640 * 480);
/// assert!(picture.pixels.iter().all(|&pixel| pixel == 127));
///
/// // It only travels beside a message of this crate.
/// assert!(serde_json::to_string(&picture).is_err());
/// # Ok::<(), wormhole::Error>(())
/// ```
#[derive(Clone)]
pub struct Blob {
    memfd: Arc<OwnedFd>,
    /// `None`: empty.
    memory: Option<Arc<Mapping>>,
}

impl Blob {
    /// Makes a blob with a copy of `bytes`.
    ///
    /// Never blocks. `Ok` means that nothing can change it any more.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`]: the process is out of descriptors or memory, may not write files of this size
    ///   (`RLIMIT_FSIZE`), or its sandbox denies `memfd_create`.
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::Blob;
    ///
    /// let blob = Blob::from_bytes(b"some bytes")?;
    /// assert_eq!(&blob[..4], b"some");
    /// assert_eq!(blob.get(10), None);
    /// # Ok::<(), wormhole::Error>(())
    /// ```
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let failed = |errno: Errno| Error::io("fill a blob", errno);
        memfd::check_size(bytes.len(), "fill a blob")?;
        let memfd = sealable()?;
        memfd::write(&memfd, bytes, 0).map_err(failed)?;
        seal(&memfd).map_err(failed)?;
        Blob::try_from(memfd)
    }

    /// Makes a blob of `len` bytes that `fill` writes in place. They are zero at first.
    ///
    /// Never blocks, but for what `fill` does. `Ok` means that nothing can change it any more. When `fill`
    /// panics the memory is given back. To stop half-way, see [`try_build`](Self::try_build); for a length that is
    /// not known before, [`BlobWriter`].
    ///
    /// While `fill` runs, [`spawn`](crate::spawn) refuses to fork: the child would share memory that is being
    /// written to. A process that is forked by hand meanwhile does; as long as it lives the memory cannot be made
    /// immutable, and the bytes are copied.
    ///
    /// The memory is asked for before `fill` is called, and where the machine does not have it, that is an error.
    /// **A limit of a control group is none**: beyond `memory.max` the kernel kills a process of the group, in the
    /// middle of asking or of writing, and there is no way to ask first.
    ///
    /// # Errors
    ///
    /// - [`Error::Io`]: the machine has no memory for `len` bytes, the process is out of descriptors, may not write
    ///   files of this size (`RLIMIT_FSIZE`), or its sandbox denies `memfd_create`. `fill` has not been
    ///   called, unless a copy had to be made.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::Read;
    /// use wormhole::{Blob, Error};
    ///
    /// let mut read = Ok(());
    /// let zeros = std::fs::File::open("/dev/zero")?;
    /// let blob = Blob::build(1000, |bytes| {
    ///     bytes[0] = 7;
    ///     read = (&zeros).read_exact(&mut bytes[1..]);
    /// })?;
    /// read?;
    /// assert_eq!((blob.len(), blob[0], blob[999]), (1000, 7, 0));
    ///
    /// let error = Blob::build(usize::MAX, |_| ()).unwrap_err();
    /// assert!(matches!(error, Error::Io { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn build(len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Self> {
        Self::try_build(len, |bytes| {
            fill(bytes);
            Ok(())
        })
    }

    /// Makes a blob of `len` bytes that `fill` writes in place, as [`build`](Self::build) does, unless that fails.
    ///
    /// # Errors
    ///
    /// The error of `fill`, as it is; otherwise as [`build`](Self::build). No blob is left.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::io::{self, Read};
    /// use wormhole::Blob;
    ///
    /// let zeros = std::fs::File::open("/dev/zero")?;
    /// let blob = Blob::try_build(1000, |bytes| (&zeros).read_exact(bytes))?;
    /// assert_eq!(blob.len(), 1000);
    ///
    /// let null = std::fs::File::open("/dev/null")?;
    /// let error = Blob::try_build(1000, |bytes| (&null).read_exact(bytes)).unwrap_err();
    /// assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    /// # Ok::<(), io::Error>(())
    /// ```
    pub fn try_build<E: From<Error>>(
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let failed = |errno: Errno| Error::io("fill a blob", errno);
        memfd::check_size(len, "fill a blob")?;
        let memfd = sealable()?;
        allocate(&memfd, len).map_err(failed)?;
        {
            let _filling = Filling::start();
            match Mapping::new(&memfd, len, Access::Write).map_err(failed)? {
                Some(mut memory) => fill(memory.bytes_mut())?,
                None => fill(&mut [])?,
            }
        }
        Ok(Self::seal_or_copy(memfd, len)?)
    }

    /// Makes a blob of all that `reader` gives, a file for instance. Blocks as that does.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: reading failed, or as in [`from_bytes`](Self::from_bytes).
    ///
    /// # Examples
    ///
    /// ```
    /// use wormhole::Blob;
    ///
    /// let blob = Blob::from_reader(std::fs::File::open("Cargo.toml")?)?;
    /// assert!(blob.starts_with(b"[package]"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_reader(mut reader: impl Read) -> Result<Self> {
        let mut writer = BlobWriter::new()?;
        io::copy(&mut reader, &mut writer)
            .map_err(|error| Error::io("read what a blob is to hold", error))?;
        writer.finish()
    }

    /// Makes a blob of a memfd that has been made with `MFD_ALLOW_SEALING`, without copying: seals it, for all who
    /// have it.
    ///
    /// Never blocks. `Ok` means that nothing can change it any more.
    ///
    /// # Errors
    ///
    /// - [`Error::NotABlob`]: it is no memfd, or one that may not be sealed. It is closed.
    /// - [`Error::Io`]: some process has mapped it for writing (`ResourceBusy`), or it cannot be mapped. It is closed.
    pub fn seal(memfd: OwnedFd) -> Result<Self> {
        match seal(&memfd) {
            // Not a memfd, or sealed already: what it is, `try_from` finds out.
            Err(Errno::INVAL | Errno::PERM | Errno::BADF) => {}
            sealed => sealed.map_err(|errno| Error::io("seal a blob", errno))?,
        }
        Blob::try_from(memfd)
    }

    fn seal_or_copy(memfd: OwnedFd, len: usize) -> Result<Self> {
        let failed = |errno: Errno| Error::io("fill a blob", errno);
        // The mapping is gone by now.
        match seal(&memfd) {
            Err(Errno::BUSY) => {
                let copy = sealable()?;
                copy_bytes(&memfd, &copy, len).map_err(failed)?;
                seal(&copy).map_err(failed)?;
                Blob::try_from(copy)
            }
            sealed => {
                sealed.map_err(failed)?;
                Blob::try_from(memfd)
            }
        }
    }
}

/// Writes a blob whose length is not known before.
///
/// What is written is appended. Nothing is buffered: write some kilobytes at a time, or put a
/// [`BufWriter`](std::io::BufWriter) around it.
///
/// # Examples
///
/// ```
/// use std::io::Write;
/// use wormhole::BlobWriter;
///
/// let mut writer = BlobWriter::new()?;
/// for line in ["one", "two"] {
///     writeln!(writer, "{line}")?;
/// }
/// let blob = writer.finish()?;
/// assert_eq!(&*blob, b"one\ntwo\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BlobWriter {
    memfd: OwnedFd,
    len: usize,
}

impl BlobWriter {
    /// Begins a blob without bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: the process is out of descriptors, or its sandbox denies `memfd_create`.
    pub fn new() -> Result<Self> {
        let memfd = sealable()?;
        Ok(BlobWriter { memfd, len: 0 })
    }

    /// Makes the blob of what has been written.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be sealed or mapped. What was written is gone.
    pub fn finish(self) -> Result<Blob> {
        Blob::seal_or_copy(self.memfd, self.len)
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.len.checked_add(bytes.len()).ok_or(Errno::FBIG)?;
        memfd::check_size(len, "fill a blob")?;
        memfd::write(&self.memfd, bytes, self.len)?;
        self.len = len;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How many blobs are being filled, and so can be written to.
static FILLING: AtomicUsize = AtomicUsize::new(0);

/// Whether a blob is being filled: memory that a forked process would share with this one.
pub(crate) fn is_being_filled() -> bool {
    // ORDERING: a fork that cares is made by the only thread there is.
    FILLING.load(Ordering::Relaxed) > 0
}

struct Filling;

impl Filling {
    fn start() -> Self {
        FILLING.fetch_add(1, Ordering::Relaxed);
        Filling
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        FILLING.fetch_sub(1, Ordering::Relaxed);
    }
}

fn sealable() -> Result<OwnedFd> {
    memfd::create(
        "create the memfd (memfd_create) of a blob",
        MemfdFlags::ALLOW_SEALING,
    )
}

/// Gives a memfd its size and its memory.
fn allocate(memfd: &OwnedFd, len: usize) -> Result<(), Errno> {
    // The kernel knows whether the machine has that much at all, but only says so to a process that asks for memory of
    // its own. In the loop below it would go on until it has to kill a process.
    let mut probe = Vec::<u8>::new();
    probe.try_reserve_exact(len).map_err(|_| Errno::NOMEM)?;
    drop(black_box(probe));
    // KERNEL: what is only promised to a file, by ftruncate(2), may turn out not to be there: SIGBUS.
    // On some kernels a signal undoes the step, so it must be a small one, and smaller if signals come faster.
    let (mut offset, mut most) = (0, STEP);
    while offset < len {
        let step = most.min(len - offset);
        match fallocate(memfd, FallocateFlags::empty(), offset as u64, step as u64) {
            Ok(()) => offset += step,
            Err(Errno::INTR) => most = (most / 2).max(LEAST_STEP),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn copy_bytes(from: &OwnedFd, to: &OwnedFd, len: usize) -> Result<(), Errno> {
    let mut buffer = vec![0; STEP.min(len)];
    let mut copied = 0;
    while copied < len {
        let count = retry_on_intr(|| pread(from, &mut *buffer, copied as u64))?;
        match buffer.get(..count) {
            Some(bytes) if count > 0 => memfd::write(to, bytes, copied)?,
            _ => return Err(Errno::IO),
        }
        copied += count;
    }
    Ok(())
}

fn seal(memfd: &OwnedFd) -> Result<(), Errno> {
    fcntl_add_seals(memfd, SEALS | SealFlags::SEAL)
}

/// Takes over a descriptor that came from elsewhere, without copying.
///
/// Fails with [`Error::NotABlob`], and closes it, unless it is a memfd that is sealed against writing, growing
/// and shrinking. Fails with [`Error::Io`] when it cannot be mapped.
impl TryFrom<OwnedFd> for Blob {
    type Error = Error;

    fn try_from(memfd: OwnedFd) -> Result<Self> {
        let memfd = above_streams(memfd);
        let refused = |reason: &str| {
            Err(Error::NotABlob {
                reason: reason.to_owned(),
            })
        };
        let failed = |errno: Errno| Error::io("map a blob", errno);
        let Some(seals) = memfd::seals(&memfd).map_err(failed)? else {
            return refused("it is not a memfd");
        };
        for (seal, against) in [
            (SealFlags::WRITE, "it is not sealed against writing"),
            (SealFlags::SHRINK, "it is not sealed against shrinking"),
            (SealFlags::GROW, "it is not sealed against growing"),
        ] {
            if !seals.contains(seal) {
                return refused(against);
            }
        }
        // KERNEL: reading a huge page that is not there yet is SIGBUS once the machine is out of them.
        let system = fstatfs(&memfd).map_err(failed)?.f_type;
        if u64::try_from(system) != Ok(TMPFS_MAGIC) {
            return refused("it is made of huge pages");
        }
        let size = fstat(&memfd).map_err(failed)?.st_size;
        let len = usize::try_from(size).map_err(|_| failed(Errno::FBIG))?;
        // Before any address space is taken up: in a message the limit of its receiver holds.
        fields::count_blob(len as u64).map_err(|reason| Error::NotABlob { reason })?;
        let memory = Mapping::new(&memfd, len, Access::Read).map_err(failed)?;
        Ok(Blob {
            memfd: Arc::new(memfd),
            memory: memory.map(Arc::new),
        })
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], |memory| memory.bytes())
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl PartialEq for Blob {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Blob {}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob").field("len", &self.len()).finish()
    }
}

impl AsFd for Blob {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

/// For event loops and system calls that know descriptors by number.
impl AsRawFd for Blob {
    fn as_raw_fd(&self) -> RawFd {
        self.memfd.as_raw_fd()
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let share = || Ok(Carried::Shared(Arc::clone(&self.memfd)));
        fields::carry(serializer, Found::Fd(self.memfd.as_raw_fd()), share)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let blob = Blob::try_from(fields::claim(deserializer)?);
        blob.map_err(|error| de::Error::custom(format!("{error:#}")))
    }
}

#[derive(PartialEq)]
enum Access {
    Read,
    Write,
}

/// Memory of a memfd, mapped: one that is sealed, or one that only this process knows of.
struct Mapping {
    start: NonNull<c_void>,
    len: usize,
}

impl Mapping {
    /// Maps the first `len` bytes of `memfd`, which must be there to stay. `None` if that is nothing, which
    /// cannot be mapped.
    fn new(memfd: &OwnedFd, len: usize, access: Access) -> Result<Option<Self>, Errno> {
        // A slice cannot be longer than `isize::MAX`.
        isize::try_from(len).map_err(|_| Errno::FBIG)?;
        if len == 0 {
            return Ok(None);
        }
        let (protection, flags) = match access {
            // KERNEL: before Linux 6.7 a shared mapping of what is sealed was refused. A private one shows
            // the same pages, as long as it is not written to.
            Access::Read => (ProtFlags::READ, MapFlags::PRIVATE),
            Access::Write => (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED),
        };
        // SAFETY: the kernel chooses the place, so nothing that is in use is mapped over.
        #[allow(unsafe_code, reason = "no safe way to map memory")]
        let start = unsafe { mmap(null_mut(), len, protection, flags, memfd, 0) }?;
        let start = NonNull::new(start).ok_or(Errno::NOMEM)?;
        Ok(Some(Mapping { start, len }))
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `len` readable bytes are mapped at `start` until `self` is dropped. They are initialized,
        // being a file's, and nothing changes them: the file is sealed, or only `bytes_mut` can.
        #[allow(unsafe_code, reason = "mapped memory is a pointer")]
        unsafe {
            slice::from_raw_parts(self.start.as_ptr().cast(), self.len)
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; writable, because `Access::Write` is all that this is called for, and
        // nothing else in this process knows of it.
        #[allow(unsafe_code, reason = "mapped memory is a pointer")]
        unsafe {
            slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len)
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is what was mapped, and no reference into it outlives `self`.
        #[allow(unsafe_code, reason = "no safe way to unmap memory")]
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

// SAFETY: the memory belongs to the process, not to a thread, and can only be changed through `&mut`.
#[allow(unsafe_code, reason = "a pointer is neither by itself")]
unsafe impl Send for Mapping {}
// SAFETY: as for `Send`.
#[allow(unsafe_code, reason = "a pointer is neither by itself")]
unsafe impl Sync for Mapping {}
