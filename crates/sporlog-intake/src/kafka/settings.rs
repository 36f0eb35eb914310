//! The section `[kafka]`, and the configuration of librdkafka that follows from it.
//!
//! ```toml
//! [kafka]
//! brokers = "broker1:9093,broker2:9093"
//!
//! [[kafka.topic]]
//! name = "aapen-sporingslogg-loggmeldingMottatt"
//! log = "disclosure-{partition}"
//!
//! [kafka.properties]
//! security.protocol = "sasl_ssl"
//! ssl.ca.location = "ca.pem"
//! sasl.mechanism = "SCRAM-SHA-512"
//! sasl.username = "sporlog"
//! sasl.password = "…"
//! ```
//!
//! Security and tuning are librdkafka's own properties. The defaults are safe for any backlog; a
//! property that would break a promise of this module is refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use sporlog_ledger::is_log_name;
use sporlog_record::Kind;
use sporlog_record::kind::Format;

use crate::error::{Error, Result};

/// Stands for the partition's number in a log's name.
const PARTITION: &str = "{partition}";

/// How much librdkafka may keep fetched ahead, over all partitions, in KiB. A fetch that is under way
/// comes on top of it.
const QUEUED_KIB: usize = 16 << 10;
/// How much one fetch may bring, in bytes, unless a single message is larger.
const FETCH_BYTES: usize = 8 << 20;
/// How much the producer of dead letters may hold, in KiB. A copy of the largest record has to fit.
const DEAD_LETTER_KIB: usize = 96 << 10;

/// The session of a member of the group, in milliseconds: the partitions of a killed instance idle for so long. It is
/// the shortest that brokers allow by default (`group.min.session.timeout.ms`). A member that pauses for longer loses
/// its partitions for a moment, and no message. There are three heartbeats to a session.
///
/// As tried with Kafka 4.1, an instance that is started again after a kill is at work after 6 to 7 seconds, and after
/// at most 12 if it was killed again while it waited: then the broker waits for that session, too.
///
/// Not chosen were static membership (`group.instance.id`), because two instances of one name shut each other out, no
/// name is both the same after a restart and never that of two, and a stop would hand nothing over at once; and KIP-848
/// (`group.protocol=consumer`), because brokers before 4.0 do not have it, and the others keep a dead member for 45
/// seconds at least (`group.consumer.min.session.timeout.ms`).
const SESSION_MS: u32 = 6_000;

/// Properties that may not be set, and why.
const RESERVED: [(&str, &str); 9] = [
    ("bootstrap.servers", "kafka.brokers names the brokers"),
    ("metadata.broker.list", "kafka.brokers names the brokers"),
    ("group.id", "kafka.group names the group"),
    ("enable.auto.commit", "offsets follow what is in the log"),
    ("auto.commit.enable", "offsets follow what is in the log"),
    ("enable.auto.offset.store", "offsets follow what is in the log"),
    ("auto.offset.reset", "partitions begin where the log says, or kafka.topic.start"),
    ("partition.assignment.strategy", "partitions are handed over one by one (cooperative-sticky)"),
    ("statistics.interval.ms", "lags and the end of a partition are taken from the statistics"),
];

/// The section `[kafka]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `host:port` of some of the brokers, separated by commas; the others are found through them.
    pub brokers: String,
    /// The consumer group in which the instances of Sporlog share the partitions.
    #[serde(default = "default_group")]
    pub group: String,
    /// The topics; at least one.
    #[serde(rename = "topic")]
    pub topics: Vec<Topic>,
    /// About how many bytes of messages are held at once, over all partitions, fetched and not yet
    /// in their log. What a batch takes while it is judged and stored comes on top of that.
    #[serde(default = "default_memory_bytes")]
    pub memory_bytes: usize,
    /// Properties of librdkafka, by their own names; they override what Sporlog would set.
    #[serde(default)]
    pub properties: Properties,
}

/// A topic, and the log that its messages go into.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The topic's name.
    pub name: String,
    /// The log's name; with `{partition}` in it, each partition has a log of its own.
    pub log: String,
    /// The kind of its records: `disclosure` or `auditlog`.
    #[serde(default = "default_kind")]
    pub kind: Kind,
    /// Where a partition begins of which nothing is in the log yet.
    #[serde(default)]
    pub start: Start,
    /// The topic that copies of refused messages are sent to, besides the quarantine.
    pub dead_letter: Option<String>,
}

/// Where a partition begins that the log does not know yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// With the oldest message that Kafka has.
    #[default]
    Earliest,
    /// With the next message that is produced.
    Latest,
}

/// Properties of librdkafka, by their full names, `fetch.min.bytes`. The names have dots in them, which TOML takes for
/// tables unless they are quoted: both are understood.
#[derive(Clone, Default)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may be a password.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn add(name: String, value: Value, properties: &mut BTreeMap<String, String>) {
            match value {
                Value::Object(table) => {
                    table
                        .into_iter()
                        .for_each(|(rest, value)| add(format!("{name}.{rest}"), value, properties));
                }
                Value::String(text) => drop(properties.insert(name, text)),
                value => drop(properties.insert(name, value.to_string())),
            }
        }
        let mut properties = Properties::default();
        for (name, value) in Map::<String, Value>::deserialize(deserializer)? {
            add(name, value, &mut properties.0);
        }
        Ok(properties)
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
}

impl Settings {
    /// Settings that there are no more, by their full names, and what replaced them.
    pub const REMOVED: [(&str, &str); 4] = [
        (
            "kafka.tls",
            "its place is taken by librdkafka's properties: [kafka.properties] with security.protocol = \"ssl\" or \
             \"sasl_ssl\", ssl.ca.location, ssl.certificate.location, ssl.key.location, ssl.key.password",
        ),
        (
            "kafka.sasl",
            "its place is taken by librdkafka's properties: [kafka.properties] with security.protocol = \"sasl_ssl\", \
             sasl.mechanism, sasl.username and sasl.password, or for OAUTHBEARER sasl.oauthbearer.method = \"oidc\", \
             sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id, sasl.oauthbearer.client.secret and \
             sasl.oauthbearer.scope",
        ),
        (
            "kafka.batch",
            "a batch is stored after 16,384 messages, 8 MiB or 500 ms, whichever comes first; kafka.memory_bytes bounds \
             all batches together",
        ),
        (
            "kafka.topic.incarnation",
            "a topic that was deleted and made anew is told by its id; the positions of this incarnation go on",
        ),
    ];

    /// Takes relative paths as relative to `dir`, the configuration's folder.
    pub fn relative_to(&mut self, dir: &Path) {
        for (_, value) in self.properties.0.iter_mut().filter(|(name, value)| is_path(name, value)) {
            *value = dir.join(&*value).to_string_lossy().into_owned();
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
            if !matches!(kind.format(), Format::Json(_)) {
                return bad(format!("kafka.topic.kind: {kind} records do not come as messages"));
            }
            if !is_log_name(&topic.log_of(i32::MAX)) || ["quarantine", "access"].contains(&log.as_str()) {
                return bad(format!("kafka.topic.log: '{log}' cannot name the log of a topic"));
            }
            if *logs.entry(log).or_insert(kind) != kind {
                return bad(format!("kafka.topic.log: '{log}' cannot hold records of two kinds"));
            }
        }
        for dead in self.topics.iter().filter_map(|topic| topic.dead_letter.as_ref()) {
            if !is_topic_name(dead) || names.contains(dead) {
                return bad(format!("kafka.topic.dead_letter: '{dead}' has to name another topic"));
            }
        }
        if self.memory_bytes < 1 << 20 {
            return bad("kafka.memory_bytes: less than 1 MiB".into());
        }
        for (name, value) in &self.properties.0 {
            if let Some((_, why)) = RESERVED.iter().find(|(reserved, _)| reserved == name) {
                return bad(format!("kafka.properties: '{name}' cannot be set here: {why}"));
            }
            // librdkafka would say of a missing file only that the client cannot be created.
            if is_path(name, value) && !Path::new(value).exists() {
                return bad(format!("kafka.properties: {name}: {value}: there is no such file"));
            }
        }
        match self.consumer_config(false).create_native_config() {
            Ok(_) => Ok(()),
            // The value, which may be a password, is left out.
            Err(KafkaError::ClientConfig(_, reason, name, _)) => {
                bad(format!("kafka.properties: {name}: {reason}"))
            }
            Err(error) => Err(Error::Kafka(error)),
        }
    }

    /// librdkafka's configuration for the consumer.
    pub(super) fn consumer_config(&self, until_end: bool) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("queued.max.messages.kbytes", QUEUED_KIB.to_string())
            .set("fetch.max.bytes", FETCH_BYTES.to_string())
            // librdkafka's own default, a second, would leave a queue of this size empty for most of the time.
            .set("fetch.queue.backoff.ms", "10")
            .set("isolation.level", "read_committed")
            // Soon enough for a topic that is made later, and for partitions that are added.
            .set("topic.metadata.refresh.interval.ms", "10000");
        let classic = self.properties.0.get("group.protocol").is_none_or(|it| it != "consumer");
        if classic {
            config
                .set("session.timeout.ms", SESSION_MS.to_string())
                .set("heartbeat.interval.ms", (SESSION_MS / 3).to_string())
                .set("partition.assignment.strategy", "cooperative-sticky");
        }
        self.set_common(&mut config);
        // See `topic_ids`.
        let debug = config.get("debug").map_or("metadata".to_owned(), |debug| format!("{debug},metadata"));
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A partition never begins at an offset that Sporlog has not named.
            .set("auto.offset.reset", "error")
            .set("statistics.interval.ms", if until_end { "250" } else { "1000" });
        config
    }

    /// librdkafka's configuration for the producer of dead letters.
    pub(super) fn producer_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        // How large a copy may be is the topic's to say; librdkafka's own limit is 1 MB.
        config.set("message.max.bytes", (DEAD_LETTER_KIB << 10).to_string());
        self.set_common(&mut config);
        config
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.kbytes", DEAD_LETTER_KIB.to_string());
        config
    }

    /// Sets what consumer and producer share: the brokers, and the properties of the configuration.
    fn set_common(&self, config: &mut ClientConfig) {
        config.set("bootstrap.servers", &self.brokers).set("client.id", "sporlog");
        for (name, value) in &self.properties.0 {
            config.set(name, value);
        }
        let encrypted =
            config.get("security.protocol").is_some_and(|p| p.to_ascii_lowercase().ends_with("ssl"));
        if encrypted && config.get("ssl.ca.location").is_none() && config.get("ssl.ca.pem").is_none() {
            // The system's authorities, wherever the system keeps them.
            config.set("ssl.ca.location", "probe");
        }
    }
}

/// Whether a property names a file or a folder.
fn is_path(name: &str, value: &str) -> bool {
    name.ends_with(".location") && value != "probe"
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

    fn settings(topics: &str, more: &str) -> Result<Settings, String> {
        let json = format!(r#"{{"brokers":"b","topic":[{topics}]{more}}}"#);
        serde_json::from_str(&json).map_err(|e| e.to_string())
    }

    fn check(topics: &str, more: &str) -> Result<(), String> {
        settings(topics, more)?.check().map_err(|e| e.to_string())
    }

    const LEAST: &str = r#"{"name":"t","log":"disclosure"}"#;

    /// What librdkafka is given of `name` with these properties.
    fn value(properties: &str, name: &str) -> Option<String> {
        let settings = settings(LEAST, &format!(r#","properties":{{{properties}}}"#)).expect("JSON");
        settings.check().expect(properties);
        settings.consumer_config(false).get(name).map(str::to_owned)
    }

    fn refusal(properties: &str) -> String {
        check(LEAST, &format!(r#","properties":{{{properties}}}"#)).expect_err(properties)
    }

    #[test]
    fn little_is_needed() {
        check(LEAST, "").expect("in order");
        check(r#"{"name":"t","log":"d-{partition}"},{"name":"u","log":"d-{partition}"}"#, "")
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
            (r#"{"name":"t","log":"a","offset":1}"#, "", "offset"),
            (r#"{"name":"t","log":"a"}"#, r#","memory_bytes":1000"#, "memory_bytes"),
            (r#"{"name":"t","log":"a"}"#, r#","group":"""#, "kafka.group"),
        ] {
            let told = check(topics, more).expect_err(topics);
            assert!(told.contains(named), "{topics} {more}: {told}");
        }
    }

    #[test]
    fn a_partition_has_its_log() {
        let topic: Topic = serde_json::from_str(r#"{"name":"t","log":"d-{partition}"}"#).expect("JSON");
        assert_eq!(topic.log_of(3), "d-3");
    }

    #[test]
    fn the_least_configuration_is_plain() {
        assert_eq!(value("", "isolation.level").as_deref(), Some("read_committed"));
        assert_eq!(value("", "group.id").as_deref(), Some("sporlog"));
        assert_eq!(value("", "ssl.ca.location"), None);
        let producer = settings(LEAST, "").expect("JSON").producer_config();
        producer.create_native_config().expect("librdkafka agrees");
    }

    #[test]
    fn properties_pass_through_quoted_or_not_and_override() {
        let nested = r#""fetch":{"min":{"bytes":7}},"isolation.level":"read_uncommitted""#;
        assert_eq!(value(nested, "fetch.min.bytes").as_deref(), Some("7"));
        assert_eq!(value(nested, "isolation.level").as_deref(), Some("read_uncommitted"));
        assert_eq!(value(r#""check.crcs":true"#, "check.crcs").as_deref(), Some("true"));
        assert_eq!(value("", "partition.assignment.strategy").as_deref(), Some("cooperative-sticky"));
        assert_eq!(value(r#""group.protocol":"consumer""#, "partition.assignment.strategy"), None);
        check(LEAST, r#","properties":{"group.protocol":"consumer"}"#)
            .expect("nothing that it does not have is set");
        assert_eq!(value(r#""debug":"cgrp""#, "debug").as_deref(), Some("cgrp,metadata"));
        let token = r#""security.protocol":"sasl_ssl","sasl.mechanism":"OAUTHBEARER","sasl.oauthbearer.method":"oidc""#;
        assert_eq!(value(token, "sasl.oauthbearer.method").as_deref(), Some("oidc"));
        assert_eq!(value(token, "ssl.ca.location").as_deref(), Some("probe"), "the system's authorities");
    }

    #[test]
    fn what_would_break_a_promise_or_means_nothing_cannot_be_set() {
        for (name, _) in RESERVED {
            let told = refusal(&format!(r#""{name}":"true""#));
            assert!(told.contains(name), "{told}");
        }
        assert!(refusal(r#""sasl.pasword":"hush""#).contains("sasl.pasword"));
        let told = refusal(r#""security.protocol":"hush""#);
        assert!(told.contains("security.protocol"), "{told}");
    }

    #[test]
    fn paths_are_relative_to_the_configuration_and_have_to_exist() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("ca.pem"), "").expect("written");
        let more = r#","properties":{"ssl":{"ca.location":"ca.pem","key.location":"/nowhere/k.pem"}}"#;
        let mut settings = settings(LEAST, more).expect("JSON");
        settings.relative_to(dir.path());
        assert_eq!(
            settings.properties.0.remove("ssl.ca.location"),
            dir.path().join("ca.pem").to_str().map(str::to_owned)
        );
        let told = settings.check().expect_err("a file is missing").to_string();
        assert!(told.contains("ssl.key.location") && told.contains("/nowhere/k.pem"), "{told}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings =
            settings(LEAST, r#","properties":{"sasl":{"password":"hush"},"ssl.key.password":"hush"}"#);
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
