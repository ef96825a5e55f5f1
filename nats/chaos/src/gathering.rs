//! Gathers the results.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::timeout;
use wormhole_nats::Receiver;

use crate::job::{Done, now};
use crate::ledger::Ledger;
use crate::random::Random;

/// Takes results for as long as it is awaited.
pub(crate) async fn gather(
    seed: u64,
    calm: bool,
    results: &Receiver<Done>,
    ledger: &RefCell<Ledger>,
) {
    let mut random = Random::of(&[seed, 3]);
    loop {
        let job = match results.recv().await {
            Ok(job) => job,
            Err(error) => {
                let violation = format!("results cannot be received: {error}");
                ledger.borrow_mut().violations.push(violation);
                return;
            }
        };
        let done: Done = (*job).clone();
        ledger.borrow_mut().result(&done, now());
        if !calm && random.chance(2) {
            ledger.borrow_mut().gave_back(&done);
            drop(job);
            continue;
        }
        // Without that, it may be the server's for good, or not.
        match timeout(Duration::from_secs(5), job.done()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => ledger.borrow_mut().gave_back(&done),
        }
    }
}
