//! Work that waits for disks or computes for long, on a thread where that is allowed.

use tokio::task::{JoinError, spawn_blocking};

/// Runs `work` on such a thread; a panic in it becomes an error.
pub async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<JoinError> + Send + 'static,
{
    spawn_blocking(work).await?
}
