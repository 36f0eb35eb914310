//! Every access to the data is itself recorded, before the data is shown.
//!
//! The record goes into the log `access` of the same store. If it cannot be written, nothing is
//! shown. The one exception is a store that cannot have been meant to be written to, because its
//! keys are not here or it is read-only: a copy that somebody was handed. Then a note says that
//! the access was not recorded.

use std::io;
use std::time::Duration;

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use serde_json::{Value, json};
use sporlog_intake::access_event::{AccessEvent, LOG, ORIGIN};
use sporlog_ledger::{Append, Log, Outcome, Store, Writer, WriterOptions};
use sporlog_record::Kind;

use crate::output::note;
use crate::session::Session;

/// Every command is a writer of its own and leaves small files: after so many they are merged.
const COMPACT_EVERY: u64 = 256;
/// Files that a merge replaced stay for so long, for those who are reading them.
const GRACE: Duration = Duration::from_hours(1);

/// An access to the data by a command.
pub struct Access {
    /// What is done, in the manner of the audit logs' `logAction`.
    pub action: &'static str,
    /// The persons whose records are read, where they are named.
    pub subjects: Vec<String>,
    /// What is done, in a few words. Personal numbers in it are masked.
    pub message: String,
    /// What was asked for, in full.
    pub parameters: Value,
}

impl Access {
    /// An access that names no person.
    pub fn new(action: &'static str, message: String, parameters: Value) -> Self {
        Access { action, subjects: Vec::new(), message, parameters }
    }
}

/// Records an access, before the data is shown.
pub async fn record_access(session: &Session, store: &Store, access: Access) -> Result<()> {
    if session.keys(store).is_none_or(|keys| !keys.is_dir()) {
        return not_recorded(
            "the store's keys are not here; so signatures are checked with the logs' own copies of their public keys, \
             and an older copy of a log is not noticed",
        );
    }
    let failed = match append(store, &access).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match failed.downcast_ref::<sporlog_ledger::Error>() {
        Some(sporlog_ledger::Error::Keys { reason, .. }) => not_recorded(reason),
        _ if is_read_only(&failed) => not_recorded("the store cannot be written to"),
        _ => Err(failed.context("the access could not be recorded, so nothing is shown")),
    }
}

/// The access log, opened before an access to it was recorded, is to show that access, too.
pub async fn include_own_access(log: &Log) -> Result<()> {
    if log.name() == LOG {
        log.refresh().await?;
    }
    Ok(())
}

fn not_recorded(reason: &str) -> Result<()> {
    note(&format!("this access is not recorded in the log '{LOG}': {reason}"));
    Ok(())
}

async fn append(store: &Store, access: &Access) -> Result<()> {
    let rows = rows(access)?;
    let writer = store.writer(LOG, Kind::Auditlog, WriterOptions { take_turns: true }).await?;
    let outcome = writer.append(Append { rows, positions: Vec::new() }).await;
    if let Ok(Outcome::Appended(appended)) = &outcome
        && appended.last.is_multiple_of(COMPACT_EVERY)
    {
        keep_house(&writer).await;
    }
    let closed = writer.close().await;
    outcome?;
    Ok(closed?)
}

/// A record for each person who is named, or one that names nobody. What was asked for stands in the first alone, which
/// the others have the correlation with: it may be long, and name thousands.
fn rows(access: &Access) -> Result<RecordBatch> {
    let user = User::current();
    let correlation = (access.subjects.len() > 1).then(|| uuid::Uuid::new_v4().to_string());
    let row = |number: usize, subject: Option<&str>| {
        let mut parameters = json!({
            "command": access.action,
            "uid": user.uid,
            "sudoUser": std::env::var("SUDO_USER").ok(),
            "program": ORIGIN,
        });
        if number == 0 {
            parameters["parameters"] = access.parameters.clone();
        }
        let event = AccessEvent {
            performer: &user.name,
            action: access.action,
            subject,
            address: None,
            correlation: correlation.as_deref(),
            message: access.message.clone(),
            parameters,
        };
        event.row()
    };
    let rows = match access.subjects.as_slice() {
        [] => vec![row(0, None)?],
        subjects => {
            let rows = subjects.iter().enumerate().map(|(number, subject)| row(number, Some(subject)));
            rows.collect::<Result<_, _>>()?
        }
    };
    Ok(concat_batches(&Kind::Auditlog.row_schema(), &rows)?)
}

/// The access is recorded: what fails here is no reason to withhold the data.
async fn keep_house(writer: &Writer) {
    if let Err(error) = writer.compact(GRACE).await {
        tracing::warn!(%error, "the access log could not be compacted");
    }
}

/// The name of who runs this.
pub fn performer() -> String {
    User::current().name
}

/// Who runs this.
struct User {
    uid: u32,
    name: String,
}

impl User {
    /// The account's name is the system's. The environment, which anyone may set, is asked only
    /// where accounts are kept elsewhere; the number is the system's in any case.
    fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let named = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        };
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = accounts.lines().find_map(named);
        let name = name.or_else(|| std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).ok());
        User { uid, name: name.unwrap_or_else(|| format!("uid {uid}")) }
    }
}

fn is_read_only(error: &anyhow::Error) -> bool {
    let read_only = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem))
    };
    error.chain().any(read_only)
}
