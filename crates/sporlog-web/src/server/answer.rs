//! What every answer has: headers that keep browsers from doing harm, and a problem as the body of
//! an error.

use std::any::Any;

use ::metrics::counter;
use axum::body::{Body, to_bytes};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use sporlog_record::identifier::mask_text;

use super::metrics;
use crate::Problem;

/// Longest text of an error that is passed on.
const LONGEST: usize = 1024;

/// What an answer that is no page may do in a browser: nothing.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";
/// What a page may do: what comes from here.
const PAGE: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                    base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Adds the headers that a handler has not set itself.
pub(super) fn security_headers(response: &mut Response, tls: bool) {
    let headers = response.headers_mut();
    let page =
        headers.get(header::CONTENT_TYPE).is_some_and(|of| of.as_bytes().starts_with(mime("text/html")));
    let policy = if page { PAGE } else { NOTHING };
    let mut unless_set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    // Most of what is answered is about people.
    unless_set(header::CACHE_CONTROL, "no-store");
    unless_set(header::CONTENT_SECURITY_POLICY, policy);
    unless_set(header::REFERRER_POLICY, "no-referrer");
    unless_set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if tls {
        unless_set(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
}

const fn mime(name: &str) -> &[u8] {
    name.as_bytes()
}

/// Makes a problem of an error that has none for a body: what the router and its extractors say is
/// plain text or nothing. Headers such as `Allow` stay.
pub(super) async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_none_or(|of| of.as_bytes().starts_with(mime("text/plain")));
    if !(status.is_client_error() || status.is_server_error()) || !plain {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = to_bytes(body, LONGEST).await.unwrap_or_default();
    // An extractor quotes what it could not read.
    let text = String::from_utf8_lossy(&text);
    let text = mask_text(text.trim());
    let problem = if text.is_empty() || status.is_server_error() {
        Problem::new(status, usual(status))
    } else {
        Problem::new(status, text.into_owned())
    };
    let (told, body) = problem.into_response().into_parts();
    for name in [header::CONTENT_LENGTH, header::CONTENT_TYPE] {
        parts.headers.remove(name);
    }
    for (name, value) in told.headers.iter() {
        parts.headers.entry(name).or_insert_with(|| value.clone());
    }
    Response::from_parts(parts, body)
}

fn usual(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "there is nothing at this address",
        StatusCode::METHOD_NOT_ALLOWED => "this address does not take this method; Allow says which it takes",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "a body of this type is not understood",
        _ if status.is_server_error() => "the server's log says more, under this request's id",
        _ => "the request cannot be answered as it is",
    }
}

/// What a client gets of a panic; the log gets what was said, without personal numbers.
pub(super) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    let said = said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("nothing");
    tracing::error!(said = &*mask_text(said), "a request panicked");
    counter!(metrics::HTTP_REFUSED, "reason" => "panic").increment(1);
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Problem::new(status, usual(status)).into_response()
}
