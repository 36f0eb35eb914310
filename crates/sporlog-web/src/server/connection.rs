//! One connection: TLS if there is a certificate, then one HTTP/1.1 request after the other.
//!
//! A client that does not send, or does not take what is sent, is disconnected in every phase:
//!
//! | phase | how long |
//! |---|---|
//! | until the first byte, and until each request's head is complete | `limits.idle_seconds` |
//! | the TLS handshake, from its first byte to its last | [`HANDSHAKE`] |
//! | the next piece of a body | `limits.stall_seconds`, by `request_body` |
//! | until the socket takes something of an answer | `limits.stall_seconds` |
//! | without a request, while others wait for a place | [`IDLE_IF_CROWDED`] |

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::counter;
use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::metrics;
use super::settings::{Limits, seconds};

/// A handshake is four messages, so ten seconds are enough over any line that a delivery could come over.
const HANDSHAKE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// A request's line and headers, together. The largest tokens have some 8 KiB, and proxies add their own headers.
const HEAD_BYTES: usize = 64 << 10;
/// How long an idle connection is kept when others wait for a place.
const IDLE_IF_CROWDED: Duration = Duration::from_secs(5);
/// How long what a client still sends is thrown away before its connection is closed.
const LINGER: Duration = Duration::from_secs(1);

/// What all connections are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Others wait for a place: whoever is idle makes room.
    Crowded,
    /// Finish what is under way, then close.
    Stopping,
    /// Close.
    CutOff,
}

/// The other end of a connection, in a request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub address: SocketAddr,
    pub timers: Arc<ConnectionTimers>,
}

/// Since when no request has been under way on a connection; none while one is.
#[derive(Debug)]
pub(super) struct ConnectionTimers(Mutex<Option<Instant>>);

impl ConnectionTimers {
    fn set(&self, idle: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = idle;
    }

    /// For how long nothing has been under way.
    fn idle(&self) -> Duration {
        let idle = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        idle.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A request is under way until what this gives is dropped.
    pub(super) fn request(self: &Arc<Self>) -> UnderWay {
        self.set(None);
        UnderWay(Arc::clone(self))
    }
}

/// A request that is under way on a connection.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<ConnectionTimers>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(Some(Instant::now()));
    }
}

/// What all connections have in common.
pub(super) struct Shared {
    pub router: Router,
    pub limits: Limits,
    pub tls: Option<TlsAcceptor>,
}

impl Shared {
    /// Serves a connection until it is done with.
    pub(super) async fn serve(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        mut phase: watch::Receiver<Phase>,
    ) {
        let peer = Peer { address, timers: Arc::new(ConnectionTimers(Mutex::new(Some(Instant::now())))) };
        // Until the first byte comes, a connection costs a socket and next to no memory.
        // (`readable` says at first that there is something to be read, whether or not there is.)
        let mut first = [0];
        tokio::select! {
            read = timeout(seconds(self.limits.idle_seconds), stream.peek(&mut first)) => match read {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return,
                Err(_) => return closed("idle"),
            },
            () = dismissed(&mut phase, &peer.timers) => return,
        }
        // Boxed, so that connections that are silent do not pay for those that are not.
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(seconds(self.limits.stall_seconds)));
        let stream = Box::pin(stream);
        match &self.tls {
            None => Box::pin(self.serve_http(stream, peer, phase)).await,
            Some(tls) => Box::pin(self.serve_tls(tls, stream, peer, phase)).await,
        }
    }

    async fn serve_tls(
        &self,
        tls: &TlsAcceptor,
        stream: Pin<Box<TimeoutStream<TcpStream>>>,
        peer: Peer,
        mut phase: watch::Receiver<Phase>,
    ) {
        let stream = tokio::select! {
            stream = timeout(HANDSHAKE, tls.accept(stream)) => stream,
            () = dismissed(&mut phase, &peer.timers) => return,
        };
        match stream {
            Ok(Ok(stream)) => self.serve_http(stream, peer, phase).await,
            Ok(Err(error)) => {
                tracing::debug!(client = %peer.address.ip(), %error, "a TLS handshake failed");
                closed("handshake");
            }
            Err(_) => closed("handshake"),
        }
    }

    async fn serve_http<T>(&self, stream: T, peer: Peer, mut phase: watch::Receiver<Phase>)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer.clone());
            self.router.clone().call(request)
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // It runs from the end of the answer before, so it is the limit of silence as well.
            .header_read_timeout(seconds(self.limits.idle_seconds))
            // A client may have said all it has to say, and still wait for the answer.
            .half_close(true)
            .max_header_size(HEAD_BYTES)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut connection => break outcome,
                changed = phase.changed() => {
                    let told = if changed.is_ok() { *phase.borrow_and_update() } else { Phase::CutOff };
                    match told {
                        Phase::Serving => {}
                        Phase::Crowded if peer.timers.idle() >= IDLE_IF_CROWDED => return closed("idle"),
                        Phase::Crowded => {}
                        Phase::Stopping => Pin::new(&mut connection).graceful_shutdown(),
                        Phase::CutOff => return closed("shutdown"),
                    }
                }
            }
        };
        if let Err(error) = outcome {
            tracing::debug!(client = %peer.address.ip(), %error, "a connection failed");
            if error.is_parse() {
                counter!(metrics::HTTP_REFUSED, "reason" => "head").increment(1);
            } else if error.is_timeout() {
                return closed("idle");
            } else if timed_out(&error) {
                return closed("write");
            }
        }
        // A socket that is closed with bytes unread resets the connection, and the client may lose its answer. So
        // what a client sends after it was answered early is read for a moment.
        let mut stream = connection.into_parts().io.into_inner();
        let _ = timeout(LINGER, async {
            stream.shutdown().await?;
            copy(&mut stream, &mut sink()).await
        })
        .await;
    }
}

/// Returns when a connection that has sent no request is to make room, or the server stops.
async fn dismissed(phase: &mut watch::Receiver<Phase>, timers: &ConnectionTimers) {
    while phase.changed().await.is_ok() {
        match *phase.borrow_and_update() {
            Phase::Serving => {}
            Phase::Crowded if timers.idle() >= IDLE_IF_CROWDED => return closed("idle"),
            Phase::Crowded => {}
            Phase::Stopping | Phase::CutOff => return,
        }
    }
}

/// Whether an error comes from the socket's write timeout.
fn timed_out(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

fn closed(reason: &'static str) {
    counter!(metrics::CONNECTIONS_CLOSED, "reason" => reason).increment(1);
}
