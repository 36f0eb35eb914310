//! The keys as a running server has them: read anew when the file changes, without a request
//! waiting for a disk.

use std::collections::HashMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use sporlog_intake::blocking::blocking;
use sporlog_web::access::{KeyRegistry, KeyRing};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use super::{KeyFile, LastUse, open, read_ring};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often it is looked at, at most, because somebody shows a key that is not known.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often it is written down when keys were last used.
const NOTE: Duration = Duration::from_secs(30);

/// The keys as a running server has them, until it is closed or dropped.
pub struct FollowedKeys {
    shared: Arc<Shared>,
    /// When the file was last looked at because of an unknown key.
    renewed: tokio::sync::Mutex<Option<Instant>>,
    following: Mutex<Option<Following>>,
}

/// The task that keeps the keys up to date. It ends when its sender is dropped.
struct Following {
    _until_dropped: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Shared {
    files: KeyFile,
    ring: RwLock<Arc<KeyRing>>,
    /// The file that the keys were read from.
    read: Mutex<Option<Stamp>>,
    /// By the keys' ids, in seconds since 1970.
    used: RwLock<HashMap<String, AtomicI64>>,
    /// Whether any was used since that was last written down.
    unwritten: AtomicBool,
}

/// What tells one state of a file from another: every change makes a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

impl From<Metadata> for Stamp {
    fn from(metadata: Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Stamp { inode: metadata.ino(), modified, length: metadata.len() }
    }
}

impl KeyFile {
    /// Reads the keys in this folder, and from then on keeps them up to date and writes down when
    /// they were last used. A file that is damaged is an error here, and later only a line in the
    /// log: then the keys stay as they were. To be called on a runtime.
    pub fn follow(folder: impl Into<PathBuf>) -> Result<Arc<FollowedKeys>> {
        let shared = Arc::new(Shared {
            files: KeyFile::new(folder),
            ring: RwLock::default(),
            read: Mutex::new(None),
            used: RwLock::default(),
            unwritten: AtomicBool::new(false),
        });
        shared.look()?;
        let (until_dropped, dropped) = oneshot::channel();
        let task = tokio::spawn(Arc::clone(&shared).follow(dropped));
        let following = Following { _until_dropped: until_dropped, task };
        let following = Mutex::new(Some(following));
        Ok(Arc::new(FollowedKeys { shared, renewed: tokio::sync::Mutex::new(None), following }))
    }
}

impl FollowedKeys {
    /// Writes down when keys were last used, and stops following the file.
    pub async fn close(&self) {
        let following = self.following.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Following { _until_dropped: until_dropped, task }) = following {
            drop(until_dropped);
            // It can only have panicked, and then that has been said.
            let _ = task.await;
        }
    }
}

impl Shared {
    async fn follow(self: Arc<Self>, mut dropped: oneshot::Receiver<()>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut noted = Instant::now();
        let mut failing = false;
        loop {
            let stopping = tokio::select! {
                _ = &mut dropped => true,
                _ = ticks.tick() => false,
            };
            let note = stopping || noted.elapsed() >= NOTE;
            if note {
                noted = Instant::now();
            }
            let done = self.off_the_runtime(note).await;
            // Once, and not every second for as long as it lasts.
            if let Err(error) = &done
                && !failing
            {
                let error = format!("{error:#}");
                tracing::error!(error, "the API keys stay as they are: their files cannot be used");
            }
            failing = done.is_err();
            if stopping {
                return;
            }
        }
    }

    async fn off_the_runtime(self: &Arc<Self>, note: bool) -> Result<()> {
        let registry = Arc::clone(self);
        blocking(move || {
            let looked = registry.look();
            let noted = if note { registry.note() } else { Ok(()) };
            looked.and(noted)
        })
        .await
    }

    /// Reads the file if it is another one than before.
    fn look(&self) -> Result<()> {
        let path = self.files.keys();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let file = open(&path)?;
        let stamp = file.as_ref().map(|file| file.metadata().map(Stamp::from)).transpose()?;
        if *read == stamp {
            return Ok(());
        }
        let ring = file.map(|file| read_ring(file, &path)).transpose()?.unwrap_or_default();
        tracing::info!(keys = ring.keys().len(), "read the API keys");
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
        *read = stamp;
        Ok(())
    }

    /// Writes down when keys were last used, if any was.
    fn note(&self) -> Result<()> {
        if !self.unwritten.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let used = self.used.read().unwrap_or_else(PoisonError::into_inner);
        let time = |time: &AtomicI64| DateTime::from_timestamp(time.load(Ordering::Relaxed), 0);
        let uses: LastUse = used.iter().filter_map(|(id, at)| Some((id.clone(), time(at)?))).collect();
        drop(used);
        let noted = self.files.lock().and_then(|locked| locked.add_uses(&uses));
        if noted.is_err() {
            self.unwritten.store(true, Ordering::Relaxed);
        }
        noted
    }
}

impl KeyRegistry for FollowedKeys {
    fn renew(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let asked = Instant::now();
            let mut renewed = self.renewed.lock().await;
            if let Some(last) = *renewed {
                // One look serves all who waited for it.
                if last > asked {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN.saturating_sub(last.elapsed())).await;
            }
            *renewed = Some(Instant::now());
            if let Err(error) = self.shared.off_the_runtime(false).await {
                tracing::debug!(error = format!("{error:#}"), "the API keys could not be looked at");
            }
        })
    }

    fn current(&self) -> Arc<KeyRing> {
        Arc::clone(&self.shared.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn used(&self, id: &str) {
        let now = Utc::now().timestamp();
        {
            let used = self.shared.used.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = used.get(id) {
                // Written once a second at most, however many requests there are: the processors
                // would pass it to and fro.
                if last.load(Ordering::Relaxed) != now {
                    last.store(now, Ordering::Relaxed);
                    self.shared.unwritten.store(true, Ordering::Relaxed);
                }
                return;
            }
        }
        let mut used = self.shared.used.write().unwrap_or_else(PoisonError::into_inner);
        used.entry(id.to_owned()).or_default().store(now, Ordering::Relaxed);
        self.shared.unwritten.store(true, Ordering::Relaxed);
    }
}
