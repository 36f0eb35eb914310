//! The registers as a server has them: in memory, read anew when a file changes.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::{NameKind, Names, NamesError, Register};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The registers in a folder.
#[derive(Debug, Default)]
pub struct NamesFiles {
    /// None: no names are known.
    folder: Option<PathBuf>,
    names: RwLock<Names>,
    /// The files that they were read from.
    read: Mutex<[Option<Stamp>; 3]>,
}

/// What tells one state of a file from another: every import makes a new file.
type Stamp = (u64, i64, i64, u64);

impl NamesFiles {
    /// Reads the registers in this folder; those that are not there are empty.
    pub fn open(folder: PathBuf) -> Result<Self, NamesError> {
        let files = NamesFiles { folder: Some(folder), ..NamesFiles::default() };
        files.refresh()?;
        Ok(files)
    }

    /// The names as they are now.
    pub fn current(&self) -> Names {
        self.names.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the registers whose files have changed. Waits for the disk.
    pub fn refresh(&self) -> Result<(), NamesError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, read) in NameKind::ALL.into_iter().zip(&mut *read) {
            let path = kind.path(folder);
            let stamp =
                path.metadata().ok().map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.len()));
            if stamp == *read {
                continue;
            }
            let register = Arc::new(Register::load(&path)?);
            tracing::info!(%kind, names = register.lines.len(), "read a register of names");
            self.names.write().unwrap_or_else(PoisonError::into_inner).registers[kind as usize] = register;
            *read = stamp;
        }
        Ok(())
    }

    /// Keeps up with the files until dropped. Names that cannot be read stay as they were.
    pub async fn follow(self: Arc<Self>) {
        let mut failing = false;
        loop {
            tokio::time::sleep(LOOK).await;
            let files = Arc::clone(&self);
            let refreshed = tokio::task::spawn_blocking(move || files.refresh()).await;
            // Once, and not every time for as long as the failure lasts.
            let failed = match refreshed {
                Ok(Err(error)) => {
                    if !failing {
                        tracing::error!(%error, "the registers of names stay as they were");
                    }
                    true
                }
                _ => false,
            };
            failing = failed;
        }
    }
}
