//! Which partition is meant, what it is called, and where it stands for this instance.

use super::settings::Topic;

/// A partition: its topic's place in the settings, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub topic: usize,
    pub partition: i32,
}

/// What `key` is called as a source: the beginning of its messages' origins.
pub(super) fn source(topic: &Topic, key: Key) -> String {
    format!("kafka:{}/{}", topic.identity(), key.partition)
}

/// Under which name its log keeps how far it has been taken in.
pub(super) fn position_name(topic: &Topic, key: Key) -> String {
    format!("kafka:{}:{}", topic.identity(), key.partition)
}

/// Under which name the quarantine keeps how far its refused messages have been taken in.
pub(super) fn quarantine_position_name(topic: &Topic, key: Key, log: &str) -> String {
    format!("kafka:{log}:{}:{}", topic.identity(), key.partition)
}

/// A partition that is assigned to this instance.
#[derive(Debug)]
pub(super) struct Partition {
    /// Rises whenever reading begins anew somewhere, so that what is still told about the reading
    /// before is known for what it is.
    pub generation: u64,
    /// The log that its messages go into.
    pub log: String,
    /// The offset of the last message that was read; −1 if none was, ever.
    pub read: i64,
    /// The offset of the last message that is in the log.
    pub stored: i64,
    /// The offset one above the last message that there was in the beginning, where the end is
    /// waited for.
    pub end: Option<i64>,
    /// Whether its messages are taken.
    pub state: State,
}

/// Whether messages are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Its log has been asked where it stands, and has not answered yet.
    Asking,
    /// It is known where it is to begin, and Kafka has not been told yet.
    Placing,
    /// They are.
    Running,
    /// They are not, for this reason; somebody has to look into it.
    Broken(String),
}
