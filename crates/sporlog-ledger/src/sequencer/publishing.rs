//! When the tree and the table's state are published, and how.
//!
//! A checkpoint follows the records, in the background: appends go on meanwhile. Until then, the tiles that they fill
//! wait in memory. After a crash the next sequencer derives from the records what was not published.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::{LOOK, Sequencer};
use crate::error::{Error, Result};
use crate::tlog::Publisher;
use crate::tree::TileFile;

/// When a checkpoint follows.
struct Pace {
    /// When nothing has come for so long …
    idle: Duration,
    /// … and the last one was so long ago …
    pause: Duration,
    /// … and at the latest after so long.
    delay: Duration,
}

/// On a disk, a checkpoint takes some milliseconds.
const DISK: Pace = Pace {
    idle: Duration::from_millis(5),
    pause: Duration::from_millis(100),
    delay: Duration::from_millis(200),
};
/// In a bucket, a checkpoint is a dozen requests, which take a tenth of a second and are paid for.
const BUCKET: Pace =
    Pace { idle: Duration::from_millis(100), pause: Duration::from_secs(2), delay: Duration::from_secs(4) };
/// Tiles that may wait in memory: those of 128,000 records. With more, appends wait for what is being published; if that
/// fails, nothing more is appended.
const MOST_TILES: usize = 1_024;

/// What is to be published, and what is being published.
pub(super) struct Publishing {
    publisher: Arc<Mutex<Publisher>>,
    /// The publication under way.
    task: Option<JoinHandle<Result<()>>>,
    /// Tiles that have become full since the last one began.
    full: Vec<TileFile>,
    /// Whether others, who may have published them, have filled some of these.
    others: bool,
    /// When the oldest change was made that is to be published yet.
    unpublished: Option<Instant>,
    /// When a publication last began.
    began: Option<Instant>,
}

impl Publishing {
    /// What a crash has left unpublished is to be published.
    pub(super) fn new(publisher: Publisher) -> Self {
        let publisher = Arc::new(Mutex::new(publisher));
        let (full, unpublished) = (Vec::new(), Some(Instant::now()));
        Publishing { publisher, task: None, full, others: false, unpublished, began: None }
    }

    /// There is something to be published.
    pub(super) fn is_needed(&mut self) {
        self.unpublished.get_or_insert_with(Instant::now);
    }
}

impl Sequencer {
    /// How long to wait for a command: then it is time to publish, or to look whether a publication is done. `None` if there is
    /// nothing to publish.
    pub(super) fn until_publish(&self) -> Option<Duration> {
        let Publishing { task, unpublished, began, .. } = &self.publishing;
        if task.is_some() {
            return Some(LOOK);
        }
        unpublished.map(|_| {
            let pause = began.map(|at| self.pace().pause.saturating_sub(at.elapsed()));
            pause.unwrap_or_default().max(self.pace().idle)
        })
    }

    /// Publishes what has waited long enough, in the background.
    pub(super) fn publish_if_due(&mut self) {
        if self.publishing.task.as_ref().is_some_and(JoinHandle::is_finished) {
            self.settle();
        }
        if self.publishing.unpublished.is_some_and(|since| since.elapsed() >= self.pace().delay) {
            self.publish_in_background();
        }
    }

    fn pace(&self) -> &'static Pace {
        if self.shared.table.segments.are_sealed() { &BUCKET } else { &DISK }
    }

    /// Begins to publish, unless something is being published.
    pub(super) fn publish_in_background(&mut self) {
        let Publishing { publisher, task, full, others, unpublished, began } = &mut self.publishing;
        if task.is_some() || self.stopped.is_some() || unpublished.is_none() {
            return;
        }
        (*unpublished, *began) = (None, Some(Instant::now()));
        let (publisher, full, others) = (publisher.clone(), std::mem::take(full), std::mem::take(others));
        let (tree, state, mark) = (self.tree.clone(), self.state.clone(), self.mark.clone());
        let (keys, runtime) = (self.committer.keys.clone(), self.runtime.clone());
        *task = Some(self.runtime.spawn_blocking(move || {
            let mut publisher = lock(&publisher);
            publisher.write_later(full);
            if others {
                runtime.block_on(publisher.leave_out_published(keys.vkey()))?;
            }
            runtime.block_on(publisher.publish(&tree, &state, &keys))?;
            mark.sync()
        }));
    }

    /// Publishes now.
    pub(super) fn publish(&mut self) -> Result<()> {
        self.settle();
        self.publish_in_background();
        self.wait_for_publication()
    }

    fn wait_for_publication(&mut self) -> Result<()> {
        let Some(task) = self.publishing.task.take() else { return Ok(()) };
        let published =
            self.runtime.block_on(task).unwrap_or_else(|e| Err(Error::failed(&self.shared.name, e)));
        published.inspect_err(|error| {
            self.publishing.is_needed();
            if lock(&self.publishing.publisher).waiting() > MOST_TILES {
                self.stop_without_tiles(error);
            }
        })
    }

    /// Waits until nothing is being published any more. What failed is tried again later.
    pub(super) fn settle(&mut self) {
        if let Err(error) = self.wait_for_publication() {
            tracing::error!(log = %self.shared.name, %error, "publishing failed; it is tried again");
        }
    }

    /// The publisher, when nothing is being published any more.
    pub(super) fn publisher(&mut self) -> Arc<Mutex<Publisher>> {
        self.settle();
        self.publishing.publisher.clone()
    }

    /// Others have published: what they have not is derived anew by `publisher`.
    pub(super) fn publish_with(&mut self, publisher: Publisher) {
        *lock(&self.publisher()) = publisher;
        self.publishing.full.clear();
    }

    /// These tiles have become full; they go with the next checkpoint.
    pub(super) fn add_full_tiles(&mut self, full: Vec<TileFile>) {
        self.publishing.full.extend(full);
        if self.publishing.full.len() > MOST_TILES {
            self.settle();
        }
    }

    /// The same of tiles with records of others.
    pub(super) fn add_tiles_of_others(&mut self, full: Vec<TileFile>) {
        self.publishing.others = true;
        self.add_full_tiles(full);
    }

    /// Writes tiles ahead of the checkpoint: there are too many to keep them in memory.
    pub(super) fn write_full_tiles(&mut self, full: Vec<TileFile>) {
        if self.stopped.is_some() {
            return;
        }
        let publisher = self.publisher();
        if let Err(error) = self.runtime.block_on(lock(&publisher).write(full)) {
            self.stop_without_tiles(&error);
        }
    }

    /// The records are committed: failing now would deny what is true. Without their tiles this sequencer cannot go on,
    /// though; the next one derives them.
    pub(super) fn stop_without_tiles(&mut self, error: &Error) {
        tracing::error!(log = %self.shared.name, %error, "tiles could not be written");
        self.stopped = Some(format!("tiles could not be written ({error})"));
    }
}

/// The publisher, also after a publication that panicked: whoever waited for that has the error.
pub(super) fn lock(publisher: &Mutex<Publisher>) -> MutexGuard<'_, Publisher> {
    publisher.lock().unwrap_or_else(PoisonError::into_inner)
}
