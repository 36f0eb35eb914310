//! What comes in: files, messages of Kafka, and registers of names.
//!
//! A source's bytes go through [`delivery`], which judges them, into a log's
//! [`Writer`](sporlog_ledger::Writer), and what is refused into the [`quarantine`]. This crate does
//! not know how a log is stored.
//!
//! | module | idea |
//! |---|---|
//! | [`access_event`] | each access to the data, which is a record, too |
//! | [`blocking`] | work that waits for disks, off the runtime's threads |
//! | [`delivery`] | a file's records, judged by several threads, in order |
//! | [`import`] | a delivery into a log, exactly once, with a receipt |
//! | [`kafka`] | a topic's messages into a log, each exactly once |
//! | [`names`] | what organisations, topics and systems are called |
//! | [`quarantine`] | what was refused, and what became of it |
//! | [`source`] | where bytes come from: a file, standard input, compressed or not |
//! | [`spool`] | a delivery over a network, on disk until all of it is there |
//! | [`writers`] | where the writers of logs come from |
#![forbid(unsafe_code)]

pub mod access_event;
pub mod blocking;
pub mod delivery;
mod error;
pub mod import;
pub mod kafka;
pub mod names;
pub mod quarantine;
pub mod source;
pub mod spool;
pub mod writers;

pub use error::{Error, Result};
