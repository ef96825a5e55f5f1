//! The numbers of the protocol, and those of the kernel that it is built around.

/// The most descriptors that one packet carries.
// KERNEL: `SCM_MAX_FD`, unix(7).
pub(crate) const MAX_FDS: usize = 253;

/// How deep the text of a message nests: a list of a number is one level.
pub(crate) const MAX_LEVELS: u32 = 127;

/// Bytes of a packet before the text.
pub(crate) const HEADER: usize = 8;

/// The longest packet, and so the size of a receiver's buffer.
pub(crate) const MAX_PACKET: usize = 256 * 1024;
