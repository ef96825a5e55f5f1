//! Several processes at one measurement: started together, watched, and ended together.
//!
//! The program itself stays single-threaded. Each measurement runs in a process of its own, the leader,
//! which forks the other sides. When the leader does not finish in time it is killed, and the others with it.

#![allow(unsafe_code, reason = "fork")]

use std::any::Any;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::time::TimeValLike;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Outcome;
use crate::place::Place;
use crate::sample::Usage;

/// What a side sends to the leader when it is ready to start. No report begins so.
const READY: u8 = b'!';

/// How long a failed leader waits for what the other sides have to say about it.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Numbers that a side hands to the leader at its end.
pub(crate) type Tally = Vec<u64>;

/// What a side reports: its processor time in nanoseconds and its numbers, or what went wrong.
type Report = Result<(u64, Tally), String>;

/// A side's part in another process than the leader's.
pub(crate) type Part<'a> = Box<dyn FnOnce(&mut Side) -> Outcome<Tally> + 'a>;

/// A side's part in another thread.
pub(crate) type ThreadPart<'a> = Box<dyn FnOnce(&mut Side) -> Outcome<Tally> + Send + 'a>;

/// The view that one side has of a measurement.
#[derive(Debug)]
pub(crate) struct Side {
    /// To the leader; for the leader, to all others.
    links: Vec<UnixStream>,
    leads: bool,
    /// The side that sent the beginning of its report instead of being ready to start.
    early: Option<usize>,
    started: Option<(Instant, Duration)>,
    stopped: Option<Usage>,
}

impl Side {
    fn new(links: Vec<UnixStream>, leads: bool) -> Self {
        Side {
            links,
            leads,
            early: None,
            started: None,
            stopped: None,
        }
    }

    /// Waits until all sides are warmed up, and starts the clocks.
    pub(crate) fn start(&mut self) -> Outcome<()> {
        let mut byte = [READY];
        if self.leads {
            for (index, mut link) in self.links.iter().enumerate() {
                link.read_exact(&mut byte)
                    .context("another side ended before the start")?;
                if byte != [READY] {
                    self.early = Some(index);
                    bail!("another side failed before the start");
                }
            }
            self.started = Some((Instant::now(), processor_time()?));
        }
        for mut link in &self.links {
            link.write_all(&byte)?;
        }
        if !self.leads {
            for mut link in &self.links {
                link.read_exact(&mut byte)?;
            }
            self.started = Some((Instant::now(), processor_time()?));
        }
        Ok(())
    }

    /// Stops the clocks. Left out, they stop at the end of the part.
    pub(crate) fn stop(&mut self) -> Outcome<()> {
        self.stopped = Some(self.used()?);
        Ok(())
    }

    /// Does something `operations` times, after a tenth as many to warm up. Tells it the turn.
    pub(crate) fn repeat(
        &mut self,
        operations: u64,
        mut once: impl FnMut(u64) -> Outcome<()>,
    ) -> Outcome<()> {
        let warmup = operations.div_ceil(10);
        (0..warmup).try_for_each(&mut once)?;
        self.start()?;
        (warmup..warmup + operations).try_for_each(once)
    }

    fn used(&self) -> Outcome<Usage> {
        let (wall, cpu) = self.started.context("the clocks were never started")?;
        Ok(Usage {
            wall: wall.elapsed(),
            cpu: processor_time()?.saturating_sub(cpu),
        })
    }

    fn usage(&self) -> Outcome<Usage> {
        self.stopped.map_or_else(|| self.used(), Ok)
    }
}

/// The processor time so far of this process, and of the children that it has waited for.
pub(crate) fn processor_time() -> Outcome<Duration> {
    let mut micros = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        micros += usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    }
    Ok(Duration::from_micros(u64::try_from(micros)?))
}

/// Runs `parts` in a process each, and `own` in this one.
///
/// Every process drops what belongs to the others' parts. So the ends of channels that a part has taken over
/// are open in its own process only.
pub(crate) fn together<R>(
    mut parts: Vec<Part<'_>>,
    own: impl FnOnce(&mut Side) -> Outcome<R>,
) -> Outcome<(Usage, R, Vec<Tally>)> {
    let mut links = Vec::new();
    for index in 0..parts.len() {
        let (near, far) = UnixStream::pair()?;
        if let Some(_child) = forked()? {
            links.push(near);
            continue;
        }
        drop((near, links));
        let part = parts.swap_remove(index);
        drop((parts, own));
        end(take_part(far, part, true));
    }
    drop(parts);
    lead(links, own)
}

/// The same with one other side, in a thread if the contender knows no processes.
pub(crate) fn beside<R>(
    place: Place,
    in_thread: bool,
    other: impl FnOnce(&mut Side) -> Outcome<Tally> + Send,
    own: impl FnOnce(&mut Side) -> Outcome<R>,
) -> Outcome<(Usage, R, Vec<Tally>)> {
    let other = move |side: &mut Side| {
        place.settle(1)?;
        other(side)
    };
    let own = |side: &mut Side| {
        place.settle(0)?;
        own(side)
    };
    if in_thread {
        threads(vec![Box::new(other)], own)
    } else {
        together(vec![Box::new(other)], own)
    }
}

/// What `together` does, with threads instead of processes.
pub(crate) fn threads<'a, R>(
    parts: Vec<ThreadPart<'a>>,
    own: impl FnOnce(&mut Side) -> Outcome<R>,
) -> Outcome<(Usage, R, Vec<Tally>)> {
    thread::scope(|scope| {
        let mut links = Vec::new();
        for part in parts {
            let (near, far) = UnixStream::pair()?;
            links.push(near);
            scope.spawn(move || take_part(far, part, false));
        }
        lead(links, own)
    })
}

/// Takes part, and reports it.
fn take_part(
    link: UnixStream,
    part: impl FnOnce(&mut Side) -> Outcome<Tally>,
    in_process: bool,
) -> Outcome<()> {
    let mut side = Side::new(vec![link], false);
    let report: Report = guarded(|| {
        let tally = part(&mut side)?;
        let cpu = match in_process {
            true => u64::try_from(side.usage()?.cpu.as_nanos())?,
            false => 0, // the leader's clock has it
        };
        Ok((cpu, tally))
    });
    for link in &side.links {
        serde_json::to_writer(link, &report)?;
    }
    Ok(())
}

fn lead<R>(
    links: Vec<UnixStream>,
    own: impl FnOnce(&mut Side) -> Outcome<R>,
) -> Outcome<(Usage, R, Vec<Tally>)> {
    let mut side = Side::new(links, true);
    let result = own(&mut side).and_then(|result| Ok((side.usage()?, result)));
    let mut tallies = Vec::new();
    let mut cpu = Duration::ZERO;
    for (index, link) in side.links.iter().enumerate() {
        if result.is_err() {
            // It may wait for a start that does not come.
            link.set_read_timeout(Some(LAST_WORDS))?;
            let _ = link.shutdown(std::net::Shutdown::Write);
        }
        let begun: &[u8] = match side.early == Some(index) {
            true => b"{", // that of the report's text
            false => b"",
        };
        match serde_json::from_reader::<_, Report>(begun.chain(link)) {
            Ok(Ok((nanos, tally))) => {
                cpu += Duration::from_nanos(nanos);
                tallies.push(tally);
            }
            // The first to fail knows the cause.
            Ok(Err(reason)) => return Err(anyhow!(reason)),
            Err(_) if result.is_err() => {}
            Err(error) => return Err(error).context("another side ended without a report"),
        }
    }
    let (usage, result) = result?;
    let cpu = usage.cpu + cpu;
    Ok((Usage { cpu, ..usage }, result, tallies))
}

/// Runs `body` in a process of its own for at most `deadline`.
pub(crate) fn isolated<R: Serialize + DeserializeOwned>(
    deadline: Duration,
    body: impl FnOnce() -> Outcome<R>,
) -> Result<R, String> {
    let watch = || -> Outcome<Result<R, String>> {
        let (mut near, far) = UnixStream::pair()?;
        let Some(leader) = forked()? else {
            drop(near);
            let result: Result<R, String> = guarded(body);
            end(serde_json::to_writer(&far, &result).map_err(Into::into));
        };
        drop(far);
        let text = read_until(&mut near, Instant::now() + deadline);
        if text.is_none() {
            kill(leader, Signal::SIGKILL)?;
        }
        let status = waitpid(leader, None)?;
        let Some(text) = text else {
            return Ok(Err(format!("not finished after {deadline:?}")));
        };
        if text.is_empty() {
            return Ok(Err(format!("ended without a result: {status:?}")));
        }
        Ok(serde_json::from_slice(&text)?)
    };
    watch().unwrap_or_else(|error| Err(format!("{error:#}")))
}

/// Reads to the end, if it comes in time.
fn read_until(from: &mut UnixStream, deadline: Instant) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(from.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(nix::Error::EINTR) => continue,
            Ok(_) => {}
            Err(_) => return None,
        }
        match from.read(&mut chunk) {
            Ok(0) => return Some(text),
            Ok(count) => text.extend_from_slice(&chunk[..count]),
            Err(_) => return None,
        }
    }
}

/// Runs `body`; an error or a panic becomes a line of text.
fn guarded<R>(body: impl FnOnce() -> Outcome<R>) -> Result<R, String> {
    std::panic::set_hook(Box::new(|_| {}));
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(panic) => Err(format!("panicked: {}", panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else {
        "for a reason that is no text"
    }
}

/// Forks. `None` in the child, which dies with its parent.
fn forked() -> Outcome<Option<Pid>> {
    let parent = getpid();
    // SAFETY: the program has no thread but this one, but for those that `threads` has joined.
    match unsafe { fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            let tied = set_pdeathsig(Signal::SIGKILL);
            if tied.is_err() || getppid() != parent {
                end(Err(anyhow!("the parent is gone")));
            }
            Ok(None)
        }
    }
}

/// Ends a forked process, without the cleaning up that is the business of the one it was forked from.
fn end(result: Outcome<()>) -> ! {
    // SAFETY: has no preconditions.
    unsafe { nix::libc::_exit(i32::from(result.is_err())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_ended() {
        let result = isolated::<u8>(Duration::from_millis(50), || {
            loop {
                thread::park();
            }
        });
        assert_eq!(result, Err("not finished after 50ms".to_owned()));
    }

    #[test]
    fn a_side_that_fails_is_the_one_to_blame() {
        let result = isolated(Duration::from_secs(5), || {
            let part: Part<'_> = Box::new(|_| Err(anyhow!("out of luck")));
            together(vec![part], |side| side.start()).map(drop)
        });
        assert_eq!(result, Err("out of luck".to_owned()));
    }

    #[test]
    fn a_panic_is_an_error() {
        let result = isolated::<u8>(Duration::from_secs(5), || panic!("oh {}", "no"));
        assert_eq!(result, Err("panicked: oh no".to_owned()));
    }

    #[test]
    fn the_numbers_of_all_sides_come_back_in_their_order() {
        let result = isolated(Duration::from_secs(5), || {
            let part = |number: u64| -> Part<'static> {
                Box::new(move |side| {
                    side.start()?;
                    Ok(vec![number])
                })
            };
            let own = |side: &mut Side| side.start();
            Ok(together(vec![part(1), part(2), part(3)], own)?.2)
        });
        assert_eq!(result, Ok(vec![vec![1], vec![2], vec![3]]));
    }
}
