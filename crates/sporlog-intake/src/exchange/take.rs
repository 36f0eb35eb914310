//! A claimed delivery into the log, and its receipt out.
//!
//! ```text
//! staged ─► out of the inbox ─► decided.json ─► commit ─► decided.json ─► receipts ─► register
//!        ─► the file goes, or is kept aside
//! ```
//!
//! A large file is staged while it settles, or even while it is uploaded: it leaves the inbox only then, and
//! only if it is what was read. Each arrow may be the last one before a kill: see [`claim`](super::claim).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sporlog_ledger::{Advance, Writer, numbers};
use sporlog_record::{Kind, Rules};

use super::answer::{answer, as_json};
use super::claim::{Claim, Stamp, open};
use super::growth::{Behind, Growth};
use super::name::shown;
use super::overlap::{Index, Keys};
use super::receipt::{Note, Outcome, Receipt};
use super::register::Register;
use super::settings::{Account, Settings};
use super::stage::{Ready, Staged};
use super::tree::Home;
use crate::blocking::blocking;
use crate::error::{Error, Result};
use crate::quarantine::{self, Quarantine};
use crate::source::Source;
use crate::writers::Writers;

/// How often it is looked whether a file that was read along has come to the inbox.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A file that was read ahead is waited for so long at most, for others may wait for the log.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a delivery is begun anew at once, because others have appended meanwhile.
const TRIES: usize = 3;

/// Takes claimed deliveries, one at a time.
pub(super) struct Taker {
    pub settings: Arc<Settings>,
    pub root: PathBuf,
    pub writers: Arc<dyn Writers>,
    pub quarantine: Quarantine,
    pub rules: Rules,
    pub register: Register,
    pub index: Arc<Index>,
    /// Set when the program wants to end; a delivery under way is then left for the next start.
    pub stop: Arc<AtomicBool>,
}

/// A delivery on its way.
pub(super) struct Delivery {
    pub claim: Claim,
    /// What has to come before it may be taken out of the inbox: what is read until then is read ahead.
    /// Absent once it has been taken.
    pub waits_for: Option<Wait>,
}

/// What a delivery waits for that is read already.
#[derive(Clone)]
pub(super) enum Wait {
    /// The end of its settling.
    Settling(Instant),
    /// The end of its upload, and of its settling then.
    Growth(Arc<Growth>),
}

/// A receipt that stands, and the keys of the rows that were stored.
type Decided = (Receipt, Option<Keys>);

impl Receipt {
    /// Makes it that of a delivery which was read before it was taken.
    fn of(&mut self, claim: &Claim) {
        (self.delivery, self.taken_at) = (claim.id.clone(), claim.taken_at);
    }
}

impl Taker {
    /// Deals with a delivery, from wherever it was left; `None` if it has gone from the inbox. After an
    /// error it may be tried again.
    pub async fn take(&self, account: &Account, delivery: &mut Delivery) -> Result<Option<Receipt>> {
        let home = self.settings.home(&self.root, account);
        let before = match delivery.waits_for {
            Some(_) => None,
            None => self.decided_before(&delivery.claim).await?,
        };
        let (receipt, keys) = match before {
            Some(receipt) => (receipt, None),
            None => match self.decide(account, delivery).await? {
                Some(decided) => decided,
                None => return Ok(None),
            },
        };
        let (register, claim, told) = (self.register.clone(), delivery.claim.clone(), receipt.clone());
        blocking(move || finish(&home, &register, &claim, &told)).await?;
        // Only now: its supplier need not wait for it, and without it nothing is lost.
        if let Some(keys) = keys {
            self.keep(keys, &receipt).await;
        }
        Ok(Some(receipt))
    }

    /// What was decided before a kill, if it stands.
    async fn decided_before(&self, claim: &Claim) -> Result<Option<Receipt>> {
        let read = claim.clone();
        let Some(mut receipt) = blocking(move || read.decided().map_err(|e| at(&read, e))).await? else {
            return Ok(None);
        };
        if receipt.outcome != Outcome::Accepted || receipt.received_at.is_some() {
            return Ok(Some(receipt));
        }
        // Of the log that it was for then.
        let writer = self.writers.writer(&receipt.log, Kind::Revision).await?;
        let log = writer.log();
        log.refresh().await?;
        let Some(position) = log.position(&claim.position()) else { return Ok(None) };
        receipt.received_at = DateTime::from_timestamp_millis(position.at);
        if let (Ok(first), true) = (u64::try_from(position.version), receipt.accepted > 0) {
            (receipt.first_id, receipt.last_id) = (Some(first), Some(first + receipt.accepted - 1));
            // The rows' own time is that of the beginning, and the position's that of the end.
            if let Ok(row) = log.record(first).await {
                receipt.received_at = DateTime::from_timestamp_micros(numbers(&row)?.1.value(0));
            }
        }
        Ok(Some(receipt))
    }

    async fn decide(&self, account: &Account, delivery: &mut Delivery) -> Result<Option<Decided>> {
        let mut tries = 1;
        loop {
            match self.try_to_decide(account, delivery).await {
                Err(Error::Ledger(failure)) => {
                    use sporlog_ledger::Error::{Fenced, Stopped};
                    match &failure {
                        Stopped { log, .. } if log == quarantine::LOG => self.quarantine.forget().await,
                        Stopped { log, .. } => self.writers.forget(log).await,
                        _ => {}
                    }
                    if tries == TRIES || !matches!(failure, Fenced { .. } | Stopped { .. }) {
                        return Err(failure.into());
                    }
                    tries += 1;
                }
                Err(Error::Overtaken) if tries < TRIES => tries += 1,
                decided => return decided,
            }
        }
    }

    async fn try_to_decide(&self, account: &Account, delivery: &mut Delivery) -> Result<Option<Decided>> {
        let claim = &delivery.claim.clone();
        let path = match &delivery.waits_for {
            None => claim.file(),
            Some(Wait::Settling(_)) => claim.waiting(),
            Some(Wait::Growth(growth)) => {
                self.settings.home(&self.root, account).uploads().join(&growth.uploaded_as)
            }
        };
        let opened = blocking({
            let claim = claim.clone();
            move || match open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                opened => opened.map(Some).map_err(|e| at(&claim, e)),
            }
        });
        let opened = opened.await;
        if delivery.waits_for.is_none() && no_file(claim) {
            return self.refuse_what_is_no_file(claim).await.map(Some);
        }
        let Some((file, mut stamp)) = opened? else { return Ok(None) };
        let file = Arc::new(file);
        let writer = self.writer().await?;
        let waits_for = delivery.waits_for.clone();
        let source = || -> Result<Source> {
            let name = shown(&claim.name);
            let Some(Wait::Growth(growth)) = &waits_for else {
                return Ok(Source::file(&name, file.clone())?.until(self.stop.clone()));
            };
            let (held, quarantine) = (writer.clone(), self.quarantine.clone());
            let waited_for = move || held.is_waited_for() || quarantine.is_waited_for();
            Ok(Source::stream(
                &name,
                Behind::new(file.clone(), growth.clone(), self.stop.clone(), waited_for),
            ))
        };
        let staged = self.stage(account, claim, &source).await?;
        if let Some(Wait::Growth(growth)) = &waits_for {
            if matches!(staged, Staged::Decided(_)) {
                // Before its end, perhaps: it is judged when all of it is there.
                return Ok(None);
            }
            stamp = growth.stamp().filter(|closed| staged.has_read(closed.size)).unwrap_or(stamp);
        }
        let taken = self.taken(delivery, stamp, &staged).await;
        if !matches!(taken, Ok(true)) {
            if let Staged::Ready(ready) = staged {
                ready.prepared.abort().await;
            }
            return taken.map(|_| None);
        }
        // What was read ahead has been taken only now.
        let claim = &delivery.claim.clone();
        match staged {
            Staged::Decided(mut receipt) => {
                receipt.of(claim);
                if receipt.sha256.is_empty() {
                    receipt.bytes = stamp.size;
                    let whole = source()?;
                    receipt.sha256 = blocking(move || whole.digest()).await?;
                }
                receipt.seconds = seconds_since(claim.taken_at);
                self.write_down(claim, &receipt).await?;
                Ok(Some((*receipt, None)))
            }
            Staged::Ready(ready) => {
                let Ready { mut receipt, prepared, keys } = *ready;
                receipt.of(claim);
                self.write_down(claim, &receipt).await?;
                let committed = prepared.commit(vec![(claim.position(), Advance::Once)]).await?;
                if committed.already_since.is_some() {
                    // Somebody else was quicker with the same bytes.
                    receipt = self.repeated(account, claim, committed).await?;
                } else {
                    (receipt.first_id, receipt.last_id) = (committed.first_id, committed.last_id);
                    receipt.received_at = committed.received_at.as_deref().and_then(parse);
                }
                receipt.seconds = seconds_since(claim.taken_at);
                self.write_down(claim, &receipt).await?;
                Ok(Some((receipt, Some(keys))))
            }
        }
    }

    /// Takes the file out of the inbox, if it is still there, when its time has come; what was read of it
    /// has to be what it is now.
    async fn taken(&self, delivery: &mut Delivery, read: Stamp, staged: &Staged) -> Result<bool> {
        if let Some(wait) = delivery.waits_for.clone() {
            if !self.is_complete(wait, staged).await {
                return Ok(false);
            }
            delivery.claim = delivery.claim.anew();
            let taking = delivery.claim.clone();
            let taken = blocking(move || {
                // What has been written to since settles anew.
                let unchanged = std::fs::symlink_metadata(taking.waiting()).ok().and_then(|m| Stamp::of(&m));
                if unchanged != Some(read) {
                    return Ok(false);
                }
                taking.take().map_err(|e| at(&taking, e))
            });
            if !taken.await? {
                return Ok(false);
            }
            delivery.waits_for = None;
        }
        let claim = delivery.claim.clone();
        let now =
            blocking(move || std::fs::symlink_metadata(claim.file()).map_err(|e| at(&claim, e))).await?;
        if Stamp::of(&now) == Some(read) {
            Ok(true)
        } else {
            Err(Error::Unsettled(shown(&delivery.claim.name)))
        }
    }

    /// Waits for the moment in which the file may be taken; it may not come.
    async fn is_complete(&self, wait: Wait, staged: &Staged) -> bool {
        let complete = match wait {
            Wait::Settling(complete) => complete,
            Wait::Growth(growth) => loop {
                if let Some(complete) = growth.complete_at() {
                    break complete;
                }
                if growth.hopeless().is_some() || self.stop.load(Ordering::Acquire) {
                    return false;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            },
        };
        let holds_the_log = matches!(staged, Staged::Ready(_));
        if holds_the_log && complete.saturating_duration_since(Instant::now()) > PATIENCE {
            return false;
        }
        tokio::time::sleep_until(complete.into()).await;
        true
    }

    /// Remembers the rows that were stored. What cannot be is found in the log the next time.
    async fn keep(&self, keys: Keys, receipt: &Receipt) {
        let Some(((first, last), at)) = receipt.first_id.zip(receipt.last_id).zip(receipt.received_at) else {
            return;
        };
        let index = self.index.clone();
        let kept = blocking(move || index.keep(keys, first, last, at)).await;
        if let Err(error) = kept {
            tracing::warn!(%error, "what was delivered is indexed later");
        }
    }

    /// Somebody has put something else in the file's place before it was taken.
    async fn refuse_what_is_no_file(&self, claim: &Claim) -> Result<Decided> {
        let reason = Note::on_file("no-file", "this is a link or something else, and no file");
        let log = &self.settings.log;
        let begun = Receipt::begun(&claim.id, &claim.account, shown(&claim.name), log, claim.taken_at);
        let receipt = Receipt { refused: vec![reason], ..begun };
        self.write_down(claim, &receipt).await?;
        Ok((receipt, None))
    }

    pub(super) async fn writer(&self) -> Result<Writer> {
        Ok(self.writers.writer(&self.settings.log, Kind::Revision).await?)
    }

    async fn write_down(&self, claim: &Claim, receipt: &Receipt) -> Result<()> {
        let (claim, receipt) = (claim.clone(), receipt.clone());
        blocking(move || claim.decide(&receipt).map_err(|e| at(&claim, e))).await
    }
}

/// Tells everybody, and clears away. All of it may be done twice.
fn finish(home: &Home, register: &Register, claim: &Claim, receipt: &Receipt) -> Result<()> {
    let fail = |error| at(claim, error);
    answer(home, claim, receipt).map_err(fail)?;
    register.add(receipt).map_err(fail)?;
    if receipt.outcome == Outcome::Refused {
        claim.keep_aside(&as_json(receipt).map_err(fail)?).map_err(fail)
    } else {
        claim.drop_file().map_err(fail)
    }
}

/// Whether what was taken is something else than a file.
fn no_file(claim: &Claim) -> bool {
    claim.file().symlink_metadata().is_ok_and(|metadata| !metadata.is_file())
}

fn at(claim: &Claim, source: std::io::Error) -> Error {
    Error::Read { name: format!("delivery {}", claim.id), source }
}

/// A time of receipt, as imports tell it.
pub(super) fn parse(time: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(time).ok().map(|time| time.with_timezone(&Utc))
}

fn seconds_since(taken_at: DateTime<Utc>) -> f64 {
    (Utc::now() - taken_at).to_std().unwrap_or_default().as_secs_f64()
}
