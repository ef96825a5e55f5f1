//! Messages with descriptors.

use super::talk::round_trip;
use super::{Entry, Row};
use crate::peer::ipc_channel::IpcChannel;
use crate::peer::raw::Raw;
use crate::peer::tiny_nix_ipc::{Exactly, TinyNixIpc};
use crate::peer::unix_ipc::UnixIpc;
use crate::peer::wormhole::{Beside, Wormhole};
use crate::peer::{self, Carrier, Files};
use crate::place::Place;

/// How many descriptors: one, some, and the most that the kernel allows.
const COUNTS: [u32; 3] = [1, 16, 253];

/// The rows of messages with descriptors. Each is acknowledged, for only so many descriptors may be in flight.
pub(super) fn rows() -> Vec<Row> {
    COUNTS.into_iter().map(row).collect()
}

fn entry<C, D>(name: &'static str, count: u32) -> Entry
where
    C: Carrier<Files> + 'static,
    D: Carrier<()> + 'static,
{
    Entry::new(name, move |operations| {
        let files = Files::new(count as usize)?;
        round_trip::<C, D, Files, ()>(Place::Together, &files, &(), operations)
    })
}

fn row(count: u32) -> Row {
    let plural = if count == 1 { "" } else { "s" };
    Row::timed(
        "descriptors",
        format!("{count} descriptor{plural}"),
        Some(count),
        move || entries(count),
    )
}

fn entries(count: u32) -> Vec<Entry> {
    let tiny = match count {
        1 => entry::<Exactly<1>, TinyNixIpc>,
        16 => entry::<Exactly<16>, TinyNixIpc>,
        _ => entry::<Exactly<253>, TinyNixIpc>,
    };
    vec![
        entry::<Wormhole, Wormhole>(peer::WORMHOLE, count),
        entry::<Beside, Wormhole>("wormhole, beside the message", count),
        entry::<Raw, Raw>(peer::RAW, count),
        entry::<IpcChannel, IpcChannel>(peer::IPC_CHANNEL, count),
        entry::<UnixIpc, UnixIpc>(peer::UNIX_IPC, count),
        tiny(peer::TINY_NIX_IPC, count),
        Entry::cannot(peer::JSON_LINES, "no descriptors in std's UnixStream"),
    ]
}
