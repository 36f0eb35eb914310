//! What may be set about Kafka: brokers, topics and their logs, security, batches, memory.
//!
//! ```toml
//! [kafka]
//! brokers = "broker1:9093,broker2:9093"
//!
//! [[kafka.topic]]
//! name = "aapen-sporingslogg-loggmeldingMottatt"
//! log = "disclosure-{partition}"
//!
//! [kafka.tls]
//! ca = "ca.pem"
//!
//! [kafka.sasl]
//! mechanism = "SCRAM-SHA-512"
//! username = "sporlog"
//! password = "…"
//! ```
//!
//! The defaults are safe for any backlog. What librdkafka can do besides is set under
//! `[kafka.properties]`, but for what would break the promises made here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sporlog_ledger::is_log_name;
use sporlog_record::Kind;

use super::client;
use crate::error::{Error, Result};

/// Where a partition's number goes in a log's name.
const PARTITION: &str = "{partition}";

/// The section `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `host:port` of some of the brokers, separated by commas; the others are found through them.
    pub brokers: String,
    /// The consumer group that the instances of Sporlog share the partitions in.
    #[serde(default = "default_group")]
    pub group: String,
    /// The topics; at least one.
    #[serde(rename = "topic")]
    pub topics: Vec<Topic>,
    /// Present if connections are encrypted.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Present if Sporlog has to say who it is by SASL.
    #[serde(default)]
    pub sasl: Option<Sasl>,
    /// When messages are put into their log.
    #[serde(default)]
    pub batch: BatchLimits,
    /// About how many bytes of messages are held at once, over all partitions, fetched and not yet
    /// in their log. What a batch takes while it is judged and stored comes on top of that.
    #[serde(default = "default_memory_bytes")]
    pub memory_bytes: usize,
    /// Further properties of librdkafka, by their own names; they go before all that is set here.
    #[serde(default)]
    pub properties: BTreeMap<String, Property>,
}

/// A topic, and the log that its messages go into.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// The log's name; with `{partition}` in it, each partition has a log of its own.
    pub log: String,
    /// What the messages are: `disclosure` or `auditlog`.
    #[serde(default = "default_kind")]
    pub kind: Kind,
    /// Where a partition begins of which nothing is in the log yet.
    #[serde(default)]
    pub start: Start,
    /// The topic that copies of refused messages are sent to, besides the quarantine.
    #[serde(default)]
    pub dead_letter: Option<String>,
    /// To be set to a new value when the topic has been deleted and made anew: its offsets then
    /// begin again, and those before are another topic's. 1 to 20 letters and digits.
    #[serde(default)]
    pub incarnation: Option<String>,
}

/// Where an unknown partition begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest message that is there.
    #[default]
    Earliest,
    /// With what comes from now on.
    Latest,
}

/// When the messages gathered for a log are put into it: at whichever limit is reached first.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchLimits {
    /// So many messages.
    pub messages: usize,
    /// So many bytes of messages.
    pub bytes: usize,
    /// So many milliseconds after the first of them came.
    pub delay_ms: u64,
}

impl Default for BatchLimits {
    fn default() -> Self {
        BatchLimits { messages: 16_384, bytes: 8 << 20, delay_ms: 500 }
    }
}

/// Encryption. Files are PEM unless something else is said.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificates that the brokers' are checked against; those of the system by default.
    pub ca: Option<PathBuf>,
    /// Sporlog's own certificate, if the brokers ask for one, with those it was signed by.
    pub certificate: Option<PathBuf>,
    /// The key to `certificate`.
    pub key: Option<PathBuf>,
    /// Certificate and key together, as PKCS#12, in the place of the two above.
    pub pkcs12: Option<PathBuf>,
    /// The password of `key` or `pkcs12`.
    pub password: Option<Secret>,
}

/// How Sporlog says who it is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// The mechanism.
    pub mechanism: Mechanism,
    /// The user, for SCRAM.
    #[serde(default)]
    pub username: Option<String>,
    /// The user's password, for SCRAM.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Where tokens are had by client credentials (OAuth 2.0), for OAUTHBEARER.
    #[serde(default)]
    pub token_url: Option<String>,
    /// The client's id there.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The client's secret there.
    #[serde(default)]
    pub client_secret: Option<Secret>,
    /// What the token is to be good for.
    #[serde(default)]
    pub scope: Option<String>,
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// Salted challenge and response over SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge and response over SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// A token of an OAuth 2.0 server.
    #[serde(rename = "OAUTHBEARER")]
    Oauthbearer,
}

impl Mechanism {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
            Mechanism::Oauthbearer => "OAUTHBEARER",
        }
    }
}

/// Something that is not to be shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A property's value. Names have dots in them, which TOML takes for tables unless they are quoted:
/// both are understood.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Property {
    /// `true` or `false`.
    Switch(bool),
    /// A whole number.
    Number(i64),
    /// A fraction.
    Fraction(f64),
    /// A text.
    Text(String),
    /// The rest of several names.
    Table(BTreeMap<String, Property>),
}

impl fmt::Debug for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It may be a password.
        f.write_str("(set)")
    }
}

fn default_group() -> String {
    "sporlog".to_owned()
}

fn default_kind() -> Kind {
    Kind::Disclosure
}

fn default_memory_bytes() -> usize {
    64 << 20
}

impl Topic {
    /// The log of a partition's messages.
    pub fn log_of(&self, partition: i32) -> String {
        self.log.replace(PARTITION, &partition.to_string())
    }

    /// What the topic is called in origins and positions: its name and, if there is one, its
    /// incarnation (`~` can be in neither).
    pub fn identity(&self) -> String {
        match &self.incarnation {
            Some(incarnation) => format!("{}~{incarnation}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Settings {
    /// Takes relative paths as relative to `dir`, the configuration's folder.
    pub fn relative_to(&mut self, dir: &Path) {
        let Some(tls) = &mut self.tls else { return };
        for path in [&mut tls.ca, &mut tls.certificate, &mut tls.key, &mut tls.pkcs12].into_iter().flatten() {
            *path = dir.join(&*path);
        }
    }

    /// Whether these settings make sense together; the error names the one that does not.
    pub fn check(&self) -> Result<()> {
        let bad = |what: String| Err(Error::Settings(what));
        if self.brokers.trim().is_empty() {
            return bad("kafka.brokers is empty".into());
        }
        if self.group.is_empty() {
            return bad("kafka.group is empty".into());
        }
        if self.topics.is_empty() {
            return bad("kafka.topic: there is none".into());
        }
        let mut names = HashSet::new();
        let mut logs = HashMap::new();
        for topic in &self.topics {
            let Topic { name, log, kind, .. } = topic;
            if !is_topic_name(name) {
                return bad(format!("kafka.topic.name: '{name}' cannot name a topic"));
            }
            if !names.insert(name) {
                return bad(format!("kafka.topic: '{name}' is there twice"));
            }
            if !matches!(kind, Kind::Disclosure | Kind::Auditlog) {
                return bad(format!("kafka.topic.kind: {kind} records do not come as messages"));
            }
            if !is_log_name(&topic.log_of(i32::MAX)) || ["quarantine", "access"].contains(&log.as_str()) {
                return bad(format!("kafka.topic.log: '{log}' cannot name the log of a topic"));
            }
            if *logs.entry(log).or_insert(kind) != kind {
                return bad(format!("kafka.topic.log: '{log}' cannot hold records of two kinds"));
            }
            let fit = |text: &String| {
                (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
            };
            if topic.incarnation.as_ref().is_some_and(|incarnation| !fit(incarnation)) {
                return bad("kafka.topic.incarnation: 1 to 20 letters and digits".into());
            }
        }
        for dead in self.topics.iter().filter_map(|topic| topic.dead_letter.as_ref()) {
            if !is_topic_name(dead) || names.contains(dead) {
                return bad(format!("kafka.topic.dead_letter: '{dead}' has to name another topic"));
            }
        }
        let BatchLimits { messages, bytes, delay_ms } = self.batch;
        if messages == 0 || bytes == 0 || delay_ms == 0 || delay_ms > 60_000 {
            return bad("kafka.batch: limits are 1 or more, and delay_ms 60000 at most".into());
        }
        if self.memory_bytes < 1 << 20 {
            return bad("kafka.memory_bytes: less than 1 MiB".into());
        }
        client::consumer(self, false).map(drop)
    }
}

/// Kafka's own rule.
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<(), String> {
        let settings: Settings = serde_json::from_str(json).map_err(|e| e.to_string())?;
        settings.check().map_err(|e| e.to_string())
    }

    #[test]
    fn little_is_needed() {
        check(r#"{"brokers":"b","topic":[{"name":"t","log":"disclosure"}]}"#).expect("in order");
        check(r#"{"brokers":"b","topic":[{"name":"t","log":"d-{partition}"},{"name":"u","log":"d-{partition}"}]}"#)
            .expect("in order");
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (topics, more, named) in [
            ("", "", "kafka.topic"),
            (r#"{"name":"^t.*","log":"a"}"#, "", "topic.name"),
            (r#"{"name":"t","log":"a"},{"name":"t","log":"b"}"#, "", "twice"),
            (r#"{"name":"t","log":"quarantine"}"#, "", "topic.log"),
            (r#"{"name":"t","log":"Å"}"#, "", "topic.log"),
            (r#"{"name":"t","log":"{partition}"}"#, "", "topic.log"),
            (r#"{"name":"t","log":"a","kind":"revision"}"#, "", "topic.kind"),
            (r#"{"name":"t","log":"a"},{"name":"u","log":"a","kind":"auditlog"}"#, "", "two kinds"),
            (r#"{"name":"t","log":"a","dead_letter":"t"}"#, "", "dead_letter"),
            (r#"{"name":"t","log":"a","incarnation":"a/b"}"#, "", "incarnation"),
            (r#"{"name":"t","log":"a","offset":1}"#, "", "offset"),
            (r#"{"name":"t","log":"a"}"#, r#","batch":{"messages":0}"#, "kafka.batch"),
            (r#"{"name":"t","log":"a"}"#, r#","memory_bytes":1000"#, "memory_bytes"),
            (r#"{"name":"t","log":"a"}"#, r#","group":"""#, "kafka.group"),
            (r#"{"name":"t","log":"a"}"#, r#","sasl":{"mechanism":"PLAIN"}"#, "SCRAM"),
            (r#"{"name":"t","log":"a"}"#, r#","sasl":{"mechanism":"OAUTHBEARER"}"#, "token_url"),
        ] {
            let told = check(&format!(r#"{{"brokers":"b","topic":[{topics}]{more}}}"#)).expect_err(topics);
            assert!(told.contains(named), "{topics} {more}: {told}");
        }
    }

    #[test]
    fn paths_are_relative_to_the_configuration() {
        let json = r#"{"brokers":"b","topic":[],"tls":{"ca":"ca.pem","key":"/k.pem"}}"#;
        let mut settings: Settings = serde_json::from_str(json).expect("JSON");
        settings.relative_to(Path::new("/etc/sporlog"));
        let tls = settings.tls.expect("set");
        assert_eq!(tls.ca.as_deref(), Some(Path::new("/etc/sporlog/ca.pem")));
        assert_eq!(tls.key.as_deref(), Some(Path::new("/k.pem")));
    }

    #[test]
    fn a_partition_and_an_incarnation_have_their_names() {
        let topic: Topic =
            serde_json::from_str(r#"{"name":"t","log":"d-{partition}","incarnation":"2"}"#).expect("JSON");
        assert_eq!((topic.log_of(3).as_str(), topic.identity().as_str()), ("d-3", "t~2"));
    }
}
