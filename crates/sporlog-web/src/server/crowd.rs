//! How many requests are under way at once.

use std::sync::Arc;

use ::metrics::counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics;
use crate::Problem;

/// Room for so many requests.
#[derive(Debug, Clone)]
pub(super) struct Crowd(Arc<Semaphore>);

impl Crowd {
    pub(super) fn new(room: usize) -> Self {
        Crowd(Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))))
    }

    /// A place, until it is dropped. Nobody queues: a request that would wait here helps nobody, and a
    /// client that is told so can go elsewhere.
    pub(super) fn enter(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            counter!(metrics::HTTP_REFUSED, "reason" => "crowd").increment(1);
            Problem { retry_after: Some(1), ..Problem::unavailable("too many requests are under way") }
        })
    }
}
