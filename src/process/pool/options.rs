//! How a pool works.

use std::process::Command;
use std::thread;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Pool;
use super::crew::{Crew, Start};
use super::settings::PoolSettings;
use super::worker::{self, Stateless, Work};
use crate::error::Result;
use crate::process::builder::Builder;
use crate::process::failure::Failure;
use crate::process::settings::Settings;
use crate::process::{command, fresh};

/// How a [`Pool`] works: how many workers of which kind, and what they may do.
///
/// # Examples
///
/// Workers that are slow to get ready do it once, and keep a state:
///
/// ```
/// use std::time::Duration;
///
/// use wormhole::process::Failure;
/// use wormhole::{JobError, PoolOptions};
///
/// struct Dictionary(Vec<String>);
///
/// fn load(words: &Vec<String>) -> Result<Dictionary, Failure> {
///     Ok(Dictionary(words.clone()))
/// }
///
/// fn look_up(dictionary: &mut Dictionary, word: String) -> bool {
///     dictionary.0.contains(&word)
/// }
///
/// let words = vec!["worm".to_owned(), "hole".to_owned()];
/// let options = PoolOptions::new(2).deadline(Duration::from_secs(60)).jobs_per_worker(1000);
/// let mut pool = options.start(words, load, look_up)?;
/// let known: Vec<bool> = pool
///     .map(["hole", "whole"].map(String::from))
///     .map(|(_, known)| known)
///     .collect::<Result<_, JobError>>()?;
/// assert_eq!(known, [true, false]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PoolOptions {
    settings: PoolSettings,
    builder: Builder,
    is_fresh: bool,
}

impl PoolOptions {
    /// Starts from the defaults: so many forked workers, which have none but their own descriptors. 0 workers means as many
    /// as there are processors for this process.
    pub fn new(workers: usize) -> Self {
        let mut builder = Builder::new();
        builder.only_arguments(true);
        let workers = match workers {
            0 => thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        };
        PoolOptions {
            settings: PoolSettings {
                workers,
                deadline: None,
                jobs_per_worker: None,
                ahead: 0,
                keep: 1024,
                process: Settings::default(),
            },
            builder,
            is_fresh: false,
        }
    }

    /// Starts each worker as a fresh copy of this program, as [`spawn_fresh`](crate::spawn_fresh) does, instead of forking:
    /// the way for programs with threads. `main` calls [`process::init`](crate::process::init).
    pub fn fresh(mut self) -> Self {
        self.is_fresh = true;
        self
    }

    /// Sets how long a job may take from when its worker has it. One that takes longer is [`JobError::TimedOut`], its
    /// worker is killed, and another one started.
    ///
    /// The pool looks at the time whenever one of its methods is called, and while they wait. A worker that it may not kill,
    /// because it has become another user, is left to itself.
    ///
    /// [`JobError::TimedOut`]: crate::JobError::TimedOut
    pub fn deadline(mut self, a_job: Duration) -> Self {
        self.settings.deadline = Some(a_job);
        self
    }

    /// Has each worker end after so many jobs, and another one take its place: for work that leaks. 0 counts as 1.
    pub fn jobs_per_worker(mut self, jobs: u64) -> Self {
        self.settings.jobs_per_worker = Some(jobs.max(1));
        self
    }

    /// Sends each worker so many jobs more than the one that it works on. 0 by default.
    ///
    /// Then it has its next job at once, which matters where jobs take less than a millisecond; but a job may wait behind a
    /// long one although another worker is free. What a worker has not taken when it dies goes to another one: a
    /// death costs one job still. Costs a descriptor more for each worker.
    pub fn ahead(mut self, jobs: usize) -> Self {
        self.settings.ahead = jobs;
        self
    }

    /// Sets how many outcomes the pool keeps that have not been received, while jobs are submitted: 1024 by default. With so
    /// many, a submit says [`Error::Full`](crate::Error::Full).
    pub fn keep(mut self, outcomes: usize) -> Self {
        self.settings.keep = outcomes.max(1);
        self
    }

    /// Has the kernel kill the workers when the thread that started them ends, see
    /// [`Builder::end_with_parent`]. Without this, an idle worker ends when the pool's process does, and a busy one after
    /// its job.
    pub fn end_with_parent(mut self) -> Self {
        self.builder.end_with_parent(true);
        self
    }

    /// Sets how the workers start in general: their name, streams, signals. It takes the place of what these options
    /// have set about that, of [`Builder::only_arguments`] too, which is on otherwise.
    pub fn builder(mut self, builder: Builder) -> Self {
        self.builder = builder;
        self
    }

    /// Starts workers that call `work` for each job.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn run<J, R>(self, work: fn(J) -> R) -> Result<Pool<J, R>>
    where
        J: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        if self.is_fresh {
            fresh::offset_of(work as usize)?;
        }
        self.start(Stateless(work), Stateless::init, Stateless::work)
    }

    /// Starts workers that call `init` once each, and then `work` for each job, with what `init` has returned.
    ///
    /// `args` is for `init`; every worker gets it, also those that take the place of others later, so the pool keeps it,
    /// with the ends and descriptors in it. A job that panics leaves the state as it was at that moment.
    ///
    /// Does not wait until the workers are ready. If `init` fails or a worker dies in it, another one is started; after
    /// three in a row the pool starts no more, and [`submit`](Pool::submit) says [`Error::Child`].
    ///
    /// # Errors
    ///
    /// No worker is left then:
    ///
    /// - [`Error::MultiThreaded`]: this process has more than one thread. Use [`fresh`](Self::fresh).
    /// - [`Error::FreshCopy`]: this program did not call [`process::init`](crate::process::init), see
    ///   [`spawn_fresh`](crate::spawn_fresh).
    /// - [`Error::Encode`] and what else a send can say: `args` cannot be sent.
    /// - [`Error::Io`]: the kernel refused, for lack of memory, processes or descriptors: each worker takes up three.
    ///
    /// [`Error::Child`]: crate::Error::Child
    /// [`Error::MultiThreaded`]: crate::Error::MultiThreaded
    /// [`Error::FreshCopy`]: crate::Error::FreshCopy
    /// [`Error::Encode`]: crate::Error::Encode
    /// [`Error::Io`]: crate::Error::Io
    pub fn start<A, S, J, R>(
        self,
        args: A,
        init: fn(&A) -> Result<S, Failure>,
        work: fn(&mut S, J) -> R,
    ) -> Result<Pool<J, R>>
    where
        A: Serialize + DeserializeOwned + Send + 'static,
        S: 'static,
        J: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let work = Work { init, work };
        let start: Start<J, R> = match self.is_fresh {
            true => Box::new(move |settings, jobs, answers| {
                worker::start_fresh(settings, &args, work, jobs, answers)
            }),
            false => Box::new(move |settings, jobs, answers| {
                worker::fork(settings, &args, work, jobs, answers)
            }),
        };
        Ok(Pool::new_with(Crew::start(
            self.into_settings(),
            true,
            start,
        )?))
    }

    /// Starts workers that are another program, in any language: `command` makes the command of each.
    ///
    /// The program takes `(Receiver<J>, Sender<..>)`, its jobs and its answers, from `WORMHOLE_FD`, as
    /// [`inherit`](crate::inherit) does, and answers each job with `{"Ok": result}` or `{"Err": {"message": "why"}}`: see
    /// PROTOCOL.md. When there are no more jobs it ends.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start). That the program cannot be executed is an [`Error::Io`](crate::Error::Io).
    pub fn command<J, R>(
        self,
        mut command: impl FnMut() -> Command + Send + 'static,
    ) -> Result<Pool<J, R>>
    where
        J: Serialize + DeserializeOwned + 'static,
        R: Serialize + DeserializeOwned + 'static,
    {
        let start: Start<J, R> = Box::new(move |settings, jobs, answers| {
            let (process, _) = command::start_process(settings, command(), (jobs, answers))?;
            Ok(process)
        });
        Ok(Pool::new_with(Crew::start(
            self.into_settings(),
            false,
            start,
        )?))
    }

    fn into_settings(self) -> PoolSettings {
        PoolSettings {
            process: self.builder.settings().clone(),
            ..self.settings
        }
    }
}

impl<J, R> Pool<J, R>
where
    J: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
{
    /// Starts so many workers that call `work` for each job: forked ones, with the default [`PoolOptions`]. 0 means as many
    /// as there are processors for this process.
    ///
    /// # Errors
    ///
    /// As [`PoolOptions::start`]: [`Error::MultiThreaded`](crate::Error::MultiThreaded) in a process with threads, which uses [`PoolOptions::fresh`].
    pub fn new(workers: usize, work: fn(J) -> R) -> Result<Self>
    where
        J: 'static,
        R: 'static,
    {
        PoolOptions::new(workers).run(work)
    }
}
