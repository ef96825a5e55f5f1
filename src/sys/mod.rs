//! System calls: sockets, memfds, and the descriptors of this process. One attempt each, nothing waits here.
//!
//! The only floor that names rustix's `net`.

pub(crate) mod address;
pub(crate) mod memfd;
pub(crate) mod peer;
pub(crate) mod recvmsg;
pub(crate) mod registry;
pub(crate) mod shared_socket;
pub(crate) mod socket;
