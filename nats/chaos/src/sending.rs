//! Sends the jobs.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use wormhole_nats::Sender;

use crate::cli::Options;
use crate::job::Job;
use crate::ledger::Ledger;
use crate::random::Random;

/// Sends jobs until there are enough of them, or it is time.
pub(crate) async fn send(
    options: &Options,
    seed: u64,
    lane: u64,
    jobs: &Sender<Job>,
    ledger: &RefCell<Ledger>,
) {
    let mut random = Random::of(&[seed, 2, lane]);
    let start = Instant::now();
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    loop {
        let job = {
            let mut ledger = ledger.borrow_mut();
            match ledger.next() {
                number if number < options.jobs && start.elapsed() < length => {}
                _ => return,
            }
            ledger.begin()
        };
        // In time, and not before: faults are to come in the midst of it.
        sleep_until(start + length.mul_f64(job.number as f64 / options.jobs as f64)).await;
        // The same id each time, so that the server keeps it once, whatever it has got of the last attempt.
        let id = format!("job-{}", job.number);
        loop {
            let patience = Duration::from_millis(random.between(5, 1500));
            match timeout(patience, jobs.send_with_id(&id, job.clone())).await {
                Ok(Ok(_)) => ledger.borrow_mut().sent(job.number),
                Ok(Err(error)) => {
                    let violation = format!("job {} could not be sent: {error}", job.number);
                    ledger.borrow_mut().violations.push(violation);
                }
                Err(_) => {
                    ledger.borrow_mut().send_timeouts += 1;
                    if !random.chance(50) {
                        continue;
                    }
                }
            }
            break;
        }
    }
}
