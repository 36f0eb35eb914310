//! All suppliers' inboxes: complete files are taken, one at a time, and each supplier in its turn.
//!
//! One process has the exchange at a time; a lock on its folder sees to that. What an earlier process left
//! half done is finished first. A delivery that cannot be dealt with for a reason that is not its own (a
//! full disk, a log that cannot be written to) stays where it is and is tried again, later and later; the
//! others go on.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use sporlog_record::Rules;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinHandle};

use super::abandoned::give_up;
use super::claim::Claim;
use super::overlap::Index;
use super::receipt::Receipt;
use super::register::Register;
use super::server::Announcer;
use super::settings::{Account, Settings};
use super::settling::{Settling, Waits};
use super::take::{Delivery, Taker};
use super::tree::Home;
use crate::error::{Error, Result};
use crate::quarantine::Quarantine;
use crate::writers::Writers;

/// How often folders are looked at that nobody announces anything about.
const LOOK_EVERY: Duration = Duration::from_secs(1);
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

struct Shared {
    announced: Mutex<Vec<(String, OsString, bool, Instant)>>,
    wake: Notify,
    stop: Arc<AtomicBool>,
    /// Deliveries that cannot be dealt with at the moment.
    stuck: AtomicUsize,
}

impl Announcer for Shared {
    fn closed(&self, account: &str, name: &str, settled: bool) {
        let mut announced = self.announced.lock().unwrap_or_else(PoisonError::into_inner);
        announced.push((account.to_owned(), name.into(), settled, Instant::now()));
        drop(announced);
        self.wake.notify_one();
    }
}

impl Inbox {
    /// Makes the accounts' folders that are not there, and begins.
    pub async fn start(parts: Parts, mode: Mode) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let shared = Arc::new(Shared {
            announced: Mutex::default(),
            wake: Notify::new(),
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
        self.shared.clone()
    }

    /// A look at whether deliveries are dealt with; if not, why.
    pub fn health(&self) -> impl Fn() -> Result<(), String> + Send + Sync + 'static {
        let shared = self.shared.clone();
        let task = self.task.as_ref().map(JoinHandle::abort_handle);
        move || match shared.stuck.load(Ordering::Relaxed) {
            _ if task.as_ref().is_none_or(AbortHandle::is_finished) => {
                Err("deliveries are not attended to any more".to_owned())
            }
            0 => Ok(()),
            count => Err(format!("{count} deliveries cannot be dealt with at the moment")),
        }
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
        self.shared.wake.notify_one();
        self.ended().await
    }
}

/// One supplier's.
struct Corner {
    account: Account,
    home: Home,
    settling: Settling,
}

/// A file whose turn it is.
struct Next {
    corner: usize,
    name: OsString,
    /// When it may be taken out of the inbox, if not now.
    waits_until: Option<Instant>,
}

/// A delivery that is tried, perhaps again.
struct Retry {
    corner: usize,
    delivery: Delivery,
    at: Instant,
    wait: Duration,
}

impl Retry {
    /// A delivery that has been taken out of the inbox, for now.
    fn taken(corner: usize, claim: Claim) -> Self {
        let delivery = Delivery { claim, waits_until: None };
        Retry { corner, delivery, at: Instant::now(), wait: FIRST_RETRY }
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
            corners.push(Corner { account: account.clone(), home, settling: Settling::default() });
        }
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
            tidy_at: Instant::now(),
            _lock: lock,
        })
    }

    async fn run(mut self, mode: Mode) -> Result<()> {
        while !self.stopping() {
            self = blocking(self, Attending::look).await?;
            if let Some(retry) = self.due_retry() {
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
            let nothing = self.retries.is_empty() && self.corners.iter().all(|c| c.settling.len() == 0);
            if mode == Mode::Once && nothing {
                break;
            }
            let pause = self.pause();
            let _ = tokio::time::timeout(pause, self.shared.wake.notified()).await;
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Blocks.
    fn look(&mut self) {
        let announced =
            std::mem::take(&mut *self.shared.announced.lock().unwrap_or_else(PoisonError::into_inner));
        for (account, name, settled, at) in announced {
            if let Some(corner) = self.corners.iter_mut().find(|corner| corner.account.name == account) {
                corner.settling.closed(&name, settled, at);
            }
        }
        for Corner { account, home, settling } in &mut self.corners {
            if let Err(error) = settling.look(&home.inbox(), Instant::now()) {
                tracing::warn!(account = account.name, %error, "the inbox cannot be looked into");
            }
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
            let settling = self.corners.get(corner).map(|corner| &corner.settling);
            if let Some((name, waits_until)) = settling.and_then(|settling| settling.next(self.waits, now)) {
                self.turn = corner + 1;
                return Some(Next { corner, name, waits_until });
            }
        }
        None
    }

    /// Takes the file out of the inbox, unless that has to wait. Blocks.
    fn begin_taking(&mut self, next: Next) -> Option<Retry> {
        let Next { corner, name, waits_until } = next;
        let Corner { account, home, settling } = self.corners.get_mut(corner)?;
        let claim = Claim::plan(home, &account.name, &name);
        if waits_until.is_none() {
            match claim.take() {
                Ok(true) => settling.taken(&name),
                Ok(false) => return None,
                Err(error) => {
                    let file = super::name::shown(&name);
                    tracing::warn!(account = account.name, file, %error, "the file cannot be taken yet");
                    settling.put_off(&name, FIRST_RETRY);
                    return None;
                }
            }
        }
        let delivery = Delivery { claim, waits_until };
        Some(Retry { corner, delivery, at: Instant::now(), wait: FIRST_RETRY })
    }

    async fn take(&mut self, retry: Retry) {
        let Retry { corner, mut delivery, wait, .. } = retry;
        let Some(Corner { account, settling, .. }) = self.corners.get_mut(corner) else { return };
        match self.taker.take(account, &mut delivery).await {
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
                if delivery.waits_until.is_some() {
                    // It still lies in the inbox, and is found there again.
                    settling.put_off(&delivery.claim.name, wait);
                } else {
                    let (at, wait) = (Instant::now() + wait, (2 * wait).min(LAST_RETRY));
                    self.retries.push_back(Retry { corner, delivery, at, wait });
                }
            }
        }
        self.shared.stuck.store(self.retries.len(), Ordering::Relaxed);
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
        let until = next.map_or(LOOK_EVERY, |at| at.saturating_duration_since(Instant::now()));
        until.clamp(Duration::from_millis(5), LOOK_EVERY)
    }
}

/// The exchange's folder, made if need be, for this process alone.
fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let fail = |source| Error::Read { name: path.display().to_string(), source };
    std::fs::create_dir_all(root).map_err(fail)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(fail)?;
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
