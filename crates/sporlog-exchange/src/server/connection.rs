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

/// How often a connection is checked against its time limits.
const LOOK: Duration = Duration::from_secs(1);
/// How long transfers under way may go on when the server is stopped.
const GRACE: Duration = Duration::from_secs(5);
/// How long a client may take to receive the message that it is disconnected.
const FAREWELL: Duration = Duration::from_millis(500);
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
    let limits = &session.context.limits;
    let deadline = Instant::now() + wait + Duration::from_secs(limits.sign_in_seconds.into());
    if !wait.is_zero() {
        tokio::select! {
            () = sleep(wait) => {}
            () = session.context.stopping.cancelled() => return,
        }
    }
    let guarded = BufReader::with_capacity(READ_AT_ONCE, Ended::new(stream, &session.ended));
    let connection = Connection::new(Arc::clone(&session), permit);
    let greeted = tokio::select! {
        greeted = russh::server::run_stream(config, guarded, connection) => greeted,
        () = sleep_until(deadline) => return counter!(metrics::SIGN_INS, "result" => "slow").increment(1),
        () = session.context.stopping.cancelled() => return,
    };
    match greeted {
        Ok(ssh) => watch(ssh, &session, deadline).await,
        Err(error) => tracing::debug!(%error, address = %session.address, "SFTP: the SSH handshake failed"),
    }
}

/// Waits until the connection ends, or ends it when a time limit is exceeded or the server is stopped.
async fn watch(mut ssh: RunningSession<Connection>, session: &Session, deadline: Instant) {
    let idle = Duration::from_secs(session.context.limits.idle_seconds.into());
    let handle = ssh.handle();
    let why = loop {
        tokio::select! {
            ended = &mut ssh => {
                if let Err(error) = ended {
                    tracing::debug!(%error, session = session.id, "SFTP: the connection was lost");
                }
                return;
            }
            () = sleep(LOOK) => {
                if !session.is_signed_in.load(Ordering::Acquire) {
                    if Instant::now() >= deadline {
                        counter!(metrics::SIGN_INS, "result" => "slow").increment(1);
                        break "nobody signed in in time";
                    }
                } else if session.silent() >= idle {
                    break "the connection was idle for too long";
                }
            }
            () = session.context.stopping.cancelled() => {
                let_end(&mut ssh, session).await;
                break "the server is being stopped";
            }
        }
    };
    dismiss(&mut ssh, &handle, session, why).await;
}

/// Waits until nothing is open on the connection any more, for [`GRACE`] at most.
async fn let_end(ssh: &mut RunningSession<Connection>, session: &Session) {
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
    drop(timeout(GRACE, ended).await);
}

/// Sends a disconnect message, and then ends the connection whether the client has read it or not.
async fn dismiss(ssh: &mut RunningSession<Connection>, handle: &Handle, session: &Session, why: &str) {
    let farewell = async {
        drop(handle.disconnect(Disconnect::ByApplication, why.to_owned(), "en".to_owned()).await);
        drop((&mut *ssh).await);
    };
    if timeout(FAREWELL, farewell).await.is_err() {
        session.ended.cancel();
        drop(timeout(GRACE, ssh).await);
    }
}

/// A stream on which every pending read and write fails once the token is cancelled.
struct Ended {
    stream: TcpStream,
    is_ended: CancellationToken,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Ended {
    fn new(stream: TcpStream, ended: &CancellationToken) -> Self {
        Ended { stream, is_ended: ended.clone(), ended: Box::pin(ended.clone().cancelled_owned()) }
    }

    /// Also registers the task with the token, because a client that sends nothing would never wake it.
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
