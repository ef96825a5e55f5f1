//! The command line.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::address::{Address, FdArgument};

const ABOUT: &str = "The channels of wormhole for shells and scripts";

const LONG_ABOUT: &str = "\
The channels of wormhole for shells and scripts: JSON, one message a line.

The text of a message passes through as it is, with all digits of its numbers; it is only checked that it is JSON. Each \
message that is received is one line of standard output, written at once. Standard input is read by `send` without a \
message, and by nothing else. Whether it is used from a terminal makes no difference.";

const REFERENCE: &str = "\
Addresses:
  PATH    the path of a socket file
  @NAME   an abstract name: without a file, and open to every process of the
          machine (of the network namespace). A file of that name is ./@NAME
  fd:N    a channel end, or a listening socket, that is open as descriptor N,
          3 or more. A file of that name is ./fd:N

Exit status:
  0  done
  1  the system refused something, or nobody listens at the address
  2  the command line is wrong
  3  the other side has gone before all was done
  4  nothing happened within --timeout
  5  with --no-wait: the channel is full, or empty
  6  a line is not JSON, or too long
  7  a message is not JSON, too long, or has descriptors that nothing takes
  Otherwise that of the command which was run (--exec, run, take): 126 and 127
  if it cannot be started. A signal that ends wormholectl shows as 128 and its
  number in a shell; it removes the socket file.";

/// wormholectl: the channels of wormhole for shells and scripts.
#[derive(Debug, Parser)]
#[command(name = "wormholectl", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = REFERENCE,
    infer_subcommands = false, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Listen(Listen),
    Send(Send),
    Call(Call),
    Run(Run),
    Take(Take),
    Tap(Tap),
    /// Print the completions of a shell
    #[command(after_help = "\
Example:
  wormholectl completions bash >/etc/bash_completion.d/wormholectl")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a man page
    #[command(after_help = "\
Example:
  wormholectl man send | man -l -")]
    Man {
        /// The command that the page is about; without one it is about all of them
        #[arg(value_name = "COMMAND")]
        about: Option<String>,
    },
}

/// Receive messages, and print each as a line
///
/// Listens at ADDR, for any number of clients at once, until a signal ends it. If ADDR is the receiving end of a channel
/// (fd:N), receives from it until its senders have gone. If standard output is a pipe that nobody reads any more, it ends
/// quietly.
///
/// A message that cannot be used ends it, with status 7. Messages with descriptors need --exec; without it they are such
/// messages, and the descriptors are closed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wormholectl listen /run/user/1000/events
  wormholectl listen @jobs --exec 'wc -l <&3'    # a file comes with each message")]
pub(crate) struct Listen {
    /// Where to listen, or the descriptor to receive from
    #[arg(value_name = "ADDR", value_parser = Address::parser())]
    pub(crate) address: Address,
    /// End after N messages; status 3 if there are fewer
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Let in one client, and end when it has gone
    #[arg(long)]
    pub(crate) once: bool,
    /// End with status 4 if no message comes for that long
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Take what is waiting, and end; with status 5 if that is nothing. For fd:N only
    #[arg(long, conflicts_with = "timeout")]
    pub(crate) no_wait: bool,
    /// Print {"pid":...,"uid":...,"gid":...,"message":...}: who has connected, as the kernel says
    #[arg(long)]
    pub(crate) peer: bool,
    #[command(flatten)]
    pub(crate) use_of: Use,
}

/// What is done with messages that were received.
#[derive(Args, Debug)]
pub(crate) struct Use {
    /// Run COMMAND with /bin/sh for each message, one after the other, instead of printing it
    ///
    /// The message is its standard input, one line. The descriptors of the message are 3 and up, and LISTEN_FDS says how
    /// many (LISTEN_PID is the shell's process: start a program that looks at it with `exec`). WORMHOLE_PEER_PID, _UID and
    /// _GID say who has connected; what is not known is not set. If it fails, its status ends this command.
    #[arg(short, long, value_name = "COMMAND", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) exec: Option<String>,
    /// Report what is wrong with a message, and go on with the next; the status is that of the last thing that was
    #[arg(short, long)]
    pub(crate) keep_going: bool,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

/// The longest message.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Limit {
    /// The longest text of a message [default: 67108864]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_message: Option<usize>,
}

/// Send a message, or each line of standard input as one
///
/// Without JSON, standard input is read: each line is a message, lines of nothing but white space are skipped. A line that
/// is not JSON ends it, with status 6; the lines before it have been sent. It ends with status 3 as soon as the receiver
/// has gone.
///
/// Status 0 means that the kernel has all messages. They arrive unless the receiver ends before it has received them: to
/// know that something was done, use `call`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wormholectl send /run/user/1000/events '{\"event\":\"started\"}'
  wormholectl send @jobs '{\"input\":0}' --fd data.txt
  jq --compact-output --unbuffered .items[] <all.json | wormholectl send @jobs")]
pub(crate) struct Send {
    /// Where to connect to, or the descriptor to send to
    #[arg(value_name = "ADDR", value_parser = Address::parser())]
    pub(crate) address: Address,
    /// The message
    #[arg(value_name = "JSON")]
    pub(crate) message: Option<OsString>,
    #[command(flatten)]
    pub(crate) fds: Fds,
    #[command(flatten)]
    pub(crate) waiting: Waiting,
    /// Report lines that are not JSON, and go on with the next; the status is 6 in the end
    #[arg(short, long, conflicts_with = "message")]
    pub(crate) keep_going: bool,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

/// Descriptors of a message.
#[derive(Args, Debug)]
pub(crate) struct Fds {
    /// A descriptor for the message: a number that is open here, or a file to open for reading (./7 if it is called 7).
    /// In the JSON it is its index: 0 for the first, and so on
    #[arg(short, long = "fd", value_name = "N|PATH", value_parser = FdArgument::parser())]
    pub(crate) fd: Vec<FdArgument>,
}

/// How long to wait for room, and for a listener.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Wait for somebody to listen at ADDR, instead of failing
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Wait for at most that long: to connect, and then for each message; status 4 after that
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,
    /// Do not wait for room in the channel: status 5 if there is none
    #[arg(long, conflicts_with_all = ["timeout", "wait"])]
    pub(crate) no_wait: bool,
}

/// Send a question, and print the answer
///
/// With the question goes the sending end of a new channel, as its descriptor 0. The JSON has to say so: where the other
/// side expects a `Sender`, write 0. Those of --fd are 1 and up. What is sent on that channel is the answer.
///
/// Status 3 means that the other side will not answer any more: it ended, or forgot the question.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wormholectl call @squares '{\"number\":12,\"reply\":0}'")]
pub(crate) struct Call {
    /// Where to connect to, or the descriptor to send to
    #[arg(value_name = "ADDR", value_parser = Address::parser())]
    pub(crate) address: Address,
    /// The question
    #[arg(value_name = "JSON")]
    pub(crate) message: OsString,
    #[command(flatten)]
    pub(crate) fds: Fds,
    /// Wait for N answers
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    pub(crate) count: u64,
    /// Print all answers, until the other side has closed the channel
    #[arg(short, long, conflicts_with = "count")]
    pub(crate) all: bool,
    /// Wait for somebody to listen at ADDR, instead of failing
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Wait for at most that long: to connect, to send, and for each answer; status 4 after that
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) use_of: Use,
}

/// Run a program, and hand it a value and ends of channels
///
/// The program, one that calls `wormhole::inherit`, finds the value through the environment variable WORMHOLE_FD. The
/// options --fd, --sender and --receiver give the descriptors that the value refers to: 0 is the first of them on the
/// command line. Without a value it is the list of all: `[0,1]` for two, `null` for none.
///
/// The program takes the place of this one: it has its standard streams, its process id, and its status is the status.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wormholectl run --receiver @jobs --sender @results -- ./worker
  wormholectl run --value '{\"name\":\"a\",\"log\":0}' --fd 3 3>>log -- ./plugin --verbose")]
pub(crate) struct Run {
    /// The value
    #[arg(short, long, value_name = "JSON")]
    pub(crate) value: Option<OsString>,
    #[command(flatten)]
    pub(crate) fds: Fds,
    /// Hand over a sender: one that is connected to ADDR, or the descriptor
    #[arg(short, long, value_name = "ADDR", value_parser = Address::parser())]
    pub(crate) sender: Vec<Address>,
    /// Hand over a receiver: that of the first client which connects to ADDR, or the descriptor
    #[arg(short, long, value_name = "ADDR", value_parser = Address::parser())]
    pub(crate) receiver: Vec<Address>,
    /// Wait for somebody to listen where a sender is to connect to, instead of failing
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Wait for at most that long, for each listener and each client; status 4 after that
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) timeout: Option<Duration>,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

/// Take what was handed to this script, and run a command with it
///
/// For a script that was started with a value: by `spawn_command` of the library, by a pool, or by `run`. The value becomes
/// the command's standard input, one line; its descriptors are 3 and up, and LISTEN_FDS says how many. They are ends of
/// channels in most cases: use them as fd:3, fd:4 and so on. The command takes the place of this program.
///
/// Without a command it prints the value, which then may not have descriptors (status 7, and they are closed).
///
/// It can be taken once.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: a script that takes numbers, and sends back their squares
  [[ ${LISTEN_FDS-} ]] || exec wormholectl take -- \"$0\"
  wormholectl listen fd:3 | while read -r n; do echo $((n * n)); done | wormholectl send fd:4")]
pub(crate) struct Take {
    /// The command and its arguments
    #[arg(value_name = "COMMAND", last = true)]
    pub(crate) command: Vec<OsString>,
}

/// Show what goes over a channel
///
/// Listens at NEW, connects each client to REAL, and passes on what it sends: packets, descriptors and memfds as they are,
/// garbage too. For each it prints a line: the time (UTC), the number of the client, the bytes of the packet, the
/// descriptors and their kinds, and the text, with control characters escaped.
///
/// What it cannot see: what goes over channels whose ends are passed on in messages, such as answers; what is read from and
/// written to descriptors; and what clients send to REAL directly. What it changes: who listens at REAL sees this program
/// as the peer; there is room for more messages in between; a client can be told that its message was sent although REAL
/// ends before it has it (the line says `lost`); and as long as nobody reads the lines, messages wait as well.
#[derive(Args, Debug)]
#[command(after_help = "\
Example: between a daemon that listens at /run/app and its clients
  wormholectl tap /run/app /tmp/app-tapped")]
pub(crate) struct Tap {
    /// Where the receiver listens
    #[arg(value_name = "REAL", value_parser = Address::parser())]
    pub(crate) real: Address,
    /// Where the clients connect to
    #[arg(value_name = "NEW", value_parser = Address::parser())]
    pub(crate) new: Address,
    /// Characters of the text that are shown; 0 for none
    #[arg(short = 'W', long, value_name = "N", default_value_t = 80)]
    pub(crate) width: usize,
    /// Wait for somebody to listen at REAL, instead of turning clients away
    #[arg(short, long)]
    pub(crate) wait: bool,
    /// Let in one client, and end when it has gone
    #[arg(long)]
    pub(crate) once: bool,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
