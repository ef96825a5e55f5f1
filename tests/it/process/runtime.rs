//! The exchange between the processes of a container runtime, as youki has it: main starts an
//! intermediate process, that starts init, and init becomes the container's program.
//!
//! Then the same with each process killed at each of its steps: all the others are told.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use wormhole::{Child, ChildEnd, Error, Receiver, Sender, channel, spawn};

use crate::support::{in_own_process, open_fds, os_error, pipe};

/// Far longer than a step takes.
const NEVER: Duration = Duration::from_secs(10);

/// Within this time everybody knows that a process was killed. It takes a millisecond.
const SOON: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
enum ToMain {
    WriteMapping {
        inside: u32,
        outside: u32,
        size: u32,
    },
    IntermediateReady {
        init: u32,
    },
    SeccompNotify(#[serde(with = "wormhole::fd")] File),
    InitReady {
        pid: u32,
    },
    ExecFailed(String),
}

#[derive(Debug, Serialize, Deserialize)]
enum ToIntermediate {
    MappingWritten,
}

#[derive(Debug, Serialize, Deserialize)]
enum ToInit {
    SeccompListenerTaken,
    Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Who {
    Main,
    Intermediate,
    Init,
}

/// What the processes tell the test.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// About to do that, if the test says so.
    Step { who: Who, pid: i32, step: u32 },
    /// Over, and how.
    End {
        who: Who,
        outcome: Outcome,
        starved: Duration,
    },
}

type Outcome = Result<(), String>;

/// A process's line to the test.
#[derive(Serialize, Deserialize)]
struct Conductor {
    who: Who,
    report: Sender<Report>,
    go: Receiver<()>,
    step: u32,
}

impl Conductor {
    /// Waits to be told to go on, or is killed.
    fn step(&mut self) -> Outcome {
        self.step += 1;
        let step = Report::Step {
            who: self.who,
            pid: getpid().as_raw(),
            step: self.step,
        };
        self.report.send(step).map_err(text)?;
        self.go.recv_timeout(NEVER).map_err(text)
    }

    fn end(self, outcome: Outcome) -> Outcome {
        let (who, report) = (self.who, outcome.clone());
        let end = Report::End {
            who,
            outcome: report,
            starved: starved(),
        };
        let _ = self.report.send(end);
        outcome
    }
}

/// How long this process has been ready to run, and something else ran.
fn starved() -> Duration {
    // "running waiting slices", proc_pid_schedstat(5).
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let waiting = stat.split(' ').nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(waiting.unwrap_or(0))
}

fn text(error: Error) -> String {
    error.to_string()
}

fn surprise<T>(message: impl std::fmt::Debug) -> Result<T, String> {
    Err(format!("out of turn: {message:?}"))
}

#[derive(Serialize)]
struct Main {
    conductors: [Conductor; 3],
    program: String,
}

fn main_process(args: Main) -> Outcome {
    let [mut conductor, intermediate, init] = args.conductors;
    let outcome = run_main(&mut conductor, intermediate, init, args.program);
    conductor.end(outcome)
}

fn run_main(
    conductor: &mut Conductor,
    intermediate: Conductor,
    init: Conductor,
    program: String,
) -> Outcome {
    conductor.step()?;
    let (to_main, main) = channel().map_err(text)?;
    let (to_intermediate, inbox) = channel().map_err(text)?;
    let (to_init, init_inbox) = channel().map_err(text)?;
    let args = Intermediate {
        conductor: intermediate,
        to_main,
        inbox,
        init: (init, init_inbox, program),
    };
    let mut inbox = MainInbox {
        main,
        child: spawn(args, intermediate_process).map_err(text)?,
        ended: None,
    };
    match inbox.next()? {
        Some(ToMain::WriteMapping { size: 65_536, .. }) => {}
        other => return surprise(other),
    }
    conductor.step()?;
    let written = ToIntermediate::MappingWritten;
    to_intermediate.send(written).map_err(text)?;

    // From here on two processes send: in any order.
    let (mut init, mut ready) = (None, None);
    while init.is_none() || ready.is_none() {
        match inbox.next()? {
            Some(ToMain::IntermediateReady { init: pid }) => init = Some(pid),
            Some(ToMain::SeccompNotify(listener)) => {
                conductor.step()?;
                let told = std::io::read_to_string(listener).map_err(|e| e.to_string())?;
                assert_eq!(told, "a listener");
                let taken = ToInit::SeccompListenerTaken;
                to_init.send(taken).map_err(text)?;
            }
            Some(ToMain::InitReady { pid }) => ready = Some(pid),
            other => return surprise(other),
        }
    }
    if init != ready {
        return surprise((init, ready));
    }
    conductor.step()?;
    to_init.send(ToInit::Start).map_err(text)?;
    // An exec closes init's sender: that is how success is told.
    let executed = match inbox.next()? {
        None => Ok(()),
        Some(ToMain::ExecFailed(reason)) => Err(format!("exec: {reason}")),
        other => surprise(other),
    };
    conductor.step()?;
    executed.and(inbox.join()?)
}

/// What main waits for: messages, of which it can be without any while init waits for main, and the
/// end of the intermediate process, which nobody would tell it then.
struct MainInbox {
    main: Receiver<ToMain>,
    child: Child<Outcome>,
    ended: Option<Result<Outcome, String>>,
}

impl MainInbox {
    /// The next message, or `None` when nobody is left who could send one.
    fn next(&mut self) -> Result<Option<ToMain>, String> {
        loop {
            let gone = self.ended.is_some();
            match self.main.try_recv() {
                Ok(message) => return Ok(Some(message)),
                Err(Error::Disconnected) => return Ok(None),
                Err(Error::Empty) if gone => return self.join()?.and(surprise("an early end")),
                Err(Error::Empty) => {}
                Err(error) => return Err(text(error)),
            }
            let events = PollFlags::POLLIN;
            let fds = [self.main.as_fd(), self.child.as_fd()];
            let mut fds = fds.map(|fd| PollFd::new(fd, events));
            if poll(&mut fds, PollTimeout::try_from(NEVER).unwrap()) == Ok(0) {
                return Err("timed out".to_owned());
            }
            // One more look at the messages, which may have come before its end.
            self.ended = self.child.try_join().map_err(text).transpose();
        }
    }

    fn join(&mut self) -> Result<Outcome, String> {
        match self.ended.take() {
            Some(ended) => ended,
            None => self.child.join_timeout(NEVER).map_err(text),
        }
    }
}

#[derive(Serialize)]
struct Intermediate {
    conductor: Conductor,
    to_main: Sender<ToMain>,
    inbox: Receiver<ToIntermediate>,
    init: (Conductor, Receiver<ToInit>, String),
}

fn intermediate_process(args: Intermediate) -> Outcome {
    let Intermediate {
        mut conductor,
        to_main,
        inbox,
        init,
    } = args;
    let outcome = run_intermediate(&mut conductor, to_main, inbox, init);
    conductor.end(outcome)
}

fn run_intermediate(
    conductor: &mut Conductor,
    to_main: Sender<ToMain>,
    inbox: Receiver<ToIntermediate>,
    (init, init_inbox, program): (Conductor, Receiver<ToInit>, String),
) -> Outcome {
    conductor.step()?;
    let request = ToMain::WriteMapping {
        inside: 0,
        outside: 100_000,
        size: 65_536,
    };
    to_main.send(request).map_err(text)?;
    let ToIntermediate::MappingWritten = inbox.recv_timeout(NEVER).map_err(text)?;
    conductor.step()?;
    let args = Init {
        conductor: init,
        to_main: to_main.clone(),
        inbox: init_inbox,
        program,
    };
    let mut child = spawn(args, init_process).map_err(text)?;
    conductor.step()?;
    let init = child.pid();
    to_main
        .send(ToMain::IntermediateReady { init })
        .map_err(text)?;
    drop(to_main);
    conductor.step()?;
    match child.join_timeout(NEVER) {
        // It became a program, which succeeded.
        Err(Error::Child {
            end: ChildEnd::Exited { code: 0 },
            ..
        }) => Ok(()),
        joined => joined.map_err(text)?,
    }
}

#[derive(Serialize)]
struct Init {
    conductor: Conductor,
    to_main: Sender<ToMain>,
    inbox: Receiver<ToInit>,
    program: String,
}

fn init_process(args: Init) -> Outcome {
    let Init {
        mut conductor,
        to_main,
        inbox,
        program,
    } = args;
    let outcome = run_init(&mut conductor, to_main, inbox, program);
    conductor.end(outcome)
}

fn run_init(
    conductor: &mut Conductor,
    to_main: Sender<ToMain>,
    inbox: Receiver<ToInit>,
    program: String,
) -> Outcome {
    conductor.step()?;
    let (listener, mut other_side) = pipe();
    other_side.write_all(b"a listener").unwrap();
    drop(other_side);
    to_main
        .send(ToMain::SeccompNotify(listener))
        .map_err(text)?;
    match inbox.recv_timeout(NEVER).map_err(text)? {
        ToInit::SeccompListenerTaken => {}
        other => return surprise(other),
    }
    conductor.step()?;
    let pid = std::process::id();
    to_main.send(ToMain::InitReady { pid }).map_err(text)?;
    match inbox.recv_timeout(NEVER).map_err(text)? {
        ToInit::Start => {}
        other => return surprise(other),
    }
    conductor.step()?;
    let error = Command::new(program).exec();
    let failed = ToMain::ExecFailed(error.to_string());
    to_main.send(failed).map_err(text)?;
    Ok(())
}

/// A step of a process, counted from 1.
type At = (Who, u32);

/// What the test has seen.
struct Play {
    steps: Vec<At>,
    /// How the processes ended that were not killed.
    ends: Vec<(Who, Outcome)>,
    /// What main returned.
    joined: Result<Outcome, Error>,
    /// From the kill until all processes were gone, but for the time in which other programs kept them from it.
    told: Option<Duration>,
}

/// Plays the exchange, and kills one process at one of its steps.
fn play(program: &str, victim: Option<At>) -> Play {
    let (report, reports) = channel().unwrap();
    let all = [Who::Main, Who::Intermediate, Who::Init];
    let lines = all.map(|who| (who, channel().unwrap()));
    let (conductors, go): (Vec<_>, Vec<_>) = lines
        .into_iter()
        .map(|(who, (tell, go))| {
            let report = report.clone();
            let conductor = Conductor {
                who,
                report,
                go,
                step: 0,
            };
            (conductor, (who, tell))
        })
        .unzip();
    drop(report);
    let args = Main {
        conductors: conductors.try_into().ok().unwrap(),
        program: program.to_owned(),
    };
    let mut child = spawn(args, main_process).unwrap();
    let (mut steps, mut ends) = (vec![], vec![]);
    let mut killed = None;
    let (mut delayed, before) = (Duration::ZERO, starved());
    loop {
        match reports.recv_timeout(NEVER) {
            Ok(Report::Step { who, pid, step }) => {
                steps.push((who, step));
                if victim == Some((who, step)) {
                    killed = Some(Instant::now());
                    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                } else {
                    let (_, tell) = go.iter().find(|(other, _)| *other == who).unwrap();
                    tell.send(()).unwrap();
                }
            }
            Ok(Report::End {
                who,
                outcome,
                starved,
            }) => {
                ends.push((who, outcome));
                delayed += starved;
            }
            Err(Error::Disconnected) => break, // no process is left
            Err(error) => panic!("{error}, after {steps:?} and {ends:?}"),
        }
    }
    let joined = child.join_timeout(NEVER);
    delayed += starved().saturating_sub(before);
    Play {
        steps,
        ends,
        joined,
        told: killed.map(|killed| killed.elapsed().saturating_sub(delayed)),
    }
}

#[test]
fn the_processes_of_a_container_runtime_start_a_program() {
    in_own_process(|| {
        let before = open_fds();
        let Play {
            steps,
            ends,
            joined,
            ..
        } = play("true", None);
        assert_eq!(joined.unwrap(), Ok(()));
        assert_eq!(steps.len(), 5 + 4 + 3);
        // Init has become the program.
        assert_eq!(ends, [(Who::Intermediate, Ok(())), (Who::Main, Ok(()))]);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn the_processes_of_a_container_runtime_report_a_program_that_cannot_be_executed() {
    in_own_process(|| {
        let Play { ends, joined, .. } = play("/does/not/exist", None);
        let reason = format!("exec: {}", os_error(nix::Error::ENOENT));
        assert_eq!(joined.unwrap(), Err(reason));
        assert_eq!(ends.len(), 3);
    });
}

#[test]
fn whichever_process_of_a_container_runtime_is_killed_the_others_are_told() {
    in_own_process(|| {
        let before = open_fds();
        let Play { steps, .. } = play("/does/not/exist", None);
        for victim in steps {
            let (killed, _) = victim;
            let Play {
                ends, joined, told, ..
            } = play("/does/not/exist", Some(victim));
            let told = told.unwrap();
            assert!(told < SOON, "{victim:?}: {told:?}");
            for (who, outcome) in &ends {
                assert_ne!(*who, killed);
                if let Err(reason) = outcome {
                    let waited = reason.contains("timed out");
                    assert!(!waited, "{who:?} waited for {victim:?}: {ends:?}");
                }
            }
            let ended = |who| ends.iter().find(|(other, _)| *other == who);
            match joined {
                Err(Error::Child { end, .. }) => {
                    assert_eq!(killed, Who::Main);
                    let signal = 9;
                    let core_dumped = false;
                    let by_signal = ChildEnd::Killed {
                        signal,
                        core_dumped,
                    };
                    assert_eq!(end, by_signal);
                }
                // Whoever else is killed, main ends with an error.
                Ok(Err(_)) => assert!(matches!(ended(Who::Main), Some((_, Err(_))))),
                other => panic!("{victim:?}: {other:?}"),
            }
        }
        // The last one that was killed may still be a zombie of a process that is gone; not of this one.
        assert_eq!(open_fds(), before);
    });
}
