//! A message between its value and the socket: encoded or decoded, with the descriptors of its fields.

pub(crate) mod fields;
pub(crate) mod inbound;
mod long_text;
pub(crate) mod outbound;
pub(crate) mod packet;
mod scratch;
mod strict;
