//! The channels of wormhole for shells and scripts: JSON, one message a line.
//!
//! `args` is the command line. `inbox` and `outbox` are the two directions, over the library; `tap` alone handles packets
//! (`packet`). `exec` is the command of a message. `interrupt` sees to signals, `descriptors` to descriptors by number,
//! `failure` to exit statuses.

mod address;
mod args;
mod descriptors;
mod exec;
mod failure;
mod inbox;
mod interrupt;
mod kinds;
mod lines;
mod outbox;
mod output;
mod packet;
mod receive;
mod run;
mod send;
mod tap;
mod text;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::args::{Cli, Command};
use crate::failure::{Failure, Outcome, Status};

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let matches = matches.subcommand().map(|(_, matches)| matches.clone());
    match run(cli.command, &matches.unwrap_or_default()) {
        Ok(status) => status.into(),
        Err(failure) => {
            failure.report();
            failure.status.into()
        }
    }
}

fn run(command: Command, matches: &ArgMatches) -> Outcome {
    match command {
        Command::Listen(args) => receive::listen(args),
        Command::Send(args) => send::run(&args),
        Command::Call(args) => receive::call(args),
        Command::Run(args) => run::run(&args, matches),
        Command::Take(args) => run::take(&args),
        Command::Tap(args) => tap::run(&args),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "wormholectl", &mut script);
            print(&script)
        }
        Command::Man { about } => man(about.as_deref()),
    }
}

/// A page about one command, or about all of them.
fn man(about: Option<&str>) -> Outcome {
    let mut command = Cli::command();
    command.build();
    let (title, subject) = match about {
        None => ("wormholectl".to_owned(), &command),
        Some(name) => {
            let found = command.find_subcommand(name);
            let missing = || Failure::new(Status::Usage, format!("there is no command {name}"));
            (format!("wormholectl-{name}"), found.ok_or_else(missing)?)
        }
    };
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(subject.clone())
        .title(title)
        .render(&mut page);
    rendered.map_err(|error| Failure::system("make the page", error))?;
    print(&page)
}

fn print(text: &[u8]) -> Outcome {
    output::write_line(text).map(|_| 0)
}
