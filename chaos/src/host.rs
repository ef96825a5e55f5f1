//! The host: a listener to which clients connect, each a channel of its own.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use wormhole::{Error, Key, Listener, Peer, Receiver, ReceiverSet, select};

use crate::assignment::{Address, Presence};
use crate::consumer::use_up;
use crate::ledger::{Count, Row, Stream, as_index, ledger};
use crate::message::Message;
use crate::receiving::{Got, account};
use crate::this_process::{Op, ThisProcess, describe};

/// A client of the host, and what is known of it.
#[derive(Debug)]
struct Client {
    peer: Peer,
    stream: Option<usize>,
}

/// Listens, takes what all clients send, and ends when there can be no more of them.
pub(crate) fn serve(this: &mut ThisProcess, address: &Address) -> anyhow::Result<()> {
    let channel = address.channel as usize;
    let Presence::Host(presence) = &address.presence else {
        anyhow::bail!("a host has the end of a client");
    };
    let listener = listen(this, address)?;
    let mut set = ReceiverSet::new()?;
    let mut clients = HashMap::new();
    let mut is_open = true;
    loop {
        this.doing(Op::Accept, Some(channel));
        this.receiving(1);
        if is_open {
            select! {
                recv(presence) -> gone => match gone {
                    Err(Error::Disconnected) => is_open = false,
                    other => this.violation(format_args!("presence: {other:?}")),
                },
                ready(listener) => {}
                ready(set) => {}
            }
        }
        // Clients that connected before the last of them left are still waiting here.
        while let Some((rx, peer)) = accepted(this, listener.try_accept()) {
            clients.insert(set.add(rx)?, Client { peer, stream: None });
        }
        let received = match is_open {
            true => set.try_recv(),
            false => set.recv(),
        };
        match received {
            Err(Error::Empty) => {}
            Err(Error::Disconnected) if !is_open => break,
            Err(Error::Disconnected) => {} // no client at the moment
            Err(error) => this.violation(format_args!("the set of a host: {}", describe(&error))),
            Ok((key, received)) => from_client(this, channel, &mut clients, key, received),
        }
        this.receiving(0);
        this.rest();
    }
    this.receiving(0);
    Ok(())
}

fn listen(this: &mut ThisProcess, address: &Address) -> anyhow::Result<Listener<Message>> {
    let mut patience = 1000;
    loop {
        match Listener::bind(&address.path) {
            Ok(listener) => return Ok(listener),
            // A child of the one that was killed may live for another moment.
            Err(Error::Address { source, .. })
                if source.kind() == ErrorKind::AddrInUse && patience > 0 =>
            {
                patience -= 1;
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => {
                let (path, error) = (address.path.escape_debug(), describe(&error));
                this.violation(format_args!("listen at {path}: {error}"));
                anyhow::bail!("nowhere to listen");
            }
        }
    }
}

fn accepted(
    this: &ThisProcess,
    accepted: wormhole::Result<(Receiver<Message>, Peer)>,
) -> Option<(Receiver<Message>, Peer)> {
    match accepted {
        Ok(client) => Some(client),
        Err(Error::Empty) => None,
        Err(error) => {
            this.violation(format_args!("accept: {}", describe(&error)));
            None
        }
    }
}

fn from_client(
    this: &mut ThisProcess,
    channel: usize,
    clients: &mut HashMap<Key, Client>,
    key: Key,
    received: wormhole::Result<Message>,
) {
    let Some(client) = clients.get_mut(&key) else {
        this.violation("a message of a client that is not there");
        return;
    };
    if matches!(received, Err(Error::Disconnected)) {
        ledger().add(Count::Disconnects, 1);
        if let Some(stream) = client.stream {
            let seen = ledger().stream(stream, Stream::EndSeen);
            seen.store(1, Ordering::SeqCst);
        }
        clients.remove(&key);
        return;
    }
    let received = received.map(|message| (message, Vec::new()));
    let Got::Message(arrived) = account(this, channel, received) else {
        return;
    };
    let stream = arrived.message.stream as usize;
    match client.stream {
        Some(known) if known == stream => {}
        Some(known) => this.violation(format_args!(
            "a message of stream {stream} from the client of {known}"
        )),
        None => {
            client.stream = Some(stream);
            let acceptor = ledger().stream(stream, Stream::Acceptor);
            acceptor.store(this.row as u64 + 1, Ordering::SeqCst);
            let sender = ledger().stream(stream, Stream::Sender);
            let row = as_index(sender.load(Ordering::SeqCst)).saturating_sub(1);
            let pid = ledger().row(row, Row::Pid).load(Ordering::SeqCst);
            if client.peer.pid.map(u64::from) != Some(pid) {
                let peer = &client.peer;
                this.violation(format_args!(
                    "{peer:?} is said to have sent what {pid} sent"
                ));
            }
        }
    }
    this.receiving(0);
    use_up(this, *arrived);
}
