//! The worker's side: it takes jobs, and answers each.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe, catch_unwind};

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::answer::{Answer, Panic};
use crate::channel::{Receiver, Sender};
use crate::error::{Error, Result};
use crate::process::failure::Failure;
use crate::process::handle::Process;
use crate::process::run::{PANICKED, panic_message};
use crate::process::settings::Settings;
use crate::process::spawn::{Threads, fork_and_run};
use crate::process::{code, fresh};

/// How a worker gets ready, and what it does with each job.
#[derive(Debug)]
pub(super) struct Work<A, S, J, R> {
    pub(super) init: fn(&A) -> Result<S, Failure>,
    pub(super) work: fn(&mut S, J) -> R,
}

impl<A, S, J, R> Clone for Work<A, S, J, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, S, J, R> Copy for Work<A, S, J, R> {}

/// All that a forked worker has. Serialized, it shows the descriptors in it.
struct Forked<'a, A, S, J, R> {
    args: &'a A,
    work: Work<A, S, J, R>,
    jobs: Receiver<J>,
    answers: Sender<Answer<R>>,
}

impl<A: Serialize, S, J, R> Serialize for Forked<'_, A, S, J, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        (self.args, &self.jobs, &self.answers).serialize(serializer)
    }
}

/// Forks a worker.
pub(super) fn fork<A, S, J, R>(
    settings: &Settings,
    args: &A,
    work: Work<A, S, J, R>,
    jobs: Receiver<J>,
    answers: Sender<Answer<R>>,
) -> Result<Process>
where
    A: Serialize,
    J: DeserializeOwned,
    R: Serialize,
{
    let worker = Forked {
        args,
        work,
        jobs,
        answers,
    };
    let private = None::<Receiver<J>>; // whatever is not in the arguments is taken away
    let (process, _) = fork_and_run(settings, Threads::One, worker, private, |worker, ready| {
        let Forked {
            args,
            work,
            jobs,
            answers,
        } = worker;
        serve(ready.map(|()| args), work, &jobs, &answers)
    })?;
    Ok(process)
}

/// What a fresh worker is sent: two functions by their offsets, its ends, and its arguments.
type Fresh<A, J, R> = (u64, u64, Receiver<J>, Sender<Answer<R>>, A);

/// Starts a worker in a fresh copy of this program.
pub(super) fn start_fresh<A, S, J, R>(
    settings: &Settings,
    args: &A,
    work: Work<A, S, J, R>,
    jobs: Receiver<J>,
    answers: Sender<Answer<R>>,
) -> Result<Process>
where
    A: Serialize + DeserializeOwned,
    J: DeserializeOwned,
    R: Serialize,
{
    let worker: Fresh<&A, J, R> = (
        fresh::offset_of(work.init as usize)?,
        fresh::offset_of(work.work as usize)?,
        jobs,
        answers,
        args,
    );
    let main: fresh::Main<Fresh<A, J, R>> = run_fresh::<A, S, J, R>;
    fresh::start(settings, worker, None, main)
}

#[allow(unsafe_code, reason = "calls functions by their offsets")]
fn run_fresh<A, S, J, R>(worker: Result<Fresh<A, J, R>>, _: Option<OwnedFd>) -> i32
where
    J: DeserializeOwned,
    R: Serialize,
{
    let (init, work, jobs, answers, args) = match worker {
        Ok(worker) => worker,
        Err(error) => {
            eprintln!("wormhole: a worker cannot receive its arguments: {error:#}");
            return 1;
        }
    };
    // SAFETY: the parent, which is the same program, has had a function of this type.
    let init = unsafe { code::function_at(init) };
    // SAFETY: likewise.
    let work = unsafe { code::function_at(work) };
    let (Some(init), Some(work)) = (init, work) else {
        return 1;
    };
    let work = Work::<A, S, J, R> { init, work };
    serve(Ok(&args), work, &jobs, &answers)
}

/// The life of a worker. Gives its exit status.
fn serve<A, S, J, R>(
    args: Result<&A>,
    work: Work<A, S, J, R>,
    jobs: &Receiver<J>,
    answers: &Sender<Answer<R>>,
) -> i32
where
    J: DeserializeOwned,
    R: Serialize,
{
    listen_to_panics();
    let init = || match args {
        Ok(args) => (work.init)(args).map_err(|failure| failure.to_string()),
        Err(error) => Err(format!("{error:#}")),
    };
    let mut state = match catch_unwind(AssertUnwindSafe(init)) {
        Ok(Ok(state)) => state,
        Ok(Err(reason)) => {
            let _ = answers.send(Answer::Undelivered(reason));
            return 1;
        }
        Err(payload) => {
            let _ = answers.send(Answer::Failed(panicked(panic_message(payload))));
            return PANICKED;
        }
    };
    let mut answer = Answer::Ready;
    loop {
        match say(answers, answer) {
            Ok(()) => {}
            Err(Error::Disconnected) => return 0, // no pool waits for it
            Err(error) => {
                eprintln!("wormhole: a worker cannot answer: {error:#}");
                return 1;
            }
        }
        answer = match jobs.recv() {
            Ok(job) => {
                let result = catch_unwind(AssertUnwindSafe(|| (work.work)(&mut state, job)));
                match result {
                    Ok(result) => Answer::Done(result),
                    Err(payload) => Answer::Failed(panicked(panic_message(payload))),
                }
            }
            Err(Error::Disconnected) => return 0,
            Err(error @ Error::Io { .. }) => {
                eprintln!("wormhole: a worker cannot receive its next job: {error:#}");
                return 1;
            }
            Err(error) => Answer::Undelivered(format!("cannot receive the job: {error:#}")),
        };
    }
}

/// Sends an answer, or else why it cannot be sent.
fn say<R: Serialize>(answers: &Sender<Answer<R>>, answer: Answer<R>) -> Result<()> {
    let is_first = matches!(answer, Answer::Ready);
    let sent = catch_unwind(AssertUnwindSafe(|| answers.send_borrowed(&answer)));
    if let Ok(Ok(given)) = &sent {
        given.note();
    }
    // A destructor that panics comes too late to be an answer.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(answer))) {
        std::mem::forget(payload);
    }
    match sent {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(Error::Disconnected)) => Err(Error::Disconnected),
        // It would never get a job.
        Ok(Err(error)) if is_first => Err(error),
        Ok(Err(error)) => answers.send(Answer::Undelivered(format!(
            "cannot send the result: {error:#}"
        ))),
        // The `Serialize` of the result panicked.
        Err(payload) => answers.send(Answer::Failed(panicked(panic_message(payload)))),
    }
}

/// A worker's function without a state: it is the state. It travels as its offset.
#[derive(Debug)]
pub(super) struct Stateless<J, R>(pub(super) fn(J) -> R);

impl<J, R> Stateless<J, R> {
    #[allow(clippy::unnecessary_wraps, reason = "others may fail")]
    pub(super) fn init(&self) -> Result<Self, Failure> {
        Ok(Stateless(self.0))
    }

    pub(super) fn work(&mut self, job: J) -> R {
        (self.0)(job)
    }
}

impl<J, R> Serialize for Stateless<J, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        code::offset_of(self.0 as usize).serialize(serializer)
    }
}

impl<'de, J, R> Deserialize<'de> for Stateless<J, R> {
    #[allow(unsafe_code, reason = "makes a function of its offset")]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let offset = Option::<u64>::deserialize(deserializer)?;
        // SAFETY: only a fresh worker gets here, whose parent, the same program, has had a function of this type.
        let function = offset.and_then(|offset| unsafe { code::function_at(offset) });
        let function = function.map(Stateless);
        function.ok_or_else(|| D::Error::custom("the function is not in this program"))
    }
}

thread_local! {
    /// Where the last panic of this thread was, and its backtrace.
    static LAST: RefCell<Option<(String, Option<String>)>> = const { RefCell::new(None) };
}

/// Has this process, which is a worker's, note where it panics, before it prints that as usual.
fn listen_to_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string);
        let backtrace = Backtrace::capture();
        let backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        let _ = LAST.try_with(|last| {
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = place.map(|place| (place, backtrace));
            }
        });
        print(info);
    }));
}

fn panicked(message: String) -> Panic {
    let last = LAST.with(|last| last.borrow_mut().take());
    let (place, backtrace) = match last {
        Some((place, backtrace)) => (Some(place), backtrace),
        None => (None, None),
    };
    Panic {
        message,
        place,
        backtrace,
    }
}
