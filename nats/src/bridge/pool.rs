//! From a queue through a pool to another queue.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use wormhole::{JobError, JobId};

use super::outbound::{is_of_value, store};
use super::report::Tally;
use super::{Bridge, BridgeOptions, Phase, Phases};
use crate::delivery::Delivery;
use crate::error::{Error, Result};
use crate::excerpt::excerpt;
use crate::job::Job;
use crate::receiver::Receiver;
use crate::rules::check_in_flight;
use crate::sender::Sender;

/// The pauses before a job is offered again to a pool that has no free worker, at first and at most: one may have started.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(64);

/// What became of a job, as a message: [`pool_outcomes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Outcome<R> {
    /// The job's id: [`Delivery::id`].
    pub job: String,
    /// Its result, or why there is none.
    pub result: Result<R, Failed>,
}

/// Why a job has no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Failed {
    /// The text of the pool's error.
    pub reason: String,
}

/// Does jobs from a queue in a pool, and sends their results to another queue.
///
/// A job is done when its result is stored, and not before. The result has an id that is always the same for that job, so
/// a job that is done twice within the [duplicate window](crate::Options::duplicate_window) of the results has one. As
/// many jobs are in flight as the pool has workers when the bridge starts, unless the options say more, and as many results
/// again.
///
/// A job that fails (it panics, its worker dies, it takes too long, its result cannot be sent) is given back, to be tried
/// again by any machine, after [`BridgeOptions::retry_after`]; when it has been delivered
/// [as often as it may](crate::Options::max_deliveries) it is refused for good.
/// [`pool_outcomes`] keeps what has failed.
///
/// The bridge ends with [`Error::Local`] when the pool starts no more workers. So let the workers be
/// [fresh](wormhole::PoolOptions::fresh) ones, or [other programs](wormhole::PoolOptions::command): a pool forks no worker
/// in a process with threads, as that of a runtime usually is, so forked ones that have died are not replaced, and jobs that
/// kill them end the bridge.
///
/// # Errors
///
/// - [`Error::Local`]: the pool cannot be registered with the event loop.
/// - [`Error::Invalid`]: the options say that there are more than 16,384 jobs in flight.
///
/// # Panics
///
/// If it is called outside of a runtime of tokio.
///
/// # Examples
///
/// ```no_run
/// use wormhole::PoolOptions;
/// use wormhole_nats::{BridgeOptions, Options, Queue, async_nats, pool};
///
/// fn count(path: String) -> (String, usize) {
///     let text = std::fs::read_to_string(&path).unwrap_or_default();
///     (path, text.split_whitespace().count())
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     wormhole::process::init(); // the workers are fresh copies of this program
///     let workers = PoolOptions::new(0).fresh().run(count)?;
///     tokio::runtime::Runtime::new()?.block_on(async {
///         let client = async_nats::connect("nats://127.0.0.1:4222").await?;
///         let files = Queue::<String>::open(client.clone(), "files", Options::new()).await?;
///         let counts = Queue::<(String, usize)>::open(client, "counts", Options::new()).await?;
///         let options = BridgeOptions::new(0);
///         let mut bridge = pool(files.receiver(), workers, counts.sender(), options)?;
///         bridge.wait().await?;
///         Ok(())
///     })
/// }
/// ```
pub fn pool<J, R>(
    jobs: Receiver<J>,
    workers: wormhole::Pool<J, R>,
    results: Sender<R>,
    options: BridgeOptions,
) -> Result<Bridge>
where
    J: Serialize + DeserializeOwned + Send + Sync + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    run(
        jobs,
        workers,
        results,
        options,
        |_, result, is_last| match result {
            Ok(result) => Ending::Store(result),
            Err(error) if is_last => Ending::Refuse(error.to_string()),
            Err(_) => Ending::Retry,
        },
    )
}

/// As [`pool`], and sends an [`Outcome`] for each job: its id, and its result or why there is none.
///
/// A job that fails is tried as often as [`pool`] would; the last time its failure is stored, and then it is done. So is a
/// result that cannot be sent, as it is too large, say.
///
/// A job has no outcome where the last of its deliveries was lost together with this process or its machine: whoever receives
/// it then refuses it, [`Error::Exhausted`]. Nor has a message that is no job, [`Error::Decode`], or one whose failure is too
/// large as well.
///
/// # Errors
///
/// As [`pool`].
///
/// # Panics
///
/// If it is called outside of a runtime of tokio.
pub fn pool_outcomes<J, R>(
    jobs: Receiver<J>,
    workers: wormhole::Pool<J, R>,
    outcomes: Sender<Outcome<R>>,
    options: BridgeOptions,
) -> Result<Bridge>
where
    J: Serialize + DeserializeOwned + Send + Sync + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    run(jobs, workers, outcomes, options, |job, result, is_last| {
        let result = match result {
            Ok(result) => Ok(result),
            Err(error) if is_last => Err(Failed {
                reason: excerpt(error),
            }),
            Err(_) => return Ending::Retry,
        };
        let job = job.to_owned();
        Ending::Store(Outcome { job, result })
    })
}

/// What is to be done with a job that the pool is done with.
enum Ending<M> {
    /// Store this, then the job is done.
    Store(M),
    /// Give it back.
    Retry,
    /// Refuse it, for this reason.
    Refuse(String),
}

/// Says what becomes of a job with that id, by its result, and by whether it must not be tried again.
type Judge<R, M> = fn(&str, Result<R, JobError>, bool) -> Ending<M>;

fn run<J, R, M>(
    jobs: Receiver<J>,
    workers: wormhole::Pool<J, R>,
    results: Sender<M>,
    options: BridgeOptions,
    judge: Judge<R, M>,
) -> Result<Bridge>
where
    J: Serialize + DeserializeOwned + Send + Sync + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
    M: Serialize + Send + Sync + 'static,
{
    check_in_flight(options.in_flight)?;
    let in_flight = match options.in_flight {
        0 => workers.workers().len().max(1),
        in_flight => in_flight,
    };
    let workers = wormhole::tokio::Pool::new(workers);
    let workers =
        workers.map_err(|error| Error::local(jobs.place(), "register the pool", error))?;
    let tally = Arc::new(Tally::new(options));
    let (phase, phases) = watch::channel(Phase::Runs);
    let driver = Driver {
        jobs,
        workers,
        in_flight,
        store: Arc::new(Store {
            results,
            judge,
            tally: Arc::clone(&tally),
        }),
        asking: JoinSet::new(),
        offered: VecDeque::new(),
        pause: FIRST_PAUSE,
        working: HashMap::new(),
        latest: None,
        storing: JoinSet::new(),
    };
    let running = async move {
        let jobs = driver.jobs.clone();
        let result = driver.run(Phases(phases)).await;
        jobs.told().await;
        result
    };
    Ok(Bridge {
        phase,
        tally,
        running: Some(tokio::spawn(running)),
    })
}

/// What carries all jobs of a pool.
struct Driver<J, R, M> {
    jobs: Receiver<J>,
    workers: wormhole::tokio::Pool<J, R>,
    in_flight: usize,
    store: Arc<Store<R, M>>,
    /// For each job that may come one task that asks for it.
    asking: JoinSet<Result<Job<J>>>,
    /// Jobs that no worker has taken yet.
    offered: VecDeque<Job<J>>,
    /// After that time they are offered again, if nothing else happens.
    pause: Duration,
    working: HashMap<JobId, Delivery>,
    /// The job that came last, unless another has been asked for since.
    latest: Option<JobId>,
    /// Results on their way.
    storing: JoinSet<Result<()>>,
}

/// What happened next.
enum Event<J, R> {
    Came(Result<Job<J>>),
    Finished(wormhole::Result<(JobId, Result<R, JobError>)>),
    Stored(Result<()>),
    /// It is time to offer jobs again.
    Offer,
}

impl<J, R, M> Driver<J, R, M>
where
    J: Serialize + DeserializeOwned + Send + Sync + 'static,
    R: Serialize + DeserializeOwned + Send + Sync + 'static,
    M: Serialize + Send + Sync + 'static,
{
    async fn run(mut self, mut phases: Phases) -> Result<()> {
        let mut phase = Phase::Runs;
        let mut result = Ok(());
        let mut asks_later = false;
        loop {
            match phase {
                Phase::Runs if asks_later => {}
                Phase::Runs => self.ask(),
                Phase::Finishes if self.is_idle() => return result,
                Phase::Finishes => {}
                Phase::GivesBack => {
                    self.give_back().await;
                    return result;
                }
            }
            let event = tokio::select! {
                biased;
                stopped = phases.later_than(phase) => {
                    phase = stopped;
                    self.asking.shutdown().await;
                    continue;
                }
                event = self.next() => event,
            };
            asks_later = match &event {
                Event::Finished(Ok((id, _))) => self.is_queue_empty(*id),
                _ => false,
            };
            let handled = match event {
                Event::Came(job) => self.came(job),
                Event::Finished(finished) => self.finished(finished),
                Event::Stored(stored) => stored,
                Event::Offer => {
                    self.pause = LAST_PAUSE.min(self.pause * 2);
                    self.offer()
                }
            };
            if let Err(error) = handled {
                // What is open is finished, as far as that is possible.
                phase = phase.max(Phase::Finishes);
                self.asking.shutdown().await;
                result = result.and(Err(error));
            }
        }
    }

    /// Whether nothing came for an open request for as long as this job took, which is finished.
    ///
    /// Then the next request need not hurry: it waits for the next event, so that the server sees to the result alone
    /// (docs/many-machines.md has the figures). Where there are jobs, waiting would cost some.
    fn is_queue_empty(&self, finished: JobId) -> bool {
        self.latest == Some(finished) && !self.asking.is_empty()
    }

    /// Asks for as many jobs as there is room for.
    fn ask(&mut self) {
        let open = self.asking.len() + self.offered.len() + self.working.len();
        // More results that are not stored yet than that hold back the next jobs.
        let held_back = self.storing.len().saturating_sub(self.in_flight);
        for _ in open + held_back..self.in_flight {
            let jobs = self.jobs.clone();
            self.latest = None;
            self.asking.spawn(async move { jobs.recv().await });
        }
    }

    /// Waits for what happens next. If the future is dropped, nothing is lost.
    async fn next(&mut self) -> Event<J, R> {
        loop {
            let event = tokio::select! {
                biased;
                finished = self.workers.recv(), if !self.working.is_empty() => {
                    Some(Event::Finished(finished))
                }
                Some(stored) = self.storing.join_next() => joined(stored).map(Event::Stored),
                Some(came) = self.asking.join_next() => joined(came).map(Event::Came),
                () = sleep(self.pause), if !self.offered.is_empty() => Some(Event::Offer),
                else => pending().await,
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.offered.is_empty() && self.working.is_empty() && self.storing.is_empty()
    }

    fn came(&mut self, job: Result<Job<J>>) -> Result<()> {
        match job {
            Ok(job) => self.offered.push_back(job),
            Err(error @ (Error::Decode { .. } | Error::Exhausted { .. })) => {
                self.store.tally.refused(&error);
            }
            Err(error) => return Err(error),
        }
        self.offer()
    }

    /// Gives jobs to workers that are free.
    fn offer(&mut self) -> Result<()> {
        while let Some(job) = self.offered.pop_front() {
            match self.workers.get_mut().try_submit_ref(&job) {
                Ok(id) => {
                    self.pause = FIRST_PAUSE;
                    let (_, delivery) = job.into_parts();
                    self.working.insert(id, delivery);
                    self.latest = Some(id);
                }
                Err(wormhole::Error::Full) => {
                    self.offered.push_front(job);
                    return Ok(());
                }
                Err(
                    error @ (wormhole::Error::TooLarge { .. } | wormhole::Error::Encode { .. }),
                ) => {
                    // No other worker could have it either.
                    let (_, delivery) = job.into_parts();
                    self.settle(delivery, Err(undelivered(&error)), true);
                }
                Err(error) => {
                    self.store.tally.given_back();
                    let place = self.jobs.place();
                    return Err(Error::local(place, "hand a job to a worker", error));
                }
            }
        }
        Ok(())
    }

    fn finished(&mut self, finished: wormhole::Result<(JobId, Result<R, JobError>)>) -> Result<()> {
        let finished = finished.map_err(|error| {
            // No worker is left, and the jobs that they had are given back. Results go on their way.
            self.give_back_unfinished();
            Error::local(self.jobs.place(), "run the pool", error)
        });
        let (id, result) = finished?;
        if let Some(delivery) = self.working.remove(&id) {
            let is_last = delivery.deliveries() >= self.jobs.max_deliveries();
            self.settle(delivery, result, is_last);
        }
        self.offer()
    }

    /// Has a task do with a job what it has come to.
    fn settle(&mut self, delivery: Delivery, result: Result<R, JobError>, is_last: bool) {
        let store = Arc::clone(&self.store);
        self.storing
            .spawn(async move { store.settle(delivery, result, is_last).await });
    }

    /// Gives back what the pool has not finished.
    fn give_back_unfinished(&mut self) {
        let ids: Vec<JobId> = self.working.drain().map(|(id, _)| id).collect();
        for id in &ids {
            let _ = self.workers.get_mut().cancel(*id);
        }
        let count = ids.len() + self.offered.len();
        self.offered.clear();
        (0..count).for_each(|_| self.store.tally.given_back());
    }

    /// Gives back what is not stored.
    async fn give_back(&mut self) {
        self.give_back_unfinished();
        (0..self.storing.len()).for_each(|_| self.store.tally.given_back());
        self.storing.shutdown().await;
    }
}

/// Where results go.
struct Store<R, M> {
    results: Sender<M>,
    judge: Judge<R, M>,
    tally: Arc<Tally>,
}

impl<R, M: Serialize> Store<R, M> {
    /// Does with a job what it has come to.
    async fn settle(
        &self,
        delivery: Delivery,
        result: Result<R, JobError>,
        is_last: bool,
    ) -> Result<()> {
        let mut ending = (self.judge)(delivery.id(), result, is_last);
        if let Ending::Store(message) = &ending {
            let Err(error) = self.store(&delivery, message).await? else {
                return self.done(delivery).await;
            };
            // A result that cannot be stored is a failure, which perhaps can.
            ending = (self.judge)(delivery.id(), Err(undelivered(&error)), is_last);
        }
        if let Ending::Store(message) = &ending {
            let Err(error) = self.store(&delivery, message).await? else {
                return self.done(delivery).await;
            };
            ending = Ending::Refuse(error.to_string());
        }
        match ending {
            Ending::Refuse(reason) => {
                let error = Error::Exhausted {
                    place: delivery.place(),
                    sequence: delivery.sequence(),
                    id: delivery.id().to_owned(),
                    deliveries: delivery.deliveries(),
                    text: excerpt(&reason),
                };
                self.tally.refused(&error);
                delivery.refuse(&reason).await
            }
            Ending::Retry | Ending::Store(_) => {
                self.tally.given_back();
                delivery.retry(self.tally.options.retry_after).await
            }
        }
    }

    /// Stores what has come of a job. `Ok(Err)`: that is at fault, and not the queue.
    async fn store(&self, delivery: &Delivery, message: &M) -> Result<Result<()>> {
        match store(&self.results, &delivery.result_id(), message).await {
            Err(error) if is_of_value(&error) => {
                self.tally.options.tell(&error);
                Ok(Err(error))
            }
            Err(error) => {
                self.tally.given_back();
                Err(error)
            }
            Ok(()) => Ok(Ok(())),
        }
    }

    async fn done(&self, delivery: Delivery) -> Result<()> {
        delivery.done().await?;
        self.tally.done();
        Ok(())
    }
}

/// For a job or a result that cannot be sent.
fn undelivered(error: &dyn std::error::Error) -> JobError {
    JobError::Undelivered {
        reason: format!("{error:#}"),
    }
}

/// What a task has returned, or its panic. `None` if it was cancelled, as when the runtime is shut down.
fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> Option<T> {
    match ended.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(ended) => Some(ended),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}
