//! All suppliers' inboxes: complete files are claimed and ingested, one at a time, each supplier in turn.
//!
//! One process has the exchange at a time: a lock on its folder sees to that. Claims that an earlier process
//! left are ingested first.
//!
//! | module | idea |
//! |---|---|
//! | `events` | what the SFTP server tells the inbox |
//! | `inbox_loop` | the loop: scan, claim, ingest, and try again what failed |
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
mod inbox_loop;
mod ingest;
mod receipts;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use sporlog_intake::Result;
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::writers::Writers;
use sporlog_record::Rules;
use tokio::task::{AbortHandle, JoinHandle, spawn_blocking};

pub use self::events::{ClosedFile, InboxEvents};
use self::inbox_loop::InboxLoop;
use super::receipt::Receipt;
use super::settings::LiveSettings;

/// What [`Inbox::start`] needs.
pub struct InboxConfig {
    /// The settings of the exchange.
    pub settings: LiveSettings,
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
