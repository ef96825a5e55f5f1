//! `wormholectl tap`: stands between clients and a listener, and shows what passes.

use std::fmt::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{io, iter};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use wormhole::{Error, Options, Peer, Raw, Receiver};

use crate::address::Address;
use crate::args::Tap;
use crate::failure::{Failure, Outcome, Status, complain};
use crate::inbox::count_of;
use crate::interrupt::{self, Door, Hand};
use crate::kinds::kind_of;
use crate::outbox::connect;
use crate::output::{self, Written, write_line};
use crate::packet::{self, Came, MAX_PACKET};
use crate::text;

/// The length that a packet begins with.
const HEADER: usize = 8;

/// How long to wait before trying to send again: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(64);

/// How long clients wait for descriptors that this program does not have.
const CROWDED: Duration = Duration::from_millis(100);

pub(crate) fn run(args: &Tap) -> Outcome {
    if let Address::Fd(_) = args.real {
        let sentence = format!(
            "{} cannot be connected to: REAL is a path or @NAME",
            args.real
        );
        return Err(Failure::new(Status::Usage, sentence));
    }
    let door = Door::bind(&args.new, &Options::new())?;
    let real = Arc::new(args.real.clone());
    let mut number = 0_u64;
    loop {
        let (client, peer) = match next_client(&door)? {
            Some(client) => client,
            None => return Ok(0),
        };
        number += 1;
        let view = View {
            client: number,
            width: args.width,
            wait: args.wait,
        };
        if args.once {
            drop(door);
            return serve(view, client, peer, &real).map(|()| 0);
        }
        let real = Arc::clone(&real);
        let work = move || {
            if let Err(failure) = serve(view, client, peer, &real) {
                failure.of(format_args!("client {number}")).report();
            }
        };
        if let Err(error) = thread::Builder::new().spawn(work) {
            let failure = Failure::system("start a thread", error);
            failure
                .of(format_args!("client {number} is turned away"))
                .report();
        }
    }
}

/// Waits for a client. `None`: nobody reads the lines any more.
fn next_client(door: &Door) -> Outcome<Option<(Receiver<Raw>, Peer)>> {
    let mut is_crowded = false;
    loop {
        match door.try_accept() {
            Ok(client) => return Ok(Some(client)),
            Err(Error::Empty) => {}
            Err(error) => {
                if !is_crowded {
                    Failure::from(error).of("a client has to wait").report();
                }
                is_crowded = true;
                thread::sleep(CROWDED);
                continue;
            }
        }
        let mut polled = [
            PollFd::from_borrowed_fd(output::polled(), PollFlags::empty()),
            PollFd::from_borrowed_fd(door.polled().as_fd(), PollFlags::IN),
        ];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system("wait for clients", errno)),
        }
        if polled
            .first()
            .is_some_and(|output| !output.revents().is_empty())
        {
            interrupt::end(0);
        }
    }
}

/// Passes on what one client sends, until either side has gone.
fn serve(view: View, client: Receiver<Raw>, peer: Peer, real: &Address) -> Outcome<()> {
    let who = match peer.pid {
        Some(pid) => format!("connected: pid {pid}, uid {}, gid {}", peer.uid, peer.gid),
        None => format!("connected: uid {}, gid {}", peer.uid, peer.gid),
    };
    view.show("--", &who)?;
    let server = match connect(real, &mut iter::empty(), view.wait, None) {
        Ok(server) => OwnedFd::try_from(server)?,
        Err(failure) => {
            view.show("--", "turned away")?;
            return Err(failure);
        }
    };
    let client = OwnedFd::try_from(client)?;
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        let mut polled = [
            PollFd::from_borrowed_fd(client.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(server.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure::system("wait for packets", errno)),
        }
        let [_, server_events] = polled.map(|fd| fd.revents());
        let _hand = Hand::take();
        if !server_events.is_empty() {
            return view.closed(0, &client, &mut buffer);
        }
        let came = packet::receive(client.as_fd(), &mut buffer);
        match came.map_err(|error| Failure::system("receive a packet", error))? {
            Came::Nothing => {}
            Came::End => return view.show("--", "closed by the client"),
            Came::Lost(reason) => {
                complain(&format!(
                    "client {}: a packet is lost: {reason}",
                    view.client
                ));
                view.show("->", &format!("lost: {reason}"))?;
            }
            Came::Packet(len, fds) => {
                let packet = buffer.get(..len).unwrap_or_default();
                match pass_on(&server, packet, &fds) {
                    Ok(()) => {
                        let line = view.describe(packet, &fds);
                        drop(fds);
                        view.show("->", &line)?;
                    }
                    Err(Errno::PIPE | Errno::CONNRESET | Errno::CONNREFUSED) => {
                        return view.closed(1, &client, &mut buffer);
                    }
                    Err(errno) => {
                        let error = io::Error::from(errno);
                        complain(&format!(
                            "client {}: a packet is lost: {error}",
                            view.client
                        ));
                        view.show("->", &format!("lost: {error}"))?;
                    }
                }
            }
        }
    }
}

/// Sends a packet, however long it takes.
fn pass_on(server: &OwnedFd, packet: &[u8], fds: &[OwnedFd]) -> Result<(), Errno> {
    let mut pause = FIRST_RETRY;
    loop {
        match packet::send(server.as_fd(), packet, fds) {
            // KERNEL: a full socket says that it is writable only once most of its buffer is free.
            Err(Errno::AGAIN) => {
                let mut polled = [PollFd::from_borrowed_fd(server.as_fd(), PollFlags::OUT)];
                let timeout = Timespec::try_from(pause).ok();
                let _ = poll(&mut polled, timeout.as_ref());
            }
            // Too many descriptors are on their way. Nothing tells when some have arrived.
            Err(Errno::TOOMANYREFS) => thread::sleep(pause),
            sent => return sent,
        }
        pause = (pause * 2).min(LAST_RETRY);
    }
}

/// How one client is served, and what it sends is shown.
#[derive(Clone, Copy, Debug)]
struct View {
    client: u64,
    width: usize,
    /// Whether the client waits for somebody to listen.
    wait: bool,
}

impl View {
    fn show(&self, direction: &str, what: &str) -> Outcome<()> {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let (seconds, micros) = (time.as_secs() % 86_400, time.subsec_micros());
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let client = self.client;
        let line = format!(
            "{hour:02}:{minute:02}:{second:02}.{micros:06}Z #{client} {direction} {what}\n"
        );
        match write_line(line.as_bytes())? {
            Written::All => Ok(()),
            Written::NoReader => {
                // Not from here: this thread has something in hand.
                thread::spawn(|| interrupt::end(0));
                Ok(())
            }
        }
    }

    /// The server has gone. Says what will not arrive.
    fn closed(&self, lost: usize, client: &OwnedFd, buffer: &mut [u8]) -> Outcome<()> {
        // Or those that send fast enough would go on being told that it was sent, and this would not end.
        // KERNEL: a send is EPIPE from here on; what was sent before can still be received
        // (`a_client_that_goes_on_sending_is_refused_once_the_receiver_has_gone`).
        shutdown(client, Shutdown::Read)
            .map_err(|errno| Failure::system("refuse what a client sends", errno))?;
        let mut lost = lost;
        // Nothing: a packet without a byte, and behind it another. A last one looks like the end.
        while let Ok(Came::Packet(..) | Came::Lost(_) | Came::Nothing) =
            packet::receive(client.as_fd(), buffer)
        {
            lost += 1;
        }
        if lost == 0 {
            return self.show("--", "closed by the receiver");
        }
        let lost = count_of(lost, "packet");
        complain(&format!(
            "client {}: the receiver has gone, {lost} lost",
            self.client
        ));
        self.show("--", &format!("closed by the receiver: {lost} lost"))
    }

    /// A packet, after the fact.
    fn describe(&self, packet: &[u8], fds: &[OwnedFd]) -> String {
        let mut line = format!("{} B", packet.len());
        let kinds: Vec<_> = fds.iter().map(|fd| kind_of(fd.as_fd())).collect();
        if !kinds.is_empty() {
            let _ = write!(line, " [{}]", kinds.join(", "));
        }
        let Some((header, inline)) = packet.split_first_chunk::<HEADER>() else {
            line.push_str(" no message: too short");
            return line;
        };
        let len = u64::from_le_bytes(*header);
        match len.checked_sub(inline.len() as u64) {
            Some(0) => {}
            Some(rest) => {
                let _ = write!(line, " (and {rest} B in a memfd)");
            }
            None => {
                let _ = write!(line, " (not as long as it says: {len} B)");
            }
        }
        if self.width > 0 {
            line.push(' ');
            line.push_str(&text::excerpt(inline, self.width));
        }
        line
    }
}
