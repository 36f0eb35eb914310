//! All suppliers' inboxes: complete files are taken, one at a time, and each supplier in its turn.
//!
//! One process has the exchange at a time; a lock on its folder sees to that. What an earlier process left
//! half done is finished first. A delivery that cannot be dealt with for a reason that is not its own (a
//! full disk, a log that cannot be written to) stays where it is and is tried again, later and later; the
//! others go on.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sporlog_record::Rules;
use tokio::task::{AbortHandle, JoinHandle};

use super::abandoned::give_up;
use super::announced::{Announced, Closed};
use super::claim::Claim;
use super::growth::Growth;
use super::overlap::Index;
use super::receipt::Receipt;
use super::register::Register;
use super::server::Announcer;
use super::settings::{Account, Settings};
use super::settling::{Settling, Waits};
use super::take::{Delivery, Taker, Wait};
use super::tree::Home;
use crate::durable::{make_folder, private_file};
use crate::error::{Error, Result};
use crate::quarantine::Quarantine;
use crate::writers::Writers;

/// How often folders are looked at that nobody announces anything about.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often uploads that are under way are looked at.
const LOOK_AT_UPLOADS_EVERY: Duration = Duration::from_millis(100);
/// Of an account with so many deliveries that have failed, no more are taken.
const MOST_FAILED: usize = 50;
/// How often abandoned uploads are looked for.
const TIDY_EVERY: Duration = Duration::from_hours(1);
/// When a delivery that failed is tried again: after this long, and twice as long each time …
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// … up to this.
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What the inbox works with.
pub struct Parts {
    /// The settings of the exchange.
    pub settings: Settings,
    /// Its folder.
    pub root: PathBuf,
    /// Where the log's writer comes from.
    pub writers: Arc<dyn Writers>,
    /// Where refused rows go.
    pub quarantine: Quarantine,
    /// How rows are judged.
    pub rules: Rules,
    /// Is told of each receipt.
    pub told: Arc<dyn Fn(&Receipt) + Send + Sync>,
}

/// How long the inbox is attended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Until it is stopped.
    Forever,
    /// Until nothing waits in it any more.
    Once,
}

/// The inboxes, attended to.
pub struct Inbox {
    shared: Arc<Shared>,
    /// Until it has ended and that has been noticed.
    task: Option<JoinHandle<Result<()>>>,
}

/// What is known of the inboxes outside, and asked of them.
struct Shared {
    announced: Arc<Announced>,
    stop: Arc<AtomicBool>,
    /// Deliveries that cannot be dealt with at the moment.
    stuck: AtomicUsize,
}

impl Inbox {
    /// Makes the accounts' folders that are not there, and begins.
    pub async fn start(parts: Parts, mode: Mode) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            announced: Arc::new(Announced::new(parts.settings.settle(true))),
            stop: stop.clone(),
            stuck: AtomicUsize::new(0),
        });
        let attending = tokio::task::spawn_blocking({
            let shared = shared.clone();
            move || Attending::begin(parts, shared)
        });
        let attending = attending.await.map_err(|e| Error::Internal(e.to_string()))??;
        let task = Some(tokio::spawn(attending.run(mode)));
        Ok(Inbox { shared, task })
    }

    /// To whom files are announced that our server has seen closed.
    pub fn announcer(&self) -> Arc<dyn Announcer> {
        self.shared.announced.clone()
    }

    /// A look at whether deliveries are attended to at all. That some cannot be dealt with at the moment is
    /// no reason to turn others away: a gauge tells it.
    pub fn health(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let task = self.task.as_ref().map(JoinHandle::abort_handle);
        move || {
            if task.as_ref().is_none_or(AbortHandle::is_finished) {
                return Err("deliveries are not attended to any more".to_owned());
            }
            Ok(())
        }
    }

    /// How many deliveries could not be dealt with when they were tried; they are tried again.
    pub fn stuck(&self) -> usize {
        self.shared.stuck.load(Ordering::Relaxed)
    }

    /// Waits until it ends by itself: in [`Mode::Once`], or because it failed.
    pub async fn ended(&mut self) -> Result<()> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let ended = task.await;
        self.task = None;
        ended.map_err(|e| Error::Internal(e.to_string()))?
    }

    /// Ends it. A delivery that is being read is left for the next start; one that is being committed is
    /// brought to its end.
    pub async fn stop(mut self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.announced.wake();
        self.ended().await
    }
}

/// One supplier's.
struct Corner {
    account: Account,
    home: Home,
    settling: Settling,
    /// Files that are looked at together, at most.
    most: usize,
    /// It could not be looked into the last time.
    is_blind: bool,
}

/// A file whose turn it is.
struct Next {
    corner: usize,
    name: OsString,
    /// What it waits for in the inbox, if it may not be taken yet.
    waits_for: Option<Wait>,
}

/// A delivery that is tried, perhaps again.
struct Retry {
    corner: usize,
    delivery: Delivery,
    at: Instant,
    wait: Duration,
    has_failed: bool,
}

impl Retry {
    /// The first try, now.
    fn now(corner: usize, delivery: Delivery) -> Self {
        Retry { corner, delivery, at: Instant::now(), wait: FIRST_RETRY, has_failed: false }
    }

    /// That of a delivery that has been taken out of the inbox.
    fn taken(corner: usize, claim: Claim) -> Self {
        Retry::now(corner, Delivery { claim, waits_for: None })
    }
}

struct Attending {
    taker: Taker,
    corners: Vec<Corner>,
    waits: Waits,
    retries: VecDeque<Retry>,
    told: Arc<dyn Fn(&Receipt) + Send + Sync>,
    shared: Arc<Shared>,
    /// Whose turn it is.
    turn: usize,
    /// Whether a delivery that has failed is tried before a new one is taken.
    retry_first: bool,
    /// When abandoned uploads are looked for next.
    tidy_at: Instant,
    /// Released when this is dropped.
    _lock: File,
}

impl Attending {
    /// Blocks.
    fn begin(parts: Parts, shared: Arc<Shared>) -> Result<Self> {
        let Parts { settings, root, writers, quarantine, rules, told } = parts;
        let lock = lock(&root)?;
        let waits = Waits { closed: settings.settle(true), watched: settings.settle(false) };
        let index = root.join("overlap").join(&settings.log);
        let index = Arc::new(Index::open(&index, settings.overlap_days)?);
        let (mut corners, mut retries) = (Vec::new(), VecDeque::new());
        for account in &settings.accounts {
            let home = settings.home(&root, account);
            let fail = |source| Error::Read { name: home.path().display().to_string(), source };
            // Also the municipalities': under another server they cannot sign in without their folders.
            home.create(account.role).map_err(fail)?;
            if !account.is_supplier() {
                continue;
            }
            let left_over = Claim::left_over(&home, &account.name).map_err(fail)?;
            let corner = corners.len();
            retries.extend(left_over.into_iter().map(|claim| Retry::taken(corner, claim)));
            let most = account.limits(&settings.limits).files.max(1);
            let (account, settling) = (account.clone(), Settling::default());
            corners.push(Corner { account, home, settling, most, is_blind: false });
        }
        forgotten(&root, &corners);
        let taker = Taker {
            register: Register::new(&root),
            settings: Arc::new(settings),
            root,
            writers,
            quarantine,
            rules,
            index,
            stop: shared.stop.clone(),
        };
        Ok(Attending {
            taker,
            corners,
            waits,
            retries,
            told,
            shared,
            turn: 0,
            retry_first: false,
            tidy_at: Instant::now(),
            _lock: lock,
        })
    }

    async fn run(mut self, mode: Mode) -> Result<()> {
        while !self.stopping() {
            self = blocking(self, Attending::look).await?;
            // In turns: what fails again and again must not keep others waiting.
            self.retry_first = !self.retry_first;
            let retry_first = self.retry_first;
            if retry_first && let Some(retry) = self.due_retry() {
                self.take(retry).await;
                continue;
            }
            if let Some(next) = self.next() {
                let begun;
                (self, begun) = blocking_with(self, move |attending| attending.begin_taking(next)).await?;
                if let Some(begun) = begun {
                    self.take(begun).await;
                }
                continue;
            }
            if let Some(retry) = self.due_retry() {
                self.take(retry).await;
                continue;
            }
            let waits = |corner: &Corner| corner.settling.len() > corner.settling.stuck();
            let is_idle = !self.corners.iter().any(waits);
            if is_idle
                && self.retries.is_empty()
                && let Some(growth) = self.shared.announced.worth_reading()
            {
                self.read_along(growth).await;
                continue;
            }
            let nothing = is_idle && self.retries.iter().all(|retry| retry.has_failed);
            if mode == Mode::Once && nothing {
                break;
            }
            let pause = self.pause();
            self.shared.announced.wait(pause).await;
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Blocks.
    fn look(&mut self) {
        for Closed { account, name, settled, at } in self.shared.announced.closed() {
            if let Some(corner) = self.corners.iter_mut().find(|corner| corner.account.name == account) {
                corner.settling.closed(&name, settled, at);
            }
        }
        for Corner { account, home, settling, most, is_blind } in &mut self.corners {
            let looked = settling.look(&home.inbox(), *most, Instant::now());
            if let (Err(error), false) = (&looked, *is_blind) {
                tracing::warn!(account = account.name, %error, "the inbox cannot be looked into");
            }
            *is_blind = looked.is_err();
        }
        if self.tidy_at <= Instant::now() {
            self.tidy_at = Instant::now() + TIDY_EVERY;
            self.tidy();
        }
    }

    /// Blocks.
    fn tidy(&mut self) {
        for (corner, Corner { account, home, .. }) in self.corners.iter().enumerate() {
            match give_up(home, &account.name, &self.taker.settings.log) {
                Ok(claims) => {
                    self.retries.extend(claims.into_iter().map(|claim| Retry::taken(corner, claim)))
                }
                Err(error) => {
                    tracing::warn!(account = account.name, %error, "abandoned uploads cannot be seen to");
                }
            }
        }
    }

    /// The next complete file, of the supplier whose turn it is or of the next one that has any.
    fn next(&mut self) -> Option<Next> {
        let (now, count) = (Instant::now(), self.corners.len());
        for step in 0..count {
            let corner = (self.turn + step) % count;
            let failed =
                self.retries.iter().filter(|retry| retry.corner == corner && retry.has_failed).count();
            let settling =
                self.corners.get(corner).map(|corner| &corner.settling).filter(|_| failed < MOST_FAILED);
            if let Some((name, waits_until)) = settling.and_then(|settling| settling.next(self.waits, now)) {
                self.turn = corner + 1;
                return Some(Next { corner, name, waits_for: waits_until.map(Wait::Settling) });
            }
        }
        None
    }

    /// Takes the file out of the inbox, unless that has to wait. Blocks.
    fn begin_taking(&mut self, next: Next) -> Option<Retry> {
        let Next { corner, name, waits_for } = next;
        let Corner { account, home, settling, .. } = self.corners.get_mut(corner)?;
        let claim = Claim::plan(home, &account.name, &name);
        if waits_for.is_none() {
            match claim.take() {
                Ok(true) => settling.taken(&name),
                Ok(false) => return None,
                Err(error) => {
                    let file = super::name::shown(&name);
                    if settling.put_off(&name, FIRST_RETRY, LAST_RETRY) {
                        tracing::warn!(account = account.name, file, %error, "the file cannot be taken yet");
                    }
                    return None;
                }
            }
        }
        Some(Retry::now(corner, Delivery { claim, waits_for }))
    }

    async fn take(&mut self, mut retry: Retry) {
        let Some(Corner { account, .. }) = self.corners.get(retry.corner) else { return };
        let taken = self.taker.take(account, &mut retry.delivery).await;
        self.conclude(retry, taken);
    }

    /// What has become of a try.
    fn conclude(&mut self, retry: Retry, taken: Result<Option<Receipt>>) {
        let Retry { corner, delivery, wait, .. } = retry;
        let Some(Corner { account, settling, .. }) = self.corners.get_mut(corner) else { return };
        match taken {
            Ok(None) => {}
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
                (self.told)(&receipt);
            }
            Err(_) if self.shared.stop.load(Ordering::Acquire) => {
                let (account, delivery) = (&account.name, &delivery.claim.id);
                tracing::info!(account, delivery, "the delivery is left for the next start");
            }
            Err(error) => {
                let (account, id) = (&account.name, &delivery.claim.id);
                tracing::error!(account, delivery = id, %error, "a delivery cannot be dealt with yet; it is tried again");
                if delivery.waits_for.is_some() {
                    // It still lies in the inbox, and is found there again.
                    settling.put_off(&delivery.claim.name, wait, LAST_RETRY);
                } else {
                    let (at, wait) = (Instant::now() + wait, (2 * wait).min(LAST_RETRY));
                    self.retries.push_back(Retry { corner, delivery, at, wait, has_failed: true });
                }
            }
        }
        let failed = self.retries.iter().filter(|retry| retry.has_failed).count();
        let stuck = failed + self.corners.iter().map(|corner| corner.settling.stuck()).sum::<usize>();
        self.shared.stuck.store(stuck, Ordering::Relaxed);
        metrics::gauge!("sporlog_deliveries_stuck").set(stuck as f64);
    }

    /// Takes a delivery that is still coming. If that does not work out, nothing has happened.
    async fn read_along(&mut self, growth: Arc<Growth>) {
        let of_it = |corner: &Corner| corner.account.name == growth.account;
        let corner = self.corners.iter().position(of_it);
        let Some((corner, Corner { account, home, .. })) =
            corner.and_then(|at| Some((at, self.corners.get(at)?)))
        else {
            return growth.give_up();
        };
        growth.read();
        if self.shared.announced.has_closed() {
            return growth.give_up();
        }
        let claim = Claim::plan(home, &account.name, &growth.name());
        let mut delivery = Delivery { claim, waits_for: Some(Wait::Growth(growth.clone())) };
        let taken = self.taker.take(account, &mut delivery).await;
        growth.give_up();
        match taken {
            Ok(None) => tracing::debug!(account = account.name, "an upload was not read along to its end"),
            Err(error) if delivery.waits_for.is_some() => {
                tracing::debug!(account = account.name, %error, "an upload was not read along to its end");
            }
            taken => self.conclude(Retry::now(corner, delivery), taken),
        }
    }

    fn due_retry(&mut self) -> Option<Retry> {
        let now = Instant::now();
        let due = self.retries.iter().position(|retry| retry.at <= now)?;
        self.retries.remove(due)
    }

    /// Until something may be due.
    fn pause(&self) -> Duration {
        let files = self.corners.iter().filter_map(|corner| corner.settling.next_at(self.waits));
        let next = files.chain(self.retries.iter().map(|retry| retry.at)).min();
        let look_every = if self.shared.announced.has_uploads() { LOOK_AT_UPLOADS_EVERY } else { LOOK_EVERY };
        let until = next.map_or(look_every, |at| at.saturating_duration_since(Instant::now()));
        until.clamp(Duration::from_millis(5), look_every)
    }
}

/// Says which accounts are not suppliers any more and have deliveries that are half done.
fn forgotten(root: &Path, corners: &[Corner]) {
    let Ok(entries) = std::fs::read_dir(root.join("accounts")) else { return };
    for entry in entries.flatten() {
        let home = Home::new(entry.path());
        let is_known = corners.iter().any(|corner| corner.home == home);
        let has_some = std::fs::read_dir(home.taken()).is_ok_and(|mut taken| taken.next().is_some());
        if !is_known && has_some {
            let account = super::name::shown(&entry.file_name());
            tracing::warn!(account, "it is no supplier any more, and deliveries of it are half done");
        }
    }
}

/// The exchange's folder, made if need be, for this process alone.
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

/// Runs work on a thread that may wait for disks.
async fn blocking(attending: Attending, work: fn(&mut Attending)) -> Result<Attending> {
    blocking_with(attending, work).await.map(|(attending, ())| attending)
}

async fn blocking_with<T: Send + 'static>(
    mut attending: Attending,
    work: impl FnOnce(&mut Attending) -> T + Send + 'static,
) -> Result<(Attending, T)> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut attending);
        (attending, result)
    });
    done.await.map_err(|e| Error::Internal(e.to_string()))
}
