//! The loop over all suppliers' inboxes.
//!
//! ```text
//! scan the inboxes ─► claim the next complete file (one rename) ─► ingest: into the log, receipts out
//!        ▲                     or take up a claim that is due again                 │
//!        └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A delivery that fails for a reason outside itself (a full disk, a log that cannot be written to) keeps its claim and is
//! tried again, later each time; other deliveries go on.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sporlog_intake::{Error, Result};
use sporlog_ledger::local_files::{make_folder, private_file};
use tokio::task::spawn_blocking;

use super::abandoned::claim_abandoned;
use super::claim::Claim;
use super::detect::{Detector, SettleTimes};
use super::ingest::Ingest;
use super::{InboxConfig, Mode, Shared};
use crate::name::shown;
use crate::register::Register;
use crate::settings::{Account, Settings};
use crate::tree::Home;

/// The inboxes are scanned at least so often, also when no server reports anything.
const SCAN_EVERY: Duration = Duration::from_secs(1);
/// No more files are claimed from a supplier of whom so many claims have failed.
const MAX_FAILED: usize = 50;
/// How often abandoned uploads are looked for.
const TIDY_EVERY: Duration = Duration::from_hours(1);
/// A file that could not be claimed is tried again after this long.
const RECLAIM: Duration = Duration::from_secs(10);
/// A delivery that failed is tried again after this long, and after twice as long each time …
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// … up to this.
const LAST_RETRY: Duration = Duration::from_secs(60);

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
    claim: Claim,
    /// When the next attempt is due, and how long to wait after that one.
    at: Instant,
    wait: Duration,
    has_failed: bool,
}

impl Pending {
    fn new(claim: Claim) -> Self {
        Pending { claim, at: Instant::now(), wait: FIRST_RETRY, has_failed: false }
    }
}

/// The task's state. Nothing of it has to survive a crash: `begin` finds claims and files on disk.
pub(super) struct InboxLoop {
    ingest: Ingest,
    inboxes: Vec<SupplierInbox>,
    settle: SettleTimes,
    pending: VecDeque<Pending>,
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
    pub(super) fn begin(config: InboxConfig, shared: Arc<Shared>) -> Result<Self> {
        let lock = lock(&config.root)?;
        let now = config.settings.now();
        let settle = SettleTimes { closed: now.settle(true), unchanged: now.settle(false) };
        let (register, stop) = (Register::new(&config.root), shared.stop.clone());
        let ingest = Ingest { config, settings: now.clone(), register, stop };
        let mut begun = InboxLoop {
            ingest,
            inboxes: Vec::new(),
            settle,
            pending: VecDeque::new(),
            shared,
            turn: 0,
            pending_first: false,
            tidy_at: Instant::now(),
            _lock: lock,
        };
        begun.adopt(now)?;
        Ok(begun)
    }

    /// Makes the accounts' folders, and takes up the suppliers of `settings`: of those that were there already, all that
    /// is known stays; of new ones, the claims that an earlier process left are found. Claims of suppliers that are gone
    /// wait on disk. Blocks. On an error, nothing has changed.
    fn adopt(&mut self, settings: Arc<Settings>) -> Result<()> {
        let (mut inboxes, mut claimed) = (Vec::new(), Vec::new());
        for account in &settings.accounts {
            let home = Home::of(&self.ingest.config.root, account);
            let fail = |source| Error::Read { name: home.path().display().to_string(), source };
            // Also a municipality's: under another SFTP server it cannot sign in without its folders.
            home.create(account.role).map_err(fail)?;
            if !account.is_supplier() {
                continue;
            }
            if !self.inboxes.iter().any(|inbox| inbox.home == home) {
                claimed.extend(Claim::left_over(&home, &account.name).map_err(fail)?);
            }
            let max_files = account.limits(&settings.limits).files.max(1);
            let (account, detector) = (account.clone(), Detector::default());
            inboxes.push(SupplierInbox { account, home, detector, max_files, has_failed: false });
        }
        for inbox in &mut inboxes {
            if let Some(before) = self.inboxes.iter_mut().find(|before| before.home == inbox.home) {
                std::mem::swap(&mut inbox.detector, &mut before.detector);
            }
        }
        self.pending.retain(|pending| inboxes.iter().any(|inbox| inbox.home == pending.claim.home));
        self.pending.extend(claimed.into_iter().map(Pending::new));
        self.inboxes = inboxes;
        self.ingest.settings = settings;
        warn_of_orphaned_claims(&self.ingest.config.root, &self.inboxes);
        Ok(())
    }

    pub(super) async fn run(mut self, mode: Mode) -> Result<()> {
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
        let settings = self.ingest.config.settings.now();
        if !Arc::ptr_eq(&settings, &self.ingest.settings)
            && let Err(error) = self.adopt(settings.clone())
        {
            tracing::error!(%error, "the accounts' folders cannot be used; deliveries go on as before");
            // Not again each second: the next change is tried.
            self.ingest.settings = settings;
        }
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
        for SupplierInbox { account, home, .. } in &self.inboxes {
            match claim_abandoned(home, &account.name, &self.ingest.settings.log) {
                Ok(claims) => self.pending.extend(claims.into_iter().map(Pending::new)),
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
            let SupplierInbox { account, home, detector, .. } = self.inboxes.get_mut(index)?;
            let failed =
                self.pending.iter().filter(|pending| pending.has_failed && pending.claim.home == *home);
            if failed.count() >= MAX_FAILED {
                continue;
            }
            while let Some(name) = detector.next_complete(self.settle, now) {
                let claim = Claim::plan(home, &account.name, &name);
                match claim.take() {
                    Ok(taken) => {
                        detector.forget(&name);
                        if taken {
                            self.turn = index + 1;
                            return Some(Pending::new(claim));
                        }
                    }
                    Err(error) => {
                        if detector.postpone(&name, now + RECLAIM) {
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
        let Pending { claim, wait, .. } = &pending;
        let inbox = self.inboxes.iter().find(|inbox| inbox.home == claim.home);
        let Some(SupplierInbox { account, .. }) = inbox else { return };
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
                (self.ingest.config.on_receipt)(&receipt);
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
