//! Work that waits for disks or computes for long, on a thread where that is allowed; and locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::{JoinError, spawn_blocking};

/// Runs `work` on such a thread; a panic in it becomes an error.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<JoinError> + Send + 'static,
{
    spawn_blocking(work).await?
}

/// Locks `mutex`, also if a thread has panicked that held the lock: what such a mutex holds is in order at every step.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
