//! Messages on their way into a log: collected as bytes, then judged into rows.
//!
//! A batch lies in one piece of memory, so that it takes little more than its messages do and its
//! size is known. Each partition's messages are a part of their own, with the offsets that the part
//! leads from and to: they are what makes its commit exact.
//!
//! What a message carries besides its record (key, headers, time) is its envelope, one JSON object
//! that is stored beside the record:
//!
//! ```json
//! {"key":"4711","headers":[["correlation-id","6d1f"],["trace",{"base64":"AP8="}],["empty",null]],"timestamp":"2026-11-21T10:00:00.000Z"}
//! ```
//!
//! | member | meaning |
//! |---|---|
//! | `key` | the key, if it is UTF-8; absent if there is none |
//! | `keyBase64` | the key in Base64, if it is not UTF-8 |
//! | `headers` | pairs of name and value in the order given, since names may repeat; a value is a text, `null`, or `{"base64":…}` if it is not UTF-8; absent if there are none |
//! | `timestamp` | the time that the producer gave the message, UTC; or |
//! | `logAppendTime` | the time at which the broker stored it, if the topic is set to `LogAppendTime` |
//!
//! Nothing is lost, and the bytes can be had back, but for a header whose name is not UTF-8, against
//! Kafka's own rule: it is there as `["\u{fffd}",null]`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat};
use rdkafka::Timestamp;
use serde::{Deserialize, Serialize};
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::{Finding, Kind, Position, Rules};

use crate::error::Result;

/// The memory that is counted for a message besides its bytes.
const OVERHEAD: usize = 64;

/// A partition: its topic's index in the settings, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub topic: usize,
    pub partition: i32,
}

impl Key {
    /// The partition as a source: the beginning of its messages' origins. `identity` is the topic's (`topic_ids`).
    pub(super) fn source(self, identity: &str) -> String {
        format!("kafka:{identity}/{}", self.partition)
    }

    /// The position in the partition's log that says how far the partition has been taken in.
    pub(super) fn position_name(self, identity: &str) -> String {
        format!("kafka:{identity}:{}", self.partition)
    }

    /// The position in the quarantine that says how far its refused messages have been taken in.
    pub(super) fn quarantine_position_name(self, identity: &str, log: &str) -> String {
        format!("kafka:{log}:{identity}:{}", self.partition)
    }
}

/// Messages for one log.
#[derive(Debug)]
pub(super) struct Batch {
    /// Contents and envelopes, one after the other.
    pub bytes: Vec<u8>,
    pub parts: BTreeMap<Key, Part>,
    pub messages: usize,
    /// When the first message was added.
    pub begun: Instant,
}

/// Where a partition's reading stands.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// Rises whenever reading begins anew somewhere, so that events about the reading before are
    /// told apart.
    pub generation: u64,
    /// The topic in origins and positions (`topic_ids`).
    pub identity: Arc<str>,
    /// The offset of the last message that was read; −1 if none was, ever.
    pub read: i64,
}

/// One partition's messages.
#[derive(Debug)]
pub(super) struct Part {
    pub generation: u64,
    pub identity: Arc<str>,
    /// The offset of the last message before these; −1 if there was none.
    pub from: i64,
    /// The offset of the last of these.
    pub to: i64,
    messages: Vec<Slot>,
    /// Empty messages, which are passed over.
    skipped: u64,
}

#[derive(Debug)]
struct Slot {
    offset: i64,
    content: Range<usize>,
    envelope: Range<usize>,
}

impl Batch {
    /// An empty batch that is to hold about so many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        // Growing piece by piece would leave up to a half of the memory unused.
        let bytes = Vec::with_capacity(bytes + (bytes >> 4));
        Batch { bytes, parts: BTreeMap::new(), messages: 0, begun: Instant::now() }
    }

    /// Adds the message at `offset` of a partition. `envelope` is called only if the message is not empty.
    pub(super) fn push<'a>(
        &mut self,
        key: Key,
        reading: &Reading,
        offset: i64,
        content: &[u8],
        envelope: impl FnOnce() -> Envelope<'a>,
    ) {
        let part = self.parts.entry(key).or_insert_with(|| Part {
            generation: reading.generation,
            identity: reading.identity.clone(),
            from: reading.read,
            to: reading.read,
            messages: Vec::new(),
            skipped: 0,
        });
        part.to = offset;
        self.messages += 1;
        if content.is_empty() {
            part.skipped += 1;
            return;
        }
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(content);
        let split = self.bytes.len();
        // Writing into memory cannot fail.
        let _ = serde_json::to_writer(&mut self.bytes, &envelope());
        let envelope = split..self.bytes.len();
        part.messages.push(Slot { offset, content: begin..split, envelope });
    }

    /// About how much memory the batch takes, in bytes.
    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.messages * OVERHEAD
    }
}

/// A part that has been judged.
#[derive(Debug)]
pub(super) struct JudgedPart {
    pub key: Key,
    pub generation: u64,
    pub identity: Arc<str>,
    pub from: i64,
    pub to: i64,
    /// All messages, whatever became of them.
    pub messages: u64,
    pub skipped: u64,
    pub refused: Vec<Refused>,
    /// The accepted messages, and the offset of each.
    rows: RecordBatch,
    offsets: Vec<i64>,
}

/// A message that cannot go into its log.
#[derive(Debug)]
pub(super) struct Refused {
    pub offset: i64,
    pub findings: Vec<Finding>,
    pub content: Vec<u8>,
    pub envelope: String,
}

/// Judges a part whose messages lie in `bytes`.
pub(super) fn judge(key: Key, part: &Part, bytes: &[u8], kind: Kind, rules: &Rules) -> JudgedPart {
    let source = key.source(&part.identity);
    let mut builder = RowsBuilder::new(kind, rules);
    let mut offsets = Vec::with_capacity(part.messages.len());
    let mut refused = Vec::new();
    let mut origin = String::new();
    let at = Position { line: 1, column: 1 };
    for Slot { offset, content, envelope } in &part.messages {
        let content = bytes.get(content.clone()).unwrap_or_default();
        let envelope = bytes.get(envelope.clone()).and_then(|envelope| str::from_utf8(envelope).ok());
        origin.clear();
        // Writing into memory cannot fail.
        let _ = write!(origin, "{source}@{offset}");
        match builder.push_with(content, &origin, envelope, at) {
            Judged::Accepted(_) => offsets.push(*offset),
            Judged::Refused(findings) => refused.push(Refused {
                offset: *offset,
                findings,
                content: content.to_vec(),
                envelope: envelope.unwrap_or_default().to_owned(),
            }),
        }
    }
    JudgedPart {
        key,
        generation: part.generation,
        identity: part.identity.clone(),
        from: part.from,
        to: part.to,
        messages: part.messages.len() as u64 + part.skipped,
        skipped: part.skipped,
        refused,
        rows: builder.finish(),
        offsets,
    }
}

impl JudgedPart {
    /// The accepted messages above the offset `stored` that are not among `quarantined`.
    pub(super) fn rows_above(&self, stored: i64, quarantined: &BTreeSet<i64>) -> Result<RecordBatch> {
        let wanted = |offset: &i64| *offset > stored && !quarantined.contains(offset);
        if self.offsets.iter().all(wanted) {
            return Ok(self.rows.clone());
        }
        let wanted: BooleanArray = self.offsets.iter().map(|offset| Some(wanted(offset))).collect();
        Ok(filter_record_batch(&self.rows, &wanted).map_err(sporlog_ledger::Error::from)?)
    }
}

/// A message's envelope, to be written and to be read back.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Envelope<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(Cow<'a, str>, Option<Bytes<'a>>)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_append_time: Option<String>,
}

/// A header's value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Bytes<'a> {
    Text(Cow<'a, str>),
    Raw { base64: String },
}

impl<'a> Envelope<'a> {
    pub(super) fn new(
        key: Option<&'a [u8]>,
        headers: impl Iterator<Item = (&'a str, Option<&'a [u8]>)>,
        timestamp: Timestamp,
    ) -> Self {
        let (key, key_base64) = match key.map(Bytes::from) {
            None => (None, None),
            Some(Bytes::Text(key)) => (Some(key), None),
            Some(Bytes::Raw { base64 }) => (None, Some(base64)),
        };
        let headers = headers.map(|(name, value)| (Cow::Borrowed(name), value.map(Bytes::from))).collect();
        // A producer may claim any time at all; a time that no calendar has is left out.
        let text = |millis| {
            DateTime::from_timestamp_millis(millis)
                .map(|time| time.to_rfc3339_opts(SecondsFormat::Millis, true))
        };
        let (timestamp, log_append_time) = match timestamp {
            Timestamp::CreateTime(millis) => (text(millis), None),
            Timestamp::LogAppendTime(millis) => (None, text(millis)),
            Timestamp::NotAvailable => (None, None),
        };
        Envelope { key, key_base64, headers, timestamp, log_append_time }
    }

    /// The key as it came.
    pub(super) fn key(&self) -> Option<Vec<u8>> {
        match (&self.key, &self.key_base64) {
            (Some(key), _) => Some(key.as_bytes().to_vec()),
            (None, base64) => base64.as_deref().map(decoded),
        }
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Bytes::Text(text.into()),
            Err(_) => Bytes::Raw { base64: BASE64_STANDARD.encode(bytes) },
        }
    }
}

impl Bytes<'_> {
    /// The value as it came.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        match self {
            Bytes::Text(text) => text.as_bytes().to_vec(),
            Bytes::Raw { base64 } => decoded(base64),
        }
    }
}

/// The bytes of Base64 that [`Bytes::from`] has written.
fn decoded(base64: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(base64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header<'a> = (&'a str, Option<&'a [u8]>);

    fn envelope(key: Option<&[u8]>, headers: &[Header], timestamp: Timestamp) -> String {
        serde_json::to_string(&Envelope::new(key, headers.iter().copied(), timestamp)).expect("JSON")
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

    #[test]
    fn an_envelope_is_read_back_as_it_was() {
        for length in 0..9_u8 {
            let raw: Vec<u8> = (0..length).map(|at| 0xff - at).collect();
            let headers = [("a", Some(raw.as_slice())), ("a", None), ("b", Some(b"text".as_slice()))];
            let json = envelope(Some(&raw), &headers, Timestamp::CreateTime(0));
            let read: Envelope = serde_json::from_str(&json).expect("JSON");
            assert_eq!(read.key().as_deref(), Some(raw.as_slice()));
            let values: Vec<_> =
                read.headers.iter().map(|(_, value)| value.as_ref().map(Bytes::to_vec)).collect();
            assert_eq!(values, [Some(raw), None, Some(b"text".to_vec())]);
        }
    }
}
