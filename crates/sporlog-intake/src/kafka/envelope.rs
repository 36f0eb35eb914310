//! What a message carries besides its record: key, headers, time.
//!
//! It is one JSON object without white space, stored beside the record:
//!
//! ```json
//! {"key":"4711","headers":[["correlation-id","6d1f"],["trace",{"base64":"AP8="}],["empty",null]],"timestamp":"2026-11-21T10:00:00.000Z"}
//! ```
//!
//! | member | what it is |
//! |---|---|
//! | `key` | the key, if it is UTF-8; absent if there is none |
//! | `keyBase64` | the key in Base64, if it is not UTF-8 |
//! | `headers` | pairs of name and value in the order given, since names may repeat; a value is a text, `null`, or `{"base64":…}` if it is not UTF-8; absent if there are none |
//! | `timestamp` | when the producer says that it was made, UTC; or |
//! | `logAppendTime` | when the broker took it in, if the topic is set to `LogAppendTime` |
//!
//! So nothing is lost and the bytes can be had back, but for a header whose name is not UTF-8, against
//! Kafka's own rule: it is there as `["\u{fffd}",null]`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat};
use rdkafka::Timestamp;

/// Appends the envelope to `out`.
pub(super) fn write<'a>(
    key: Option<&[u8]>,
    headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
    timestamp: Timestamp,
    out: &mut Vec<u8>,
) {
    out.push(b'{');
    let begin = out.len();
    if let Some(key) = key {
        match std::str::from_utf8(key) {
            Ok(key) => {
                out.extend_from_slice(b"\"key\":");
                text(key, out);
            }
            Err(_) => {
                out.extend_from_slice(b"\"keyBase64\":");
                quoted(key, out);
            }
        }
    }
    let mut any = false;
    for (name, value) in headers {
        if !any {
            comma(begin, out);
            out.extend_from_slice(b"\"headers\":[");
        } else {
            out.push(b',');
        }
        any = true;
        out.push(b'[');
        text(name, out);
        out.push(b',');
        match value.map(|value| (std::str::from_utf8(value), value)) {
            None => out.extend_from_slice(b"null"),
            Some((Ok(value), _)) => text(value, out),
            Some((Err(_), value)) => {
                out.extend_from_slice(b"{\"base64\":");
                quoted(value, out);
                out.push(b'}');
            }
        }
        out.push(b']');
    }
    if any {
        out.push(b']');
    }
    let (name, millis) = match timestamp {
        Timestamp::CreateTime(millis) => ("timestamp", Some(millis)),
        Timestamp::LogAppendTime(millis) => ("logAppendTime", Some(millis)),
        Timestamp::NotAvailable => ("", None),
    };
    // A producer may claim any time at all; one that no calendar has is none.
    if let Some(time) = millis.and_then(DateTime::from_timestamp_millis) {
        comma(begin, out);
        text(name, out);
        out.push(b':');
        text(&time.to_rfc3339_opts(SecondsFormat::Millis, true), out);
    }
    out.push(b'}');
}

fn comma(begin: usize, out: &mut Vec<u8>) {
    if out.len() > begin {
        out.push(b',');
    }
}

fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
    out.push(b'"');
}

fn text(text: &str, out: &mut Vec<u8>) {
    // Writing a text into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header<'a> = (&'a str, Option<&'a [u8]>);

    fn envelope(key: Option<&[u8]>, headers: &[Header], timestamp: Timestamp) -> String {
        let mut out = Vec::new();
        write(key, headers.iter().copied(), timestamp, &mut out);
        let text = String::from_utf8(out).expect("UTF-8");
        serde_json::from_str::<serde_json::Value>(&text).expect(&text);
        text
    }

    #[test]
    fn nothing_is_an_empty_object() {
        assert_eq!(envelope(None, &[], Timestamp::NotAvailable), "{}");
    }

    #[test]
    fn everything_is_kept_in_order() {
        let headers: [Header; 5] = [
            ("correlation-id", Some(b"6d1f")),
            ("correlation-id", Some(b"second")),
            ("none", None),
            ("raw", Some(b"\x00\xff")),
            ("", Some(b"\"quoted\"\n")),
        ];
        assert_eq!(
            envelope(Some(b"4711"), &headers, Timestamp::CreateTime(1_795_255_200_000)),
            r#"{"key":"4711","headers":[["correlation-id","6d1f"],["correlation-id","second"],["none",null],["raw",{"base64":"AP8="}],["","\"quoted\"\n"]],"timestamp":"2026-11-21T10:00:00.000Z"}"#
        );
    }

    #[test]
    fn odd_keys_and_times() {
        assert_eq!(envelope(Some(b""), &[], Timestamp::CreateTime(i64::MAX)), r#"{"key":""}"#);
        assert_eq!(
            envelope(Some(b"\xff\xfe\xfd"), &[], Timestamp::LogAppendTime(-1)),
            r#"{"keyBase64":"//79","logAppendTime":"1969-12-31T23:59:59.999Z"}"#
        );
        assert_eq!(envelope(None, &[("h", None)], Timestamp::NotAvailable), r#"{"headers":[["h",null]]}"#);
    }
}
