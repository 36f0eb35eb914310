//! One connection: HTTP/1.1 or HTTP/2, and when it has been idle or slow for too long.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::metrics::counter;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, Version, header};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::metrics;
use super::settings::{Limits, seconds};
use super::wire::{Pulse, UnderWay, Wire};
use crate::Problem;

/// How long an idle connection is kept when there is hardly room for another.
const IDLE_IF_CROWDED: Duration = Duration::from_secs(5);
/// How often a silent HTTP/2 client is asked whether it is still there, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);
/// What may be on its way to us on a stream of HTTP/2, and on all streams of a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 2 << 20;

/// The socket's other end, in a request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub SocketAddr);

/// What all connections have in common.
pub(super) struct Shared {
    pub router: Router,
    pub limits: Limits,
    pub tls: Option<TlsAcceptor>,
    pub slots: Arc<Semaphore>,
    /// Finish what is under way, then close.
    pub stop: CancellationToken,
    /// Close.
    pub cut: CancellationToken,
}

impl Shared {
    /// Serves a connection until it is done with.
    pub(super) async fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        // Until the first byte comes, a connection costs a socket and next to no memory.
        let first = timeout(seconds(self.limits.idle_seconds), stream.readable());
        tokio::select! {
            readable = first => match readable {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return closed("idle"),
            },
            () = self.stop.cancelled() => return,
        }
        // Boxed, so that connections that are silent do not pay for those that are not.
        match &self.tls {
            None => Box::pin(self.talk(stream, peer, false)).await,
            Some(tls) => Box::pin(self.talk_in_secret(tls, stream, peer)).await,
        }
    }

    async fn talk_in_secret(&self, tls: &TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
        let handshake = timeout(seconds(self.limits.handshake_seconds), tls.accept(stream));
        let stream = tokio::select! {
            stream = handshake => stream,
            () = self.stop.cancelled() => return,
        };
        match stream {
            Ok(Ok(stream)) => {
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                self.talk(stream, peer, http2).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(client = %peer.ip(), %error, "a TLS handshake failed");
                closed("handshake");
            }
            Err(_) => closed("handshake"),
        }
    }

    async fn talk<T>(&self, stream: T, peer: SocketAddr, http2: bool)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pulse = Arc::new(Pulse::new());
        let wire = TokioIo::new(Wire::new(stream, Arc::clone(&pulse), http2));
        let service = service_fn(|request| answer(self.router.clone(), request, peer, pulse.request()));
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(wire, service));
        let mut look = pin!(sleep_until(Instant::now() + seconds(self.limits.header_seconds)));
        let mut stopping = false;
        loop {
            tokio::select! {
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(client = %peer.ip(), error = %*error, "a connection failed");
                    }
                    return;
                }
                () = self.cut.cancelled() => return closed("shutdown"),
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = look.as_mut() => match self.overdue(&pulse) {
                    Verdict::In(left) => look.as_mut().reset(Instant::now() + left),
                    Verdict::Idle if !stopping => {
                        closed("idle");
                        stopping = true;
                        connection.as_mut().graceful_shutdown();
                        look.as_mut().reset(Instant::now() + IDLE_IF_CROWDED);
                    }
                    Verdict::Idle => return,
                    Verdict::Slow(reason) => return closed(reason),
                },
            }
        }
    }

    /// Whether it is time to end a connection; if not, when to look again. Looking at least as often as
    /// a head may take means that none takes longer.
    fn overdue(&self, pulse: &Pulse) -> Verdict {
        let (head, stall) = (seconds(self.limits.header_seconds), seconds(self.limits.stall_seconds));
        let mut next = head;
        let marks = [(pulse.head(), head, "head"), (pulse.write(), stall, "write")];
        for (since, allowed, reason) in marks.into_iter().filter_map(|(s, a, r)| Some((s?, a, r))) {
            match allowed.checked_sub(since) {
                Some(left) if !left.is_zero() => next = next.min(left),
                _ => return Verdict::Slow(reason),
            }
        }
        let crowded = self.slots.available_permits() < self.limits.connections / 10;
        let idle = seconds(self.limits.idle_seconds);
        let allowed = if crowded { idle.min(IDLE_IF_CROWDED) } else { idle };
        if let (Some(since), None) = (pulse.idle(), pulse.head()) {
            match allowed.checked_sub(since) {
                Some(left) if !left.is_zero() => next = next.min(left),
                _ => return Verdict::Idle,
            }
        }
        // Marks are in whole milliseconds.
        Verdict::In(next + Duration::from_millis(1))
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            // The pulse knows better: it tells an idle connection from a slow head.
            .header_read_timeout(None)
            // A client may have said all it has to say, and still wait for the answer.
            .half_close(true)
            .max_buf_size(self.limits.header_bytes.max(8 << 10));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_concurrent_streams(self.limits.streams_per_connection)
            .max_header_list_size(u32::try_from(self.limits.header_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            // A client that opens streams and resets them costs more than it spends (CVE-2023-44487).
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(100);
        builder
    }
}

async fn answer(
    mut router: Router,
    request: Request<Incoming>,
    peer: SocketAddr,
    under_way: UnderWay,
) -> Result<Response<Answer>, Infallible> {
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(Peer(peer));
    let hosts = request.headers().get_all(header::HOST).iter().count();
    let response = if request.version() == Version::HTTP_11 && hosts != 1 {
        counter!(metrics::HTTP_REFUSED, "reason" => "head").increment(1);
        Problem::bad_request("a request has one Host header").into_response()
    } else {
        router.call(request).await?
    };
    Ok(response.map(|inner| Answer { inner, _under_way: under_way }))
}

/// What becomes of a connection that was looked at.
enum Verdict {
    /// It may go on; look again after this time.
    In(Duration),
    /// It has been silent for too long.
    Idle,
    /// It has been too slow, at what is named.
    Slow(&'static str),
}

fn closed(reason: &'static str) {
    counter!(metrics::CONNECTIONS_CLOSED, "reason" => reason).increment(1);
}

/// An answer's body; while it is not through, its request is under way.
pub(super) struct Answer {
    inner: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
