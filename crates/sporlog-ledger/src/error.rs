//! What can go wrong in the ledger, and where.

use std::fmt::Display;

use crate::bucket::in_words;

/// A failure of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store's address is not one that can be opened.
    #[error("the store '{url}' cannot be opened: {reason}")]
    Location {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such log in the store.
    #[error("there is no log '{0}' in this store; `sporlog logs` lists those there are")]
    NoSuchLog(String),
    /// The log holds records of another kind.
    #[error("the log '{log}' holds {actual} records, not {wanted}")]
    WrongKind {
        /// The log's name.
        log: String,
        /// What its records are.
        actual: sporlog_record::Kind,
        /// What was asked for.
        wanted: sporlog_record::Kind,
    },
    /// A name that cannot name a log.
    #[error(
        "'{0}' cannot name a log: use 1 to 64 lower-case letters, digits, '-' and '_', beginning with a letter"
    )]
    LogName(String),
    /// There is no record with this id.
    #[error("the log '{log}' has no record {id}: {why}")]
    NoSuchRecord {
        /// The log's name.
        log: String,
        /// The id asked for.
        id: u64,
        /// Beyond the head, or expired.
        why: String,
    },
    /// The log's keys are not here, so nothing can be signed or committed to.
    #[error("the keys of the log '{log}' are not at {place}: {reason}")]
    Keys {
        /// The log's name.
        log: String,
        /// Where they were looked for.
        place: String,
        /// What was wrong.
        reason: String,
    },
    /// A key file that others may read.
    #[error("the key file {file} is not used: {reason}")]
    ExposedKey {
        /// The file.
        file: String,
        /// Who may read it, and what to do.
        reason: String,
    },
    /// Another writer moved the log on; this one is no longer its writer.
    #[error(
        "another process has appended to the log '{log}' meanwhile (version {version}): nothing of this was stored; try again"
    )]
    Fenced {
        /// The log's name.
        log: String,
        /// The version that the other one committed.
        version: u64,
    },
    /// The writer has stopped, by request or after a failure that left its state unknown.
    #[error("the writer of the log '{log}' has stopped: {reason}")]
    Stopped {
        /// The log's name.
        log: String,
        /// Why.
        reason: String,
    },
    /// A batch that several callers' records were in could not be appended.
    #[error("nothing was appended to the log '{log}': {reason}")]
    Failed {
        /// The log's name.
        log: String,
        /// Why.
        reason: String,
    },
    /// A log cannot be copied to where it was to be copied, or cannot be put back.
    #[error("the log '{log}': {reason}")]
    Copy {
        /// The log's name.
        log: String,
        /// Why.
        reason: String,
    },
    /// Something stored is not what it should be.
    #[error("{file}: {problem}")]
    Damaged {
        /// The file, relative to the log's folder.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Rows that do not have the kind's columns.
    #[error("rows without the columns of their kind: {0}")]
    Columns(String),
    /// The store failed; the file is named.
    #[error("{file}: {source}")]
    Storage {
        /// The file, relative to the store.
        file: String,
        /// What the store says.
        source: object_store::Error,
    },
    /// The store failed while an object was put, and could not be asked what became of it.
    #[error("{file}: it is not known whether it was stored: {source}")]
    Unsure {
        /// The file, relative to the store.
        file: String,
        /// What the store says.
        source: object_store::Error,
    },
    /// A data file could not be read or written.
    #[error("{file}: {source}")]
    Parquet {
        /// The file, relative to the store.
        file: String,
        /// What the Parquet library says.
        source: parquet::errors::ParquetError,
    },
    /// Columns could not be put together.
    #[error("columns: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// A query cannot be run as it is written; the text says why.
    #[error("{0}")]
    Query(String),
    /// A query needs more memory than it may have.
    #[error(
        "the query needs more than the {memory} bytes of memory that it may use (sql.memory_bytes), whatever of it can be \
         put on disk; raise the limit, or ask for less at once: {reason}"
    )]
    QueryMemory {
        /// What it may use, in bytes.
        memory: usize,
        /// What asked for more.
        reason: String,
    },
    /// A query failed.
    #[error("{0}")]
    Sql(#[from] datafusion::error::DataFusionError),
    /// The log ends before what is known to have been signed.
    #[error(
        "the log '{log}' ends at record {size}, and its key has signed {signed} records: an older copy of the \
         log was put in the place of a newer one; restore a newer backup, or let the log go on from its end \
         (`sporlog restore --in-place {log}`), which gives up the missing records and puts that on record"
    )]
    RolledBack {
        /// The log's name.
        log: String,
        /// The newest record that is there.
        size: u64,
        /// The newest record that was signed for.
        signed: u64,
    },
    /// A record is stored, and the newest checkpoint does not cover it yet; it soon will.
    #[error("record {id} is stored, and the newest checkpoint covers {size}: try again in a moment")]
    NotCovered {
        /// The record.
        id: u64,
        /// The checkpoint's size.
        size: u64,
    },
    /// A proof does not hold.
    #[error("{0}")]
    Proof(String),
    /// A local file or thread failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A result of the ledger.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Something stored is not what it should be.
    pub(crate) fn damaged(file: impl Display, problem: impl Display) -> Error {
        Error::Damaged { file: file.to_string(), problem: problem.to_string() }
    }

    /// What was asked for could not be done; nothing was changed.
    pub(crate) fn failed(log: impl Display, reason: impl Display) -> Error {
        Error::Failed { log: log.to_string(), reason: reason.to_string() }
    }

    /// Whether a file was not there. While another process merges files or lets records expire, that passes:
    /// whoever refreshes the log reads from the files that there are now.
    pub fn is_not_found(&self) -> bool {
        let missing = |e: &(dyn std::error::Error + 'static)| {
            matches!(e.downcast_ref(), Some(object_store::Error::NotFound { .. }))
        };
        match self {
            Error::Storage { source, .. } => missing(source),
            Error::Parquet { source: parquet::errors::ParquetError::External(source), .. } => {
                missing(&**source)
            }
            _ => false,
        }
    }

    /// Whether the store failed, and not the request: a disk that is full, read-only or damaged, or a bucket that
    /// cannot be reached. The same request may succeed later.
    pub fn is_outage(&self) -> bool {
        match self {
            Error::Storage { .. } | Error::Unsure { .. } | Error::Io { .. } => !self.is_not_found(),
            Error::Parquet { source: parquet::errors::ParquetError::External(source), .. } => {
                source.is::<object_store::Error>() || source.is::<std::io::Error>()
            }
            _ => false,
        }
    }

    pub(crate) fn parquet(file: impl Display) -> impl FnOnce(parquet::errors::ParquetError) -> Error {
        let file = file.to_string();
        move |source| Error::Parquet { file, source }
    }

    pub(crate) fn parquet_stream(file: &str) -> impl FnMut(parquet::errors::ParquetError) -> Error + use<> {
        let file = file.to_owned();
        move |source| Error::Parquet { file: file.clone(), source }
    }

    pub(crate) fn storage(file: impl Display) -> impl FnOnce(object_store::Error) -> Error {
        let file = file.to_string();
        move |source| Error::Storage { file, source: in_words(source) }
    }
}
