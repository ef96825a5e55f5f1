//! Bytes in bulk.

use std::sync::Arc;

use super::talk::round_trip;
use super::{Entry, Row, size_name};
use crate::message;
use crate::peer::ipc_channel::{BytesChannel, IpcChannel, SharedMemory};
use crate::peer::json_lines::{JsonLines, Stream};
use crate::peer::unix_ipc::UnixIpc;
use crate::peer::wormhole::{Base64, Blobs, Numbers, Wormhole};
use crate::peer::{self, Bulk, Carrier};
use crate::place::Place;

/// How many bytes.
const SIZES: [u32; 3] = [64 << 10, 1 << 20, 16 << 20];

/// The rows of bytes in bulk.
pub(super) fn rows() -> Vec<Row> {
    SIZES.into_iter().map(row).collect()
}

fn entry<C, D>(name: &'static str, load: &Arc<Bulk>) -> Entry
where
    C: Carrier<Bulk> + 'static,
    D: Carrier<()> + 'static,
{
    let load = Arc::clone(load);
    Entry::new(name, move |operations| {
        round_trip::<C, D, Bulk, ()>(Place::Apart, &load, &(), operations)
    })
}

fn row(size: u32) -> Row {
    Row::timed("bulk", size_name(size), Some(size), move || entries(size))
}

fn entries(size: u32) -> Vec<Entry> {
    let load = &Arc::new(Bulk(message::bytes(size as usize)));
    vec![
        entry::<Blobs, Wormhole>(peer::WORMHOLE, load),
        entry::<Base64, Wormhole>("wormhole, base64", load),
        entry::<Numbers, Wormhole>("wormhole, a list of numbers", load),
        entry::<Stream, JsonLines>("raw stream", load),
        entry::<SharedMemory, IpcChannel>("ipc-channel, shared memory", load),
        entry::<BytesChannel, IpcChannel>("ipc-channel, bytes channel", load),
        entry::<UnixIpc, UnixIpc>(peer::UNIX_IPC, load),
        Entry::cannot(peer::TINY_NIX_IPC, "no kind of message for bytes in bulk"),
        Entry::cannot(peer::JSON_LINES, "no kind of message for bytes in bulk"),
    ]
}
