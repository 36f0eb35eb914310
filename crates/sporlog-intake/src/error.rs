//! What can go wrong on the way in.

use sporlog_record::Finding;

/// A failure of the intake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is refused as a whole; nothing of it was stored.
    #[error("the file is refused: {}", findings.first().map(ToString::to_string).unwrap_or_default())]
    Refused {
        /// What is wrong with it; never empty.
        findings: Vec<Finding>,
    },
    /// A source could not be read.
    #[error("{name}: {source}")]
    Read {
        /// The source.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] sporlog_ledger::Error),
    /// There is no such item in the quarantine, or it has been dealt with.
    #[error("quarantine item {id}: {reason}")]
    Item {
        /// The item's id.
        id: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file was written to while it was read.
    #[error("{0}: it is still being written to")]
    Unsettled(String),
    /// Rows of a delivery came in by another way while it was read.
    #[error("others have stored some of its rows meanwhile")]
    Overtaken,
    /// Another process has the exchange.
    #[error("{}: another process takes deliveries here", .0.display())]
    Held(std::path::PathBuf),
    /// Settings that make no sense; the one that does not is named.
    #[error("{0}")]
    Settings(String),
    /// Kafka, or the library that speaks to it, failed.
    #[error("Kafka: {0}")]
    Kafka(rdkafka::error::KafkaError),
    /// A topic was to be taken in to its end, and this cannot be.
    #[error("the end was not reached: {0}")]
    Unfinished(String),
    /// A thread of ours failed.
    #[error("{0}")]
    Internal(String),
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        Error::Internal(error.to_string())
    }
}

/// A result of the intake.
pub type Result<T, E = Error> = std::result::Result<T, E>;
