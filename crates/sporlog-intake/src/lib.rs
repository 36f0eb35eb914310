//! Intake: files, messages of Kafka and other systems' audit logs into logs, and registers of names.
//!
//! [`delivery`] judges a file's records. Accepted ones go to a log's [`Writer`](sporlog_ledger::Writer),
//! refused ones into the [`quarantine`]. This crate does not know how a log is stored.
//!
//! | module | idea |
//! |---|---|
//! | [`access_event`] | each access to the data, which is a record, too |
//! | [`blocking`] | work that waits for disks, off the runtime's threads |
//! | [`delivery`] | a file's records, judged by several threads, in order |
//! | [`expiry`] | removal by retention, on record |
//! | [`import`] | a delivery into a log, exactly once, with a receipt |
//! | [`kafka`] | a topic's messages into a log, each exactly once |
//! | [`names`] | the names of organisations, topics and systems |
//! | [`pull`] | an OS2faktor Login's audit log or MFA log into a log, each record exactly once |
//! | [`quarantine`] | refused records, and what became of each |
//! | [`source`] | the bytes of a file or stream, compressed or not, and their digest |
//! | [`spool`] | a file that arrives over a network, on disk until all of it has arrived |
//! | [`writers`] | the writers of logs, shared or of one's own; recording an access |
#![forbid(unsafe_code)]

pub mod access_event;
pub mod blocking;
pub mod delivery;
mod error;
pub mod expiry;
pub mod import;
pub mod kafka;
pub mod names;
pub mod pull;
pub mod quarantine;
pub mod source;
pub mod spool;
pub mod writers;

pub use error::{Error, Result};
