//! Programs of all languages at once.

use std::collections::HashSet;

use wormhole::{Error, channel};

use super::messages::{Done, Job, Passing, Working};
use super::programs::{C, Go, Language, Python, Rust, can_run};
use crate::support::in_own_process;

const ALL: [Language; 4] = [Rust, Python, Go, C];

/// An end goes through them all, each of which uses it, passes it on and ends.
fn pass_on(order: &[Language]) {
    let (tx, names) = channel::<String>().unwrap();
    let (first, mut source) = channel().unwrap();
    first.send(tx).unwrap();
    let mut programs = Vec::new();
    for language in order {
        let (to, next) = channel().unwrap();
        programs.push(language.start("pass on", Passing { source, to }));
        source = next;
    }
    let tx = source.recv().unwrap();
    for program in programs {
        program.succeeds();
    }
    tx.send("home".to_owned()).unwrap();
    drop(tx);
    let heard: Vec<_> = names.iter().map(Result::unwrap).collect();
    let expected = order.iter().map(|language| language.name());
    assert_eq!(heard, expected.chain(["home"]).collect::<Vec<_>>());
}

#[test]
fn an_end_is_passed_on_from_language_to_language() {
    if can_run(&ALL) {
        in_own_process(|| {
            pass_on(&[Rust, Python, Go, C, Rust]);
            pass_on(&[C, Go, Python, Rust, C]);
        });
    }
}

#[test]
fn workers_in_all_languages_share_one_channel_of_jobs() {
    if can_run(&ALL) {
        in_own_process(|| {
            const JOBS: u64 = 5000;
            let (jobs, source) = channel::<Job>().unwrap();
            let (results, done) = channel::<Done>().unwrap();
            let (open, gate) = channel::<u8>().unwrap();
            let workers: Vec<_> = ALL
                .iter()
                .chain(&ALL)
                .map(|language| {
                    let working = Working {
                        jobs: source.clone(),
                        results: results.clone(),
                        gate: gate.clone(),
                    };
                    language.start("work", working)
                })
                .collect();
            drop((source, results, gate));

            // Whoever has one of the first jobs waits with it until each worker has one.
            let count = workers.len() as u64;
            for number in 0..count {
                jobs.send(Job { number, wait: true }).unwrap();
            }
            let mut squares = vec![None; usize::try_from(JOBS).unwrap()];
            let mut note = |done: Done| {
                let square = &mut squares[usize::try_from(done.number).unwrap()];
                assert_eq!(square.replace(done.square), None, "{} twice", done.number);
                done.language
            };
            let first: Vec<_> = (0..count).map(|_| note(done.recv().unwrap())).collect();
            assert_eq!(first.iter().collect::<HashSet<_>>().len(), ALL.len());
            for _ in 0..count {
                open.send(0).unwrap();
            }
            // Results are taken meanwhile, or all would wait for room.
            for number in count..JOBS {
                jobs.send(Job {
                    number,
                    wait: false,
                })
                .unwrap();
                while let Ok(result) = done.try_recv() {
                    note(result);
                }
            }
            drop(jobs);
            for result in &done {
                note(result.unwrap());
            }
            assert!(matches!(done.recv(), Err(Error::Disconnected)));
            for (number, square) in squares.iter().enumerate() {
                assert_eq!(*square, Some((number * number) as u64));
            }
            for worker in workers {
                worker.succeeds();
            }
        });
    }
}
