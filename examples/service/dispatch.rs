//! One task has the pool, and all others ask it.

use std::collections::HashMap;

use tokio::sync::{mpsc, oneshot};
use wormhole::JobError;
use wormhole::tokio::Pool;

/// A job, and where its result goes.
pub(crate) type Request = (u32, oneshot::Sender<Result<usize, JobError>>);

/// The task that has the pool: gives it what is asked for, and the results to whoever asked.
pub(crate) async fn dispatch(
    mut pool: Pool<u32, usize>,
    mut requests: mpsc::Receiver<Request>,
) -> Result<(), wormhole::Error> {
    let workers = pool.get_ref().workers().len();
    let mut waiting = HashMap::new();
    loop {
        // Both are cancel safe: whichever loses has taken nothing.
        tokio::select! {
            request = requests.recv(), if waiting.len() < workers => {
                let Some((number, reply)) = request else { break };
                // A worker is free, or about to be: one that has died is replaced within milliseconds.
                let id = pool.submit(number).await?;
                waiting.insert(id, reply);
            }
            outcome = pool.recv(), if !waiting.is_empty() => {
                let (id, result) = outcome?;
                if let Some(reply) = waiting.remove(&id) {
                    let _ = reply.send(result); // whoever asked may have left
                }
            }
        }
    }
    pool.into_inner().finish().map(drop)
}
