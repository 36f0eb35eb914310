//! A log as its readers see it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sporlog_record::Kind;
use tokio::sync::watch;

use crate::blocks::BlockCache;
use crate::clock::Clock;
use crate::commit::Position;
use crate::delta::names_of;
use crate::error::{Error, Result};
use crate::files::FileCache;
use crate::keys::{LogKeys, PublicKey};
use crate::storage::Storage;
use crate::table::{Expected, Table};
use crate::table_state::{Positions, Sources, TableState, forget_old};

/// Where a log's public key was taken from, and so whose word its signatures are checked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// The caller gave it.
    Given,
    /// The log's keys are in the key folder.
    KeyFolder,
    /// The log's own copy, `tlog/key`. Whoever can change the log can change this copy.
    LogFolder,
}

/// What all handles to one log share.
pub(crate) struct Shared {
    pub name: Arc<str>,
    pub kind: Kind,
    /// The public key that signatures are checked with, in the form of C2SP signed-note.
    pub vkey: String,
    /// The same key and those that the log had before, one a line; and parsed.
    pub vkeys: String,
    pub key: PublicKey,
    /// Whose word was taken for that key.
    pub key_source: KeySource,
    /// The log's folder.
    pub storage: Storage,
    pub table: Table,
    /// The newest state; the sequencer moves it on, and readers wait on it.
    pub state: watch::Sender<Arc<TableState>>,
    /// How far each source has been taken in. The sequencer writes it.
    pub positions: RwLock<Sources>,
    pub files: FileCache,
    /// Those of all logs of the store.
    pub blocks: Arc<BlockCache>,
    /// Held by whoever writes a Delta checkpoint, until it has told the sequencer.
    pub checkpointing: Arc<tokio::sync::Mutex<()>>,
    /// The log's secrets, and the folder in which they lie; only where they are at hand.
    pub keys: Option<(Arc<LogKeys>, PathBuf)>,
    /// What times of receipt are taken from.
    pub clock: Clock,
}

/// A log, opened. Cheap to clone.
///
/// A log that is written to in this process moves on by itself; one that is only read stands
/// still until [`refresh`](Log::refresh).
#[derive(Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Log {
    /// The log's name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What its records are.
    pub fn kind(&self) -> Kind {
        self.shared.kind
    }

    /// The public key in the form of C2SP signed-note.
    pub fn vkey(&self) -> &str {
        &self.shared.vkey
    }

    /// Whose word was taken for [`vkey`](Log::vkey).
    pub fn key_source(&self) -> KeySource {
        self.shared.key_source
    }

    /// The newest id, 0 when the log is empty. Answered from memory.
    pub fn head(&self) -> u64 {
        self.shared.state.borrow().size
    }

    /// The oldest id that retention has left; one above [`head`](Log::head) if there is none.
    pub fn first(&self) -> u64 {
        self.shared.state.borrow().first()
    }

    /// A receiver that is woken whenever the log moves on.
    pub fn changes(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.shared.state.subscribe();
        async move {
            let _ = receiver.changed().await;
        }
    }

    /// How far the source `app` has been taken in.
    pub fn position(&self, app: &str) -> Option<Position> {
        self.shared.positions().get(app)
    }

    /// The positions of all sources whose names begin with `prefix`.
    pub fn positions(&self, prefix: &str) -> Vec<(String, Position)> {
        let Sources { table, journal } = &*self.shared.positions();
        let older = table.iter().filter(|(app, _)| !journal.contains_key(*app));
        let named = older.chain(journal).filter(|(app, _)| app.starts_with(prefix));
        named.map(|(app, position)| (app.clone(), *position)).collect()
    }

    /// Takes in what others have appended since.
    pub async fn refresh(&self) -> Result<()> {
        let mut state = TableState::clone(&self.state());
        let expected = Expected::signed_by(&self.shared.key);
        let found = self.shared.table.catch_up(&expected, &mut state).await?;
        self.shared.advance(state, found.sources);
        Ok(())
    }

    pub(crate) fn state(&self) -> Arc<TableState> {
        self.shared.state.borrow().clone()
    }

    pub(crate) fn keys(&self) -> Result<&Arc<LogKeys>> {
        self.shared.keys.as_ref().map(|(keys, _)| keys).ok_or_else(|| self.no_keys())
    }

    /// The folder in which the log's keys lie.
    pub(crate) fn key_folder(&self) -> Result<&Path> {
        self.shared.keys.as_ref().map(|(_, folder)| folder.as_path()).ok_or_else(|| self.no_keys())
    }

    fn no_keys(&self) -> Error {
        Error::Keys {
            log: self.name().to_owned(),
            place: "the key folder".into(),
            reason: "this needs the log's secret".into(),
        }
    }
}

impl Shared {
    /// Shows readers this state, and the positions that have moved since they last saw one; unless they
    /// have seen a newer one. The sequencer and whoever refreshes may come upon the same commits in any
    /// order, and neither may set anything back.
    pub(crate) fn advance(&self, state: TableState, moved: Sources) {
        let mut files_went = false;
        self.state.send_if_modified(|current| {
            let newer = state.is_newer(current);
            if newer {
                let mut positions = self.positions_mut();
                if current.version < state.version {
                    positions.committed(moved.table);
                }
                // When the log has just been opened, files may have gone before.
                files_went = current.version == 0
                    || current.version != state.version && current.files.iter().any(|file| !state.has(file));
                positions.journal.extend(moved.journal);
                *current = Arc::new(state);
            }
            newer
        });
        if files_went {
            self.drop_what_went();
        }
    }

    /// Drops what is kept of files that the table has no more.
    fn drop_what_went(&self) {
        let state = self.state.borrow().clone();
        self.blocks.retain(&self.name, |file| state.has(file));
        if let Some(disk) = &self.files.disk {
            let names = names_of(state.files.iter().map(Arc::as_ref));
            disk.retain(&self.storage.path(""), &names.into_iter().collect());
        }
    }

    pub(crate) fn positions(&self) -> RwLockReadGuard<'_, Sources> {
        self.positions.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn positions_mut(&self) -> RwLockWriteGuard<'_, Sources> {
        self.positions.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The newest state, and the positions that belong to its table.
    pub(crate) fn snapshot(&self) -> (Arc<TableState>, Positions) {
        // Positions change only while the state is changed.
        let state = self.state.borrow();
        (state.clone(), self.positions().table.clone())
    }

    /// Forgets single requests of long ago.
    pub(crate) fn forget_old(&self) {
        forget_old(&mut self.positions_mut().table, chrono::Utc::now().timestamp_millis());
    }
}
