//! Storing the records of a request, and only once if the request says which one it is.
//!
//! `Idempotency-Key` follows the IETF's draft of that name. The key becomes a position of the log, set in
//! the same commit that stores the records: so it holds across restarts and between processes, and of two
//! requests with one key that come at once, one wins and the other is given its answer. That answer is
//! read from the log, from the records themselves: it cannot differ from what is there.

use std::time::Instant;

use arrow::array::{Array, AsArray};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use futures::TryStreamExt;
use metrics::{counter, histogram};
use sha2::{Digest, Sha256};
use sporlog_intake::quarantine;
use sporlog_ledger::{Advance, Append, Error, Log, ONCE, Outcome, numbers};
use sporlog_record::Kind;
use sporlog_record::kind::quarantine::{Action, QuarantineRecord, rows};

use super::judge::Batch;
use super::sender::Sender;
use crate::app::App;
use crate::problem::Problem;
use crate::server::metrics::{INTAKE_COMMIT_SECONDS, INTAKE_RECORDS};
use sporlog_record::hex;

/// The header that says which request it is.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// The longest key.
const LONGEST: usize = 255;
/// The header of an answer that was given before.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Which request it is, if it says so.
pub(super) struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let mut given = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(key) = given.next() else { return Ok(IdempotencyKey(None)) };
        let key = key.to_str().unwrap_or_default();
        let fit = (1..=LONGEST).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !fit || given.next().is_some() {
            let detail = "Idempotency-Key has to be there once, with 1 to 255 visible ASCII characters";
            return Err(Problem::bad_request(detail));
        }
        Ok(IdempotencyKey(Some(key.to_owned())))
    }
}

impl IdempotencyKey {
    /// What stands for it in a log. Keys are each sender's own.
    pub(super) fn once(&self, sender: &Sender) -> Option<Once> {
        let key = self.0.as_deref()?;
        let (name, id) = (&sender.principal.name, sender.principal.id());
        let position = |text: &str| format!("{ONCE}{name}:{}", hex(&Sha256::digest(text)[..16]));
        Some(Once { position: position(&format!("{id}\0{key}")), by_name: position(key) })
    }
}

/// The positions of a log that stand for a request that says which one it is.
pub(super) struct Once {
    position: String,
    /// The position that was set before senders of one name were told apart. Such positions are forgotten after a week.
    by_name: String,
}

/// What is in a log of a request.
pub(super) struct Stored {
    /// Its records, in order.
    pub kept: Vec<Kept>,
    /// They have been there since an earlier request with the same key.
    pub replayed: bool,
}

/// A record of a request that is in its log.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    /// Its line, or its number in the array; from 1.
    pub line: u64,
    /// Its id.
    pub id: u64,
    /// The remarks on it, a JSON array.
    pub remarks: Option<String>,
}

/// Stores what was accepted of a request, as one commit; answered when it is durable. With a position,
/// just once.
pub(super) async fn store(
    app: &App,
    log: &str,
    batch: &Batch,
    once: Option<&Once>,
) -> Result<Stored, Problem> {
    let stored = store_or_find(app, log, batch, once).await?;
    let count = |outcome, records: usize| {
        let labels = [("source", "http".to_owned()), ("log", log.to_owned()), ("outcome", outcome)];
        counter!(INTAKE_RECORDS, &labels).increment(records as u64);
    };
    let outcome = if stored.replayed { "replayed" } else { "accepted" };
    let refused = batch.records.len().saturating_sub(stored.kept.len());
    for (outcome, records) in [(outcome, stored.kept.len()), ("refused", refused)] {
        if records > 0 {
            count(outcome.to_owned(), records);
        }
    }
    Ok(stored)
}

async fn store_or_find(app: &App, log: &str, batch: &Batch, once: Option<&Once>) -> Result<Stored, Problem> {
    if let Some(once) = once
        && let Some(log) = app.catalog.log(log).await?
    {
        if let Some(position) = log.position(&once.position) {
            return replay(&log, position.version, batch).await;
        }
        if let Some(position) = log.position(&once.by_name)
            && let Ok(stored) = replay(&log, position.version, batch).await
        {
            return Ok(stored);
        }
    }
    if batch.rows.num_rows() == 0 {
        return Ok(Stored { kept: Vec::new(), replayed: false });
    }
    let positions = || once.iter().map(|once| (once.position.clone(), Advance::Once)).collect();
    let append = || Append { rows: batch.rows.clone(), positions: positions() };
    let began = Instant::now();
    let mut outcome = app.catalog.append(log, append()).await;
    // The next writer may well succeed; and only with a position is it certain that nothing is there twice.
    if once.is_some() && matches!(outcome, Err(Error::Stopped { .. })) {
        outcome = app.catalog.append(log, append()).await;
    }
    match outcome? {
        Outcome::Appended(appended) => {
            histogram!(INTAKE_COMMIT_SECONDS, "source" => "http", "log" => log.to_owned())
                .record(began.elapsed());
            let kept = |(id, (line, remarks)): (u64, (u64, Option<&str>))| Kept {
                line,
                id,
                remarks: remarks.map(str::to_owned),
            };
            let kept = (appended.first..).zip(batch.accepted()).map(kept).collect();
            Ok(Stored { kept, replayed: false })
        }
        Outcome::AlreadyThere { position, .. } => {
            let gone = || Problem::unavailable("the log cannot be read at this moment; try again");
            let log = app.catalog.log(log).await?.ok_or_else(gone)?;
            replay(&log, position.version, batch).await
        }
    }
}

/// The records of an earlier request with the same key, of which `first` is the first one's id.
async fn replay(log: &Log, first: i64, batch: &Batch) -> Result<Stored, Problem> {
    let first = u64::try_from(first).unwrap_or_default();
    let mut kept = find(log, first, batch).await?;
    if kept.is_none() && first > log.head() {
        // Another process has stored them, and its commit is yet to be seen as a whole.
        log.refresh().await?;
        kept = find(log, first, batch).await?;
    }
    let detail = match kept {
        Some(kept) if !kept.is_empty() => return Ok(Stored { kept, replayed: true }),
        Some(_) => "this Idempotency-Key came with another body before; nothing was stored now",
        None => "this Idempotency-Key was used for records that have expired; nothing was stored now",
    };
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

/// The records from `first` on that came in one request with this body; none if another did. `None` if
/// that record is not there.
async fn find(log: &Log, first: u64, batch: &Batch) -> Result<Option<Vec<Kept>>, Problem> {
    let mut batches = log.read(first.saturating_sub(1), Some(batch.records.len() as u64));
    let (mut kept, mut received_at): (Vec<Kept>, _) = (Vec::new(), None);
    while let Some(rows) = batches.try_next().await? {
        let (ids, received) = numbers(&rows)?;
        let text = |column| rows.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
        let (Some(origins), Some(remarks)) = (text("origin"), text("remarks")) else {
            return Err(Error::Columns("`origin` or `remarks` is missing".into()).into());
        };
        for row in 0..rows.num_rows() {
            let id = ids.value(row).unsigned_abs();
            if received_at.is_none() && id != first {
                return Ok(None);
            }
            // Behind them may stand records of a request with the same body and without the key.
            let same_commit = *received_at.get_or_insert(received.value(row)) == received.value(row);
            let number = origins.value(row).strip_prefix(&*batch.source);
            let line = number.and_then(|number| number.strip_prefix(':')?.parse().ok());
            let next = |line: &u64| kept.last().is_none_or(|last| last.line < *line);
            let Some(line) = line.filter(next).filter(|_| same_commit) else { return Ok(Some(kept)) };
            let remarks = remarks.is_valid(row).then(|| remarks.value(row).to_owned());
            kept.push(Kept { line, id, remarks });
        }
    }
    Ok(received_at.map(|_| kept))
}

/// Puts what was refused of a request into the quarantine; with a position, just once for each body.
pub(super) async fn quarantine(
    app: &App,
    log: &str,
    kind: Kind,
    batch: &Batch,
    once: Option<&Once>,
) -> Result<(), Problem> {
    let record = |(line, findings, content): (u64, &[_], &bytes::Bytes)| QuarantineRecord {
        action: Action::Refused,
        item: None,
        kind: kind.name().to_owned(),
        log: log.to_owned(),
        source: batch.source.clone(),
        line: i64::try_from(line).ok(),
        reasons: findings.to_vec(),
        content: content.to_vec(),
        envelope: batch.envelope.clone(),
        note: batch.bounds.organisations().map(quarantine::bounds_note),
    };
    let records: Vec<_> = batch.refused().map(record).collect();
    if records.is_empty() {
        return Ok(());
    }
    let now = chrono::Local::now().naive_local().and_utc().timestamp_micros();
    let rows = rows(&records, &batch.source, now);
    let position = once.map(|once| (format!("{}:{log}:{}", once.position, batch.source), Advance::Once));
    let append = Append { rows, positions: position.into_iter().collect() };
    app.catalog.append(quarantine::LOG, append).await.map(drop).map_err(|error| {
        tracing::error!(%error, "refused records could not be put into the quarantine");
        Problem::unavailable(
            "what is in order is stored, but what was refused could not be put into the quarantine; \
             try again with the same Idempotency-Key, or without `quarantine`",
        )
    })
}
