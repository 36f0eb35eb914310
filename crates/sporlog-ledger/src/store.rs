//! A store: a place with logs in it, and the keys to them.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use sporlog_record::Kind;
use tokio::sync::watch;

use crate::blocks::{BlockCache, CACHE_BYTES};
use crate::clock::Clock;
use crate::disk_cache::DiskCache;
use crate::error::{Error, Result};
use crate::files::FileCache;
use crate::fitness::{self, Ability};
use crate::high_water_mark::{self, HighWaterMark};
use crate::keys::{LogKeys, PublicKey};
use crate::local_files::check_writable;
use crate::log::{KeySource, Log, Shared};
use crate::sequencer::Sequencer;
use crate::storage::Storage;
use crate::table::{Expected, Table};
use crate::tlog::{read_note, tlog_name, vouched_keys};
use crate::writer::{Writer, WriterOptions};

/// The folder of the logs within the store.
const LOGS: &str = "logs";
/// The folder of the keys within a store on a local disk, unless configured otherwise.
const KEYS: &str = "keys";

/// How a store is opened.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// A path or a URL.
    pub address: String,
    /// Where the keys lie; for a store on a local disk, its folder `keys` by default.
    pub keys: Option<PathBuf>,
    /// What new logs are called to the world: their origin is this, a slash and their name.
    pub origin: Option<String>,
    /// Make the store if it is not there.
    pub create: bool,
    /// What times of receipt are taken from.
    pub clock: Clock,
    /// So many bytes of decoded records are kept for clients that read on; [`CACHE_BYTES`] by default, none if 0.
    pub cache_bytes: Option<usize>,
    /// Parts of a store in a bucket are kept in this folder, at most so many bytes of them.
    pub cache_folder: Option<(PathBuf, u64)>,
}

/// An opened store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    storage: Storage,
    keys: Option<PathBuf>,
    origin: Option<String>,
    clock: Clock,
    blocks: Arc<BlockCache>,
    disk_cache: Option<Arc<DiskCache>>,
}

impl Store {
    /// Opens the store.
    pub fn open(options: StoreOptions) -> Result<Self> {
        let storage = Storage::open(&options.address, options.create)?;
        let keys = options.keys.or_else(|| storage.directory().map(|dir| dir.join(KEYS)));
        let blocks = Arc::new(BlockCache::new(options.cache_bytes.unwrap_or(CACHE_BYTES)));
        let folder = options.cache_folder.filter(|_| storage.directory().is_none());
        let disk_cache = folder.and_then(|(folder, limit)| {
            let opened = DiskCache::open(&folder, limit).map(Arc::new);
            let warn =
                |error: &_| tracing::warn!(%error, folder = %folder.display(), "the cache cannot be used");
            opened.inspect_err(warn).ok()
        });
        Ok(Store { storage, keys, origin: options.origin, clock: options.clock, blocks, disk_cache })
    }

    /// Tries out all that is done in a store, in a folder of its own, which goes again.
    pub async fn check_fitness(&self) -> Vec<Ability> {
        fitness::check(&self.storage, fitness::RACES).await
    }

    /// Refuses a bucket that is not fit for a store, before the first log is made there.
    pub(crate) async fn check_before_first_log(&self) -> Result<()> {
        if self.directory().is_none() && self.storage.folder(LOGS).folders().await?.is_empty() {
            fitness::require(&self.storage).await?;
        }
        Ok(())
    }

    /// The store's folder, if it is one of this machine.
    pub fn directory(&self) -> Option<PathBuf> {
        self.storage.directory()
    }

    /// Fails if nothing can be written into the store's folder at this moment. A store that is not on a disk
    /// of this machine is not tried: there, each attempt would be a request that is paid for.
    pub async fn check_writable(&self) -> Result<()> {
        let Some(folder) = self.directory() else { return Ok(()) };
        let checked = tokio::task::spawn_blocking(move || check_writable(&folder)).await;
        let failed = |source| Error::Io { what: "writing into the store".into(), source };
        checked.map_err(|error| failed(error.into()))?.map_err(failed)
    }

    /// The same store, as it is for whoever does not have its keys.
    pub fn without_keys(&self) -> Store {
        Store { keys: None, ..self.clone() }
    }

    /// The names of the logs that there are, in order, and of those that have been deleted although their
    /// keys have signed something: opening one of these says so. A log may be being made at this moment, so
    /// that it cannot be opened yet.
    pub async fn names(&self) -> Result<Vec<String>> {
        let mut names = self.storage.folder(LOGS).folders().await?;
        names.extend(self.keys.iter().flat_map(|keys| high_water_mark::marked_logs(keys)));
        names.retain(|name| is_log_name(name));
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// The logs that there are, by name.
    pub async fn logs(&self) -> Result<Vec<Log>> {
        let names = self.names().await?;
        let mut logs = Vec::with_capacity(names.len());
        for name in &names {
            match self.log(name).await {
                Ok(log) => logs.push(log),
                // Being made at this moment, or left half-made by a crash.
                Err(Error::NoSuchLog(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(logs)
    }

    /// A log, for reading. Fails if its commits are not those that its key has signed. That key is the one in
    /// the key folder; where the log's keys are not there, it is the log's own copy.
    pub async fn log(&self, name: &str) -> Result<Log> {
        self.load_log(name, None).await
    }

    /// A log, for reading. Fails if its commits are not those that the key `vkey` has signed.
    pub async fn log_with_key(&self, name: &str, vkey: &str) -> Result<Log> {
        self.load_log(name, Some(vkey)).await
    }

    async fn load_log(&self, name: &str, vkey: Option<&str>) -> Result<Log> {
        let (shared, mark) = self.open_log(name, vkey).await?;
        let note = read_note(&shared.storage, &shared.vkey).await?;
        let expected = Expected { key: &shared.key, mark: mark.as_ref(), note: note.as_ref() };
        let (state, sources) = shared.table.load(&expected).await?;
        if let Some(mark) = &mark {
            mark.check_root(&shared.storage, &shared.vkey, &state).await?;
        }
        shared.advance(state, sources);
        Ok(Log { shared: Arc::new(shared) })
    }

    /// A log, for [`Log::verify`] alone, which says all that is wrong with it: nothing but its first commit
    /// has been read, so that it has no records.
    pub async fn log_to_verify(&self, name: &str) -> Result<Log> {
        let (shared, _) = self.open_log(name, None).await?;
        Ok(Log { shared: Arc::new(shared) })
    }

    /// Like [`log_to_verify`](Self::log_to_verify), with `vkey` as the key that counts.
    pub async fn log_to_verify_with_key(&self, name: &str, vkey: &str) -> Result<Log> {
        let (shared, _) = self.open_log(name, Some(vkey)).await?;
        Ok(Log { shared: Arc::new(shared) })
    }

    /// The copy of a log, for [`Log::verify`] alone, with `vkey` as the key that counts and the log's secrets
    /// if they are at hand. How far the log itself has been signed does not matter for a copy.
    pub(crate) async fn copy_to_verify(
        &self,
        name: &str,
        vkey: &str,
        secrets: Option<Arc<LogKeys>>,
    ) -> Result<Log> {
        let (mut shared, _) = self.open_log(name, Some(vkey)).await?;
        shared.keys = secrets.map(|secrets| (secrets, PathBuf::new()));
        Ok(Log { shared: Arc::new(shared) })
    }

    /// A log of which only the first commit has been read, and how far it has been signed.
    pub(crate) async fn open_log(
        &self,
        name: &str,
        given: Option<&str>,
    ) -> Result<(Shared, Option<HighWaterMark>)> {
        let no_such_log = || Error::NoSuchLog(name.to_owned());
        if !is_log_name(name) {
            return Err(no_such_log());
        }
        let storage = self.folder_of(name);
        let table = Table::new(name, storage.clone());
        // Before the keys, which are made before the table.
        let first = table.first().await?;
        let keys = match self.load_keys(name) {
            Err(error @ Error::ExposedKey { .. }) => return Err(error),
            keys => keys.ok(),
        };
        let vouched = match given {
            Some(given) => Some(vouched_keys(&storage, given).await?),
            None => None,
        };
        let newest = |keys: &str| keys.lines().next().unwrap_or_default().to_owned();
        let keys =
            keys.filter(|(keys, _)| vouched.as_deref().is_none_or(|vouched| newest(vouched) == keys.vkey()));
        // The mark before the rest of the table, which moves on and must not be shorter.
        let mark = match &keys {
            Some((_, dir)) => HighWaterMark::load(dir, name)?,
            None => None,
        };
        let (kind, state) = match (first, &mark) {
            (Some(first), _) => first,
            (None, None) => return Err(no_such_log()),
            // Another process may have made the log at this moment.
            (None, Some(mark)) => table.first().await?.ok_or_else(|| Error::RolledBack {
                log: name.to_owned(),
                size: 0,
                signed: mark.size,
            })?,
        };
        let (vkeys, key_source) = match (vouched, &keys) {
            (Some(vouched), _) => (vouched, KeySource::Given),
            (None, Some((keys, _))) => (keys.vkeys(), KeySource::KeyFolder),
            (None, None) => {
                let key = storage.get(&tlog_name("key")).await?;
                (vouched_keys(&storage, String::from_utf8_lossy(&key).trim()).await?, KeySource::LogFolder)
            }
        };
        let key = PublicKey::parse(&vkeys).map_err(|e| Error::damaged(tlog_name("key"), e))?;
        let shared = Shared {
            name: name.into(),
            kind,
            vkey: newest(&vkeys),
            vkeys,
            key,
            key_source,
            storage,
            table,
            state: watch::channel(Arc::new(state)).0,
            positions: RwLock::default(),
            files: FileCache::new(self.disk_cache.clone()),
            blocks: self.blocks.clone(),
            checkpointing: Arc::default(),
            keys: keys.map(|(keys, dir)| (Arc::new(keys), dir)),
            clock: self.clock,
        };
        Ok((shared, mark))
    }

    /// The writer of a log, which is made if it is not there.
    pub async fn writer(&self, name: &str, kind: Kind, options: WriterOptions) -> Result<Writer> {
        let log = match self.log(name).await {
            Ok(log) => log,
            Err(Error::NoSuchLog(_)) => self.create(name, kind).await?,
            Err(error) => return Err(error),
        };
        if log.kind() != kind {
            return Err(Error::WrongKind { log: name.to_owned(), actual: log.kind(), wanted: kind });
        }
        if log.shared.keys.is_none() {
            // Says what is wrong with them.
            self.load_keys(name)?;
        }
        Sequencer::start(log, options).await
    }

    async fn create(&self, name: &str, kind: Kind) -> Result<Log> {
        if !is_log_name(name) {
            return Err(Error::LogName(name.to_owned()));
        }
        let dir = self.keys_dir(name)?;
        self.check_before_first_log().await?;
        let keys = match LogKeys::load(dir, name) {
            Err(Error::Keys { .. }) => {
                let origin = match &self.origin {
                    Some(origin) => format!("{origin}/{name}"),
                    None => {
                        format!("sporlog.invalid/{}/{name}", &uuid::Uuid::new_v4().simple().to_string()[..12])
                    }
                };
                match LogKeys::generate(dir, name, &origin) {
                    // Another process has just made the same log's.
                    Err(Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {
                        LogKeys::load(dir, name)?
                    }
                    keys => keys?,
                }
            }
            keys => keys?,
        };
        let storage = self.folder_of(name);
        storage.put(&tlog_name("key"), format!("{}\n", keys.vkey()).into()).await?;
        Table::new(name, storage).create(&keys, kind, chrono::Utc::now().timestamp_millis()).await?;
        self.log(name).await
    }

    /// The folder of a log.
    pub(crate) fn folder_of(&self, name: &str) -> Storage {
        self.storage.folder(&format!("{LOGS}/{name}"))
    }

    /// The keys of a log, and the folder in which they lie.
    pub(crate) fn load_keys(&self, name: &str) -> Result<(LogKeys, PathBuf)> {
        let dir = self.keys_dir(name)?;
        Ok((LogKeys::load(dir, name)?, dir.clone()))
    }

    fn keys_dir(&self, name: &str) -> Result<&PathBuf> {
        self.keys.as_ref().ok_or_else(|| Error::Keys {
            log: name.to_owned(),
            place: "a known folder".into(),
            reason: "the keys of a store in a bucket lie outside of it: name their folder (--keys, SPORLOG_KEYS, or \
                     keys = … in the configuration)"
                .into(),
        })
    }
}

/// 1 to 64 lower-case letters, digits, `-` and `_`, beginning with a letter.
pub fn is_log_name(name: &str) -> bool {
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    name.len() <= 64 && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && name.bytes().all(rest)
}
