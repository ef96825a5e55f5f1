//! The workloads: one operation each, and what must hold after it whatever it gave.
//!
//! A workload gets everything ready, runs the operation under `marked`, checks that nothing is left over and that
//! everything still works, and returns what the operation gave.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use wormhole::{
    Blob, Error, Listener, Options, Peer, Raw, Receiver, ReceiverSet, Select, Sender, channel,
    inherit, select, spawn, spawn_command, spawn_fresh,
};

use super::pools;
use super::strace::{FAULT, WORKLOAD, marked};
use crate::support::{becomes_ready, forked, open_fds, packet, pipe, raw_send, until_asleep};

const SHORT: Duration = Duration::from_millis(10);
pub(super) const LONG: Duration = Duration::from_secs(30);

/// Longer than any packet.
const LONG_TEXT: usize = 300_000;

#[derive(Serialize, Deserialize)]
pub(super) struct Message {
    text: String,
    file: Option<Field>,
    reply: Option<Sender<u8>>,
    blob: Option<Blob>,
    clients: Option<Listener<u8>>,
}

#[derive(Serialize, Deserialize)]
struct Field(#[serde(with = "wormhole::fd")] File);

fn message(text: impl Into<String>) -> Message {
    Message {
        text: text.into(),
        file: None,
        reply: None,
        blob: None,
        clients: None,
    }
}

fn long() -> Message {
    message("x".repeat(LONG_TEXT))
}

fn null() -> File {
    File::open("/dev/null").unwrap()
}

pub(crate) fn run(name: &str) -> String {
    let work = match name {
        "create_a_channel" => create_a_channel,
        "create_a_channel_with_a_buffer" => create_a_channel_with_a_buffer,
        "drop_a_channel" => drop_a_channel,
        "send" => send,
        "send_a_field" => send_a_field,
        "send_beside" => send_beside,
        "send_undecoded" => send_undecoded,
        "send_a_listener" => send_a_listener,
        "send_long" => send_long,
        "send_longer_than_the_buffer" => send_longer_than_the_buffer,
        "send_without_waiting" => send_without_waiting,
        "send_to_a_full_channel" => send_to_a_full_channel,
        "send_beside_to_a_full_channel" => send_beside_to_a_full_channel,
        "send_and_wait" => send_and_wait,
        "receive" => receive,
        "receive_descriptors" => receive_descriptors,
        "receive_descriptors_in_time" => receive_descriptors_in_time,
        "receive_no_descriptors" => receive_no_descriptors,
        "receive_fields" => receive_fields,
        "receive_undecoded" => receive_undecoded,
        "receive_a_listener" => receive_a_listener,
        "receive_long" => receive_long,
        "receive_garbage" => receive_garbage,
        "receive_nothing" => receive_nothing,
        "receive_the_end" => receive_the_end,
        "iterate" => iterate,
        "select_a_receive" => select_a_receive,
        "select_a_send" => select_a_send,
        "select_nothing" => select_nothing,
        "select_in_the_program_text" => select_in_the_program_text,
        "select_a_closed_channel" => select_a_closed_channel,
        "select_a_writable_descriptor" => select_a_writable_descriptor,
        "receive_from_a_set" => receive_from_a_set,
        "receive_descriptors_from_a_set" => receive_descriptors_from_a_set,
        "receive_nothing_from_a_set" => receive_nothing_from_a_set,
        "adopt_a_descriptor" => adopt_a_descriptor,
        "adopt_a_listener" => adopt_a_listener,
        "give_up_a_descriptor" => give_up_a_descriptor,
        "compare_two_ends" => compare_two_ends,
        "ask_for_the_other_side" => ask_for_the_other_side,
        "encode_without_a_channel" => encode_without_a_channel,
        "decode_without_a_channel" => decode_without_a_channel,
        "bind" => bind,
        "bind_over_a_stale_file" => bind_over_a_stale_file,
        "connect" => connect,
        "connect_within_a_time" => connect_within_a_time,
        "connect_with_a_buffer" => connect_with_a_buffer,
        "accept" => accept,
        "accept_nobody" => accept_nobody,
        "look_for_a_client" => look_for_a_client,
        "close_a_listener" => close_a_listener,
        "make_a_blob" => make_a_blob,
        "build_a_blob" => build_a_blob,
        "read_a_blob" => read_a_blob,
        "seal_a_blob" => seal_a_blob,
        "receive_a_blob" => receive_a_blob,
        "spawn_a_child" => spawn_a_child,
        "child_of_a_spawn" => child_of_a_spawn,
        "join_a_child" => join_a_child,
        "kill_a_child" => kill_a_child,
        "spawn_a_fresh_child" => spawn_a_fresh_child,
        "start_a_pool" => pools::start_a_pool,
        "job_of_a_pool" => pools::job_of_a_pool,
        "child_of_a_pool" => pools::child_of_a_pool,
        "death_in_a_pool" => pools::death_in_a_pool,
        "cancel_in_a_pool" => pools::cancel_in_a_pool,
        "start_a_program" => start_a_program,
        "inherit_arguments" => inherit_arguments,
        _ => panic!("no workload {name}"),
    };
    work()
}

/// What an operation gave, as the table has it.
pub(super) fn told<T>(result: &Result<T, Error>) -> String {
    let why = |source: &io::Error| {
        // Where the source names something, the system's error is its source.
        let inner = std::error::Error::source(source);
        let system = inner.and_then(|inner| inner.downcast_ref::<io::Error>());
        match system.unwrap_or(source).raw_os_error() {
            Some(number) => format!("{:?}", nix::Error::from_raw(number)),
            None => format!("{:?}", source.kind()),
        }
    };
    match result {
        Ok(_) => "ok".to_owned(),
        Err(Error::Io { operation, source }) => format!("cannot {operation}: {}", why(source)),
        Err(Error::Address {
            operation, source, ..
        }) => format!("cannot {operation} ADDRESS: {}", why(source)),
        Err(Error::TimedOut { operation, .. }) => format!("cannot {operation}: timed out"),
        Err(Error::Child { end, .. }) => end.to_string(),
        Err(error) => match format!("{error:?}") {
            name if name.chars().all(char::is_alphabetic) => name,
            _ => error.to_string(),
        },
    }
}

/// Whether calls of that name fail.
pub(super) fn fault_is(call: &str) -> bool {
    std::env::var(FAULT).is_ok_and(|fault| fault.split(' ').next() == Some(call))
}

pub(super) type Fds = BTreeMap<RawFd, String>;

/// Whether the operation lists the descriptors of this process.
fn is_of_a_pool() -> bool {
    std::env::var(WORKLOAD).is_ok_and(|workload| workload.ends_with("_pool"))
}

/// Nothing has been opened that is still open, and nothing closed that was open.
pub(super) fn nothing_leaks(before: &Fds) {
    let after = open_fds();
    // KERNEL: close(2) closes the descriptor whatever it says, but not if strace keeps it from the kernel. So here
    // one is still open, unless somebody has closed it again, which might have been another one by then. A list of
    // descriptors, in `/proc`, is not in these lists.
    let left = after.len().checked_sub(before.len());
    let is_right = match left {
        Some(0) => !fault_is("close") || is_of_a_pool(),
        Some(1) => fault_is("close"),
        _ => false,
    };
    assert!(is_right, "{before:?}\n{after:?}");
}

/// The next message is right, and the only one.
fn works(tx: &Sender<Message>, rx: &Receiver<Message>) {
    tx.send_timeout(message("next"), LONG).unwrap();
    assert_eq!(rx.try_recv().unwrap().text, "next");
    assert!(matches!(rx.try_recv(), Err(Error::Empty)));
    tx.send_timeout(long(), LONG).unwrap();
    assert_eq!(rx.recv_timeout(LONG).unwrap().text.len(), LONG_TEXT);
}

/// A channel that has been used, so that the thread's buffers exist.
pub(super) fn used() -> (Sender<Message>, Receiver<Message>) {
    let (tx, rx) = channel().unwrap();
    works(&tx, &rx);
    (tx, rx)
}

fn creates(options: &Options) -> String {
    let before = open_fds();
    let made = marked(|| options.channel());
    let told = told(&made);
    if let Ok((tx, rx)) = made {
        works(&tx, &rx);
    }
    nothing_leaks(&before);
    told
}

fn create_a_channel() -> String {
    creates(&Options::new())
}

fn create_a_channel_with_a_buffer() -> String {
    creates(&Options::new().buffer(10_000))
}

fn drop_a_channel() -> String {
    let before = open_fds();
    let ends = used();
    marked(|| drop(ends));
    nothing_leaks(&before);
    "ok".to_owned()
}

/// Sends; what was sent has arrived, what was not has not.
fn sends(
    sent: Message,
    send: impl FnOnce(&Sender<Message>, &Message) -> Result<(), Error>,
) -> String {
    sends_beside(sent, 0, send)
}

/// Sends with so many descriptors beside the message.
fn sends_beside(
    sent: Message,
    count: usize,
    send: impl FnOnce(&Sender<Message>, &Message) -> Result<(), Error>,
) -> String {
    let (tx, rx) = used();
    let before = open_fds();
    let result = marked(|| send(&tx, &sent));
    match (&result, rx.try_recv_with_fds()) {
        (Ok(()), Ok((received, fds))) => {
            assert!(received.text == sent.text);
            assert_eq!(received.file.is_some(), sent.file.is_some());
            assert_eq!(fds.len(), count);
        }
        (Err(_), Err(Error::Empty)) => {}
        (_, received) => panic!("{result:?}, {:?}", received.err()),
    }
    works(&tx, &rx);
    nothing_leaks(&before);
    told(&result)
}

fn send() -> String {
    sends(message("hello"), |tx, sent| tx.by_ref().send(sent))
}

fn send_without_waiting() -> String {
    sends(message("hello"), |tx, sent| tx.by_ref().try_send(sent))
}

fn send_a_field() -> String {
    let mut sent = message("hello");
    sent.file = Some(Field(null()));
    sends(sent, |tx, sent| tx.by_ref().send(sent))
}

fn send_beside() -> String {
    let null = null();
    let fds = [null.as_fd(), null.as_fd()];
    sends_beside(message("hello"), fds.len(), |tx, sent| {
        tx.by_ref().send_with_fds(sent, &fds)
    })
}

fn send_undecoded() -> String {
    let mut sent = message("hello");
    sent.file = Some(Field(null()));
    let raw = Raw::encode(&sent).unwrap();
    sends(sent, |tx, _| tx.clone().cast::<Raw>().by_ref().send(&raw))
}

/// Its file is removed by the process that has it, which is the one that has not given it away.
fn send_a_listener() -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let (tx, rx) = used();
    let before = open_fds();
    let mut sent = message("hello");
    sent.clients = Some(Listener::bind(&path).unwrap());
    let result = marked(|| tx.send(sent));
    assert_eq!(path.exists(), result.is_ok());
    assert_eq!(rx.try_recv().is_ok(), result.is_ok());
    works(&tx, &rx);
    nothing_leaks(&before);
    told(&result)
}

fn send_long() -> String {
    sends(long(), |tx, sent| tx.by_ref().send(sent))
}

fn send_longer_than_the_buffer() -> String {
    sends(message("x".repeat(230_000)), |tx, sent| {
        tx.by_ref().send(sent)
    })
}

fn fill(tx: &Sender<Message>) -> usize {
    let filler = message("filler");
    std::iter::from_fn(|| tx.by_ref().try_send(&filler).ok()).count()
}

fn send_to_a_full_channel() -> String {
    sends_in_vain(|tx| tx.send_timeout(message("late"), SHORT))
}

fn send_beside_to_a_full_channel() -> String {
    let null = null();
    sends_in_vain(|tx| {
        let deadline = Instant::now() + SHORT;
        tx.send_with_fds_deadline(message("late"), &[null.as_fd()], deadline)
    })
}

fn sends_in_vain(send: impl FnOnce(&Sender<Message>) -> Result<(), Error>) -> String {
    let (tx, rx) = used();
    let before = open_fds();
    let fillers = fill(&tx);
    let result = marked(|| send(&tx));
    assert!(result.is_err());
    let received = rx.try_iter().map(|message| message.unwrap().text);
    assert_eq!(received.filter(|text| text == "filler").count(), fillers);
    works(&tx, &rx);
    nothing_leaks(&before);
    told(&result)
}

fn send_and_wait() -> String {
    let (tx, rx) = used();
    let (answer, answers) = channel::<Vec<String>>().unwrap();
    let before = open_fds();
    fill(&tx);
    let sender = getpid();
    let mut tx = Some(tx);
    let mut rx = Some(rx);
    // Without an allocation that could be the one that fails.
    let child = forked(|| {
        tx = None;
        let rx = rx.take().unwrap();
        until_asleep(sender);
        let texts = rx.iter().map(|message| message.unwrap().text);
        let others = texts.filter(|text| text != "filler");
        answer.send(others.collect::<Vec<_>>()).unwrap();
    });
    let sending = tx.as_ref().unwrap();
    let result = marked(|| sending.send(message("late")));
    sending.send_timeout(message("next"), LONG).unwrap();
    tx = None;
    let received = answers.recv().unwrap();
    child.join();
    match &result {
        Ok(()) => assert_eq!(received, ["late", "next"]),
        Err(_) => assert_eq!(received, ["next"]),
    }
    assert!(tx.is_none());
    assert_eq!(before.len() - 1, open_fds().len());
    told(&result)
}

/// Receives what `send` has sent; an error has consumed it, or it is still there.
fn receives<R>(
    send: impl FnOnce(&Sender<Message>),
    receive: impl FnOnce(&Receiver<Message>) -> Result<R, Error>,
    check: impl FnOnce(&R),
) -> String {
    let (tx, rx) = used();
    let before = open_fds();
    send(&tx);
    let result = marked(|| receive(&rx));
    match &result {
        Ok(received) => check(received),
        // Is it still there?
        Err(_) if becomes_ready(&rx, PollFlags::POLLIN, Duration::ZERO) => {
            drop(rx.recv_with_fds());
        }
        Err(_) => {}
    }
    let told = told(&result);
    drop(result);
    works(&tx, &rx);
    nothing_leaks(&before);
    told
}

fn receive() -> String {
    receives(
        |tx| tx.send(message("hello")).unwrap(),
        Receiver::recv,
        |received| assert_eq!(received.text, "hello"),
    )
}

fn iterate() -> String {
    receives(
        |tx| tx.send(message("hello")).unwrap(),
        // An error is an item, and not the end.
        |rx| rx.iter().next().expect("an item"),
        |received| assert_eq!(received.text, "hello"),
    )
}

fn receive_descriptors() -> String {
    receives(
        |tx| {
            let null = null();
            let fds = [null.as_fd(), null.as_fd()];
            tx.send_with_fds(message("hello"), &fds).unwrap();
        },
        Receiver::recv_with_fds,
        |(received, fds)| assert_eq!((received.text.as_str(), fds.len()), ("hello", 2)),
    )
}

fn receive_descriptors_in_time() -> String {
    receives(
        |tx| {
            let null = null();
            tx.send_with_fds(message("hello"), &[null.as_fd()]).unwrap();
        },
        |rx| rx.recv_with_fds_timeout(LONG),
        |(received, fds)| assert_eq!((received.text.as_str(), fds.len()), ("hello", 1)),
    )
}

fn receive_no_descriptors() -> String {
    receives(
        |_| {},
        |rx| rx.recv_with_fds_deadline(Instant::now() + SHORT),
        |_| panic!("nothing was sent"),
    )
}

fn receive_undecoded() -> String {
    receives(
        |tx| {
            let mut sent = message("hello");
            sent.file = Some(Field(null()));
            tx.send(sent).unwrap();
        },
        |rx| rx.clone().cast::<Raw>().recv(),
        |received| assert_eq!(received.fds().len(), 1),
    )
}

fn receive_a_listener() -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    receives(
        |tx| {
            let mut sent = message("hello");
            sent.clients = Some(Listener::bind(&path).unwrap());
            tx.send(sent).unwrap();
        },
        Receiver::recv,
        |received| {
            let tx = Sender::connect(&path).unwrap();
            tx.send(1).unwrap();
            let clients = received.clients.as_ref().unwrap();
            assert_eq!(clients.accept().unwrap().0.recv().unwrap(), 1);
        },
    )
}

fn receive_fields() -> String {
    receives(
        |tx| {
            let mut sent = message("hello");
            sent.file = Some(Field(null()));
            sent.reply = Some(channel().unwrap().0);
            tx.send(sent).unwrap();
        },
        Receiver::recv,
        |received| assert!(received.file.is_some() && received.reply.is_some()),
    )
}

fn receive_long() -> String {
    receives(
        |tx| tx.send(long()).unwrap(),
        Receiver::recv,
        |received| assert_eq!(received.text.len(), LONG_TEXT),
    )
}

fn receive_garbage() -> String {
    receives(
        |tx| {
            let null = null();
            raw_send(tx, &packet(b"garbage"), &[null.as_fd(), null.as_fd()]);
        },
        Receiver::recv,
        |_| panic!("garbage is no message"),
    )
}

fn receive_nothing() -> String {
    receives(
        |_| {},
        |rx| rx.recv_timeout(SHORT),
        |_| panic!("nothing was sent"),
    )
}

fn receive_the_end() -> String {
    let before = open_fds();
    let (tx, rx) = used();
    drop(tx);
    let result = marked(|| rx.recv());
    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    drop(rx);
    nothing_leaks(&before);
    told(&result)
}

fn select_a_receive() -> String {
    let (_tx, other) = channel::<u8>().unwrap();
    receives(
        |tx| tx.send(message("hello")).unwrap(),
        |rx| {
            let mut select = Select::new();
            select.recv(&other);
            select.recv(rx);
            select.select()?.recv(rx)
        },
        |received| assert_eq!(received.text, "hello"),
    )
}

fn select_a_send() -> String {
    let (_tx, other) = channel::<u8>().unwrap();
    sends(message("hello"), |tx, sent| {
        let tx = tx.by_ref();
        let mut select = Select::new();
        select.recv(&other);
        select.send(&tx, sent);
        select.select()?.sent()
    })
}

fn select_nothing() -> String {
    receives(
        |_| {},
        |rx| {
            let mut select = Select::new();
            select.recv(rx);
            select.select_timeout(SHORT)?.recv(rx)
        },
        |_| panic!("nothing was sent"),
    )
}

/// What goes wrong while it waits goes to an arm.
fn select_in_the_program_text() -> String {
    let (_tx, other) = channel::<u8>().unwrap();
    let receive = |rx: &Receiver<Message>| {
        select! {
            recv(rx) -> received => received,
            recv(other) -> nothing => nothing.map(|_| message("")),
            default(LONG) => Err(Error::Empty),
        }
    };
    receives(
        |tx| tx.send(message("hello")).unwrap(),
        receive,
        |received| assert_eq!(received.text, "hello"),
    )
}

fn select_a_closed_channel() -> String {
    let before = open_fds();
    let (tx, rx) = used();
    drop(rx);
    let mut select = Select::new();
    select.closed(&tx);
    let selected = marked(|| select.select());
    drop(select);
    assert!(matches!(tx.send(message("late")), Err(Error::Disconnected)));
    drop(tx);
    nothing_leaks(&before);
    told(&selected)
}

fn select_a_writable_descriptor() -> String {
    let (reader, writer) = pipe();
    let before = open_fds();
    let mut select = Select::new();
    select.ready(&reader);
    select.writable(&writer);
    let selected = marked(|| select.select());
    if let Ok(selected) = &selected {
        assert_eq!(selected.index(), 1);
    }
    drop(select);
    nothing_leaks(&before);
    told(&selected)
}

fn receive_from_a_set() -> String {
    receives(
        |tx| tx.send(message("hello")).unwrap(),
        |rx| {
            let mut set = ReceiverSet::new()?;
            let key = set.add(rx.clone())?;
            let (from, received) = set.recv()?;
            assert_eq!(from, key);
            set.remove(key);
            received
        },
        |received| assert_eq!(received.text, "hello"),
    )
}

fn receive_descriptors_from_a_set() -> String {
    receives(
        |tx| {
            let null = null();
            tx.send_with_fds(message("hello"), &[null.as_fd()]).unwrap();
        },
        |rx| {
            let mut set = ReceiverSet::new()?;
            set.add(rx.clone())?;
            set.recv_with_fds()?.1
        },
        |(received, fds)| assert_eq!((received.text.as_str(), fds.len()), ("hello", 1)),
    )
}

fn receive_nothing_from_a_set() -> String {
    receives(
        |_| {},
        |rx| {
            let mut set = ReceiverSet::new()?;
            set.add(rx.clone())?;
            set.recv_timeout(SHORT)?.1
        },
        |_| panic!("nothing was sent"),
    )
}

fn adopt_a_descriptor() -> String {
    let before = open_fds();
    let (tx, rx) = used();
    let fd = rx.as_fd().try_clone_to_owned().unwrap();
    let made = marked(|| Receiver::<Message>::try_from(fd));
    if let Ok(made) = &made {
        works(&tx, made);
    }
    let told = told(&made);
    drop(made);
    works(&tx, &rx);
    drop((tx, rx));
    nothing_leaks(&before);
    told
}

fn give_up_a_descriptor() -> String {
    let before = open_fds();
    let (tx, rx) = used();
    let clone = tx.clone();
    let fd = marked(|| OwnedFd::try_from(clone));
    let told = told(&fd);
    drop(fd);
    works(&tx, &rx);
    drop((tx, rx));
    nothing_leaks(&before);
    told
}

fn compare_two_ends() -> String {
    let (tx, rx) = used();
    let (other, _others) = channel().unwrap();
    let before = open_fds();
    let same = marked(|| tx.same_channel(&other));
    assert!(!same.as_ref().is_ok_and(|&same| same));
    works(&tx, &rx);
    nothing_leaks(&before);
    told(&same)
}

fn ask_for_the_other_side() -> String {
    let before = open_fds();
    let (tx, rx) = used();
    drop(rx);
    let is_gone = marked(|| tx.is_disconnected());
    drop(tx);
    nothing_leaks(&before);
    match is_gone {
        true => "gone".to_owned(),
        false => "perhaps there".to_owned(),
    }
}

/// A message with a descriptor and an end.
fn loaded() -> Message {
    let mut message = message("hello");
    message.file = Some(Field(null()));
    message.reply = Some(channel().unwrap().0);
    message
}

fn encode_without_a_channel() -> String {
    let (tx, rx) = used();
    let before = open_fds();
    let loaded = loaded();
    let encoded = marked(|| Raw::encode(&loaded));
    drop(loaded);
    let told = told(&encoded);
    if let Ok(raw) = encoded {
        assert_eq!(raw.fds().len(), 2);
        tx.clone().cast().send(raw).unwrap();
        assert!(rx.recv().unwrap().reply.is_some());
    }
    works(&tx, &rx);
    nothing_leaks(&before);
    told
}

fn decode_without_a_channel() -> String {
    let before = open_fds();
    let raw = Raw::encode(&loaded()).unwrap();
    let clone = raw.clone();
    let decoded = marked(|| clone.decode::<Message>());
    if let Ok(decoded) = &decoded {
        assert!(decoded.file.is_some() && decoded.reply.is_some());
    }
    let told = told(&decoded);
    drop(decoded);
    // The other one is as it was.
    assert_eq!(raw.decode::<Message>().unwrap().text, "hello");
    nothing_leaks(&before);
    told
}

fn adopt_a_listener() -> String {
    let (_directory, path, listener) = listener();
    let before = open_fds();
    let fd = listener.as_fd().try_clone_to_owned().unwrap();
    let made = marked(|| Listener::<Message>::try_from(fd));
    if let Ok(made) = &made {
        can_be_reached(made, &path);
    }
    let told = told(&made);
    drop(made);
    can_be_reached(&listener, &path);
    nothing_leaks(&before);
    told
}

/// The names in a directory.
fn files(directory: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

/// A client reaches the listener, which may have others before it.
fn can_be_reached(listener: &Listener<Message>, path: &Path) {
    let tx = Sender::connect_timeout(path, LONG).unwrap();
    tx.send(message("next")).unwrap();
    drop(tx);
    let found = listener.incoming().find_map(|client| {
        let (rx, _) = client.unwrap();
        let received = rx.recv_timeout(LONG).ok()?;
        (received.text == "next").then_some(())
    });
    assert!(found.is_some());
}

fn binds(prepare: impl FnOnce(&Path), may_stay: bool) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    used();
    prepare(&path);
    let before = open_fds();
    let bound = marked(|| Listener::<Message>::bind(&path));
    let told = told(&bound);
    match bound {
        Ok(listener) => {
            let mut files = files(&directory);
            files.retain(|name| name == "socket" || !fault_is("unlink"));
            assert_eq!(files, ["socket"]);
            can_be_reached(&listener, &path);
        }
        Err(_) if may_stay => {}
        Err(_) => assert!(files(&directory).is_empty(), "{told}: a file is left"),
    }
    nothing_leaks(&before);
    let listener = Listener::<Message>::bind(&path).unwrap();
    can_be_reached(&listener, &path);
    drop(listener);
    told
}

fn bind() -> String {
    binds(|_| {}, false)
}

fn bind_over_a_stale_file() -> String {
    let leave_stale = |path: &Path| {
        use std::os::unix::net::UnixDatagram;
        drop(UnixDatagram::bind(path).unwrap());
    };
    binds(leave_stale, true)
}

fn listener() -> (TempDir, std::path::PathBuf, Listener<Message>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = Listener::bind(&path).unwrap();
    can_be_reached(&listener, &path);
    (directory, path, listener)
}

fn connects(connect: impl FnOnce(&Path) -> Result<Sender<Message>, Error>) -> String {
    let (_directory, path, listener) = listener();
    let before = open_fds();
    let made = marked(|| connect(&path));
    if let Ok(tx) = &made {
        let (rx, _) = listener.try_accept().unwrap();
        works(tx, &rx);
    } else if let Ok((rx, _)) = listener.try_accept() {
        // It had connected, and left.
        assert!(matches!(rx.recv_timeout(LONG), Err(Error::Disconnected)));
    }
    let told = told(&made);
    drop(made);
    can_be_reached(&listener, &path);
    nothing_leaks(&before);
    told
}

fn connect() -> String {
    connects(|path| Sender::connect(path))
}

fn connect_within_a_time() -> String {
    connects(|path| Sender::connect_timeout(path, LONG))
}

fn connect_with_a_buffer() -> String {
    connects(|path| Options::new().buffer(10_000).connect(path))
}

fn accept() -> String {
    let (_directory, path, listener) = listener();
    let before = open_fds();
    let tx = Sender::<Message>::connect(&path).unwrap();
    let accepted = marked(|| listener.accept());
    if let Ok((rx, _)) = &accepted {
        works(&tx, rx);
    }
    let told = told(&accepted);
    drop((tx, accepted));
    can_be_reached(&listener, &path);
    nothing_leaks(&before);
    told
}

fn accept_nobody() -> String {
    accepts_nobody(|listener| listener.accept_timeout(SHORT))
}

fn look_for_a_client() -> String {
    accepts_nobody(Listener::try_accept)
}

fn accepts_nobody(
    accept: impl FnOnce(&Listener<Message>) -> Result<(Receiver<Message>, Peer), Error>,
) -> String {
    let (_directory, path, listener) = listener();
    let before = open_fds();
    let accepted = marked(|| accept(&listener));
    assert!(accepted.is_err());
    can_be_reached(&listener, &path);
    nothing_leaks(&before);
    told(&accepted)
}

fn close_a_listener() -> String {
    let before = open_fds();
    let (directory, path, bound) = listener();
    marked(|| drop(bound));
    nothing_leaks(&before);
    // A file that could not be removed is stale, unless the descriptor was not closed.
    if fault_is("close") {
        return "ok".to_owned();
    }
    let again = Listener::<Message>::bind(&path).unwrap();
    can_be_reached(&again, &path);
    drop(again);
    assert!(files(&directory).is_empty());
    "ok".to_owned()
}

fn blobs(make: impl FnOnce() -> Result<Blob, Error>) -> String {
    blobs_of(|| (), |()| make())
}

/// Makes a blob of what was got ready for it.
fn blobs_of<P>(prepare: impl FnOnce() -> P, make: impl FnOnce(P) -> Result<Blob, Error>) -> String {
    let (tx, rx) = used();
    let before = open_fds();
    let prepared = prepare();
    let made = marked(|| make(prepared));
    let told = told(&made);
    if let Ok(blob) = made {
        assert!(blob.len() == LONG_TEXT && blob.iter().all(|&byte| byte == 7));
        let mut sent = message("blob");
        sent.blob = Some(blob);
        tx.send(sent).unwrap();
        assert_eq!(rx.recv().unwrap().blob.unwrap().len(), LONG_TEXT);
    }
    works(&tx, &rx);
    nothing_leaks(&before);
    told
}

fn make_a_blob() -> String {
    let bytes = vec![7; LONG_TEXT];
    blobs(|| Blob::from_bytes(&bytes))
}

fn build_a_blob() -> String {
    blobs(|| Blob::build(LONG_TEXT, |bytes| bytes.fill(7)))
}

fn read_a_blob() -> String {
    let bytes = vec![7; LONG_TEXT];
    blobs(|| Blob::from_reader(&*bytes))
}

fn seal_a_blob() -> String {
    let filled = || {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let mut file = File::from(memfd_create(c"blob", flags).unwrap());
        file.write_all(&vec![7; LONG_TEXT]).unwrap();
        file.into()
    };
    blobs_of(filled, Blob::seal)
}

fn receive_a_blob() -> String {
    receives(
        |tx| {
            let mut sent = message("blob");
            sent.blob = Some(Blob::from_bytes(&vec![7; LONG_TEXT]).unwrap());
            tx.send(sent).unwrap();
        },
        Receiver::recv,
        |received| assert_eq!(received.blob.as_ref().unwrap().len(), LONG_TEXT),
    )
}

fn greet(tx: Sender<Message>) -> u32 {
    tx.send(message("from the child")).unwrap();
    5
}

/// A child runs, its message and its result arrive, and none is left.
fn can_spawn() {
    let (tx, rx) = channel().unwrap();
    let child = spawn(tx, greet).unwrap();
    assert_eq!(rx.recv().unwrap().text, "from the child");
    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    assert_eq!(child.join().unwrap(), 5);
    no_child_is_left();
}

pub(super) fn no_child_is_left() {
    if fault_is("waitid") {
        let _ = waitpid(None::<Pid>, None); // one that was not reaped
    }
    let nobody = waitpid(None::<Pid>, None);
    assert_eq!(nobody, Err(nix::Error::ECHILD));
}

fn spawn_a_child() -> String {
    let (stray, _strays) = used();
    let before = open_fds();
    let (tx, rx) = channel().unwrap();
    let spawned = marked(|| spawn(tx, greet));
    let told = told(&spawned);
    if let Ok(child) = spawned {
        assert_eq!(rx.recv().unwrap().text, "from the child");
        assert_eq!(child.join().unwrap(), 5);
    } else if let Ok(message) = rx.try_recv() {
        assert_eq!(message.text, "from the child"); // it was killed, but had begun
    }
    assert!(fault_is("close") || matches!(rx.try_recv(), Err(Error::Disconnected)));
    no_child_is_left();
    drop(rx);
    nothing_leaks(&before);
    can_spawn();
    drop(stray);
    told
}

/// The child's calls fail, and nothing of the kind happens in the parent.
fn child_of_a_spawn() -> String {
    let before = open_fds();
    let (stray, strays) = channel::<u8>().unwrap();
    let (tx, rx) = channel::<Message>().unwrap();
    let child = spawn(tx, |tx: Sender<Message>| drop(tx)).unwrap();
    assert!(matches!(rx.recv(), Err(Error::Disconnected)));
    let joined = child.join();
    no_child_is_left();
    drop((stray, strays, rx));
    nothing_leaks(&before);
    told(&joined)
}

fn join_a_child() -> String {
    let before = open_fds();
    let child = spawn(5, |number: u32| number).unwrap();
    assert!(becomes_ready(&child, PollFlags::POLLIN, LONG));
    let joined = marked(|| child.join());
    no_child_is_left();
    nothing_leaks(&before);
    can_spawn();
    told(&joined)
}

fn kill_a_child() -> String {
    let before = open_fds();
    let (go, wait) = channel::<u32>().unwrap();
    let child = spawn(wait, |wait: Receiver<u32>| wait.recv().unwrap_or(7)).unwrap();
    let killed = marked(|| child.kill());
    drop(go); // ends it, if that did not
    let joined = child.join();
    assert!(matches!(joined, Ok(7) | Err(Error::Child { .. })));
    no_child_is_left();
    nothing_leaks(&before);
    told(&killed)
}

/// A fresh child runs, its message and its result arrive, and none is left.
fn can_spawn_fresh() {
    let (tx, rx) = channel().unwrap();
    let child = spawn_fresh(tx, greet).unwrap();
    assert_eq!(rx.recv().unwrap().text, "from the child");
    // How often a join looks depends on the moment at which the child ends, and its calls are counted.
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    waitid(Id::PIDFd(child.as_fd()), flags).unwrap();
    assert_eq!(child.join().unwrap(), 5);
    no_child_is_left();
}

fn spawn_a_fresh_child() -> String {
    // strace counts in each process by itself. So this one makes more calls before it begins than the child makes at all.
    (0..6).for_each(|_| can_spawn_fresh());
    (0..20).for_each(|_| drop(used()));
    let before = open_fds();
    let (tx, rx) = channel().unwrap();
    let spawned = marked(|| spawn_fresh(tx, greet));
    let told = told(&spawned);
    if let Ok(child) = spawned {
        assert_eq!(rx.recv().unwrap().text, "from the child");
        assert_eq!(child.join().unwrap(), 5);
    } else if let Ok(message) = rx.recv_timeout(LONG) {
        assert_eq!(message.text, "from the child"); // it was killed, but had begun
    }
    assert!(fault_is("close") || matches!(rx.recv_timeout(LONG), Err(Error::Disconnected)));
    no_child_is_left();
    drop(rx);
    nothing_leaks(&before);
    can_spawn_fresh();
    told
}

fn start_a_program() -> String {
    used();
    let before = open_fds();
    let (tx, rx) = channel::<u8>().unwrap();
    let mut sent = message("hello");
    sent.reply = Some(tx);
    let started = marked(|| spawn_command(Command::new("/bin/true"), sent));
    let told = told(&started);
    if let Ok(mut program) = started {
        assert!(program.wait().unwrap().success());
    }
    assert!(fault_is("close") || matches!(rx.recv_timeout(LONG), Err(Error::Disconnected)));
    no_child_is_left();
    drop(rx);
    nothing_leaks(&before);
    told
}

fn inherit_arguments() -> String {
    used();
    let before = open_fds();
    let rx = crate::support::handed_over(message("hello"));
    let inheritable = nix::unistd::dup(&rx).unwrap(); // not close-on-exec
    drop(rx);
    let number = std::os::fd::IntoRawFd::into_raw_fd(inheritable);
    // SAFETY: this process has one thread.
    #[allow(unsafe_code, reason = "the environment belongs to all threads")]
    unsafe {
        std::env::set_var("WORMHOLE_FD", number.to_string());
    }
    let inherited = marked(inherit::<Message>);
    match &inherited {
        Ok(received) => assert_eq!(received.text, "hello"),
        // The next attempt succeeds, unless this one has taken it.
        Err(_) => match inherit::<Message>() {
            Ok(received) => assert_eq!(received.text, "hello"),
            Err(error) => assert!(error.to_string().ends_with("taken before"), "{error}"),
        },
    }
    nothing_leaks(&before);
    told(&inherited)
}
