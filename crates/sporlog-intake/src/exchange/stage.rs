//! What a delivery comes to before anything of it is visible: its rows staged behind a log that nobody else
//! can append to meanwhile, and what of it has been there before.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use sporlog_ledger::{Log, Writer};
use sporlog_record::{Kind, Rules, Severity};

use super::claim::Claim;
use super::name::shown;
use super::overlap::{Found, Gatherer, Hit, Keys};
use super::receipt::{Earlier, LISTED_ROWS, Note, Outcome, Receipt};
use super::settings::{Account, Overlap};
use super::take::{Taker, parse};
use crate::blocking::blocking;
use crate::delivery::{Options, RefusedRecord, damage};
use crate::error::{Error, Result};
use crate::import::{self, Preparation, Prepared, Rows, prepare};
use crate::source::Source;

/// What a delivery came to before anything of it is visible.
pub(super) enum Staged {
    /// Nothing is to be stored.
    Decided(Box<Receipt>),
    /// Its rows are staged.
    Ready(Box<Ready>),
}

/// A delivery whose rows are staged.
pub(super) struct Ready {
    pub receipt: Receipt,
    pub prepared: Prepared,
    pub keys: Keys,
}

impl Staged {
    /// Whether so many bytes have been read and staged.
    pub(super) fn has_read(&self, bytes: u64) -> bool {
        match self {
            Staged::Decided(_) => false,
            Staged::Ready(ready) => ready.receipt.bytes == bytes,
        }
    }

    fn decided(receipt: Receipt) -> Self {
        Staged::Decided(Box::new(receipt))
    }
}

impl Taker {
    /// Reads the file and stages its rows; what has been there before is found out on the way.
    pub(super) async fn stage(
        &self,
        account: &Account,
        claim: &Claim,
        source: &(dyn Fn() -> Result<Source> + Sync),
    ) -> Result<Staged> {
        let writer = self.writer().await?;
        let log = writer.log().clone();
        log.refresh().await?;
        // What others have stored is indexed while the log is free: only what is stored from now on has
        // to be added later, when it is not.
        self.index.catch_up(&log).await?;
        let keys = self.index.gather();
        let gathering = Arc::new(Watching::over(keys.clone()));
        let prepared = match self.prepare(&writer, account, source()?, gathering.clone()).await? {
            Preparation::Refused(refused) => return Ok(Staged::decided(self.receipt(claim, &refused))),
            Preparation::Ready(prepared) => prepared,
        };
        if log.position(&format!("file:{}", prepared.receipt().sha256)).is_some() {
            let facts = prepared.receipt().clone();
            prepared.abort().await;
            return Ok(Staged::decided(self.repeated(account, claim, facts).await?));
        }
        let compared = self.compare(&log, keys).await;
        let (keys, found) = match compared {
            Ok(compared) => compared,
            Err(error) => {
                prepared.abort().await;
                return Err(error);
            }
        };
        let mut receipt = self.receipt(claim, prepared.receipt());
        receipt.quarantined_rows = gathering.notes();
        receipt.overlapping = found.rows();
        receipt.overlaps = match self.earlier(account, &found).await {
            Ok(overlaps) => overlaps,
            Err(error) => {
                prepared.abort().await;
                return Err(error);
            }
        };
        if found.is_empty() || self.settings.overlap == Overlap::Take {
            return Ok(Staged::Ready(Box::new(Ready { receipt, prepared, keys })));
        }
        prepared.abort().await;
        drop(keys);
        let keys = self.index.gather();
        let rest = Arc::new(Watching::over(Arc::new(found.filter(keys.clone()))));
        let prepared = match self.prepare(&writer, account, source()?, rest).await? {
            Preparation::Refused(refused) => return Ok(Staged::decided(self.receipt(claim, &refused))),
            Preparation::Ready(prepared) => prepared,
        };
        if prepared.receipt().sha256 != receipt.sha256 {
            prepared.abort().await;
            return Err(Error::Unsettled(receipt.file));
        }
        receipt.skipped = receipt.overlapping;
        receipt.accepted = prepared.receipt().accepted;
        // The log was free for a moment: what came in then may hold some of these rows.
        let keys = match self.compare(&log, keys).await {
            Ok((keys, found)) if found.is_empty() => keys,
            compared => {
                prepared.abort().await;
                return Err(compared.err().unwrap_or(Error::Overtaken));
            }
        };
        Ok(Staged::Ready(Box::new(Ready { receipt, prepared, keys })))
    }

    async fn prepare(
        &self,
        writer: &Writer,
        account: &Account,
        source: Source,
        rows: Arc<dyn Rows>,
    ) -> Result<Preparation> {
        let now = chrono::Local::now().naive_local();
        let rules = Rules { now, ..account.rules(&self.rules, &self.settings.limits) };
        let (name, is_growing) = (source.name().to_owned(), source.size().is_none());
        let begun = import::Receipt::begun(&source, Kind::Revision, &self.settings.log);
        let options = Options::new(Kind::Revision, rules);
        match prepare(writer, &self.quarantine, source, options, rows, |_| ()).await {
            Err(Error::Read { source, .. })
                if !is_growing
                    && !self.stop.load(Ordering::Acquire)
                    && let Some(damage) = damage(&source) =>
            {
                tracing::info!(file = %name.escape_debug(), "a compressed file is damaged");
                Ok(Preparation::Refused(import::Receipt { refused: vec![damage], ..begun }))
            }
            prepared => prepared,
        }
    }

    /// Which of the rows have been there before. The log cannot move meanwhile: it is ours.
    async fn compare(&self, log: &Log, gatherer: Arc<Gatherer>) -> Result<(Keys, Found)> {
        self.index.catch_up(log).await?;
        let index = self.index.clone();
        blocking(move || {
            let keys = gatherer.finish()?;
            let found = index.compare(&keys, Utc::now())?;
            Ok((keys, found))
        })
        .await
    }

    /// The receipt of a file whose bytes have been there before.
    pub(super) async fn repeated(
        &self,
        account: &Account,
        claim: &Claim,
        facts: import::Receipt,
    ) -> Result<Receipt> {
        let mut receipt = self.receipt(claim, &facts);
        receipt.outcome = Outcome::Repeated;
        (receipt.accepted, receipt.quarantined, receipt.remarks) = (0, 0, 0);
        let position = self.writer().await?.log().position(&format!("file:{}", receipt.sha256));
        let since = facts.already_since.as_deref().and_then(parse);
        let since = since.or_else(|| DateTime::from_timestamp_millis(position?.at)).unwrap_or_else(Utc::now);
        let unknown = Earlier { delivery: None, file: None, received_at: since, rows: None };
        let (sha256, this) = (receipt.sha256.clone(), claim.id.clone());
        let same = move |earlier: &Receipt| {
            earlier.sha256 == sha256 && earlier.outcome == Outcome::Accepted && earlier.delivery != this
        };
        let known = self.deliveries(account, same).await?;
        receipt.repeats = Some(known.first().map_or(unknown, |earlier| Earlier {
            delivery: Some(earlier.delivery.clone()),
            file: Some(earlier.file.clone()),
            received_at: earlier.received_at.unwrap_or(since),
            rows: None,
        }));
        Ok(receipt)
    }

    /// The account's own deliveries among those that rows had come in; of others', only the time is told.
    async fn earlier(&self, account: &Account, found: &Found) -> Result<Vec<Earlier>> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        let runs = found.runs().to_vec();
        let has = |receipt: &Receipt, run: &Hit| {
            let ids = receipt.first_id.zip(receipt.last_id);
            ids.is_some_and(|(first, last)| first <= run.first_id && run.last_id <= last)
        };
        let wanted = move |receipt: &Receipt| runs.iter().any(|run| has(receipt, run));
        let deliveries = self.deliveries(account, wanted).await?;
        let earlier = found.runs().iter().map(|run| {
            let known = deliveries.iter().find(|receipt| has(receipt, run));
            Earlier {
                delivery: known.map(|receipt| receipt.delivery.clone()),
                file: known.map(|receipt| receipt.file.clone()),
                received_at: run.received_at,
                rows: Some(run.rows),
            }
        });
        Ok(earlier.collect())
    }

    /// The account's deliveries that are wanted.
    async fn deliveries(
        &self,
        account: &Account,
        wanted: impl Fn(&Receipt) -> bool + Send + 'static,
    ) -> Result<Vec<Receipt>> {
        let (register, account) = (self.register.clone(), account.name.clone());
        blocking(move || {
            let mut found = Vec::new();
            let looked = register.each(&account, |receipt| {
                if wanted(&receipt) {
                    found.push(receipt);
                }
            });
            looked.map_err(|source| Error::Read { name: "the register of deliveries".into(), source })?;
            Ok(found)
        })
        .await
    }

    /// The import's account of a delivery, as the exchange tells it.
    fn receipt(&self, claim: &Claim, facts: &import::Receipt) -> Receipt {
        let begun = Receipt::begun(&claim.id, &claim.account, shown(&claim.name), &facts.log, claim.taken_at);
        Receipt {
            outcome: if facts.refused.is_empty() { Outcome::Accepted } else { Outcome::Refused },
            bytes: facts.bytes,
            sha256: facts.sha256.clone(),
            accepted: facts.accepted,
            quarantined: facts.quarantined,
            remarks: facts.remarks,
            file_remarks: facts.file_remarks.iter().map(Note::from).collect(),
            refused: facts.refused.iter().map(Note::from).collect(),
            ..begun
        }
    }
}

/// Sees the rows go by on behalf of the index, and notes which were refused.
struct Watching {
    rows: Arc<dyn Rows>,
    notes: Mutex<Vec<Note>>,
}

impl Watching {
    fn over(rows: Arc<dyn Rows>) -> Self {
        Watching { rows, notes: Mutex::default() }
    }

    fn notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Rows for Watching {
    fn rows(&self, part: u64, rows: RecordBatch) -> Result<RecordBatch> {
        self.rows.rows(part, rows)
    }

    fn refused(&self, record: &RefusedRecord) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let errors = record.findings.iter().filter(|finding| finding.severity == Severity::Error);
        let room = LISTED_ROWS.saturating_sub(notes.len());
        notes.extend(errors.take(room).map(Note::from));
    }
}
