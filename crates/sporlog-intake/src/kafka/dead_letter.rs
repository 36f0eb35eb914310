//! Copies of refused messages to a topic of their own.
//!
//! A copy has the message's key, bytes and headers, and says in further headers where the message
//! stood and what was wrong. It is sent before the message goes into the quarantine, so that after
//! a crash it may be there twice, and is never missing for one; the quarantine is what counts.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::future::join_all;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::Deserialize;

use super::batch::Refused;
use super::client;
use super::context::Quiet;
use super::settings::Settings;
use crate::error::{Error, Result};

/// How long one is tried to be sent.
const PATIENCE: Duration = Duration::from_secs(10);

/// The producer; made only where a topic is configured.
pub(super) struct DeadLetters {
    producer: FutureProducer<Quiet>,
}

/// An envelope, read back.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Envelope {
    key: Option<String>,
    key_base64: Option<String>,
    headers: Vec<(String, Option<Value>)>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Raw { base64: String },
}

impl DeadLetters {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        let mut config = client::producer(settings)?;
        config.set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let producer = config.create_with_context(Quiet).map_err(Error::Kafka)?;
        Ok(DeadLetters { producer })
    }

    /// Sends copies to `topic`; `source` and the offset say where each stood. Gives how many did
    /// not get there: that is logged, and no reason for the partition to wait.
    pub(super) async fn send(&self, topic: &str, source: &str, refused: &[&Refused]) -> usize {
        let sent = join_all(refused.iter().map(|refused| self.send_one(topic, source, refused))).await;
        let failed: Vec<_> = sent.into_iter().filter_map(Result::err).collect();
        if let Some(error) = failed.first() {
            let count = failed.len();
            tracing::error!(topic, count, %error, "dead letters could not be sent; the quarantine has them");
        }
        failed.len()
    }

    async fn send_one(&self, topic: &str, source: &str, refused: &Refused) -> Result<()> {
        let envelope: Envelope = serde_json::from_str(&refused.envelope).unwrap_or_default();
        let key = match (envelope.key, envelope.key_base64) {
            (Some(key), _) => Some(key.into_bytes()),
            (None, raw) => raw.map(|raw| decoded(&raw)),
        };
        let mut headers = OwnedHeaders::new();
        for (name, value) in envelope.headers {
            let value = value.map(|value| match value {
                Value::Text(text) => text.into_bytes(),
                Value::Raw { base64 } => decoded(&base64),
            });
            headers = headers.insert(Header { key: &name, value: value.as_ref() });
        }
        let origin = format!("{source}@{}", refused.offset);
        headers = headers.insert(Header { key: "sporlog-origin", value: Some(&origin) });
        let reason = refused.findings.first().map(ToString::to_string).unwrap_or_default();
        headers = headers.insert(Header { key: "sporlog-reason", value: Some(&reason) });
        let record = FutureRecord {
            topic,
            partition: None,
            payload: Some(&refused.content),
            key: key.as_ref(),
            timestamp: None,
            headers: Some(headers),
        };
        let sent = self.producer.send(record, PATIENCE).await;
        sent.map(drop).map_err(|(error, _)| Error::Kafka(error))
    }
}

/// What the envelope has in Base64, which is our own writing.
fn decoded(text: &str) -> Vec<u8> {
    BASE64_STANDARD.decode(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rdkafka::Timestamp;

    use super::*;
    use crate::kafka::envelope;

    #[test]
    fn an_envelope_is_read_back_as_it_was() {
        for length in 0..9_u8 {
            let raw: Vec<u8> = (0..length).map(|at| 0xff - at).collect();
            let headers = [("a", Some(raw.as_slice())), ("a", None), ("b", Some(b"text".as_slice()))];
            let mut json = Vec::new();
            envelope::write(Some(&raw), headers.into_iter(), Timestamp::CreateTime(0), &mut json);
            let read: Envelope = serde_json::from_slice(&json).expect("JSON");
            let key = read.key.map(String::into_bytes).or_else(|| read.key_base64.map(|key| decoded(&key)));
            assert_eq!(key.as_deref(), Some(raw.as_slice()));
            assert_eq!(read.headers.len(), 3);
            match &read.headers[0].1 {
                Some(Value::Raw { base64 }) => assert_eq!(decoded(base64), raw),
                Some(Value::Text(text)) => assert_eq!(text.as_bytes(), raw),
                None => panic!("it had a value"),
            }
            assert!(read.headers[1].1.is_none());
        }
    }
}
