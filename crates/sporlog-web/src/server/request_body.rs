//! A request's body: how large it may be, how slowly it may come, and gzip.
//!
//! A body is limited as it is sent, and again when it is unpacked: a small one that unpacks to a large one
//! gets no further than an honest one. A body may neither pause nor come a byte at a time, which would hold a permit
//! for as long as it likes. What ended a body early is noted, and the client is told that, whatever the handler
//! made of it. The time for an answer runs once the handler has done with the body.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::metrics::counter;
use async_compression::tokio::bufread::GzipDecoder;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::oneshot;
use tokio::time::sleep;
use tokio_util::io::{ReaderStream, StreamReader};
use tower_http::timeout::{TimeoutBody, TimeoutError};

use super::metrics;
use super::settings::{Limits, seconds};
use crate::Problem;

/// Bytes a second that a body has to bring: a modem of 33.6 kbit/s does.
const LEAST_RATE: u64 = 4 << 10;
/// The rate is measured over so many times `limits.stall_seconds`: by default two minutes, by when most bodies are there.
const WINDOW: u32 = 4;

type BoxError = Box<dyn Error + Send + Sync>;

/// What a route allows beyond the settings' limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteLimits {
    /// A body's size in bytes, both as sent and unpacked, instead of `limits.body_bytes`.
    pub body_bytes: Option<u64>,
    /// The handler gets a body with `Content-Encoding: gzip` as it is sent, and unpacks it itself.
    pub as_sent: bool,
    /// The answer may take as long as it takes: `limits.answer_seconds` does not apply. Streamed
    /// answers need no exception, since that limit is for their beginning.
    pub unhurried: bool,
}

/// What holds for a request's body, and for the time until its answer begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    bytes: u64,
    as_sent: bool,
    /// Until the next piece of the body.
    stall: Duration,
    /// From the end of the body to the beginning of the answer.
    answer: Option<Duration>,
}

impl BodyLimits {
    pub(super) fn new(limits: &Limits, route: RouteLimits) -> Self {
        BodyLimits {
            bytes: route.body_bytes.unwrap_or(limits.body_bytes),
            as_sent: route.as_sent,
            stall: seconds(limits.stall_seconds),
            answer: (!route.unhurried).then(|| seconds(limits.answer_seconds)),
        }
    }

    /// Has a request answered. `received` counts the bytes of its body, as sent.
    pub(super) async fn answer(self, request: Request, next: Next, received: Arc<AtomicU64>) -> Response {
        if request.body().is_end_stream() {
            return self.in_time(next.run(request), async { None }).await;
        }
        // A body that is announced to be too large is not read, nor does the client hear `100 Continue`.
        if request.body().size_hint().lower() > self.bytes {
            return self.refuse(Fault::TooLarge);
        }
        let fault = Arc::new(OnceLock::new());
        let (unread, read) = oneshot::channel();
        let reading = Reading { fault: Arc::clone(&fault), _unread: unread };
        let counted = Arc::clone(&received);
        let read = async {
            tokio::select! {
                // The sender goes with the body: when the handler has read it, or has no use for it.
                _ = read => None,
                fault = self.too_slow(&counted) => Some(fault),
            }
        };
        let response = self.in_time(self.run(request, next, received, reading), read).await;
        match fault.get() {
            Some(fault) if response.status().as_u16() >= 400 => self.refuse(*fault),
            _ => response,
        }
    }

    async fn run(
        self,
        mut request: Request,
        next: Next,
        received: Arc<AtomicU64>,
        reading: Reading,
    ) -> Response {
        let limit = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let mut encodings = request.headers().get_all(header::CONTENT_ENCODING).iter();
        let gzip = match (encodings.next().map(HeaderValue::as_bytes), encodings.next()) {
            _ if self.as_sent => false,
            (None | Some(b"identity"), None) => false,
            (Some(b"gzip"), None) => true,
            _ => {
                let detail = "a body is taken with Content-Encoding: gzip, or without one";
                let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
                return ([(header::ACCEPT_ENCODING, "gzip")], problem).into_response();
            }
        };
        if gzip {
            // Neither is true of what the handler reads.
            request.headers_mut().remove(header::CONTENT_ENCODING);
            request.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let request = request.map(|body| {
            let counted = body.map_frame(move |frame| {
                let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                received.fetch_add(bytes, Ordering::Relaxed);
                frame
            });
            let sent = Body::new(TimeoutBody::new(self.stall, Limited::new(counted, limit)));
            if gzip { reading.watch(Limited::new(gunzip(sent), limit)) } else { reading.watch(sent) }
        });
        next.run(request).await
    }

    /// The answer, unless it has not begun when its time is over, counted from the end of `read`.
    async fn in_time(
        self,
        answer: impl Future<Output = Response>,
        read: impl Future<Output = Option<Fault>>,
    ) -> Response {
        let overdue = async {
            let fault = read.await;
            match self.answer {
                _ if fault.is_some() => {}
                Some(limit) => sleep(limit).await,
                None => pending().await,
            }
            fault
        };
        tokio::select! {
            biased;
            response = answer => response,
            fault = overdue => match fault {
                Some(fault) => self.refuse(fault),
                None => {
                    refused("timeout");
                    let detail = "the answer took too long; what was asked for may have been done all the same";
                    Problem::unavailable(detail).into_response()
                }
            },
        }
    }

    /// Returns once a body comes at less than the least rate. `received` counts its bytes.
    async fn too_slow(self, received: &AtomicU64) -> Fault {
        let window = self.stall * WINDOW;
        let mut before = 0;
        loop {
            sleep(window).await;
            let now = received.load(Ordering::Relaxed);
            if now - before < LEAST_RATE * window.as_secs() {
                return Fault::Slow;
            }
            before = now;
        }
    }

    fn refuse(self, fault: Fault) -> Response {
        let (status, detail, reason) = match fault {
            Fault::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body may have {} bytes at most, as sent and unpacked", self.bytes),
                "size",
            ),
            Fault::Stalled => (
                StatusCode::REQUEST_TIMEOUT,
                format!("nothing of the body came for {} seconds", self.stall.as_secs()),
                "slow",
            ),
            Fault::Slow => (
                StatusCode::REQUEST_TIMEOUT,
                format!("a body has to come at {LEAST_RATE} bytes a second or more"),
                "slow",
            ),
            Fault::Broken => {
                let detail = "the body ends too early, or cannot be unpacked";
                (StatusCode::BAD_REQUEST, detail.to_owned(), "broken")
            }
        };
        refused(reason);
        // What is left of the body is not read, so the connection cannot be used again: the client is to know.
        ([(header::CONNECTION, "close")], Problem::new(status, detail)).into_response()
    }
}

/// All members of a gzip file, one after the other. (tower-http's layer ends after the first, without an error.)
fn gunzip(body: Body) -> Body {
    let packed = StreamReader::new(TryStreamExt::map_err(body.into_data_stream(), io::Error::other));
    let mut decoder = GzipDecoder::new(packed);
    decoder.multiple_members(true);
    Body::from_stream(ReaderStream::new(decoder))
}

fn refused(reason: &'static str) {
    counter!(metrics::HTTP_REFUSED, "reason" => reason).increment(1);
}

/// What ended a body before its end.
#[derive(Debug, Clone, Copy)]
enum Fault {
    TooLarge,
    Stalled,
    Slow,
    Broken,
}

impl Fault {
    /// What an error means: one of the limits, or else the connection or the decompressor failed.
    fn of(error: &BoxError) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(&**error);
        while let Some(error) = cause {
            if error.is::<LengthLimitError>() {
                return Fault::TooLarge;
            } else if error.is::<TimeoutError>() {
                return Fault::Stalled;
            }
            cause = error.source();
        }
        Fault::Broken
    }
}

/// What a body leaves behind when it fails or is dropped.
struct Reading {
    fault: Arc<OnceLock<Fault>>,
    _unread: oneshot::Sender<Infallible>,
}

impl Reading {
    /// The body as the handler gets it.
    fn watch<B>(self, body: B) -> Body
    where
        B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        Body::new(body.map_err(move |error| {
            // All of it, and not the field alone, is to be dropped with the body.
            let reading = &self;
            let error = error.into();
            // What fails after the first failure follows from it.
            let _ = reading.fault.set(Fault::of(&error));
            error
        }))
    }
}
