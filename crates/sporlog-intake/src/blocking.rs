//! Work that waits for disks or computes for long, on a thread where that is allowed.

use tokio::task::{JoinError, spawn_blocking};

/// Does it; a panic becomes an error.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<JoinError> + Send + 'static,
{
    spawn_blocking(work).await?
}
