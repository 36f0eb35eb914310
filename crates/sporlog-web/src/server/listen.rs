//! Taking connections in, up to a number, and letting go of them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ::metrics::{counter, gauge};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{Phase, Shared};
use super::error::ServerError;
use super::settings::{Limits, ServerSettings, seconds};
use super::tls::Certificates;
use super::{metrics, process};

/// Connections that the system holds until the server accepts them.
const BACKLOG: u32 = 4096;
/// How long to wait when the system has no room for another connection.
const BACK_OFF: Duration = Duration::from_millis(200);
/// Files that are left for everything else when connections are many.
const OTHER_FILES: u64 = 256;
/// How often idle connections are asked to make room while others wait.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long connections that are cut off have to notice.
const CUT: Duration = Duration::from_secs(1);

/// A server that has its address and answers nobody yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    certificates: Option<Certificates>,
    limits: Limits,
}

impl Server {
    /// Takes the address, and reads the certificate if there is to be one. `reserved` files of those that the process
    /// may have open are left to other servers in it.
    pub async fn bind(settings: &ServerSettings, reserved: u64) -> Result<Self, ServerError> {
        let certificates = match &settings.tls {
            Some(tls) => Some(Certificates::load(tls).await?),
            None => None,
        };
        let failed = |source| ServerError::Listen { address: settings.listen, source };
        let listener = listen(settings.listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut limits = settings.limits.clone();
        if let Some(files) = process::open_files() {
            let room =
                usize::try_from(files.saturating_sub(OTHER_FILES + reserved)).unwrap_or(usize::MAX).max(16);
            if room < limits.connections {
                tracing::info!(
                    "{room} connections at once instead of {}: no more files may be open",
                    limits.connections
                );
                limits.connections = room;
            }
        }
        Ok(Server { listener, address, certificates, limits })
    }

    /// The address that is listened on, with the port that was free if none was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers with `router`, which has its [`layers`](super::layers) already, until `shutdown`; then takes no more
    /// connections, closes those that are idle, and finishes what is under way. Returns when
    /// all is done, or with an error after `limits.shutdown_seconds`.
    pub async fn run(
        self,
        router: axum::Router,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServerError> {
        let wait = seconds(self.limits.shutdown_seconds);
        let stop = CancellationToken::new();
        let phase = watch::Sender::new(Phase::Serving);
        let slots = Arc::new(Semaphore::new(self.limits.connections.min(Semaphore::MAX_PERMITS)));
        let tls = self.certificates.as_ref().map(Certificates::acceptor);
        let shared = Arc::new(Shared { router, limits: self.limits, tls });
        let renewing = self.certificates.map(|certificates| tokio::spawn(certificates.renew(stop.clone())));
        let tracker = TaskTracker::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let (slot, (stream, peer)) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                next = next(&self.listener, &slots, &phase) => next,
            };
            let (shared, phase) = (Arc::clone(&shared), phase.subscribe());
            tracker.spawn(async move {
                counter!(metrics::CONNECTIONS_TOTAL).increment(1);
                let open = Open::new();
                // Small answers are not held back to be sent with later ones.
                let _ = stream.set_nodelay(true);
                shared.serve(stream, peer, phase).await;
                drop((open, slot));
            });
        }
        // From here on nobody is taken in.
        drop(self.listener);
        stop.cancel();
        phase.send_replace(Phase::Stopping);
        tracker.close();
        let drained = timeout(wait, tracker.wait()).await.is_ok();
        let left = tracker.len();
        phase.send_replace(Phase::CutOff);
        if let Some(renewing) = renewing {
            let _ = renewing.await;
        }
        if drained {
            return Ok(());
        }
        let _ = timeout(CUT, tracker.wait()).await;
        Err(ServerError::CutOff(left))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The port is free again at once after a restart.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The next connection, as soon as there is room for it. Those that have to wait do so in the
/// system's queue, where they cost the server nothing.
async fn next(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    phase: &watch::Sender<Phase>,
) -> (OwnedSemaphorePermit, (TcpStream, SocketAddr)) {
    let mut told = false;
    loop {
        let slot = match Arc::clone(slots).try_acquire_owned() {
            Ok(slot) => slot,
            Err(_) => {
                counter!(metrics::CONNECTIONS_WAITED).increment(1);
                loop {
                    match timeout(ASK_AGAIN, Arc::clone(slots).acquire_owned()).await {
                        Ok(Ok(slot)) => break slot,
                        // Nobody closes the semaphore.
                        Ok(Err(_)) => std::future::pending().await,
                        Err(_) => drop(phase.send_replace(Phase::Crowded)),
                    }
                }
            }
        };
        match listener.accept().await {
            Ok(connection) => return (slot, connection),
            // It was there, and went away before it was taken in.
            Err(error) if is_of_the_connection(&error) => {}
            // Too many open files, or no memory: trying again at once would change nothing.
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "no connection can be taken in; waiting");
                }
                sleep(BACK_OFF).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}

/// Counts a connection as long as it is open.
struct Open;

impl Open {
    fn new() -> Self {
        gauge!(metrics::CONNECTIONS).increment(1);
        Open
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        gauge!(metrics::CONNECTIONS).decrement(1);
    }
}
