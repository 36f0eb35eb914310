//! All suppliers' inboxes: complete files are claimed and ingested, one at a time, each supplier in turn.
//!
//! ```text
//! scan the inboxes ─► claim the next complete file (one rename) ─► ingest: into the log, receipts out
//!        ▲                     or take up a claim that is due again                 │
//!        └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! One process has the exchange at a time: a lock on its folder sees to that. Claims that an earlier process
//! left are ingested first. A delivery that fails for a reason outside itself (a full disk, a log that cannot
//! be written to) keeps its claim and is tried again, later each time; other deliveries go on.
//!
//! | module | idea |
//! |---|---|
//! | `events` | what the SFTP server tells the inbox |
//! | `detect` | which files are complete |
//! | `claim` | a delivery that was moved out of the inbox, and what a crash leaves of it |
//! | `ingest` | a claimed delivery into the log, and its receipts out |
//! | `earlier` | which earlier deliveries a receipt names |
//! | `receipts` | the receipts in the supplier's folder |
//! | `abandoned` | uploads that were cut off and never resumed |

mod abandoned;
mod claim;
mod detect;
mod earlier;
mod events;
mod ingest;
mod receipts;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sporlog_record::Rules;
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};

use self::abandoned::claim_abandoned;
use self::claim::Claim;
use self::detect::{Detector, SettleTimes};
pub use self::events::{ClosedFile, InboxEvents};
use self::ingest::Ingest;
use super::name::shown;
use super::receipt::Receipt;
use super::register::Register;
use super::settings::{Account, Settings};
use super::tree::Home;
use sporlog_intake::durable::{make_folder, private_file};
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::writers::Writers;
use sporlog_intake::{Error, Result};

/// The inboxes are scanned at least so often, also when no server reports anything.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// No more files are claimed from a supplier of whom so many claims have failed.
const MAX_FAILED: usize = 50;
/// How often abandoned uploads are looked for.
const TIDY_EVERY: Duration = Duration::from_hours(1);
/// A delivery that failed is tried again after this long, and after twice as long each time …
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// … up to this.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What [`Inbox::start`] needs.
pub struct InboxConfig {
    /// The settings of the exchange.
    pub settings: Settings,
    /// The exchange's folder.
    pub root: PathBuf,
    /// Opens the log's writer.
    pub writers: Arc<dyn Writers>,
    /// Where refused rows go.
    pub quarantine: Quarantine,
    /// How rows are judged.
    pub rules: Rules,
    /// Called with the receipt of each delivery, once it is written.
    pub on_receipt: Arc<dyn Fn(&Receipt) + Send + Sync>,
}

/// When the inbox ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Never.
    Forever,
    /// When no file waits any more, and every claim is ingested or has failed.
    Once,
}

/// The task that takes deliveries from all inboxes.
pub struct Inbox {
    shared: Arc<Shared>,
    /// `None` once the task has ended and its result was handed out.
    task: Option<JoinHandle<Result<()>>>,
}

/// What the handle and the task share.
#[derive(Default)]
struct Shared {
    events: Arc<InboxEvents>,
    stop: Arc<AtomicBool>,
    /// Deliveries that failed when they were tried last.
    stuck: AtomicUsize,
}

impl Inbox {
    /// Makes the accounts' folders that are missing, and starts the task.
    pub async fn start(config: InboxConfig, mode: Mode) -> Result<Self> {
        let shared = Arc::<Shared>::default();
        let begin = {
            let shared = shared.clone();
            move || InboxLoop::begin(config, shared)
        };
        let task = tokio::spawn(spawn_blocking(begin).await??.run(mode));
        Ok(Inbox { shared, task: Some(task) })
    }

    /// Where the SFTP server reports the files that it has closed.
    pub fn events(&self) -> Arc<InboxEvents> {
        self.shared.events.clone()
    }

    /// A check of whether deliveries are taken at all. Deliveries that fail at the moment are no reason to
    /// turn others away: [`stuck`](Inbox::stuck) counts them.
    pub fn health(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let task = self.task.as_ref().map(JoinHandle::abort_handle);
        move || {
            if task.as_ref().is_none_or(AbortHandle::is_finished) {
                return Err("the task that takes deliveries has ended".to_owned());
            }
            Ok(())
        }
    }

    /// How many deliveries failed when they were tried last. They are tried again.
    pub fn stuck(&self) -> usize {
        self.shared.stuck.load(Ordering::Relaxed)
    }

    /// Waits until the task ends by itself: in [`Mode::Once`], or because it failed.
    pub async fn ended(&mut self) -> Result<()> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let ended = task.await;
        self.task = None;
        ended?
    }

    /// Ends the task. A delivery that is being read keeps its claim for the next start; one that is being
    /// committed is finished.
    pub async fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.events.wake();
        self.ended().await
    }
}

/// One supplier's inbox.
struct SupplierInbox {
    account: Account,
    home: Home,
    detector: Detector,
    /// How many files a scan takes in, at most.
    max_files: usize,
    /// The last scan failed, and that was logged.
    has_failed: bool,
}

/// A claimed delivery that is to be ingested, for the first time or again.
struct Pending {
    /// The supplier's index in [`InboxLoop::inboxes`].
    inbox: usize,
    claim: Claim,
    /// When the next attempt is due, and how long to wait after that one.
    at: Instant,
    wait: Duration,
    has_failed: bool,
}

impl Pending {
    fn new(inbox: usize, claim: Claim) -> Self {
        Pending { inbox, claim, at: Instant::now(), wait: FIRST_RETRY, has_failed: false }
    }
}

/// The task's state. Nothing of it has to survive a crash: `begin` finds claims and files on disk.
struct InboxLoop {
    ingest: Ingest,
    inboxes: Vec<SupplierInbox>,
    settle: SettleTimes,
    pending: VecDeque<Pending>,
    on_receipt: Arc<dyn Fn(&Receipt) + Send + Sync>,
    shared: Arc<Shared>,
    /// The supplier whose turn it is.
    turn: usize,
    /// Whether a pending claim comes before a new file this time.
    pending_first: bool,
    /// When abandoned uploads are looked for next.
    tidy_at: Instant,
    /// Released when this is dropped.
    _lock: File,
}

impl InboxLoop {
    /// Takes the lock, makes folders, and finds the claims that an earlier process left. Blocks.
    fn begin(config: InboxConfig, shared: Arc<Shared>) -> Result<Self> {
        let InboxConfig { settings, root, writers, quarantine, rules, on_receipt } = config;
        let lock = lock(&root)?;
        let settle = SettleTimes { closed: settings.settle(true), unchanged: settings.settle(false) };
        let (mut inboxes, mut pending) = (Vec::new(), VecDeque::new());
        for account in &settings.accounts {
            let home = settings.home(&root, account);
            let fail = |source| Error::Read { name: home.path().display().to_string(), source };
            // Also a municipality's: under another SFTP server it cannot sign in without its folders.
            home.create(account.role).map_err(fail)?;
            if !account.is_supplier() {
                continue;
            }
            let claims = Claim::left_over(&home, &account.name).map_err(fail)?;
            pending.extend(claims.into_iter().map(|claim| Pending::new(inboxes.len(), claim)));
            let max_files = account.limits(&settings.limits).files.max(1);
            let (account, detector) = (account.clone(), Detector::default());
            inboxes.push(SupplierInbox { account, home, detector, max_files, has_failed: false });
        }
        warn_of_orphaned_claims(&root, &inboxes);
        let ingest = Ingest {
            register: Register::new(&root),
            settings: Arc::new(settings),
            root,
            writers,
            quarantine,
            rules,
            stop: shared.stop.clone(),
        };
        Ok(InboxLoop {
            ingest,
            inboxes,
            settle,
            pending,
            on_receipt,
            shared,
            turn: 0,
            pending_first: false,
            tidy_at: Instant::now(),
            _lock: lock,
        })
    }

    async fn run(mut self, mode: Mode) -> Result<()> {
        while !self.shared.stop.load(Ordering::Acquire) {
            let next;
            (self, next) = spawn_blocking(move || {
                let next = self.next();
                (self, next)
            })
            .await?;
            if let Some(pending) = next {
                self.ingest(pending).await;
            } else if mode == Mode::Once && self.is_idle() {
                break;
            } else {
                self.shared.events.wait(self.pause()).await;
            }
        }
        Ok(())
    }

    /// The claim that is to be ingested next. Blocks.
    fn next(&mut self) -> Option<Pending> {
        self.scan();
        // In turns: claims that fail again and again must not keep new files waiting, nor new files those.
        self.pending_first = !self.pending_first;
        if self.pending_first {
            self.next_pending().or_else(|| self.claim_next())
        } else {
            self.claim_next().or_else(|| self.next_pending())
        }
    }

    /// Reads all inboxes' folders. Blocks.
    fn scan(&mut self) {
        for file in self.shared.events.take_closed() {
            if let Some(inbox) = self.inboxes.iter_mut().find(|inbox| inbox.account.name == file.account) {
                inbox.detector.file_closed(file);
            }
        }
        for SupplierInbox { account, home, detector, max_files, has_failed } in &mut self.inboxes {
            let scanned = detector.scan(&home.inbox(), *max_files, Instant::now());
            if let (Err(error), false) = (&scanned, *has_failed) {
                tracing::warn!(account = account.name, %error, "the supplier's inbox cannot be read; tried again each second");
            }
            *has_failed = scanned.is_err();
        }
        if self.tidy_at <= Instant::now() {
            self.tidy_at = Instant::now() + TIDY_EVERY;
            self.claim_abandoned();
        }
    }

    /// Claims uploads that were cut off and never resumed. Blocks.
    fn claim_abandoned(&mut self) {
        for (inbox, SupplierInbox { account, home, .. }) in self.inboxes.iter().enumerate() {
            match claim_abandoned(home, &account.name, &self.ingest.settings.log) {
                Ok(claims) => self.pending.extend(claims.into_iter().map(|claim| Pending::new(inbox, claim))),
                Err(error) => {
                    tracing::warn!(account = account.name, %error, "the folder of uploads cannot be read; tried again in an hour");
                }
            }
        }
    }

    /// Claims the next complete file, of the supplier whose turn it is or of the next one that has any. Blocks.
    fn claim_next(&mut self) -> Option<Pending> {
        let (now, count) = (Instant::now(), self.inboxes.len());
        for step in 0..count {
            let index = (self.turn + step) % count;
            if self.pending.iter().filter(|pending| pending.inbox == index && pending.has_failed).count()
                >= MAX_FAILED
            {
                continue;
            }
            let SupplierInbox { account, home, detector, .. } = self.inboxes.get_mut(index)?;
            while let Some(name) = detector.next_complete(self.settle, now) {
                let claim = Claim::plan(home, &account.name, &name);
                match claim.take() {
                    Ok(taken) => {
                        detector.forget(&name);
                        if taken {
                            self.turn = index + 1;
                            return Some(Pending::new(index, claim));
                        }
                    }
                    Err(error) => {
                        if detector.postpone(&name, FIRST_RETRY, LAST_RETRY) {
                            let file = shown(&name);
                            tracing::warn!(account = account.name, file, %error, "the file cannot be moved out of the inbox; it is tried again");
                        }
                    }
                }
            }
        }
        None
    }

    fn next_pending(&mut self) -> Option<Pending> {
        let now = Instant::now();
        let due = self.pending.iter().position(|pending| pending.at <= now)?;
        self.pending.remove(due)
    }

    async fn ingest(&mut self, pending: Pending) {
        let Some(SupplierInbox { account, .. }) = self.inboxes.get(pending.inbox) else { return };
        let Pending { claim, wait, .. } = &pending;
        let (account_name, delivery) = (&account.name, &claim.id);
        match self.ingest.ingest(account, claim).await {
            Ok(Some(receipt)) => {
                tracing::info!(
                    account = receipt.account,
                    delivery = receipt.delivery,
                    outcome = ?receipt.outcome,
                    accepted = receipt.accepted,
                    quarantined = receipt.quarantined,
                    skipped = receipt.skipped,
                    bytes = receipt.bytes,
                    seconds = receipt.seconds,
                    "a delivery has been dealt with"
                );
                (self.on_receipt)(&receipt);
            }
            Ok(None) => {
                tracing::warn!(
                    account = account_name,
                    delivery,
                    "the claimed file is not there any more; the delivery is dropped"
                );
            }
            Err(_) if self.shared.stop.load(Ordering::Acquire) => {
                tracing::info!(account = account_name, delivery, "the delivery is left for the next start");
            }
            Err(error) => {
                let seconds = wait.as_secs();
                tracing::error!(account = account_name, delivery, %error, "the delivery failed; it is tried again in {seconds} seconds");
                let (at, wait) = (Instant::now() + *wait, (2 * *wait).min(LAST_RETRY));
                self.pending.push_back(Pending { at, wait, has_failed: true, ..pending });
            }
        }
        let failed = self.pending.iter().filter(|pending| pending.has_failed).count();
        let stuck = failed + self.inboxes.iter().map(|inbox| inbox.detector.postponed()).sum::<usize>();
        self.shared.stuck.store(stuck, Ordering::Relaxed);
        metrics::gauge!("sporlog_deliveries_stuck").set(stuck as f64);
    }

    /// Whether nothing is left but what has failed.
    fn is_idle(&self) -> bool {
        self.inboxes.iter().all(|inbox| inbox.detector.len() == inbox.detector.postponed())
            && self.pending.iter().all(|pending| pending.has_failed)
    }

    /// How long nothing will be due, as far as is known.
    fn pause(&self) -> Duration {
        let files = self.inboxes.iter().filter_map(|inbox| inbox.detector.next_complete_at(self.settle));
        let next = files.chain(self.pending.iter().map(|pending| pending.at)).min();
        let until = next.map_or(SCAN_EVERY, |at| at.saturating_duration_since(Instant::now()));
        until.clamp(Duration::from_millis(5), SCAN_EVERY)
    }
}

/// Logs which accounts have claims and are not suppliers any more: their claims are not ingested.
fn warn_of_orphaned_claims(root: &Path, inboxes: &[SupplierInbox]) {
    let Ok(entries) = std::fs::read_dir(root.join("accounts")) else { return };
    for entry in entries.flatten() {
        let home = Home::new(entry.path());
        let is_known = inboxes.iter().any(|inbox| inbox.home == home);
        let has_claims = std::fs::read_dir(home.taken()).is_ok_and(|mut taken| taken.next().is_some());
        if !is_known && has_claims {
            let (account, folder) = (shown(&entry.file_name()), home.taken());
            tracing::warn!(
                account,
                folder = %folder.display(),
                "the account is no supplier in [sftp] any more, and has unfinished deliveries: they wait until it is one again"
            );
        }
    }
}

/// Locks the exchange's folder, which is made if it is missing, for this process alone.
fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let fail = |source| Error::Read { name: path.display().to_string(), source };
    make_folder(root).map_err(fail)?;
    let file = private_file().truncate(false).open(&path).map_err(fail)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Held(root.to_owned())),
        locked => locked.map(|()| file).map_err(|errno| fail(errno.into())),
    }
}
