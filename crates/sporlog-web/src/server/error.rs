//! Why a server could not begin or go on.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a server could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of the certificate cannot be read, or is none.
    #[error("{}: {reason}", file.display())]
    Certificate {
        /// The file.
        file: PathBuf,
        /// What is the matter with it.
        reason: String,
    },
    /// A certificate and a key that cannot be used together, or at all.
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
    /// Requests that were still under way when the time to finish them was over, and were cut off.
    #[error("{0} connections were cut off: they had not finished when the time to stop was over")]
    CutOff(usize),
}
