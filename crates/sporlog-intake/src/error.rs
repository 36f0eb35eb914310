//! The errors of this crate.

use sporlog_record::Finding;

/// A failure of the intake.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is refused as a whole; nothing of it was stored.
    #[error("the file is refused: {}", findings.first().map(ToString::to_string).unwrap_or_default())]
    Refused {
        /// The errors; never empty.
        findings: Vec<Finding>,
    },
    /// A file or a stream could not be read.
    #[error("{name}: {source}")]
    Read {
        /// The name of the file or stream.
        name: String,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] sporlog_ledger::Error),
    /// An item of the quarantine is not there, or does not wait any more.
    #[error("quarantine item {id}: {reason}")]
    Item {
        /// The id of the item.
        id: u64,
        /// The reason.
        reason: String,
    },
    /// A delivered file was written to while it was read.
    #[error(
        "{0}: the file was written to while it was read; nothing of it was stored. It has to be complete when it is delivered"
    )]
    Unsettled(String),
    /// The log received rows of a delivery by another way while the delivery was read.
    #[error("{0}: other writers stored some of the file's rows while it was read")]
    Overtaken(String),
    /// Another process has the exchange.
    #[error("{}: another process takes deliveries here; only one may: stop one of the two", .0.display())]
    Held(std::path::PathBuf),
    /// The settings contradict each other or mean nothing; the text names the setting.
    #[error("{0}")]
    Settings(String),
    /// Kafka, or librdkafka, reported an error.
    #[error("Kafka: {0}")]
    Kafka(rdkafka::error::KafkaError),
    /// The upstream of a pull could not be read.
    #[error(transparent)]
    Upstream(#[from] crate::pull::Failure),
    /// Topics were to be taken in to their end (`consume --until-end`), and cannot be.
    #[error("not all messages were taken in: {0}")]
    Unfinished(String),
    /// A thread or task of the program panicked.
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
