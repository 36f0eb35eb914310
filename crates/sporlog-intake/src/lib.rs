//! What comes in: files now; Kafka, HTTP and SFTP are to join them here.
//!
//! A source's bytes go through [`delivery`], which judges them, into a log's
//! [`Writer`](sporlog_ledger::Writer), and what is refused into the [`quarantine`]. This crate does
//! not know how a log is stored.
//!
//! | module | idea |
//! |---|---|
//! | [`delivery`] | a file's records, judged by several threads, in order |
//! | [`import`] | a delivery into a log, exactly once, with a receipt |
//! | [`quarantine`] | what was refused, and what became of it |
//! | [`source`] | where bytes come from: a file, standard input, compressed or not |
#![forbid(unsafe_code)]

pub mod delivery;
mod error;
pub mod import;
pub mod quarantine;
pub mod source;

pub use error::{Error, Result};
