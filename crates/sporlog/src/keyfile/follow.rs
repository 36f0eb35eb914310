//! The keys as a running server has them: read anew when the file changes, without a request
//! waiting for a disk.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Result;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use sporlog_intake::blocking::blocking;
use sporlog_web::access::{KeyRegistry, KeyRing};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{KeyFile, LastUse, Stamp, every_second, stamp};

/// How often the file is looked at, at most, because somebody shows a key that is not known.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// After so many seconds it is written down when keys were last used.
const NOTE: u32 = 30;
const UNUSABLE: &str = "the API keys stay as they are: their files cannot be used";

/// The keys as a running server has them, until it is closed or dropped.
pub struct FollowedKeys {
    shared: Arc<Shared>,
    /// When the file was last looked at because of an unknown key.
    renewed: tokio::sync::Mutex<Option<Instant>>,
    following: JoinHandle<()>,
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
        let files = Arc::clone(&shared);
        let following = tokio::spawn(every_second(UNUSABLE, move |second| {
            let looked = files.look();
            let noted = if second % NOTE == 0 { files.note() } else { Ok(()) };
            looked.and(noted)
        }));
        Ok(Arc::new(FollowedKeys { shared, renewed: tokio::sync::Mutex::new(None), following }))
    }
}

impl FollowedKeys {
    /// Stops following the file, and writes down when keys were last used.
    pub async fn close(&self) {
        self.following.abort();
        let shared = Arc::clone(&self.shared);
        if let Err(error) = blocking(move || shared.note()).await {
            tracing::error!(error = format!("{error:#}"), "{UNUSABLE}");
        }
    }
}

impl Drop for FollowedKeys {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Shared {
    /// Reads the file if it is another one than before.
    fn look(&self) -> Result<()> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.files.keys())?;
        if *read == stamp {
            return Ok(());
        }
        let ring = self.files.ring()?;
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
            let shared = Arc::clone(&self.shared);
            if let Err(error) = blocking(move || shared.look()).await {
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
