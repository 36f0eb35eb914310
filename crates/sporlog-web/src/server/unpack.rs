//! Bodies that come packed.
//!
//! `Content-Encoding: gzip` is unpacked before a handler sees the body, all members of it, and
//! never to more than the route's limit. A packed body is held in memory while it is unpacked; routes
//! that take large ones take them as they are sent ([`RouteLimits::as_sent`](super::RouteLimits)).

use std::io::Read;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use hyper::body::Frame;
use sporlog_intake::source::Source;

use super::body::{Fault, Intake};
use crate::Problem;

/// How a gzip file begins.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Middleware: a handler gets the body unpacked.
pub(super) async fn unpack(mut request: Request, next: Next) -> Response {
    let Ok(packed) = is_packed(request.headers()) else {
        let detail = "a body may be packed with gzip, once, or not at all";
        let problem = Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail);
        return ([(ACCEPT_ENCODING, "gzip")], problem).into_response();
    };
    let intake = request.extensions().get::<Arc<Intake>>().cloned();
    if let (true, Some(intake)) = (packed, intake) {
        // Neither is true of what the handler reads.
        request.headers_mut().remove(CONTENT_ENCODING);
        request.headers_mut().remove(CONTENT_LENGTH);
        request = request.map(|body| Body::new(Unpacked { intake, state: State::Sent(body) }));
    }
    next.run(request).await
}

/// Whether a body is packed in a way that is understood; an error if it is packed in another.
fn is_packed(headers: &HeaderMap) -> Result<bool, ()> {
    let mut packings = headers.get_all(CONTENT_ENCODING).iter();
    let packing = match (packings.next(), packings.next()) {
        (None, _) => return Ok(false),
        (Some(packing), None) => packing.as_bytes(),
        (Some(_), Some(_)) => return Err(()),
    };
    if packing.eq_ignore_ascii_case(b"gzip") || packing.eq_ignore_ascii_case(b"x-gzip") {
        Ok(true)
    } else if packing.eq_ignore_ascii_case(b"identity") {
        Ok(false)
    } else {
        Err(())
    }
}

/// A packed body. Whether the route wants it unpacked is known once it is read, and not before.
struct Unpacked {
    intake: Arc<Intake>,
    state: State,
}

enum State {
    Sent(Body),
    Unpacking(BoxFuture<'static, Result<Bytes, axum::Error>>),
    Done,
}

impl HttpBody for Unpacked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Sent(body) if this.intake.is_taken_as_sent() => {
                    return Pin::new(body).poll_frame(cx);
                }
                State::Sent(body) => {
                    let body = std::mem::take(body);
                    this.state = State::Unpacking(Box::pin(whole(body, Arc::clone(&this.intake))));
                }
                State::Unpacking(whole) => {
                    let whole = ready!(whole.as_mut().poll(cx));
                    this.state = State::Done;
                    return Poll::Ready(Some(whole.map(Frame::data)));
                }
                State::Done => return Poll::Ready(None),
            }
        }
    }
}

/// All of a body, unpacked.
async fn whole(body: Body, intake: Arc<Intake>) -> Result<Bytes, axum::Error> {
    // How much is read of it is limited already.
    let packed = to_bytes(body, usize::MAX).await?;
    let limit = intake.limit();
    let unpacked = tokio::task::spawn_blocking(move || gunzip(&packed, limit)).await;
    match unpacked {
        Ok(Some(bytes)) if bytes.len() as u64 > limit => Err(intake.failed(Fault::TooLarge)),
        Ok(Some(bytes)) => Ok(bytes.into()),
        _ => Err(intake.failed(Fault::Broken)),
    }
}

/// What was packed, or one byte more than `limit` of it; nothing if it is no gzip, or is broken.
fn gunzip(packed: &[u8], limit: u64) -> Option<Vec<u8>> {
    // Other ways of packing were not announced.
    let packed = packed.starts_with(&MAGIC).then(|| packed.to_vec())?;
    let (reader, _) = Source::bytes("body", packed).unpack().ok()?;
    let mut unpacked = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut unpacked).ok()?;
    Some(unpacked)
}
