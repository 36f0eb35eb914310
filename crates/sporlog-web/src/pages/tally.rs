//! The accesses to a person's records, counted by who it was and what was done; and the systems that copy whole
//! logs, which is recorded once for each reading and names no person.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use serde_json::Value;
use sporlog_ledger::{Log, numbers};

/// How old the tally of copies may be, and how long a page waits for a new one.
const AGE: Duration = Duration::from_mins(1);
const WAIT: Duration = Duration::from_secs(2);

/// Who it was, so far as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum By {
    /// The person themselves.
    Person,
    /// Somebody at the command line of the server.
    Operator,
    /// A system or an employee with a role, for these organisations (all if none is named).
    Role { role: String, organisations: Vec<String> },
    /// A system, by the name of its key.
    System(String),
}

/// How often, and when last (local time in microseconds).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    pub number: usize,
    pub last: i64,
}

/// What was done by whom, and how often.
pub(super) type Tally = BTreeMap<(By, &'static str), Times>;

/// One access.
pub(super) struct Access {
    pub at: i64,
    name: String,
    action: String,
    /// It is about a person.
    personal: bool,
    parameters: Value,
}

/// The accesses that these rows of the access log are.
pub(super) fn accesses_of(batch: &RecordBatch) -> impl Iterator<Item = Access> + '_ {
    let text = |name: &str, row: usize| {
        let texts = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        texts.filter(|texts| texts.is_valid(row)).map(|texts| texts.value(row).to_owned())
    };
    let times = batch.column_by_name("occurred_at");
    let times = times.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    (0..batch.num_rows()).map(move |row| Access {
        at: times.map_or(0, |times| times.value(row)),
        name: text("performerName", row).unwrap_or_default(),
        action: text("logAction", row).unwrap_or_default(),
        personal: text("cpr", row).is_some(),
        parameters: text("detailContent", row)
            .and_then(|t| serde_json::from_str(&t).ok())
            .unwrap_or_default(),
    })
}

impl Access {
    /// Who it was; `system` if only a system can have been.
    pub(super) fn by(&self, system: bool) -> By {
        let own = self.action == "LES" || self.action.starts_with("MY_");
        match self.parameters.get("role").and_then(Value::as_str) {
            _ if own => By::Person,
            _ if self.action == "COLLECT" || self.parameters.get("command").is_some() => By::Operator,
            _ if system => By::System(self.name.clone()),
            role => {
                let named = self.parameters.get("organisations").and_then(Value::as_array);
                let named = named.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
                By::Role { role: role.unwrap_or("read").to_owned(), organisations: named.collect() }
            }
        }
    }

    /// What was done with the person's records.
    pub(super) fn what(&self) -> &'static str {
        match self.action.as_str() {
            "LES" | "MY_LIST" | "MY_ACCESSES" => "access.list",
            "MY_RECORD" => "access.record",
            "MY_PROOF" => "access.proof",
            "MY_EXPORT" | "EXPORT" => "access.export",
            "FIND" | "SQL" => "access.find",
            _ => "access.other",
        }
    }

    /// How a log was copied; `None` if it was not.
    fn copied(&self) -> Option<&'static str> {
        let one = self.parameters.get("id").is_some();
        match self.action.as_str() {
            "READ" if !one => Some("copy.read"),
            "EXPORT" | "COLLECT" => Some("copy.export"),
            // Of a statement that names several persons, only the first record has the statement.
            "SQL" if self.parameters.get("parameters").is_some() => Some("copy.sql"),
            "BACKUP" => Some("copy.backup"),
            "SFTP_DOWNLOAD_END" => Some("copy.download"),
            _ => None,
        }
    }
}

/// The systems that copy whole logs: counted once, and then only what has come since.
#[derive(Default)]
pub(super) struct Copies(Arc<Mutex<Counted>>);

#[derive(Default)]
struct Counted {
    tally: Tally,
    /// The last access that was counted.
    last: u64,
    at: Option<Instant>,
    /// Somebody is counting.
    busy: bool,
}

impl Copies {
    /// The tally as it is now, or as it was when it could not be brought up to date within a moment; `None` before it
    /// was counted for the first time.
    pub(super) async fn tally(&self, log: &Log) -> Option<Tally> {
        let counted = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = {
            let mut counted = counted();
            let stale = !counted.busy && counted.at.is_none_or(|at| at.elapsed() > AGE);
            counted.busy |= stale;
            stale.then_some(counted.last)
        };
        if let Some(after) = stale {
            let (shared, log) = (self.0.clone(), log.clone());
            // A task of its own: it goes on when the page no longer waits.
            let counting = tokio::spawn(async move {
                let count = count(&log, after).await;
                let mut counted = shared.lock().unwrap_or_else(PoisonError::into_inner);
                counted.busy = false;
                match count {
                    Ok((tally, last)) => {
                        (counted.last, counted.at) = (last, Some(Instant::now()));
                        for (who, times) in tally {
                            counted.tally.entry(who).or_default().add(times);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "the copies of logs could not be counted"),
                }
            });
            let _ = tokio::time::timeout(WAIT, counting).await;
        }
        let counted = counted();
        counted.at.map(|_| counted.tally.clone())
    }
}

async fn count(log: &Log, after: u64) -> Result<(Tally, u64), sporlog_ledger::Error> {
    const READ: [&str; 7] =
        ["id", "received_at", "occurred_at", "performerName", "logAction", "cpr", "detailContent"];
    let (mut tally, mut last) = (Tally::new(), after);
    let mut batches = log.read_columns(after, None, &READ);
    while let Some(batch) = batches.try_next().await? {
        // A statement may read the records of others than it names.
        for access in accesses_of(&batch).filter(|access| !access.personal || access.action == "SQL") {
            if let Some(what) = access.copied() {
                tally.entry((access.by(true), what)).or_default().add(Times { number: 1, last: access.at });
            }
        }
        let ids = numbers(&batch)?.0;
        last = ids.values().last().map_or(last, |id| id.unsigned_abs());
    }
    Ok((tally, last))
}

impl Times {
    pub(super) fn add(&mut self, other: Times) {
        self.number += other.number;
        self.last = self.last.max(other.last);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pages::tests::{KARI, Site};

    #[tokio::test]
    async fn nobody_is_said_to_copy_no_logs_before_that_is_counted() {
        let site = Site::new(|_| {});
        let busy = |busy| site.app.pages.copies.0.lock().expect("a lock").busy = busy;
        site.get(KARI, "/my").await;
        // Another page counts for the first time.
        busy(true);
        let page = site.get(KARI, "/my?log=access").await.body;
        assert!(page.contains("still being counted") && !page.contains("No system copies"), "{page}");
        busy(false);
        assert!(site.get(KARI, "/my?log=access").await.body.contains("No system copies"));
    }

    #[test]
    fn a_statement_counts_once_for_all_and_for_each_person_that_it_names() {
        let access = |parameters: Value| Access {
            at: 0,
            name: "root".into(),
            action: "SQL".into(),
            personal: true,
            parameters,
        };
        let first = access(json!({"command": "SQL", "parameters": {"query": "SELECT 1"}}));
        let second = access(json!({"command": "SQL"}));
        assert_eq!((first.copied(), second.copied()), (Some("copy.sql"), None));
        for access in [first, second] {
            assert_eq!((access.by(false), access.what()), (By::Operator, "access.find"));
        }
    }
}
