//! One claimed delivery, from the file to its receipts.
//!
//! ```text
//! claim ─► stage and compare ─► decide ─► commit ─► receipts ─► register ─► the file goes, or is kept aside
//! ```
//!
//! [`Ingest::attempt`] has these steps in this order, and says at each what a crash there leaves. Whoever runs
//! next calls [`Ingest::ingest`] for every claim that is left; nothing else has to clean up.
//!
//! Promise: the rows of a delivery go into the log once or not at all, and each delivery has one receipt.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use sporlog_ledger::{Advance, Writer, numbers};
use sporlog_record::{Kind, Rules};

use super::InboxConfig;
use super::claim::{Claim, ClaimedFile, Stamp};
use super::earlier;
use super::receipts::{as_json, write_receipts};
use crate::name::shown;
use crate::receipt::{Note, Outcome, Receipt};
use crate::register::Register;
use crate::settings::{Account, Settings};
use crate::tree::Home;
use sporlog_intake::blocking::blocking;
use sporlog_intake::delivery::{Options, damage};
use sporlog_intake::import::{self, Preparation, Prepared, file_position, prepare};
use sporlog_intake::quarantine;
use sporlog_intake::source::Source;
use sporlog_intake::{Error, Result};

/// How often a delivery is attempted at once when other writers to its log got in the way.
const ATTEMPTS: usize = 3;

/// Takes claimed deliveries into the log. One delivery at a time: staging holds the log.
pub(super) struct Ingest {
    pub config: InboxConfig,
    /// The settings that the inbox has taken up.
    pub settings: Arc<Settings>,
    pub register: Register,
    /// Set when the program is to end. Reading a file then fails, and its claim is left for the next start.
    pub stop: Arc<AtomicBool>,
}

/// What is to be done about a delivery: its receipt, and the rows to be committed, for which other appends to the log
/// wait; `None` if the file is refused, or was stored before. Nothing of it is visible yet.
type Decision = (Receipt, Option<Prepared>);

impl Ingest {
    /// Takes a claimed delivery in, from wherever an earlier attempt or a crash left it. `None`: somebody has
    /// removed the claimed file. After an error the same claim can be tried again.
    pub async fn ingest(&self, account: &Account, claim: &Claim) -> Result<Option<Receipt>> {
        let mut attempts = 1;
        loop {
            let ended = self.attempt(account, claim).await;
            let Err(error) = &ended else { return ended };
            if !self.may_succeed_at_once(error).await || attempts == ATTEMPTS {
                return ended;
            }
            attempts += 1;
        }
    }

    /// The steps of a delivery, in order.
    async fn attempt(&self, account: &Account, claim: &Claim) -> Result<Option<Receipt>> {
        // A decision that was written down before a crash, and a commit that the log has, are not made again.
        if let Some(receipt) = self.decided_before(claim).await? {
            self.publish(account, claim, &receipt).await?;
            return Ok(Some(receipt));
        }

        // Stage and compare. A crash here leaves the claimed file without a decision, and the next start
        // begins anew. The staged files are in no version of the table; the log's compaction removes them.
        let read = claim.clone();
        let (mut receipt, staged) = match blocking(move || read.open().map_err(|e| at(&read, e))).await? {
            ClaimedFile::Missing => return Ok(None),
            ClaimedFile::NotRegular => (self.refused_as_no_file(claim), None),
            ClaimedFile::Regular(file, stamp) => {
                let decision = self.stage_and_compare(account, claim, Arc::new(file)).await?;
                // Whoever still writes to the file has not delivered all of it: it is read again later.
                let checked = claim.clone();
                blocking(move || check_unchanged(&checked, stamp)).await?;
                decision
            }
        };

        // Decide. A crash after this leaves the claimed file and `decided.json`. If that says accepted and has
        // no time of receipt, the log knows whether the commit came about (`decided_before`).
        receipt.seconds = seconds_since(claim.taken_at);
        self.write_decision(claim, &receipt).await?;

        // Commit: refused rows into the quarantine first, and then the log. Each commit is atomic. A crash in
        // between leaves the refused rows in the quarantine, which recognises the file when it comes again. The
        // log's commit moves the position named after the delivery, by which the next start tells a commit that
        // came about from one that did not.
        if let Some(prepared) = staged {
            let committed = prepared.commit(vec![(claim.position(), Advance::Once)]).await?;
            if committed.already_since.is_some() {
                // The same bytes were committed by another writer since they were compared.
                receipt = self.repeated(account, claim, &committed).await?;
            } else {
                (receipt.first_id, receipt.last_id) = (committed.first_id, committed.last_id);
                receipt.received_at = committed.received_at;
            }
            receipt.seconds = seconds_since(claim.taken_at);
            self.write_decision(claim, &receipt).await?;
        }

        // Receipts, register, and the file's end. A crash here leaves the final `decided.json`, from which the
        // next start does all of it again; each part may be done twice.
        self.publish(account, claim, &receipt).await?;

        Ok(Some(receipt))
    }

    /// The decision that was written down before a crash, if it stands.
    async fn decided_before(&self, claim: &Claim) -> Result<Option<Receipt>> {
        let read = claim.clone();
        let decided = blocking(move || read.decision().map_err(|e| at(&read, e))).await?;
        let Some(mut receipt) = decided else { return Ok(None) };
        if receipt.outcome != Outcome::Accepted || receipt.received_at.is_some() {
            return Ok(Some(receipt));
        }
        // The log of the receipt: the configuration may name another one by now.
        let writer = self.config.writers.writer(&receipt.log, Kind::Revision).await?;
        let log = writer.log();
        log.refresh().await?;
        let Some(position) = log.position(&claim.position()) else { return Ok(None) };
        receipt.received_at = DateTime::from_timestamp_millis(position.at);
        if let (Ok(first), true) = (u64::try_from(position.version), receipt.accepted > 0) {
            (receipt.first_id, receipt.last_id) = (Some(first), Some(first + receipt.accepted - 1));
            // The position has the time of the commit. The rows' time of receipt is when staging began.
            if let Ok(row) = log.record(first).await {
                receipt.received_at = DateTime::from_timestamp_micros(numbers(&row)?.1.value(0));
            }
        }
        Ok(Some(receipt))
    }

    /// Stages the file's rows and compares them with what the log has. A damaged compressed file is refused.
    async fn stage_and_compare(&self, account: &Account, claim: &Claim, file: Arc<File>) -> Result<Decision> {
        let writer = self.writer().await?;
        let now = chrono::Local::now().naive_local();
        let rules = Rules { now, ..account.rules(&self.config.rules, &self.settings.limits) };
        let source = Source::file(&shown(&claim.name), file.clone())?.until(self.stop.clone());
        let begun = import::Receipt::begun(&source, Kind::Revision, &self.settings.log);
        let overlap = self.settings.overlap_policy();
        let delivery = Some(claim.id.clone());
        let options = Options { overlap, delivery, ..Options::new(Kind::Revision, rules) };
        let prepared = match prepare(&writer, &self.config.quarantine, source, options, |_| ()).await {
            Err(Error::Read { source, .. })
                if !self.stop.load(Ordering::Acquire)
                    && let Some(damage) = damage(&source) =>
            {
                Preparation::Refused(import::Receipt { refused: vec![damage], ..begun })
            }
            prepared => prepared?,
        };
        let prepared = match prepared {
            Preparation::Ready(prepared) => prepared,
            Preparation::Refused(import) => {
                let receipt = receipt_of(claim, &import);
                return Ok((with_digest(receipt, file).await?, None));
            }
        };
        if writer.log().position(&file_position(&prepared.receipt().sha256)).is_some() {
            let import = prepared.receipt().clone();
            prepared.abort().await;
            return Ok((self.repeated(account, claim, &import).await?, None));
        }
        let mut receipt = receipt_of(claim, prepared.receipt());
        receipt.overlaps = earlier::overlapped(&self.register, account, prepared.received_before()).await?;
        Ok((receipt, Some(prepared)))
    }

    /// The receipt of a file whose bytes are in the log since before.
    async fn repeated(&self, account: &Account, claim: &Claim, import: &import::Receipt) -> Result<Receipt> {
        let mut receipt = receipt_of(claim, import);
        receipt.outcome = Outcome::Repeated;
        (receipt.accepted, receipt.quarantined, receipt.remarks) = (0, 0, 0);
        receipt.quarantined_rows.clear();
        receipt.remarked_rows.clear();
        let position = self.writer().await?.log().position(&file_position(&receipt.sha256));
        let since = import
            .already_since
            .or_else(|| DateTime::from_timestamp_millis(position?.at))
            .unwrap_or_else(Utc::now);
        let repeats = earlier::with_digest(&self.register, account, claim, &receipt.sha256, since).await?;
        receipt.repeats = Some(repeats);
        Ok(receipt)
    }

    /// The receipt of a claim whose file was replaced by a link, a folder or the like before it was claimed.
    fn refused_as_no_file(&self, claim: &Claim) -> Receipt {
        let reason = Note::on_file("no-file", "this is a link or something else, and no file");
        Receipt { refused: vec![reason], ..begun(claim, &self.settings.log) }
    }

    /// Writes down what is decided; durable when this returns.
    async fn write_decision(&self, claim: &Claim, receipt: &Receipt) -> Result<()> {
        let (claim, receipt) = (claim.clone(), receipt.clone());
        blocking(move || claim.write_decision(&receipt).map_err(|e| at(&claim, e))).await
    }

    /// Writes the receipts and the line in the register, and then removes the file or keeps it aside.
    async fn publish(&self, account: &Account, claim: &Claim, receipt: &Receipt) -> Result<()> {
        let home = Home::of(&self.config.root, account);
        let (register, claim, receipt) = (self.register.clone(), claim.clone(), receipt.clone());
        let publish = move |claim: &Claim| {
            write_receipts(&home, claim, &receipt)?;
            register.add(&receipt)?;
            match receipt.outcome {
                Outcome::Refused => claim.keep_aside(&as_json(&receipt)?),
                Outcome::Accepted | Outcome::Repeated => claim.remove_file(),
            }
        };
        blocking(move || publish(&claim).map_err(|e| at(&claim, e))).await
    }

    /// Whether another attempt at once may succeed after this error: other writers got in the way. A writer that
    /// has stopped is dropped, so that the next attempt opens another.
    async fn may_succeed_at_once(&self, error: &Error) -> bool {
        use sporlog_ledger::Error::{Fenced, Stopped};
        match error {
            Error::Overtaken(_) | Error::Ledger(Fenced { .. }) => true,
            Error::Ledger(Stopped { log, .. }) => {
                if log == quarantine::LOG {
                    self.config.quarantine.forget().await;
                } else {
                    self.config.writers.forget(log).await;
                }
                true
            }
            _ => false,
        }
    }

    async fn writer(&self) -> Result<Writer> {
        Ok(self.config.writers.writer(&self.settings.log, Kind::Revision).await?)
    }
}

/// The receipt of a delivery about which nothing is known but its claim.
fn begun(claim: &Claim, log: &str) -> Receipt {
    Receipt::begun(&claim.id, &claim.account, shown(&claim.name), log, claim.taken_at)
}

/// What an import came to, as the receipt of a delivery.
fn receipt_of(claim: &Claim, import: &import::Receipt) -> Receipt {
    begun(claim, &import.log).of_import(import)
}

/// The receipt of a file that was not read to its end, with the size and the digest of all of it.
async fn with_digest(receipt: Receipt, file: Arc<File>) -> Result<Receipt> {
    blocking(move || {
        let source = Source::file(&receipt.file, file)?;
        Ok(Receipt { bytes: source.size().unwrap_or_default(), sha256: source.digest()?, ..receipt })
    })
    .await
}

/// Fails if the claimed file is not what it was when it was opened. Blocks.
fn check_unchanged(claim: &Claim, opened: Stamp) -> Result<()> {
    let now = std::fs::symlink_metadata(claim.file()).map_err(|e| at(claim, e))?;
    if Stamp::of(&now) == Some(opened) { Ok(()) } else { Err(Error::Unsettled(shown(&claim.name))) }
}

fn at(claim: &Claim, source: std::io::Error) -> Error {
    Error::Read { name: format!("delivery {}", claim.id), source }
}

fn seconds_since(taken_at: DateTime<Utc>) -> f64 {
    (Utc::now() - taken_at).to_std().unwrap_or_default().as_secs_f64()
}
