//! A connection from the moment that it is taken in to its end: within what time it has to sign in, for how
//! long it may be idle, and how it ends when the server does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as Wakers, Poll};
use std::time::Duration;

use ::metrics::counter;
use russh::Disconnect;
use russh::server::{Config, Handle, RunningSession};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::context::Visit;
use super::guard::Place;
use super::handler::Connection;
use super::metrics;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What a transfer gets to end when the server is stopped.
const GRACE: Duration = Duration::from_secs(5);
/// What a client gets to take in that it is disconnected.
const FAREWELL: Duration = Duration::from_millis(500);
/// What is read from the network at once: several packets of SSH.
const READ_AT_ONCE: usize = 128 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(
    config: Arc<Config>,
    stream: TcpStream,
    visit: Arc<Visit>,
    place: Place,
    wait: Duration,
) {
    let limits = &visit.context.limits;
    let deadline = Instant::now() + wait + Duration::from_secs(limits.sign_in_seconds.into());
    if !wait.is_zero() {
        tokio::select! {
            () = sleep(wait) => {}
            () = visit.context.stopping.cancelled() => return,
        }
    }
    let guarded = BufReader::with_capacity(READ_AT_ONCE, Ended::new(stream, &visit.ended));
    let connection = Connection::new(Arc::clone(&visit), place);
    let greeted = tokio::select! {
        greeted = russh::server::run_stream(config, guarded, connection) => greeted,
        () = sleep_until(deadline) => return counter!(metrics::SIGN_INS, "result" => "slow").increment(1),
        () = visit.context.stopping.cancelled() => return,
    };
    match greeted {
        Ok(session) => watch(session, &visit, deadline).await,
        Err(error) => tracing::debug!(%error, address = %visit.address, "SFTP: no client of SSH"),
    }
}

/// Waits for a session's end, or ends it.
async fn watch(mut session: RunningSession<Connection>, visit: &Visit, deadline: Instant) {
    let idle = Duration::from_secs(visit.context.limits.idle_seconds.into());
    let handle = session.handle();
    let why = loop {
        tokio::select! {
            ended = &mut session => {
                if let Err(error) = ended {
                    tracing::debug!(%error, session = visit.id, "SFTP: the connection broke off");
                }
                return;
            }
            () = sleep(LOOK) => {
                if !visit.is_signed_in.load(Ordering::Acquire) {
                    if Instant::now() >= deadline {
                        counter!(metrics::SIGN_INS, "result" => "slow").increment(1);
                        break "nobody signed in in time";
                    }
                } else if visit.silent() >= idle {
                    break "the connection was idle for too long";
                }
            }
            () = visit.context.stopping.cancelled() => {
                let_end(&mut session, visit).await;
                break "the server is being stopped";
            }
        }
    };
    dismiss(&mut session, &handle, visit, why).await;
}

/// Lets transfers under way come to their end, for a while.
async fn let_end(session: &mut RunningSession<Connection>, visit: &Visit) {
    let quiet = async {
        while visit.is_busy() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = async {
        tokio::select! {
            () = quiet => {}
            _ = session => {}
        }
    };
    drop(timeout(GRACE, ended).await);
}

/// Says good-bye, and then ends the connection whether that was heard or not.
async fn dismiss(session: &mut RunningSession<Connection>, handle: &Handle, visit: &Visit, why: &str) {
    let farewell = async {
        drop(handle.disconnect(Disconnect::ByApplication, why.to_owned(), "en".to_owned()).await);
        drop((&mut *session).await);
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        visit.ended.cancel();
        drop(timeout(GRACE, session).await);
    }
}

/// A stream that ends when it is told to, whoever is waiting for what on it.
struct Ended {
    stream: TcpStream,
    is_ended: CancellationToken,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Ended {
    fn new(stream: TcpStream, ended: &CancellationToken) -> Self {
        Ended { stream, is_ended: ended.clone(), ended: Box::pin(ended.clone().cancelled_owned()) }
    }

    /// What waits would wait for ever, if it were not woken up for this.
    fn or_ended<T>(&mut self, polled: Poll<io::Result<T>>, wakers: &mut Wakers<'_>) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending if self.is_ended.is_cancelled() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            Poll::Pending => {
                self.ended.as_mut().poll(wakers).map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
            }
            ready => ready,
        }
    }
}

impl AsyncRead for Ended {
    fn poll_read(
        self: Pin<&mut Self>,
        wakers: &mut Wakers<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(wakers, buffer);
        this.or_ended(polled, wakers)
    }
}

impl AsyncWrite for Ended {
    fn poll_write(self: Pin<&mut Self>, wakers: &mut Wakers<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(wakers, bytes);
        this.or_ended(polled, wakers)
    }

    fn poll_flush(self: Pin<&mut Self>, wakers: &mut Wakers<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(wakers)
    }

    fn poll_shutdown(self: Pin<&mut Self>, wakers: &mut Wakers<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(wakers)
    }
}
