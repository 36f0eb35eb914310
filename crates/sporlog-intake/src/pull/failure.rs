//! Why an upstream could not be read.

use std::time::Duration;

use reqwest::StatusCode;

/// Why the upstream could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The upstream does not know the key.
    #[error("{at}: the upstream does not accept the API key ({status}): check key_file or key_env")]
    Key {
        /// The request.
        at: String,
        /// The answer's status.
        status: StatusCode,
    },
    /// The key cannot be read.
    #[error("the API key cannot be read: {0}")]
    NoKey(String),
    /// The upstream answered with an error, or a redirection.
    #[error("{at}: the answer is {status}, where 200 is expected")]
    Status {
        /// The request.
        at: String,
        /// The answer's status.
        status: StatusCode,
        /// How long the upstream asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// No answer, or not all of it.
    #[error("{at}: {reason}")]
    Transport {
        /// The request.
        at: String,
        /// The error.
        reason: String,
    },
    /// The answer is not what it has to be.
    #[error("{at}: {expected} is expected, and {found}")]
    Format {
        /// The request.
        at: String,
        /// What was expected.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The upstream's newest id is below ids that were read.
    #[error(
        "the upstream's head is {head}, and ids up to {position} have been read: it may have been restored from a \
         backup, and may use ids again. Nothing is read until `sporlog pull {name} --from ID` says after which id \
         to go on"
    )]
    WentBack {
        /// The pull.
        name: String,
        /// The upstream's head.
        head: i64,
        /// The highest id read.
        position: i64,
    },
}

impl Failure {
    /// How long the upstream asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Failure::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The server itself failed, which OS2faktor Login does at `head` where its table is empty.
    pub(super) fn is_internal(&self) -> bool {
        matches!(self, Failure::Status { status, .. } if *status == StatusCode::INTERNAL_SERVER_ERROR)
    }
}
