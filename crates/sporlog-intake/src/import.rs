//! A delivery into a log: all of its good records as one commit, exactly once, with a receipt.
//!
//! Refused records go into the quarantine first, and then the accepted ones into their log; each of the two
//! commits carries the file's digest as its position. After a crash anywhere, the file is taken in as a whole
//! when it is delivered again, and a file that the log has already is recognised.
//!
//! Rows that the log has already, from whatever file and by whichever way, are left out, or counted
//! ([`OverlapPolicy`](crate::delivery::OverlapPolicy)): when all is staged, and nobody else can append, the rows are
//! compared with those of the log. If some are to be left out, the file is staged a second time without them:
//! staged rows have their ids, so none can be taken out.
//!
//! [`prepare`] reads, stages and compares, [`Prepared::commit`] makes it so: whoever has to decide between the
//! two can; [`import`] does both.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arrow::array::RecordBatch;
use chrono::{DateTime, SubsecRound, Utc};
use sporlog_ledger::{Advance, Bulk, BulkPusher, Outcome, Overlap, ReceivedBefore, Writer};
use sporlog_record::kind::quarantine::QuarantineRecord;
use sporlog_record::{Finding, Kind, Severity};
use tokio::runtime::Handle;

use crate::blocking::{blocking, lock};
use crate::delivery::{self, Judged, Options, Receiver, RefusedRecord, deliver};
use crate::error::{Error, Result};
use crate::quarantine::{Quarantine, envelope_of_delivery};
use crate::source::Source;
use sporlog_record::hex;

mod receipt;

pub use receipt::{Earlier, LISTED_ROWS, Note, Receipt};

/// A delivery that has been read, and of which nothing is visible yet.
pub enum Preparation {
    /// The file is refused whole; the receipt says why. Nothing is held.
    Refused(Receipt),
    /// The file's records are staged.
    Ready(Prepared),
}

/// A delivery whose records are staged. Until it is committed or given up, other appends to its log
/// wait, and if records of it were refused, others to the quarantine as well. Dropped, it leaves nothing
/// behind.
pub struct Prepared {
    bulk: Bulk,
    refused: Option<Bulk>,
    receipt: Receipt,
    received_before: Vec<ReceivedBefore>,
    started: Instant,
}

impl Prepared {
    /// The receipt so far: the digest, the size, the counts. `accepted` are the rows that are staged.
    pub fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// The rows of the log that are the same as the overlapping rows.
    pub fn received_before(&self) -> &[ReceivedBefore] {
        &self.received_before
    }

    /// Makes the delivery durable and visible. The log's commit moves the position `file:<sha256>` and those in
    /// `more` in the same step. If the log has the file already, nothing is stored, and the receipt says so.
    pub async fn commit(self, mut more: Vec<(String, Advance)>) -> Result<Receipt> {
        let Prepared { bulk, refused, mut receipt, started, .. } = self;
        // Refused records first. A crash after this commit leaves them in the quarantine, where the position keeps
        // them from being stored a second time when the file is delivered again.
        if let Some(refused) = refused {
            let position = (format!("file:{}:{}", receipt.log, receipt.sha256), Advance::To(1));
            refused.finish(vec![position]).await?;
        }
        // A crash before this commit leaves staged files that no version of the table names; compaction removes
        // them. A crash after it leaves nothing to do.
        more.insert(0, (file_position(&receipt.sha256), Advance::To(1)));
        match bulk.finish(more).await? {
            Outcome::Appended(appended) => {
                if appended.last >= appended.first {
                    (receipt.first_id, receipt.last_id) = (Some(appended.first), Some(appended.last));
                }
                let received_at = DateTime::from_timestamp_micros(appended.received_at);
                receipt.received_at = received_at.map(|at| at.trunc_subsecs(0));
            }
            Outcome::AlreadyThere { position, .. } => {
                (receipt.accepted, receipt.quarantined, receipt.remarks) = (0, 0, 0);
                (receipt.overlapping, receipt.skipped) = (0, 0);
                receipt.overlaps.clear();
                receipt.quarantined_rows.clear();
                receipt.remarked_rows.clear();
                let since = DateTime::from_timestamp_millis(position.at);
                receipt.already_since = since.map(|at| at.trunc_subsecs(0));
            }
        }
        receipt.seconds = started.elapsed().as_secs_f64();
        Ok(receipt)
    }

    /// Gives the delivery up, and waits until the staged files have been removed.
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
    match prepare(writer, quarantine, source, options, progress).await? {
        Preparation::Refused(receipt) => Ok(receipt),
        Preparation::Ready(prepared) => prepared.commit(Vec::new()).await,
    }
}

/// Reads `source` to its end, stages what is to go into the log of `writer`, and compares it with what the log has.
/// `progress` is told how many bytes have been read; it begins anew if the file is read a second time.
///
/// A file that is refused whole is no error. It is one, [`Error::Overtaken`], if some of its rows came into the log
/// by another way between the two readings.
pub async fn prepare(
    writer: &Writer,
    quarantine: &Quarantine,
    mut source: Source,
    options: Options,
    progress: impl Fn(u64) + Send + Sync + 'static,
) -> Result<Preparation> {
    let (started, progress) = (Instant::now(), Arc::new(progress) as Arc<dyn Fn(u64) + Send + Sync>);
    let (log, file) = (writer.log(), source.name().to_owned());
    let compared = !options.kind.identity_columns().is_empty();
    if compared {
        // So that a file that another process has stored is recognised before its rows are compared.
        log.refresh().await?;
    }
    let mut skipped: Option<Arc<Overlap>> = None;
    loop {
        let (read, again) = if compared && options.overlap.rows == delivery::Overlap::Skip {
            blocking(move || source.twice()).await.map(|(first, second)| (first, Some(second)))?
        } else {
            (source, None)
        };
        let staged = stage(writer, quarantine, read, &options, skipped.clone(), progress.clone()).await?;
        let Preparation::Ready(mut prepared) = staged else { return Ok(staged) };
        prepared.started = started;
        let repeated = log.position(&file_position(&prepared.receipt.sha256)).is_some();
        if !compared || repeated {
            return Ok(Preparation::Ready(prepared));
        }
        let found = prepared.bulk.overlap(options.overlap.since(Utc::now())).await?;
        match (&skipped, again) {
            (Some(_), _) if found.rows() > 0 => {
                // The log was free between the two readings.
                prepared.abort().await;
                return Err(Error::Overtaken(file));
            }
            (None, Some(again)) if found.rows() > 0 => {
                prepared.abort().await;
                (skipped, source) = (Some(Arc::new(found)), again);
                continue;
            }
            _ => {}
        }
        prepared.receipt.skipped = skipped.as_ref().map_or(0, |skipped| skipped.rows());
        let overlap = skipped.as_deref().unwrap_or(&found);
        prepared.receipt.overlapping = overlap.rows();
        prepared.receipt.overlaps = Earlier::deliveries(overlap.received(), |_| None);
        prepared.received_before = overlap.received().to_vec();
        return Ok(Preparation::Ready(prepared));
    }
}

/// Reads `source` to its end and stages its rows, but for those that are to be `skipped`.
async fn stage(
    writer: &Writer,
    quarantine: &Quarantine,
    source: Source,
    options: &Options,
    skipped: Option<Arc<Overlap>>,
    progress: Arc<dyn Fn(u64) + Send + Sync>,
) -> Result<Preparation> {
    let started = Instant::now();
    let mut receipt = Receipt::begun(&source, options.kind, writer.log().name());
    let bulk = writer.bulk().await?;
    let staging = Staging {
        skipped,
        pusher: bulk.pusher(),
        staged: AtomicU64::new(0),
        runtime: Handle::current(),
        quarantine: quarantine.clone(),
        kind: options.kind,
        log: receipt.log.clone(),
        source: receipt.file.clone(),
        envelope: options.delivery.as_deref().map(envelope_of_delivery),
        collected: Mutex::default(),
    };
    let options = Options { collect: LISTED_ROWS, ..options.clone() };
    let delivered = tokio::task::spawn_blocking(move || {
        let result = deliver(source, &options, &staging, &*progress);
        let collected = staging.collected.into_inner().unwrap_or_else(PoisonError::into_inner);
        (result, staging.staged.into_inner(), collected)
    });
    let (result, staged, Collected { quarantined_rows, remarked_rows, refused }) = delivered.await?;
    let refused = refused.map(|(bulk, _)| bulk);
    match result {
        Ok(summary) => {
            receipt.sha256 = hex(summary.sha256);
            receipt.bytes = summary.bytes;
            receipt.accepted = staged;
            receipt.quarantined = summary.refused;
            receipt.remarks = summary.remarks;
            receipt.file_remarks = summary.file_remarks;
            (receipt.quarantined_rows, receipt.remarked_rows) = (quarantined_rows, remarked_rows);
            let received_before = Vec::new();
            Ok(Preparation::Ready(Prepared { bulk, refused, receipt, received_before, started }))
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

/// A delivery on its way into a bulk append, and its refused records on their way into the quarantine.
struct Staging {
    skipped: Option<Arc<Overlap>>,
    pusher: BulkPusher,
    staged: AtomicU64,
    runtime: Handle,
    quarantine: Quarantine,
    kind: Kind,
    log: String,
    source: String,
    envelope: Option<String>,
    collected: Mutex<Collected>,
}

/// What is collected in the order of the file.
#[derive(Default)]
struct Collected {
    quarantined_rows: Vec<Note>,
    remarked_rows: Vec<Note>,
    /// The bulk append to the quarantine, begun with the first refusal; and how many parts have been pushed.
    refused: Option<(Bulk, u64)>,
}

impl Receiver for Staging {
    fn rows(&self, part: u64, mut rows: RecordBatch) -> Result<()> {
        if let Some(skipped) = &self.skipped {
            // The same bytes judged by the same rules make the same parts, however they are read.
            let changed = || Error::Unsettled(self.source.clone());
            rows = skipped.only_new(part, &rows).ok_or_else(changed)??;
        }
        self.staged.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        Ok(self.pusher.push(part, &rows)?)
    }

    fn judged(&self, header: &[u8], judged: Judged) -> Result<()> {
        let collected = &mut *lock(&self.collected);
        let all = judged.refused.iter().flat_map(|record| &record.findings);
        list(&mut collected.quarantined_rows, all.filter(|finding| finding.severity == Severity::Error));
        list(&mut collected.remarked_rows, judged.findings.iter());
        if judged.refused.is_empty() {
            return Ok(());
        }
        let (bulk, parts) = match &mut collected.refused {
            Some(begun) => begun,
            none => {
                let writer = self.runtime.block_on(self.quarantine.writer())?;
                none.insert((self.runtime.block_on(writer.bulk())?, 0))
            }
        };
        let note = (!header.is_empty()).then(|| String::from_utf8_lossy(header).into_owned());
        let record = |refused: RefusedRecord| QuarantineRecord {
            kind: self.kind.name().to_owned(),
            log: self.log.clone(),
            source: self.source.clone(),
            line: i64::try_from(refused.line).ok(),
            reasons: refused.findings,
            content: refused.content,
            envelope: self.envelope.clone(),
            note: note.clone(),
            ..QuarantineRecord::default()
        };
        let records: Vec<_> = judged.refused.into_iter().map(record).collect();
        let rows = crate::quarantine::rows(&records, &format!("file:{}", self.source));
        bulk.pusher().push(*parts, &rows)?;
        *parts += 1;
        Ok(())
    }

    fn failed(&self) {
        self.pusher.give_up();
    }
}

/// Adds findings to a receipt's list, up to [`LISTED_ROWS`].
fn list<'a>(notes: &mut Vec<Note>, findings: impl Iterator<Item = &'a Finding>) {
    let room = LISTED_ROWS.saturating_sub(notes.len());
    notes.extend(findings.take(room).map(Note::from));
}

/// The source position that a log has for each file stored, whichever way the file came.
pub fn file_position(sha256: &str) -> String {
    format!("file:{sha256}")
}

#[cfg(test)]
mod tests;
