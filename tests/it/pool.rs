//! `Pool`: every job has exactly one outcome, whatever its worker dies of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Command;
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::unistd::{Pid, getpid};
use serde::{Deserialize, Serialize};
use wormhole::process::Failure;
use wormhole::{
    Blob, ChildEnd, Error, JobError, JobId, Pool, PoolOptions, Receiver, Sender, channel, select,
};

use crate::support::{
    DEADLINE, DescriptorLimit, Picky, Random, becomes_ready, ends_within, forked, in_own_process,
    open_fds,
};

fn square(number: u64) -> u64 {
    number * number
}

/// The children that this process has not reaped.
fn children() -> Vec<String> {
    let pid = getpid();
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn results_come_in_order_from_map() {
    in_own_process(|| {
        let before = open_fds();
        let mut pool = Pool::new(3, square).unwrap();
        let results: Vec<_> = pool.map(0..500).collect();
        let expected: Vec<_> = (0..500).map(|n| (n, Ok(n * n))).collect();
        assert_eq!(results, expected);
        // Lazily: an endless iterator will do, and what is left behind comes to nobody.
        let mut taken = 0;
        let firsts = pool.map((0..).inspect(|_| taken += 1)).take(10).count();
        assert_eq!(firsts, 10);
        assert!(taken <= 10 + 4 * 3, "{taken}");
        assert_eq!(pool.pending(), 0);
        assert!(matches!(pool.recv(), Err(Error::Disconnected)));
        assert_eq!(pool.submit(3).unwrap(), pool.recv().unwrap().0);
        // One that was submitted before, and is done while `map` waits for its own, is put aside.
        let other = pool.submit(3).unwrap();
        assert_eq!(pool.map(0..100).count(), 100);
        assert_eq!(pool.pending(), 1);
        assert_eq!(pool.recv().unwrap().0, other);
        assert_eq!(pool.pending(), 0);
        assert!(format!("{other}").parse::<u64>().is_ok());
        assert!(format!("{:?}", pool.map(0..1)).starts_with("Map"));
        let shown = format!("{pool:?}");
        assert!(shown.contains("workers") && shown.contains(&pool.as_raw_fd().to_string()));
        assert_eq!(pool.as_raw_fd(), pool.as_fd().as_raw_fd());
        assert!(pool.finish().unwrap().is_empty());
        assert!(children().is_empty());
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn results_come_by_their_ids_from_recv() {
    in_own_process(|| {
        let mut pool = Pool::new(2, square).unwrap();
        assert!(matches!(pool.recv(), Err(Error::Disconnected)));
        let mut expected = BTreeMap::new();
        for number in 0..100 {
            expected.insert(pool.submit(number).unwrap(), number * number);
        }
        assert_eq!(pool.pending(), 100);
        for _ in 0..50 {
            let (id, result) = pool.recv().unwrap();
            assert_eq!(expected.remove(&id), Some(result.unwrap()));
        }
        for (id, result) in pool.finish().unwrap() {
            assert_eq!(expected.remove(&id), Some(result.unwrap()));
        }
        assert!(expected.is_empty());
    });
}

#[test]
fn the_try_and_timeout_forms_do_not_wait() {
    in_own_process(|| {
        let (go, wait) = channel::<()>().unwrap();
        fn waits(wait: Receiver<()>) {
            wait.recv().unwrap();
        }
        let mut pool = Pool::new(1, waits).unwrap();
        let id = pool.submit(wait.clone()).unwrap();
        assert!(matches!(pool.try_recv(), Err(Error::Empty)));
        let short = Duration::from_millis(5);
        assert!(matches!(
            pool.recv_timeout(short),
            Err(Error::TimedOut { .. })
        ));
        assert!(matches!(pool.try_submit(wait.clone()), Err(Error::Full)));
        for timeout in [short, Duration::ZERO] {
            let late = pool.submit_timeout(wait.clone(), timeout);
            assert!(matches!(late, Err(Error::TimedOut { .. })));
        }
        assert!(!becomes_ready(&pool, PollFlags::POLLIN, Duration::ZERO));
        go.send(()).unwrap();
        assert!(becomes_ready(&pool, PollFlags::POLLIN, DEADLINE));
        select! {
            ready(pool) => {},
            default(DEADLINE) => panic!(),
        }
        assert_eq!(pool.try_recv().unwrap(), (id, Ok(())));
        assert!(!becomes_ready(&pool, PollFlags::POLLIN, Duration::ZERO));
        // Ready, too, while it keeps an outcome that came during a submit.
        go.send(()).unwrap();
        pool.submit(wait.clone()).unwrap();
        let second = pool.submit(wait).unwrap();
        assert!(becomes_ready(&pool, PollFlags::POLLIN, Duration::ZERO));
        pool.try_recv().unwrap().1.unwrap();
        assert!(!becomes_ready(&pool, PollFlags::POLLIN, Duration::ZERO));
        go.send(()).unwrap();
        assert_eq!(pool.recv().unwrap(), (second, Ok(())));
    });
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Deed {
    Return(u64),
    Panic,
    Abort,
    Overflow,
    Exit(i32),
    Signal(i32),
    Hang,
    /// Leaves behind a process that holds all that the worker has.
    Orphan,
    Long(usize),
    Undecodable,
}

fn do_it(deed: Deed) -> (u64, Picky) {
    #[allow(unconditional_recursion, reason = "this is the deed")]
    fn overflow(n: u64) -> u64 {
        std::hint::black_box(overflow(std::hint::black_box(n + 1))) + 1
    }
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    match deed {
        Deed::Return(n) => (n, Picky::default()),
        Deed::Panic => panic!("in the job"),
        Deed::Abort => std::process::abort(),
        Deed::Overflow => (overflow(0), Picky::default()),
        Deed::Exit(code) => std::process::exit(code),
        Deed::Signal(signal) => {
            raise(Signal::try_from(signal).unwrap()).unwrap();
            (0, Picky::default())
        }
        Deed::Hang => {
            nix::unistd::alarm::set(60); // for when nobody is left who would kill it
            loop {
                nix::unistd::pause();
            }
        }
        Deed::Orphan => {
            let _orphan = forked(|| {
                nix::unistd::alarm::set(60);
                nix::unistd::pause();
            });
            std::process::exit(9)
        }
        Deed::Long(len) => (0, Picky("x".repeat(len))),
        Deed::Undecodable => (0, Picky::undecodable()),
    }
}

fn check(deed: &Deed, outcome: &Result<(u64, Picky), JobError>) {
    let end = match outcome {
        Err(JobError::Died { end, .. }) => Some(end.clone()),
        _ => None,
    };
    let killed = |signal| {
        Some(ChildEnd::Killed {
            signal,
            core_dumped: false,
        })
    };
    let is_right = match deed {
        Deed::Return(n) => *outcome == Ok((*n, Picky::default())),
        Deed::Panic => {
            matches!(outcome, Err(JobError::Panicked { message, place: Some(place), .. })
            if message == "in the job" && place.contains("pool.rs:"))
                && format!("{outcome:?}").contains("Panicked { message: \"in the job\"")
        }
        Deed::Abort => end == killed(6),
        // Rust's runtime says that it is one, where it runs: not before the `main` of a test harness.
        Deed::Overflow => end == killed(6) || end == killed(11),
        Deed::Exit(code) => end == Some(ChildEnd::Exited { code: *code }),
        Deed::Signal(signal) => end == killed(*signal),
        Deed::Hang => *outcome == Err(JobError::TimedOut),
        Deed::Orphan => end == Some(ChildEnd::Exited { code: 9 }),
        Deed::Long(len) => matches!(outcome, Ok((_, Picky(text))) if text.len() == *len),
        Deed::Undecodable => matches!(outcome, Err(JobError::Undelivered { .. })),
    };
    assert!(is_right, "{deed:?}: {outcome:?}");
}

const DEEDS: [Deed; 12] = [
    Deed::Return(7),
    Deed::Panic,
    Deed::Abort,
    Deed::Overflow,
    Deed::Exit(0),
    Deed::Exit(5),
    Deed::Signal(9),
    Deed::Hang,
    Deed::Orphan,
    Deed::Long(300_000),
    Deed::Long(3_000_000),
    Deed::Undecodable,
];

fn every_kind_of_death(options: PoolOptions) {
    let before = open_fds();
    let mut pool = options.deadline(Duration::from_secs(5)).run(do_it).unwrap();
    for (deed, outcome) in pool.map(DEEDS) {
        check(&deed, &outcome);
    }
    for deed in DEEDS {
        let id = pool.submit_ref(&deed).unwrap();
        let (of, outcome) = pool.recv().unwrap();
        assert_eq!(of, id);
        check(&deed, &outcome);
    }
    assert!(matches!(pool.recv(), Err(Error::Disconnected)));
    drop(pool);
    assert!(children().is_empty());
    assert_eq!(open_fds(), before);
}

#[test]
fn every_kind_of_death_costs_one_job() {
    in_own_process(|| every_kind_of_death(PoolOptions::new(2)));
}

#[test]
fn every_kind_of_death_costs_one_job_of_those_that_were_sent_ahead() {
    in_own_process(|| every_kind_of_death(PoolOptions::new(2).ahead(3)));
}

#[test]
fn every_kind_of_death_costs_one_job_of_fresh_workers() {
    in_own_process(|| every_kind_of_death(PoolOptions::new(2).fresh()));
}

#[test]
fn a_fresh_pool_works_in_a_process_with_threads() {
    let mut pool = PoolOptions::new(2).fresh().ahead(1).run(square).unwrap();
    let results: Vec<_> = pool.map(0..50).map(|(_, result)| result.unwrap()).collect();
    assert!(results.into_iter().eq((0..50).map(square)));
    assert!(pool.finish().unwrap().is_empty());
    // And where it is forked it says what to do.
    let error = Pool::new(2, square).unwrap_err();
    assert!(matches!(error, Error::MultiThreaded));
    assert!(error.to_string().contains("PoolOptions::fresh"), "{error}");
}

/// What a worker is told: how much to add, and where it is counted that it has started.
type Args = (u64, Sender<u32>);

fn init((more, started): &Args) -> Result<(u64, Sender<u32>, u64), Failure> {
    started.send(std::process::id())?;
    Ok((*more, started.clone(), 0))
}

fn add(state: &mut (u64, Sender<u32>, u64), number: u64) -> (u64, u64) {
    state.2 += 1;
    (number + state.0, state.2)
}

#[test]
fn a_worker_has_a_state_and_ends_after_so_many_jobs() {
    in_own_process(|| {
        for options in [
            PoolOptions::new(1),
            PoolOptions::new(1).fresh(),
            PoolOptions::new(1).ahead(2),
        ] {
            let (start, started) = channel().unwrap();
            let mut pool = options
                .jobs_per_worker(3)
                .start((10, start), init, add)
                .unwrap();
            let results: Vec<_> = pool.map(0..9).map(|(_, result)| result.unwrap()).collect();
            let expected = (0..9).map(|n| (n + 10, n % 3 + 1));
            assert!(results.into_iter().eq(expected));
            drop(pool);
            let workers: BTreeSet<_> = started.iter().map(Result::unwrap).collect();
            assert!((3..=4).contains(&workers.len()), "{workers:?}");
        }
    });
}

#[test]
fn workers_that_do_not_start_are_an_error_after_three() {
    fn fails((how, started): &(u32, Sender<u32>)) -> Result<(), Failure> {
        started.send(std::process::id()).unwrap();
        match how {
            0 => Err(Failure::new("no licence")),
            1 => panic!("no idea"),
            _ => std::process::exit(4),
        }
    }
    in_own_process(|| {
        for options in [
            PoolOptions::new(1),
            PoolOptions::new(2).ahead(1),
            PoolOptions::new(2).fresh(),
        ] {
            for how in 0..3 {
                let (start, started) = channel().unwrap();
                let work: fn(&mut (), u64) -> u64 = |(), n| n;
                let mut pool = options.clone().start((how, start), fails, work).unwrap();
                let Err(Error::Child { end, .. }) = pool.submit(1) else {
                    panic!()
                };
                let is_right = match (how, &end) {
                    (0, ChildEnd::Undelivered { reason }) => reason == "no licence",
                    (1, ChildEnd::Panicked { message }) => message == "no idea",
                    (2, ChildEnd::Exited { code }) => *code == 4,
                    _ => false,
                };
                assert!(is_right, "{end:?}");
                assert!(matches!(pool.recv(), Err(Error::Disconnected)));
                for (_, result) in pool.map([1, 2]) {
                    assert!(
                        matches!(result, Err(JobError::Undelivered { .. })),
                        "{result:?}"
                    );
                }
                drop(pool);
                let starts = started.iter().count();
                assert!((3..=4).contains(&starts), "{starts} starts");
            }
        }
    });
}

#[test]
fn a_panic_brings_its_backtrace_where_that_is_asked_for() {
    in_own_process(|| {
        for (asked, is_there) in [("1", true), ("0", false)] {
            // SAFETY: this process has one thread.
            #[allow(unsafe_code, reason = "the environment belongs to all threads")]
            unsafe {
                std::env::set_var("RUST_LIB_BACKTRACE", asked);
            }
            for options in [PoolOptions::new(1), PoolOptions::new(1).fresh()] {
                let mut pool = options.run(do_it).unwrap();
                pool.submit(Deed::Panic).unwrap();
                let Err(JobError::Panicked { backtrace, .. }) = pool.recv().unwrap().1 else {
                    panic!()
                };
                let names_it = backtrace.as_deref().map(|text| text.contains("do_it"));
                assert_eq!(names_it, is_there.then_some(true));
            }
        }
    });
}

#[test]
fn jobs_and_results_hold_ends_descriptors_and_blobs() {
    #[derive(Serialize, Deserialize)]
    struct Job {
        #[serde(with = "wormhole::fd")]
        file: File,
        reply: Sender<String>,
        blob: Blob,
    }
    fn work(mut job: Job) -> (Blob, Receiver<u8>) {
        let mut text = String::new();
        job.file.read_to_string(&mut text).unwrap();
        job.reply.send(text).unwrap();
        let (tx, rx) = channel().unwrap();
        tx.send(9).unwrap();
        (job.blob, rx)
    }
    in_own_process(|| {
        let before = open_fds();
        let mut pool = Pool::new(1, work).unwrap();
        for _ in 0..3 {
            let (read, mut write) = crate::support::pipe();
            std::io::Write::write_all(&mut write, b"through a pipe").unwrap();
            drop(write);
            let (reply, replies) = channel().unwrap();
            let blob = Blob::from_bytes(b"bulk").unwrap();
            pool.submit(Job {
                file: read,
                reply,
                blob,
            })
            .unwrap();
            assert_eq!(replies.recv().unwrap(), "through a pipe");
            assert!(matches!(replies.recv(), Err(Error::Disconnected)), "moved");
            let (_, result) = pool.recv().unwrap();
            let (blob, rx) = result.unwrap();
            assert_eq!((&*blob, rx.recv().unwrap()), (&b"bulk"[..], 9));
        }
        drop(pool);
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_job_that_cannot_be_sent_has_no_outcome_and_the_pool_goes_on() {
    in_own_process(|| {
        let mut pool = Pool::new(1, |job: BTreeMap<Option<u8>, u8>| job.len()).unwrap();
        let error = pool.submit(BTreeMap::from([(None, 1)])).unwrap_err();
        assert!(matches!(error, Error::Encode { .. }), "{error}");
        assert!(matches!(pool.recv(), Err(Error::Disconnected)));
        pool.submit(BTreeMap::new()).unwrap();
        assert_eq!(pool.recv().unwrap().1, Ok(0));
        // One that its worker cannot decode has one, and costs no worker.
        let mut pool = Pool::new(1, |job: Picky| job).unwrap();
        let workers = pool.workers();
        pool.submit(Picky::undecodable()).unwrap();
        let outcome = pool.recv().unwrap().1;
        assert!(
            matches!(&outcome, Err(JobError::Undelivered { reason }) if reason.contains("decode")),
            "{outcome:?}"
        );
        pool.submit(Picky::default()).unwrap();
        assert_eq!(pool.recv().unwrap().1, Ok(Picky::default()));
        assert_eq!(pool.workers(), workers);
    });
}

#[test]
fn a_cancelled_job_costs_its_worker_and_nobody_else() {
    in_own_process(|| {
        for ahead in [0, 2] {
            let mut pool = PoolOptions::new(1).ahead(ahead).run(do_it).unwrap();
            let ids: Vec<_> = (0..=ahead)
                .map(|_| pool.submit(Deed::Hang).unwrap())
                .collect();
            for id in &ids {
                pool.cancel(*id).unwrap();
                pool.cancel(*id).unwrap();
            }
            let mut cancelled = BTreeSet::new();
            for _ in &ids {
                let (id, outcome) = pool.recv().unwrap();
                assert_eq!(outcome, Err(JobError::Cancelled));
                cancelled.insert(id);
            }
            assert!(cancelled.into_iter().eq(ids.iter().copied()));
            let id = pool.submit(Deed::Return(1)).unwrap();
            assert_eq!(pool.recv().unwrap().0, id);
            pool.cancel(id).unwrap(); // too late
            assert!(matches!(pool.recv(), Err(Error::Disconnected)));
        }
    });
}

#[test]
fn a_job_that_no_worker_has_can_be_cancelled_as_well() {
    in_own_process(|| {
        let mut pool = PoolOptions::new(1).ahead(1).run(do_it).unwrap();
        let hangs = pool.submit(Deed::Hang).unwrap();
        let ahead = pool.submit(Deed::Hang).unwrap();
        pool.cancel(hangs).unwrap();
        // The job that was sent ahead has come back, and the next worker may not have started.
        assert_eq!(pool.recv().unwrap(), (hangs, Err(JobError::Cancelled)));
        assert_eq!(pool.pending(), 1);
        pool.cancel(ahead).unwrap();
        assert_eq!(pool.recv().unwrap(), (ahead, Err(JobError::Cancelled)));
        assert!(matches!(pool.recv(), Err(Error::Disconnected)));
    });
}

/// What ends a worker, when it is told to. `None`: nothing.
type Ending = Option<Receiver<()>>;

#[test]
fn jobs_that_no_worker_will_ever_take_say_so() {
    fn starts_once(permit: &Receiver<()>) -> Result<(), Failure> {
        Ok(permit.try_recv()?)
    }
    fn ends((): &mut (), ending: Ending) {
        if let Some(ending) = ending {
            ending.recv().unwrap();
            std::process::exit(3);
        }
    }
    in_own_process(|| {
        let (permit, permits) = channel().unwrap();
        permit.send(()).unwrap();
        let options = PoolOptions::new(1).ahead(1);
        let mut pool = options.start(permits, starts_once, ends).unwrap();
        let (end, ending) = channel().unwrap();
        let first = pool.submit(Some(ending)).unwrap();
        let second = pool.submit(None).unwrap();
        end.send(()).unwrap();
        let (id, outcome) = pool.recv().unwrap();
        assert!(id == first && matches!(outcome, Err(JobError::Died { .. })));
        let (id, outcome) = pool.recv().unwrap();
        assert!(id == second && matches!(outcome, Err(JobError::Undelivered { .. })));
        assert!(matches!(pool.recv(), Err(Error::Disconnected)));
        assert!(matches!(pool.submit(None), Err(Error::Child { .. })));
    });
}

#[test]
fn a_job_goes_to_the_worker_that_has_the_fewest() {
    fn waits(gate: Option<Receiver<()>>) -> u32 {
        if let Some(gate) = gate {
            gate.recv().unwrap();
        }
        std::process::id()
    }
    in_own_process(|| {
        let mut pool = PoolOptions::new(2).ahead(2).run(waits).unwrap();
        // Both have started.
        let mut workers = BTreeSet::new();
        while workers.len() < 2 {
            pool.submit(None).unwrap();
            workers.insert(pool.recv().unwrap().1.unwrap());
        }
        for freed in [0, 1] {
            let mut gates = Vec::new();
            let mut submit = |pool: &mut Pool<_, u32>| {
                let (open, gate) = channel().unwrap();
                gates.push(open);
                pool.submit(Some(gate)).unwrap()
            };
            // Two for each worker, then one of them is done with its first.
            let ids = [(); 4].map(|()| submit(&mut pool));
            let open = gates.remove(freed);
            open.send(()).unwrap();
            let (id, worker) = pool.recv().unwrap();
            assert_eq!(id, ids[freed]);
            let (open, gate) = channel().unwrap();
            let next = pool.submit(Some(gate)).unwrap();
            assert!(next > id);
            gates.into_iter().for_each(|gate| gate.send(()).unwrap());
            open.send(()).unwrap();
            let mut outcomes: BTreeMap<_, _> = (0..4).map(|_| pool.recv().unwrap()).collect();
            assert_eq!(outcomes[&next], worker);
            outcomes.insert(id, worker.clone());
            let of_one = ids.iter().filter(|id| outcomes[id] == worker).count();
            assert_eq!(of_one, 2);
        }
        // Where all have as many, they take turns.
        let mut next = || {
            pool.submit(None).unwrap();
            pool.recv().unwrap().1.unwrap()
        };
        let workers = [next(), next(), next()];
        assert!(workers[0] != workers[1] && workers[0] == workers[2]);
    });
}

/// Text that fills a worker's channel.
fn bulk() -> String {
    "x".repeat(400_000)
}

#[test]
fn a_job_that_has_come_back_passes_by_a_worker_whose_channel_is_full() {
    fn waits((news, gate, _): (Sender<()>, Receiver<bool>, String)) -> u32 {
        news.send(()).unwrap();
        if gate.recv().unwrap() {
            std::process::exit(3);
        }
        std::process::id()
    }
    in_own_process(|| {
        let (news, hears) = channel().unwrap();
        let mut pool = PoolOptions::new(2).ahead(2).run(waits).unwrap();
        // Both have started.
        let mut workers = BTreeSet::new();
        while workers.len() < 2 {
            let (go, goes) = channel().unwrap();
            go.send(false).unwrap();
            pool.submit((news.clone(), goes, String::new())).unwrap();
            hears.recv_timeout(DEADLINE).unwrap();
            workers.insert(pool.recv().unwrap().1.unwrap());
        }
        let (end, ends) = channel().unwrap();
        let (go, goes) = channel().unwrap();
        let dies = pool.submit((news.clone(), ends, bulk())).unwrap();
        let stays = pool.submit((news.clone(), goes, bulk())).unwrap();
        for _ in 0..2 {
            hears.recv_timeout(DEADLINE).unwrap(); // each is at its job
        }
        // One before each. There would be room for another, but not in the channels.
        let mut ahead = BTreeSet::new();
        for _ in 0..2 {
            let (go, goes) = channel().unwrap();
            go.send(false).unwrap();
            ahead.insert(pool.submit((news.clone(), goes, bulk())).unwrap());
        }
        let (_go, goes) = channel().unwrap();
        let more = pool.try_submit((news, goes, bulk()));
        assert!(matches!(more, Err(Error::Full)), "{more:?}");

        end.send(true).unwrap();
        let (id, outcome) = pool.recv_timeout(DEADLINE).unwrap();
        assert!(id == dies && matches!(outcome, Err(JobError::Died { .. })));
        let (id, outcome) = pool.recv_timeout(DEADLINE).unwrap();
        assert!(ahead.remove(&id) && outcome.is_ok(), "{outcome:?}");
        go.send(false).unwrap();
        ahead.insert(stays);
        for (id, outcome) in pool.finish().unwrap() {
            assert!(ahead.remove(&id) && outcome.is_ok(), "{outcome:?}");
        }
        assert!(ahead.is_empty());
    });
}

#[test]
fn settings_may_be_as_large_as_numbers_can_be() {
    in_own_process(|| {
        let before = open_fds();
        let options = PoolOptions::new(2).ahead(usize::MAX).keep(usize::MAX);
        let options = options.jobs_per_worker(u64::MAX).deadline(Duration::MAX);
        let mut pool = options.run(square).unwrap();
        let results = pool.map(0..500).map(|(n, result)| result == Ok(n * n));
        assert_eq!(results.filter(|is_right| *is_right).count(), 500);
        drop(pool);

        let limit = DescriptorLimit::new();
        limit.leave_room_for(30);
        let error = Pool::new(usize::MAX, square).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        drop(limit);
        assert!(children().is_empty());
        assert_eq!(open_fds(), before);
    });
}

/// A result that panics when a worker drops it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Bomb {
    number: u64,
    /// Where it does not.
    home: u32,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(self.number != 13 || std::process::id() == self.home);
    }
}

#[test]
fn a_result_that_cannot_be_dropped_is_no_other_jobs_result() {
    in_own_process(|| {
        let build = |(number, home): (u64, u32)| Bomb { number, home };
        let mut pool = Pool::new(1, build).unwrap();
        let home = std::process::id();
        let workers = pool.workers();
        for (job, result) in pool.map((0..20).map(|number| (number, home))) {
            assert_eq!(result.unwrap().number, job.0);
        }
        assert_eq!(pool.workers(), workers);
    });
}

#[test]
fn a_dead_worker_of_which_another_process_has_copies_is_forgotten() {
    in_own_process(|| {
        let mut pool = Pool::new(1, do_it).unwrap();
        let _holder = forked(|| {
            nix::unistd::alarm::set(60);
            nix::unistd::pause();
        });
        pool.submit(Deed::Exit(3)).unwrap();
        assert!(matches!(pool.recv().unwrap().1, Err(JobError::Died { .. })));
        pool.submit(Deed::Return(1)).unwrap();
        pool.recv().unwrap().1.unwrap();
        // What is left to see to is soon seen to, and then the pool is at rest.
        let mut looks = 0;
        while becomes_ready(&pool, PollFlags::POLLIN, Duration::from_millis(50)) {
            assert!(matches!(pool.try_recv(), Err(Error::Disconnected)));
            looks += 1;
            assert!(looks < 10);
        }
    });
}

#[test]
fn a_worker_that_cannot_be_killed_is_left_to_itself() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can have children that it may not kill");
        return;
    }
    fn waits(gate: Option<Receiver<()>>) {
        if let Some(gate) = gate {
            gate.recv().unwrap();
        }
    }
    in_own_process(|| {
        let mut pool = Pool::new(1, waits).unwrap();
        let nobody = 65534.into();
        nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
        let (open, gate) = channel().unwrap();
        let stuck = pool.submit(Some(gate)).unwrap();
        pool.cancel(stuck).unwrap();
        assert_eq!(pool.recv().unwrap(), (stuck, Err(JobError::Cancelled)));
        // The next job has a worker of its own.
        let next = pool.submit(None).unwrap();
        assert_eq!(pool.recv().unwrap(), (next, Ok(())));
        assert!(pool.finish().unwrap().is_empty());
        open.send(()).unwrap(); // it ends by itself
    });
}

/// Says when it is dropped.
struct Farewell(Sender<u32>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.send(std::process::id()).unwrap();
    }
}

#[test]
fn workers_end_by_themselves_when_all_jobs_are_done() {
    in_own_process(|| {
        for options in [PoolOptions::new(2), PoolOptions::new(2).fresh()] {
            let (tx, rx) = channel().unwrap();
            let init = |tx: &Sender<u32>| Ok(Farewell(tx.clone()));
            let work: fn(&mut Farewell, u8) -> u8 = |_, n| n;
            let pool = options.start(tx, init, work).unwrap();
            let workers: BTreeSet<_> = pool.workers().into_iter().collect();
            pool.finish().unwrap();
            let ended: BTreeSet<_> = rx.iter().map(Result::unwrap).collect();
            assert_eq!(ended, workers);
        }
    });
}

#[test]
fn cancelling_races_with_the_result_and_one_of_them_wins() {
    in_own_process(|| {
        for options in [PoolOptions::new(2), PoolOptions::new(2).ahead(2)] {
            let mut pool = options.run(square).unwrap();
            let mut random = Random::new(7);
            let mut waiting = BTreeSet::new();
            let (mut results, mut cancelled) = (0, 0);
            for round in 0..300 {
                let id = pool.submit(round).unwrap();
                waiting.insert(id);
                for _ in 0..random.below(300) {
                    std::hint::spin_loop();
                }
                if random.below(3) == 0 {
                    pool.cancel(id).unwrap();
                }
                while let Ok((id, outcome)) = pool.try_recv() {
                    assert!(waiting.remove(&id), "{id} twice");
                    match outcome {
                        Ok(_) => results += 1,
                        Err(JobError::Cancelled) => cancelled += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            for (id, _) in pool.finish().unwrap() {
                assert!(waiting.remove(&id), "{id} twice");
            }
            assert!(waiting.is_empty(), "{waiting:?}");
            assert!(results > 0 && cancelled > 0, "{results} {cancelled}");
        }
    });
}

#[test]
fn workers_that_are_killed_at_any_moment_cost_one_job_each_at_most() {
    in_own_process(|| {
        for options in [PoolOptions::new(3), PoolOptions::new(3).ahead(2)] {
            let mut pool = options.run(square).unwrap();
            let mut random = Random::new(3);
            let mut waiting = BTreeMap::new();
            let (mut kills, mut died) = (0, 0);
            let mut take =
                |id: JobId, outcome: Result<u64, JobError>, waiting: &mut BTreeMap<JobId, u64>| {
                    let number = waiting.remove(&id).expect("an outcome of its own");
                    match outcome {
                        Ok(result) => assert_eq!(result, number * number),
                        Err(JobError::Died { .. }) => died += 1,
                        Err(error) => panic!("{error}"),
                    }
                };
            for number in 0..1000 {
                waiting.insert(pool.submit(number).unwrap(), number);
                if random.below(10) == 0 {
                    let workers = pool.workers();
                    let victim = i32::try_from(workers[random.below(workers.len())]).unwrap();
                    // Not reaped as long as the pool has it in its list.
                    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
                    kills += 1;
                }
                while let Ok((id, outcome)) = pool.try_recv() {
                    take(id, outcome, &mut waiting);
                }
            }
            for (id, outcome) in pool.finish().unwrap() {
                take(id, outcome, &mut waiting);
            }
            assert!(waiting.is_empty(), "{waiting:?}");
            assert!(died <= kills, "{died} jobs of {kills} workers");
            assert!(children().is_empty());
        }
    });
}

#[test]
fn a_worker_that_is_stopped_past_its_deadline_is_killed() {
    in_own_process(|| {
        let mut pool = PoolOptions::new(1)
            .deadline(Duration::from_millis(100))
            .run(do_it)
            .unwrap();
        let [worker] = pool.workers()[..] else {
            panic!()
        };
        pool.submit(Deed::Signal(Signal::SIGSTOP as i32)).unwrap();
        assert_eq!(pool.recv().unwrap().1, Err(JobError::TimedOut));
        assert_ne!(pool.workers(), [worker]);
        // Busy workers do not keep the pool from looking at the time.
        let mut pool = PoolOptions::new(2)
            .deadline(Duration::from_millis(50))
            .run(do_it)
            .unwrap();
        let hangs = pool.submit(Deed::Hang).unwrap();
        loop {
            pool.submit(Deed::Return(1)).unwrap();
            let (id, outcome) = pool.recv().unwrap();
            if id == hangs {
                assert_eq!(outcome, Err(JobError::TimedOut));
                break;
            }
            outcome.unwrap();
        }
    });
}

#[test]
fn a_timeout_of_zero_looks_once() {
    in_own_process(|| {
        let mut pool = Pool::new(1, square).unwrap();
        assert!(becomes_ready(&pool, PollFlags::POLLIN, DEADLINE)); // its worker has started
        let id = pool.submit_timeout(5, Duration::ZERO).unwrap();
        assert!(becomes_ready(&pool, PollFlags::POLLIN, DEADLINE));
        let outcome = pool.recv_timeout(Duration::ZERO).unwrap();
        assert_eq!(outcome, (id, Ok(25)));
        let nothing = pool.recv_timeout(Duration::ZERO);
        assert!(matches!(nothing, Err(Error::Disconnected)));
    });
}

#[test]
fn an_answer_that_nobody_has_heard_yet_is_not_late() {
    const SHORT: Duration = Duration::from_secs(2);
    fn tells((begun, go): (Sender<()>, Option<Receiver<()>>)) -> u32 {
        begun.send(()).unwrap();
        if let Some(go) = go {
            go.recv().unwrap();
        }
        std::process::id()
    }
    in_own_process(|| {
        let (begun, begins) = channel().unwrap();
        let (go, goes) = channel().unwrap();
        let options = PoolOptions::new(1).ahead(1).deadline(SHORT);
        let mut pool = options.run(tells).unwrap();
        let first = pool.submit((begun.clone(), None)).unwrap();
        let second = pool.submit((begun, Some(goes))).unwrap();
        for _ in 0..2 {
            begins.recv_timeout(DEADLINE).unwrap();
        }
        // The first has been answered, as the second is worked on. Meanwhile the time of the first passes.
        assert!(begins.recv_timeout(SHORT + SHORT / 20).is_err());
        go.send(()).unwrap();
        let (id, worker) = pool.recv_timeout(DEADLINE).unwrap();
        assert_eq!(id, first);
        assert_eq!(pool.recv_timeout(DEADLINE).unwrap(), (second, worker));
    });
}

#[test]
fn the_descriptor_tells_of_every_deadline() {
    in_own_process(|| {
        let options = PoolOptions::new(2).deadline(Duration::from_millis(50));
        let mut pool = options.run(do_it).unwrap();
        for before in [false, true] {
            // The alarm is for a job that is done by then, whose deadline is a little earlier.
            if before {
                pool.submit(Deed::Return(1)).unwrap();
                pool.recv().unwrap().1.unwrap();
            }
            let hangs = pool.submit(Deed::Hang).unwrap();
            loop {
                assert!(becomes_ready(&pool, PollFlags::POLLIN, DEADLINE));
                match pool.try_recv() {
                    Ok(outcome) => break assert_eq!(outcome, (hangs, Err(JobError::TimedOut))),
                    Err(Error::Empty) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
}

#[test]
fn workers_end_with_a_parent_that_is_killed() {
    in_own_process(|| {
        // Subreaper, so that the workers can be waited for.
        rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).unwrap();
        for fresh in [false, true] {
            let (tell, told) = channel::<Vec<u32>>().unwrap();
            let parent =
                wormhole::spawn((tell, fresh), |(tell, fresh): (Sender<Vec<u32>>, bool)| {
                    let options = PoolOptions::new(3).end_with_parent();
                    let options = if fresh { options.fresh() } else { options };
                    let mut pool = options.run(do_it).unwrap();
                    pool.submit(Deed::Hang).unwrap();
                    tell.send(pool.workers()).unwrap();
                    let _ = pool.recv();
                })
                .unwrap();
            let workers = told.recv().unwrap();
            parent.kill().unwrap();
            assert!(parent.join().is_err());
            for worker in workers {
                let worker = Pid::from_raw(i32::try_from(worker).unwrap());
                // It is this process's child now, unless it is gone and reaped.
                if kill(worker, None).is_ok() {
                    assert!(ends_within(DEADLINE, worker));
                    let _ = nix::sys::wait::waitpid(worker, None);
                }
            }
        }
    });
}

#[test]
fn without_room_for_another_worker_the_pool_says_so_and_goes_on_later() {
    in_own_process(|| {
        let before = open_fds();
        let mut pool = Pool::new(1, do_it).unwrap();
        pool.submit(Deed::Return(1)).unwrap();
        pool.recv().unwrap().1.unwrap();
        let limit = DescriptorLimit::new();
        pool.submit(Deed::Exit(1)).unwrap();
        // The outcome first, whatever becomes of the replacement.
        assert!(matches!(pool.recv().unwrap().1, Err(JobError::Died { .. })));
        limit.leave_room_for(0);
        let filler = std::iter::from_fn(|| File::open("/dev/null").ok());
        let filler: Vec<_> = filler.collect();
        let error = pool.submit(Deed::Return(2)).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        drop((filler, limit));
        pool.submit(Deed::Return(3)).unwrap();
        assert_eq!(pool.recv().unwrap().1, Ok((3, Picky::default())));
        drop(pool);
        assert_eq!(open_fds(), before);
    });
}

/// The outcome of the job first, whatever becomes of the replacement; then an error.
fn says_that_no_worker_can_be_started(pool: &mut Pool<Deed, (u64, Picky)>, error: nix::Error) {
    pool.submit(Deed::Exit(1)).unwrap();
    let outcome = pool.recv_timeout(DEADLINE).unwrap().1;
    assert!(matches!(outcome, Err(JobError::Died { .. })), "{outcome:?}");
    for _ in 0..2 {
        let Err(Error::Io { operation, source }) = pool.submit(Deed::Return(2)) else {
            panic!()
        };
        let starts = [
            "fork",
            "start a fresh copy of this program (/proc/self/exe)",
        ];
        assert!(starts.contains(&operation), "{operation}");
        assert_eq!(source.raw_os_error(), Some(error as i32));
    }
    assert!(matches!(pool.recv(), Err(Error::Disconnected)));
    assert!(children().is_empty());
}

#[test]
fn without_processes_for_another_worker_the_pool_says_so_and_goes_on_later() {
    in_own_process(|| {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root, to become a user of whom nothing else runs");
            return;
        }
        // KERNEL: setrlimit(2): root is not held to RLIMIT_NPROC.
        nix::unistd::setuid(nix::unistd::Uid::from_raw(54_322)).unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
        let leave_room_for = |processes| setrlimit(Resource::RLIMIT_NPROC, processes, hard);
        let before = open_fds();
        let kinds: [fn(usize) -> PoolOptions; 2] = [PoolOptions::new, |workers| {
            PoolOptions::new(workers).fresh()
        }];
        for options in kinds {
            let mut pool = options(1).run(do_it).unwrap();
            leave_room_for(1).unwrap();
            says_that_no_worker_can_be_started(&mut pool, nix::Error::EAGAIN);
            leave_room_for(2).unwrap();
            pool.submit(Deed::Return(3)).unwrap();
            assert_eq!(pool.recv().unwrap().1, Ok((3, Picky::default())));
            drop(pool);
            // One of two goes on alone, until there is room for the other one again.
            leave_room_for(3).unwrap();
            let mut pool = options(2).run(do_it).unwrap();
            leave_room_for(2).unwrap();
            pool.submit(Deed::Exit(1)).unwrap();
            pool.recv().unwrap().1.unwrap_err();
            let do_more = |pool: &mut Pool<Deed, _>| {
                pool.submit(Deed::Return(4)).unwrap();
                assert_eq!(pool.recv().unwrap().1, Ok((4, Picky::default())));
                pool.workers().len()
            };
            (0..20).for_each(|_| assert_eq!(do_more(&mut pool), 1));
            leave_room_for(3).unwrap();
            while do_more(&mut pool) < 2 {}
            drop(pool);
            leave_room_for(hard).unwrap();
        }
        assert_eq!(open_fds(), before);
    });
}

// Where seccompiler knows filters.
#[cfg(target_arch = "x86_64")]
#[test]
fn without_memory_for_another_worker_the_pool_says_so() {
    use nix::libc::{SYS_clone, SYS_clone3, SYS_fork, SYS_vfork};
    in_own_process(|| {
        for options in [PoolOptions::new(1), PoolOptions::new(1).fresh()] {
            forked(|| {
                let before = open_fds();
                let mut pool = options.run(do_it).unwrap();
                crate::support::deny_with(
                    nix::Error::ENOMEM,
                    [SYS_clone, SYS_clone3, SYS_fork, SYS_vfork],
                );
                says_that_no_worker_can_be_started(&mut pool, nix::Error::ENOMEM);
                drop(pool);
                assert_eq!(open_fds(), before);
            })
            .join();
        }
    });
}

#[test]
fn results_that_nobody_receives_are_kept_up_to_a_limit() {
    in_own_process(|| {
        let mut pool = PoolOptions::new(1).keep(10).run(square).unwrap();
        let mut submitted = 0;
        let error = loop {
            match pool.submit(submitted) {
                Ok(_) => submitted += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Full), "{error}");
        assert!((10..=12).contains(&submitted), "{submitted}");
        assert_eq!(pool.finish().unwrap().len() as u64, submitted);

        // Those that a `map` has put aside count as well, and those that one has left behind do not.
        let mut pool = PoolOptions::new(1).keep(2).run(square).unwrap();
        for kept in 0..2 {
            pool.submit(7).unwrap();
            assert_eq!(pool.map(1..5).next(), Some((1, Ok(1))));
            assert_eq!(pool.pending(), kept + 1);
        }
        assert!(matches!(pool.submit(7), Err(Error::Full)));
        assert_eq!(pool.map([2]).next(), Some((2, Ok(4))));
        for _ in 0..2 {
            assert_eq!(pool.recv().unwrap().1, Ok(49));
        }
        assert!(matches!(pool.recv(), Err(Error::Disconnected)));
        pool.submit(7).unwrap();
    });
}

#[test]
fn a_forked_worker_has_only_its_own_descriptors() {
    in_own_process(|| {
        let (mut read, write) = crate::support::pipe();
        let mut pool = Pool::new(2, do_it).unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap(); // at its end, although the workers were forked before
        // Those that take the place of others later have none either.
        let (mut read, write) = crate::support::pipe();
        pool.submit(Deed::Exit(0)).unwrap();
        pool.recv().unwrap().1.unwrap_err();
        pool.submit(Deed::Return(0)).unwrap();
        pool.submit(Deed::Return(0)).unwrap();
        assert!(write.as_raw_fd() > 2);
        drop(write);
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "");
    });
}

/// A worker in a shell, which knows nothing of this crate: it answers nothing and ends.
#[test]
fn a_program_that_is_no_worker_is_an_error_after_three() {
    in_own_process(|| {
        let mut pool: Pool<u8, u8> = PoolOptions::new(1)
            .command(|| Command::new("false"))
            .unwrap();
        let mut deaths = 0;
        let error = loop {
            match pool.submit(1) {
                Ok(_) => {
                    let outcome = pool.recv().unwrap().1;
                    assert!(matches!(outcome, Err(JobError::Died { .. })), "{outcome:?}");
                    deaths += 1;
                }
                Err(error) => break error,
            }
        };
        assert!(deaths <= 3, "{deaths}");
        let Error::Child { end, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(end, ChildEnd::Exited { code: 1 });
        let missing: Result<Pool<u8, u8>, _> =
            PoolOptions::new(1).command(|| Command::new("/does/not/exist"));
        assert!(matches!(missing, Err(Error::Io { .. })));
    });
}

#[test]
fn a_worker_that_had_not_started_is_replaced_when_its_death_is_counted() {
    in_own_process(|| {
        let directory = tempfile::tempdir().unwrap();
        let starts = directory.path().join("starts");
        let log = starts.clone();
        // It hangs up at once and does not end by itself.
        let script = r#"echo start >>"$0"; eval "exec $WORMHOLE_FD<&-"; exec sleep 100"#;
        let mut pool: Pool<u8, u8> = PoolOptions::new(1)
            .command(move || {
                let mut bash = Command::new("bash");
                bash.args(["-c", script]).arg(&log);
                bash
            })
            .unwrap();
        let error = loop {
            match pool.submit(1) {
                Ok(_) => drop(pool.recv().unwrap().1.unwrap_err()),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Child { .. }), "{error}");
        let started = std::fs::read_to_string(starts).unwrap_or_default();
        assert!(started.lines().count() <= 3, "{started}");
        assert!(children().is_empty());
    });
}

const ROLE: &str = "TEST_POOL_WORKER";

/// What this test binary does as a worker in another language would.
#[test]
fn program() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    type Ends = (Receiver<i64>, Sender<serde_json::Value>);
    let (jobs, answers): Ends = wormhole::inherit().unwrap();
    for job in &jobs {
        let answer = match job.unwrap() {
            -1 => serde_json::json!({"Err": {"message": "negative", "place": "worker.py:7"}}),
            -2 => serde_json::json!({"Ok": "a text"}),
            -3 => std::process::exit(3),
            -4 => serde_json::json!(["what?"]),
            -5 => {
                drop(answers);
                jobs.recv().unwrap_err();
                return;
            }
            -6 => {
                drop(answers);
                nix::unistd::alarm::set(20);
                nix::unistd::pause();
                return;
            }
            -7 => loop {
                answers.send(serde_json::json!({"Ready": null})).unwrap();
            },
            n => serde_json::json!({"Ok": n * 2}),
        };
        answers.send(answer).unwrap();
    }
}

fn worker() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["pool::program", "--exact", "--nocapture"])
        .env(ROLE, "1");
    command.stdout(std::process::Stdio::null());
    command
}

#[test]
fn a_program_that_says_without_end_that_it_is_ready_is_killed() {
    in_own_process(|| {
        let mut pool: Pool<i64, i64> = PoolOptions::new(2).command(worker).unwrap();
        let says = pool.submit(-7).unwrap();
        let works = pool.submit(21).unwrap();
        let mut outcomes = BTreeMap::new();
        for _ in 0..2 {
            let (id, outcome) = pool.recv_timeout(DEADLINE).unwrap();
            outcomes.insert(id, outcome);
        }
        assert_eq!(outcomes[&works], Ok(42));
        let outcome = &outcomes[&says];
        let Err(JobError::Undelivered { reason }) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(reason, "the worker is ready twice");
        assert_eq!(pool.map([1]).next(), Some((1, Ok(2))));
    });
}

#[test]
fn workers_may_be_other_programs() {
    in_own_process(|| {
        let before = open_fds();
        let mut pool: Pool<i64, i64> = PoolOptions::new(2).command(worker).unwrap();
        let jobs = [21, -1, -2, -3, -4, -5, 7, 1, 2, 3, -6];
        let results: Vec<_> = pool.map(jobs).map(|(_, result)| result).collect();
        assert_eq!(results[0], Ok(42));
        let Err(JobError::Panicked {
            message,
            place,
            backtrace,
        }) = &results[1]
        else {
            panic!()
        };
        assert_eq!(
            (&**message, place.as_deref(), backtrace),
            ("negative", Some("worker.py:7"), &None)
        );
        assert!(matches!(results[2], Err(JobError::Undelivered { .. })));
        assert!(matches!(
            results[3],
            Err(JobError::Died {
                end: ChildEnd::Exited { code: 3 },
                ..
            })
        ));
        assert!(matches!(results[4], Err(JobError::Undelivered { .. })));
        assert!(
            matches!(results[5], Err(JobError::Died { .. })),
            "{:?}",
            results[5]
        );
        // One that does not end by itself is killed.
        let Err(JobError::Died { end, .. }) = &results[10] else {
            panic!("{:?}", results[10])
        };
        assert!(matches!(end, ChildEnd::Killed { signal: 9, .. }), "{end:?}");
        assert_eq!(results[6..10], [Ok(14), Ok(2), Ok(4), Ok(6)]);
        pool.finish().unwrap();
        assert!(children().is_empty());
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn two_hundred_and_fifty_six_workers() {
    in_own_process(|| {
        let before = open_fds();
        let mut pool = Pool::new(256, square).unwrap();
        let sum: u64 = pool.map(0..2000).map(|(_, result)| result.unwrap()).sum();
        assert_eq!(sum, (0..2000).map(square).sum::<u64>());
        assert_eq!(pool.workers().len(), 256);
        drop(pool);
        assert!(children().is_empty());
        assert_eq!(open_fds(), before);
    });
}

#[test]
fn a_copy_of_a_pool_in_a_forked_process_leaves_the_workers_alone() {
    in_own_process(|| {
        let mut pool = Some(Pool::new(1, square).unwrap());
        forked(|| drop(pool.take())).join();
        let mut pool = pool.unwrap();
        let workers = pool.workers();
        pool.submit(5).unwrap();
        assert_eq!(pool.recv().unwrap().1, Ok(25));
        assert_eq!(pool.workers(), workers);
    });
}
