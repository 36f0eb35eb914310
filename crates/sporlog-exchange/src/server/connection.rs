//! The life of one connection: the time limit for signing in, the limit for being idle, and the end when the
//! server is stopped.

use std::io;
use std::net::{Shutdown, TcpStream as Socket};
use std::sync::Arc;
use std::time::Duration;

use ::metrics::counter;
use russh::Disconnect;
use russh::server::{Config, RunningSession};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

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
    let (stream, socket) = match twice(stream) {
        Ok(both) => both,
        Err(error) => return tracing::warn!(%error, "SFTP: a connection cannot be served"),
    };
    let stream = BufReader::with_capacity(READ_AT_ONCE, stream);
    let connection = Connection::new(Arc::clone(&session), permit);
    let greeted = tokio::select! {
        greeted = russh::server::run_stream(config, stream, connection) => greeted,
        () = sleep_until(deadline) => return counter!(metrics::SIGN_INS, "result" => "slow").increment(1),
        () = session.context.stopping.cancelled() => return,
    };
    match greeted {
        Ok(ssh) => watch(ssh, &socket, &session, deadline, idle).await,
        Err(error) => tracing::debug!(%error, address = %session.address, "SFTP: the SSH handshake failed"),
    }
}

/// Waits until the connection ends, or ends it when a time limit is exceeded or the server is stopped.
async fn watch(
    mut ssh: RunningSession<Connection>,
    socket: &Socket,
    session: &Session,
    deadline: Instant,
    idle: Duration,
) {
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
                match session.account.get() {
                    None if Instant::now() >= deadline => {
                        counter!(metrics::SIGN_INS, "result" => "slow").increment(1);
                        break "nobody signed in in time";
                    }
                    Some(_) if session.silent() >= idle => break "the connection was idle for too long",
                    Some(account) if account.is_replaced() => {
                        break "the account's settings were changed: connect again";
                    }
                    _ => {}
                }
            }
            () = session.context.stopping.cancelled() => {
                drain(&mut ssh, session).await;
                break "the server is being stopped";
            }
        }
    };
    let disconnecting = async {
        drop(handle.disconnect(Disconnect::ByApplication, why.to_owned(), "en".to_owned()).await);
        drop((&mut ssh).await);
    };
    if timeout(DISCONNECT_TIMEOUT, disconnecting).await.is_err() {
        // The client does not read the message. Every read and write that is pending fails now.
        session.ended.cancel();
        drop(socket.shutdown(Shutdown::Both));
        drop(timeout(DRAIN_TIMEOUT, ssh).await);
    }
}

/// The stream, and its socket once more, by which the connection can be ended whatever the SSH library is doing.
fn twice(stream: TcpStream) -> io::Result<(TcpStream, Socket)> {
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, socket))
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
