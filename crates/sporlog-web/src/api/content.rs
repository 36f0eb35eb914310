//! What a request's body is, by its headers, and the body itself.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};

use super::judge::Layout;
use crate::problem::Problem;

/// Sorts of content that are no delivery, whatever is in them. Others are judged by what they are:
/// half of all senders of CSV call it something else.
const NO_DELIVERY: [&str; 9] = [
    "text/html",
    "multipart/",
    "image/",
    "audio/",
    "video/",
    "font/",
    "message/",
    "application/pdf",
    "application/x-www-form-urlencoded",
];

/// The media type, in small letters and without parameters; empty if none is given.
fn media_type(headers: &HeaderMap) -> Result<String, Problem> {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = given.next() else { return Ok(String::new()) };
    if given.next().is_some() {
        return Err(Problem::bad_request("Content-Type is there more than once"));
    }
    let text = value.to_str().map_err(|_| Problem::bad_request("Content-Type is not readable"))?;
    Ok(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn unsupported(detail: &'static str) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
}

/// How records are set down in the body: JSON, or a record a line if that is allowed. What has no type
/// is taken as JSON.
pub(super) fn layout(headers: &HeaderMap, lines: bool) -> Result<Layout, Problem> {
    let packed = headers.get(header::CONTENT_ENCODING).is_some_and(|packing| packing != "identity");
    if packed {
        return Err(unsupported("send the body as it is, or packed with gzip"));
    }
    let media_type = media_type(headers)?;
    match &*media_type {
        "" | "application/json" | "text/json" => Ok(Layout::Json),
        other if other.starts_with("application/") && other.ends_with("+json") => Ok(Layout::Json),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines"
            if lines =>
        {
            Ok(Layout::Lines)
        }
        _ if lines => Err(unsupported("send application/json, or application/x-ndjson with a record a line")),
        _ => Err(unsupported("send application/json")),
    }
}

/// Refuses content that cannot be a file of records.
pub(super) fn check_delivery(headers: &HeaderMap) -> Result<(), Problem> {
    let packing = headers.get(header::CONTENT_ENCODING);
    if packing.is_some_and(|packing| !["identity", "gzip", "zstd"].iter().any(|known| packing == known)) {
        return Err(unsupported("send the file as it is, or packed with gzip or Zstandard"));
    }
    let media_type = media_type(headers)?;
    if NO_DELIVERY.iter().any(|wrong| media_type.starts_with(wrong)) {
        return Err(unsupported(
            "send the file alone as the body: text/csv, application/json, application/gzip or none",
        ));
    }
    Ok(())
}

/// The whole body.
pub(super) async fn read(request: Request) -> Result<Bytes, Problem> {
    // The server's layers say more where it was them who ended it.
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => Problem::new(status, "the body is too large"),
        _ => Problem::bad_request("the body broke off; nothing was stored"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn json_by_any_of_its_names() {
        for (text, lines, expected) in [
            ("application/json", false, Ok(Layout::Json)),
            ("Application/JSON; charset=utf-8", false, Ok(Layout::Json)),
            ("application/vnd.nav+json", true, Ok(Layout::Json)),
            ("application/x-ndjson", true, Ok(Layout::Lines)),
            ("application/x-ndjson", false, Err(415)),
            ("text/html", true, Err(415)),
            ("text/plain", true, Err(415)),
            ("application/x-www-form-urlencoded", true, Err(415)),
            ("json", true, Err(415)),
        ] {
            let found = layout(&headers(&[(header::CONTENT_TYPE, text)]), lines).map_err(|p| p.status);
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(layout(&headers(&[]), false).map_err(|p| p.status), Ok(Layout::Json));
    }

    #[test]
    fn two_types_and_unknown_packings_are_refused() {
        let twice =
            headers(&[(header::CONTENT_TYPE, "application/json"), (header::CONTENT_TYPE, "text/html")]);
        assert_eq!(layout(&twice, true).map_err(|p| p.status), Err(400));
        assert_eq!(check_delivery(&twice).map_err(|p| p.status), Err(400));
        let packed = headers(&[(header::CONTENT_ENCODING, "br")]);
        assert_eq!(layout(&packed, true).map_err(|p| p.status), Err(415));
        assert_eq!(check_delivery(&packed).map_err(|p| p.status), Err(415));
        let unpacked = headers(&[(header::CONTENT_ENCODING, "identity")]);
        assert!(layout(&unpacked, true).is_ok() && check_delivery(&unpacked).is_ok());
    }

    #[test]
    fn a_delivery_may_be_called_many_things() {
        for (text, fit) in [
            ("text/csv", true),
            ("text/plain; charset=utf-8", true),
            ("application/vnd.ms-excel", true),
            ("application/gzip", true),
            ("application/octet-stream", true),
            ("text/html", false),
            ("multipart/form-data; boundary=x", false),
            ("application/x-www-form-urlencoded", false),
            ("image/png", false),
        ] {
            assert_eq!(check_delivery(&headers(&[(header::CONTENT_TYPE, text)])).is_ok(), fit, "{text}");
        }
    }
}
