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
    /// A delivered file was written to while it was read.
    #[error("{0}: the file was written to while it was read; it has to be complete when it is delivered")]
    Unsettled(String),
    /// The log received rows of a delivery by another way while the delivery was read.
    #[error("{0}: other writers stored some of the file's rows while it was read")]
    Overtaken(String),
    /// Another process has the exchange.
    #[error("{}: another process takes deliveries here; only one may: stop one of the two", .0.display())]
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
