//! A connection that is made anew when it is lost, until too many attempts in a row got nothing through.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::connection::{Access, Connection};
use super::error::{Error, Result};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The way to another server.
pub(super) struct Link<'a> {
    access: &'a Access,
    stop: &'a CancellationToken,
    connection: Option<Connection>,
    /// Attempts in a row in which nothing got through.
    in_vain: u32,
}

impl<'a> Link<'a> {
    /// A link that is not connected yet.
    pub fn new(access: &'a Access, stop: &'a CancellationToken) -> Self {
        Link { access, stop, connection: None, in_vain: 0 }
    }

    /// Does `work` with the connection, and again with a new one when a connection was lost. Ends at once when a
    /// stop is asked for, so `work` must bear being dropped anywhere.
    pub async fn with<T>(&mut self, mut work: impl AsyncFnMut(&Connection) -> Result<T>) -> Result<T> {
        loop {
            let (stop, access) = (self.stop, self.access);
            let connection = &mut self.connection;
            let attempt = async {
                let connection = match connection {
                    Some(connection) => connection,
                    none => none.insert(Connection::open(access).await?),
                };
                work(connection).await
            };
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => return Err(Error::Stopped),
                done = attempt => done,
            };
            let error = match done {
                Err(error) if error.is_lost() => error,
                done => {
                    self.in_vain = 0;
                    return done;
                }
            };
            if self.connection.take().is_some_and(|lost| lost.has_moved()) {
                self.in_vain = 0;
            }
            if self.in_vain >= access.retries {
                return Err(error);
            }
            let pause = pause_after(self.in_vain);
            self.in_vain += 1;
            tracing::warn!(%error, "another attempt in {} s", pause.as_secs());
            self.pause(pause).await?;
        }
    }

    /// Waits, unless a stop is asked for.
    pub async fn pause(&self, pause: Duration) -> Result<()> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Error::Stopped),
            () = tokio::time::sleep(pause) => Ok(()),
        }
    }

    /// Disconnects.
    pub async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }
}

/// 1, 2, 4 seconds and so on, up to [`LONGEST_PAUSE`].
fn pause_after(in_vain: u32) -> Duration {
    Duration::from_secs(1 << in_vain.min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let pauses: Vec<u64> = (0..9).map(|n| pause_after(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
