//! A delivery into a log: all of its good records as one commit, exactly once, with a receipt.
//!
//! What is refused goes into the quarantine first, and the records into their log then; each of
//! the two commits carries the file's digest as its position. So a crash anywhere leaves a file
//! that is taken in whole when it is delivered again, and one that is in already is recognised.
//!
//! [`prepare`] reads and stages, [`Prepared::commit`] makes it so: whoever has to decide between the two
//! can; [`import`] does both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use serde::Serialize;
use sporlog_ledger::{Advance, Bulk, BulkPusher, Outcome, Position, Writer};
use sporlog_record::json::quarantine::{Action, QuarantineRecord};
use sporlog_record::{Finding, Kind};
use tokio::runtime::Handle;

use crate::delivery::{Judged, Options, Receiver, RefusedRecord, deliver};
use crate::error::{Error, Result};
use crate::quarantine::Quarantine;
use crate::source::Source;
use sporlog_record::hex;

/// What became of a delivery.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The file's name.
    pub file: String,
    /// What its records are.
    pub kind: Kind,
    /// The log that they are in.
    pub log: String,
    /// The SHA-256 of the file as delivered, in hexadecimal; absent when it was not read to its end.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The file's size as delivered.
    pub bytes: u64,
    /// Records stored.
    pub accepted: u64,
    /// Records refused, each kept in the quarantine.
    pub quarantined: u64,
    /// Remarks on stored records.
    pub remarks: u64,
    /// The first record's id, if any was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_id: Option<u64>,
    /// The last record's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_id: Option<u64>,
    /// When it was received, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<String>,
    /// Since when the same bytes have been there, RFC 3339; then nothing was stored now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_since: Option<String>,
    /// Remarks on the file as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub file_remarks: Vec<Finding>,
    /// Why the file was refused whole; then nothing of it was stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Finding>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

impl Receipt {
    /// That of a delivery of which nothing is known yet but what it is.
    pub fn begun(source: &Source, kind: Kind, log: &str) -> Self {
        Receipt {
            file: source.name().to_owned(),
            kind,
            log: log.to_owned(),
            sha256: String::new(),
            bytes: source.size().unwrap_or_default(),
            accepted: 0,
            quarantined: 0,
            remarks: 0,
            first_id: None,
            last_id: None,
            received_at: None,
            already_since: None,
            file_remarks: Vec::new(),
            refused: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Whether everything in the file is stored, now or before.
    pub fn is_clean(&self) -> bool {
        self.quarantined == 0 && self.refused.is_empty()
    }
}

/// Who sees a delivery's records on their way into the log.
pub trait Rows: Send + Sync {
    /// A part's accepted rows, before they are staged; those that come back are.
    ///
    /// Called by several threads, with the parts in no order. The same bytes judged by the same rules
    /// make the same parts with the same rows each time, however they are read.
    fn rows(&self, part: u64, rows: RecordBatch) -> Result<RecordBatch>;

    /// A refused record; they come in the order of the file.
    fn refused(&self, _record: &RefusedRecord) {}
}

/// Lets everything pass.
struct PassThrough;

impl Rows for PassThrough {
    fn rows(&self, _part: u64, rows: RecordBatch) -> Result<RecordBatch> {
        Ok(rows)
    }
}

/// What a delivery came to before anything of it is visible.
pub enum Preparation {
    /// The file is refused whole; the receipt says why. Nothing is held.
    Refused(Receipt),
    /// Its records are staged.
    Ready(Prepared),
}

/// A delivery whose records are staged. Until it is committed or given up, other appends to its log
/// wait, and if records of it were refused, others to the quarantine as well. Dropped, it leaves nothing
/// behind.
pub struct Prepared {
    bulk: Bulk,
    refused: Option<Bulk>,
    receipt: Receipt,
    started: Instant,
}

impl Prepared {
    /// What is known by now: the digest, the size, the counts. `accepted` are the rows that are staged;
    /// `remarks` also counts those on rows that [`Rows`] has left out.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Makes the delivery durable and visible: what was refused first, the log then, which moves the
    /// position `file:<sha256>` and those in `more` in the same step.
    pub async fn commit(self, mut more: Vec<(String, Advance)>) -> Result<Receipt> {
        let Prepared { bulk, refused, mut receipt, started } = self;
        if let Some(refused) = refused {
            let position = (format!("file:{}:{}", receipt.log, receipt.sha256), Advance::To(1));
            refused.finish(vec![position]).await?;
        }
        more.insert(0, (format!("file:{}", receipt.sha256), Advance::To(1)));
        match bulk.finish(more).await? {
            Outcome::Appended(appended) => {
                if appended.last >= appended.first {
                    (receipt.first_id, receipt.last_id) = (Some(appended.first), Some(appended.last));
                }
                receipt.received_at = Some(utc(appended.received_at));
            }
            Outcome::AlreadyThere { position, .. } => {
                (receipt.accepted, receipt.quarantined, receipt.remarks) = (0, 0, 0);
                receipt.already_since = Some(since(position));
            }
        }
        receipt.seconds = started.elapsed().as_secs_f64();
        Ok(receipt)
    }

    /// Gives it up, and waits until what was staged is gone again.
    pub async fn abort(self) {
        if let Some(refused) = self.refused {
            refused.abort().await;
        }
        self.bulk.abort().await;
    }
}

/// Takes `source` into the log of `writer`. `progress` is told how many bytes have been read.
///
/// A file that is refused whole is no error: the receipt says so.
pub async fn import(
    writer: &Writer,
    quarantine: &Quarantine,
    source: Source,
    options: Options,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Receipt> {
    match prepare(writer, quarantine, source, options, Arc::new(PassThrough), progress).await? {
        Preparation::Refused(receipt) => Ok(receipt),
        Preparation::Ready(prepared) => prepared.commit(Vec::new()).await,
    }
}

/// Reads `source` to its end and stages what is to go into the log of `writer`; `rows` sees it go by.
/// `progress` is told how many bytes have been read.
///
/// A file that is refused whole is no error.
pub async fn prepare(
    writer: &Writer,
    quarantine: &Quarantine,
    source: Source,
    options: Options,
    rows: Arc<dyn Rows>,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Preparation> {
    let started = Instant::now();
    let mut receipt = Receipt::begun(&source, options.kind, writer.log().name());
    let bulk = writer.bulk().await?;
    let staging = Staging {
        seen_by: rows,
        pusher: bulk.pusher(),
        staged: AtomicU64::new(0),
        refused: Refusals {
            runtime: Handle::current(),
            quarantine: quarantine.clone(),
            kind: options.kind,
            log: receipt.log.clone(),
            source: receipt.file.clone(),
            bulk: Mutex::new(None),
        },
    };
    let delivered = tokio::task::spawn_blocking(move || {
        let result = deliver(source, &options, &staging, &progress);
        let refused = staging.refused.bulk.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        (result, staging.staged.into_inner(), refused.map(|(bulk, _)| bulk))
    });
    let (result, staged, refused) = delivered.await.map_err(|e| Error::Internal(e.to_string()))?;
    match result {
        Ok(summary) => {
            receipt.sha256 = hex(summary.sha256);
            receipt.bytes = summary.bytes;
            receipt.accepted = staged;
            receipt.quarantined = summary.refused;
            receipt.remarks = summary.remarks;
            receipt.file_remarks = summary.file_remarks;
            Ok(Preparation::Ready(Prepared { bulk, refused, receipt, started }))
        }
        Err(error) => {
            if let Some(refused) = refused {
                refused.abort().await;
            }
            let cause = bulk.abort().await;
            match (error, cause) {
                (Error::Refused { findings }, _) => {
                    receipt.refused = findings;
                    receipt.seconds = started.elapsed().as_secs_f64();
                    Ok(Preparation::Refused(receipt))
                }
                // The threads only know that another one has failed.
                (Error::Ledger(sporlog_ledger::Error::Failed { .. }), Some(cause)) => Err(cause.into()),
                (error, _) => Err(error),
            }
        }
    }
}

/// A delivery on its way into a bulk append.
struct Staging {
    seen_by: Arc<dyn Rows>,
    pusher: BulkPusher,
    staged: AtomicU64,
    refused: Refusals,
}

impl Receiver for Staging {
    fn rows(&self, part: u64, rows: RecordBatch) -> Result<()> {
        let rows = self.seen_by.rows(part, rows)?;
        self.staged.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        Ok(self.pusher.push(part, &rows)?)
    }

    fn judged(&self, header: &[u8], judged: Judged) -> Result<()> {
        judged.refused.iter().for_each(|record| self.seen_by.refused(record));
        self.refused.take(header, judged.refused)
    }

    fn failed(&self) {
        self.pusher.give_up();
    }
}

/// The refused records of a delivery, on their way into the quarantine.
struct Refusals {
    runtime: Handle,
    quarantine: Quarantine,
    kind: Kind,
    log: String,
    source: String,
    /// Begun with the first refusal; and how many parts have been pushed.
    bulk: Mutex<Option<(Bulk, u64)>>,
}

impl Refusals {
    fn take(&self, header: &[u8], refused: Vec<RefusedRecord>) -> Result<()> {
        if refused.is_empty() {
            return Ok(());
        }
        let mut bulk = self.bulk.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (bulk, parts) = match &mut *bulk {
            Some(begun) => begun,
            none => {
                let writer = self.runtime.block_on(self.quarantine.writer())?;
                none.insert((self.runtime.block_on(writer.bulk())?, 0))
            }
        };
        let note = (!header.is_empty()).then(|| String::from_utf8_lossy(header).into_owned());
        let record = |refused: RefusedRecord| QuarantineRecord {
            action: Action::Refused,
            item: None,
            kind: self.kind.name().to_owned(),
            log: self.log.clone(),
            source: self.source.clone(),
            line: i64::try_from(refused.line).ok(),
            reasons: refused.findings,
            content: refused.content,
            envelope: None,
            note: note.clone(),
        };
        let records: Vec<_> = refused.into_iter().map(record).collect();
        let rows = crate::quarantine::rows(&records, &format!("file:{}", self.source));
        bulk.pusher().push(*parts, &rows)?;
        *parts += 1;
        Ok(())
    }
}

/// RFC 3339, to the second.
fn utc(micros: i64) -> String {
    let time = chrono::DateTime::from_timestamp_micros(micros).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn since(position: Position) -> String {
    utc(Duration::from_millis(position.at.unsigned_abs()).as_micros() as i64)
}

#[cfg(test)]
mod tests;
