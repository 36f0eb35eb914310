//! What can go wrong between us and another server, and whether another try may help.

use std::path::Path;

use russh_sftp::client::error::Error as Sftp;
use russh_sftp::protocol::StatusCode;

/// A failure of the client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address, a key to sign in with, or another of the settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// The server's key is not one that we know.
    #[error("{0}")]
    HostKey(String),
    /// The server does not let us in.
    #[error("{0}")]
    Denied(String),
    /// The connection could not be made, or was lost: a new one may help.
    #[error("{0}")]
    Lost(String),
    /// The server refused a request.
    #[error("{what}: the server says: {text}")]
    Refused {
        /// The request.
        what: String,
        /// The reason, as a number of the protocol.
        code: StatusCode,
        /// The reason in the server's words, which may be anything.
        text: String,
    },
    /// A file changed while it was transferred.
    #[error("{0}")]
    Changing(String),
    /// Another file has the name on the server.
    #[error("{0}")]
    Taken(String),
    /// A file of this machine could not be read or written.
    #[error("{name}: {source}")]
    Local {
        /// The file.
        name: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another run works with the same journal.
    #[error("{0}")]
    Busy(String),
    /// A stop was asked for.
    #[error("stopped")]
    Stopped,
    /// A task of ours failed.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
}

/// A result of the client.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A failure to read or write `path`.
    pub(super) fn local(path: &Path, source: std::io::Error) -> Self {
        Error::Local { name: path.display().to_string(), source }
    }

    /// The SFTP library's error about the request `what`.
    pub(super) fn sftp(what: &str, error: Sftp) -> Self {
        let what = what.escape_debug().to_string();
        match error {
            Sftp::Status(status) => {
                let code = status.status_code;
                let said = status.error_message.trim();
                let text = if said.is_empty() { code.to_string() } else { said.escape_debug().to_string() };
                // A server must not send these two numbers, but some do when they go down.
                match code {
                    StatusCode::NoConnection | StatusCode::ConnectionLost => {
                        Error::Lost(format!("{what}: {text}"))
                    }
                    _ => Error::Refused { what, code, text },
                }
            }
            other => {
                tracing::debug!(error = %other.to_string().escape_debug(), "the connection was lost");
                Error::Lost(format!("{what}: the connection was lost"))
            }
        }
    }

    /// Whether a new connection may help.
    pub fn is_lost(&self) -> bool {
        matches!(self, Error::Lost(_))
    }

    /// Whether the failure concerns one file only, so that the others may be tried.
    pub(super) fn is_of_one_file(&self) -> bool {
        matches!(self, Error::Refused { .. } | Error::Changing(_) | Error::Taken(_) | Error::Local { .. })
    }

    /// Whether the server has no such file.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Error::Refused { code: StatusCode::NoSuchFile, .. })
    }
}
