//! A claimed delivery into the log, and its receipt out.
//!
//! ```text
//! read, judge, stage ─► the same bytes? ─► rows that came before? ─► decided.json ─► commit
//!       ─► decided.json ─► receipts ─► register ─► the file goes, or is kept aside
//! ```
//!
//! Each arrow may be the last one before a kill: see [`claim`](super::claim).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use chrono::{DateTime, Utc};
use sporlog_ledger::{Advance, Log, Writer, numbers};
use sporlog_record::{Kind, Position, Rules, Severity};

use super::answer::{answer, as_json};
use super::claim::{Claim, Stamp, open};
use super::growth::{Behind, Growth};
use super::name::shown;
use super::overlap::{Found, Gatherer, Hit, Index, Keys};
use super::receipt::{Earlier, LISTED_ROWS, Note, Outcome, Receipt};
use super::register::Register;
use super::settings::{Account, Overlap, Settings};
use super::tree::Home;
use crate::blocking::blocking;
use crate::delivery::{Options, RefusedRecord};
use crate::error::{Error, Result};
use crate::import::{self, Preparation, Prepared, Rows, prepare};
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

/// What a delivery came to before anything of it is visible.
enum Staged {
    /// Nothing is to be stored.
    Decided(Box<Receipt>),
    /// Its rows are staged.
    Ready(Box<Ready>),
}

impl Receipt {
    /// Makes it that of a delivery which was read before it was taken.
    fn of(&mut self, claim: &Claim) {
        (self.delivery, self.taken_at) = (claim.id.clone(), claim.taken_at);
    }
}

impl Staged {
    /// Whether so many bytes have been read and staged.
    fn has_read(&self, bytes: u64) -> bool {
        match self {
            Staged::Decided(_) => false,
            Staged::Ready(ready) => ready.receipt.bytes == bytes,
        }
    }

    fn decided(receipt: Receipt) -> Self {
        Staged::Decided(Box::new(receipt))
    }
}

/// A delivery whose rows are staged.
struct Ready {
    receipt: Receipt,
    prepared: Prepared,
    keys: Keys,
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
            let held = writer.clone();
            let waited_for = move || held.is_waited_for();
            Ok(Source::stream(
                &name,
                Behind::new(file.clone(), growth.clone(), self.stop.clone(), waited_for),
            ))
        };
        let staged = self.stage(account, claim, &source).await?;
        if let Some(Wait::Growth(_)) = &waits_for {
            if matches!(staged, Staged::Decided(_)) {
                // Before its end, perhaps: it is judged when all of it is there.
                return Ok(None);
            }
            let now = file.metadata().map_err(|e| at(claim, e))?;
            stamp = Stamp::of(&now).filter(|now| staged.has_read(now.size)).unwrap_or(stamp);
        }
        let taken = self.taken(delivery, stamp).await;
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
    async fn taken(&self, delivery: &mut Delivery, read: Stamp) -> Result<bool> {
        if let Some(wait) = delivery.waits_for.clone() {
            if !self.is_complete(wait).await {
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
    async fn is_complete(&self, wait: Wait) -> bool {
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
        // The log is held meanwhile.
        if complete.saturating_duration_since(Instant::now()) > PATIENCE {
            return false;
        }
        tokio::time::sleep_until(complete.into()).await;
        true
    }

    /// Reads the file and stages its rows; what has been there before is found out on the way.
    async fn stage(
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
        let name = source.name().to_owned();
        let begun = import::Receipt::begun(&source, Kind::Revision, &self.settings.log);
        let options = Options::new(Kind::Revision, rules);
        match prepare(writer, &self.quarantine, source, options, rows, |_| ()).await {
            // What decoders say of a file, and no disk does.
            Err(Error::Read { source, .. })
                if source.raw_os_error().is_none() && !self.stop.load(Ordering::Acquire) =>
            {
                tracing::info!(file = %name.escape_debug(), "a compressed file is damaged");
                let refused = sporlog_record::Finding {
                    severity: Severity::Error,
                    field: "".into(),
                    rule: "compression",
                    text: "the compressed file is damaged or cut off".into(),
                    position: Position { line: 1, column: 1 },
                };
                Ok(Preparation::Refused(import::Receipt { refused: vec![refused], ..begun }))
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

    /// The receipt of a file whose bytes have been there before.
    async fn repeated(&self, account: &Account, claim: &Claim, facts: import::Receipt) -> Result<Receipt> {
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

    /// Somebody has put something else in the file's place before it was taken.
    async fn refuse_what_is_no_file(&self, claim: &Claim) -> Result<Decided> {
        let reason = Note {
            line: 1,
            column: 1,
            field: String::new(),
            rule: "no-file".to_owned(),
            text: "this is a link or something else, and no file".to_owned(),
        };
        let log = &self.settings.log;
        let begun = Receipt::begun(&claim.id, &claim.account, shown(&claim.name), log, claim.taken_at);
        let receipt = Receipt { refused: vec![reason], ..begun };
        self.write_down(claim, &receipt).await?;
        Ok((receipt, None))
    }

    async fn writer(&self) -> Result<Writer> {
        Ok(self.writers.writer(&self.settings.log, Kind::Revision).await?)
    }

    async fn write_down(&self, claim: &Claim, receipt: &Receipt) -> Result<()> {
        let (claim, receipt) = (claim.clone(), receipt.clone());
        blocking(move || claim.decide(&receipt).map_err(|e| at(&claim, e))).await
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

/// Whether what was taken is something else than a file.
fn no_file(claim: &Claim) -> bool {
    claim.file().symlink_metadata().is_ok_and(|metadata| !metadata.is_file())
}

fn at(claim: &Claim, source: std::io::Error) -> Error {
    Error::Read { name: format!("delivery {}", claim.id), source }
}

fn parse(time: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(time).ok().map(|time| time.with_timezone(&Utc))
}

fn seconds_since(taken_at: DateTime<Utc>) -> f64 {
    (Utc::now() - taken_at).to_std().unwrap_or_default().as_secs_f64()
}
