//! The life of one connection: the time limit for signing in, the limit for being idle, and the end when the
//! server is stopped.

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

use super::context::Session;
use super::handler::Connection;
use super::login_throttle::ConnectionPermit;
use super::metrics;

/// How long signing in may take: enough for a passphrase or a hardware key, and short enough that silent connections
/// make room for others.
const SIGN_IN: Duration = Duration::from_secs(30);
/// How often a connection is checked against its time limits.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How long transfers under way may go on when the server is stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client may take to receive the message that it is disconnected.
const DISCONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Bytes read from the network at once: several SSH packets.
const READ_AT_ONCE: usize = 128 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(
    config: Arc<Config>,
    stream: TcpStream,
    session: Arc<Session>,
    permit: ConnectionPermit,
    wait: Duration,
) {
    let idle = Duration::from_secs(session.context.limits.idle_seconds.into());
    let deadline = Instant::now() + wait + SIGN_IN.min(idle);
    if !wait.is_zero() {
        tokio::select! {
            () = sleep(wait) => {}
            () = session.context.stopping.cancelled() => return,
        }
    }
    let stream = BufReader::with_capacity(READ_AT_ONCE, CancellableStream::new(stream, &session.ended));
    let connection = Connection::new(Arc::clone(&session), permit);
    let greeted = tokio::select! {
        greeted = russh::server::run_stream(config, stream, connection) => greeted,
        () = sleep_until(deadline) => return counter!(metrics::SIGN_INS, "result" => "slow").increment(1),
        () = session.context.stopping.cancelled() => return,
    };
    match greeted {
        Ok(ssh) => watch(ssh, &session, deadline, idle).await,
        Err(error) => tracing::debug!(%error, address = %session.address, "SFTP: the SSH handshake failed"),
    }
}

/// Waits until the connection ends, or ends it when a time limit is exceeded or the server is stopped.
async fn watch(mut ssh: RunningSession<Connection>, session: &Session, deadline: Instant, idle: Duration) {
    let handle = ssh.handle();
    let why = loop {
        tokio::select! {
            ended = &mut ssh => {
                if let Err(error) = ended {
                    tracing::debug!(%error, session = session.id, "SFTP: the connection was lost");
                }
                return;
            }
            () = sleep(CHECK_EVERY) => {
                if !session.is_signed_in.load(Ordering::Acquire) {
                    if Instant::now() >= deadline {
                        counter!(metrics::SIGN_INS, "result" => "slow").increment(1);
                        break "nobody signed in in time";
                    }
                } else if session.silent() >= idle {
                    break "the connection was idle for too long";
                } else if session.account.get().is_some_and(|account| account.is_replaced()) {
                    break "the account's settings were changed: connect again";
                }
            }
            () = session.context.stopping.cancelled() => {
                drain(&mut ssh, session).await;
                break "the server is being stopped";
            }
        }
    };
    disconnect(&mut ssh, &handle, session, why).await;
}

/// Waits until nothing is open on the connection any more, for [`DRAIN_TIMEOUT`] at most.
async fn drain(ssh: &mut RunningSession<Connection>, session: &Session) {
    let quiet = async {
        while session.is_busy() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let ended = async {
        tokio::select! {
            () = quiet => {}
            _ = ssh => {}
        }
    };
    drop(timeout(DRAIN_TIMEOUT, ended).await);
}

/// Sends a disconnect message, and then ends the connection whether the client has read it or not.
async fn disconnect(ssh: &mut RunningSession<Connection>, handle: &Handle, session: &Session, why: &str) {
    let disconnecting = async {
        drop(handle.disconnect(Disconnect::ByApplication, why.to_owned(), "en".to_owned()).await);
        drop((&mut *ssh).await);
    };
    if timeout(DISCONNECT_TIMEOUT, disconnecting).await.is_err() {
        session.ended.cancel();
        drop(timeout(DRAIN_TIMEOUT, ssh).await);
    }
}

/// A stream on which every pending read and write fails once the token is cancelled.
struct CancellableStream {
    stream: TcpStream,
    token: CancellationToken,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl CancellableStream {
    fn new(stream: TcpStream, ended: &CancellationToken) -> Self {
        CancellableStream {
            stream,
            token: ended.clone(),
            cancelled: Box::pin(ended.clone().cancelled_owned()),
        }
    }

    /// Also registers the task with the token, because a client that sends nothing would never wake it.
    fn or_cancelled<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        wakers: &mut Wakers<'_>,
    ) -> Poll<io::Result<T>> {
        match polled {
            Poll::Pending if self.token.is_cancelled() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            Poll::Pending => {
                self.cancelled.as_mut().poll(wakers).map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
            }
            ready => ready,
        }
    }
}

impl AsyncRead for CancellableStream {
    fn poll_read(
        self: Pin<&mut Self>,
        wakers: &mut Wakers<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(wakers, buffer);
        this.or_cancelled(polled, wakers)
    }
}

impl AsyncWrite for CancellableStream {
    fn poll_write(self: Pin<&mut Self>, wakers: &mut Wakers<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(wakers, bytes);
        this.or_cancelled(polled, wakers)
    }

    fn poll_flush(self: Pin<&mut Self>, wakers: &mut Wakers<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(wakers)
    }

    fn poll_shutdown(self: Pin<&mut Self>, wakers: &mut Wakers<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(wakers)
    }
}
