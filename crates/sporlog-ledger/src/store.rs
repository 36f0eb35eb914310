//! A store: a place with logs in it, and the keys to them.

use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use sporlog_record::Kind;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::files::FileCache;
use crate::keys::LogKeys;
use crate::log::{Log, Shared};
use crate::sequencer::now_micros;
use crate::storage::Storage;
use crate::table::Table;
use crate::tlog::tlog_name;
use crate::writer::{Writer, WriterOptions};

/// The folder of the logs within the store.
const LOGS: &str = "logs";
/// The folder of the keys within a store on a local disk, unless configured otherwise.
const KEYS: &str = "keys";

/// How long another process is given to write a log's keys.
const MOMENT: Duration = Duration::from_millis(100);

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
}

/// An opened store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    storage: Storage,
    keys: Option<PathBuf>,
    origin: Option<String>,
    clock: Clock,
}

impl Store {
    /// Opens the store.
    pub fn open(options: StoreOptions) -> Result<Self> {
        let storage = Storage::open(&options.address, options.create)?;
        let keys = options.keys.or_else(|| storage.directory().map(|dir| dir.join(KEYS)));
        Ok(Store { storage, keys, origin: options.origin, clock: options.clock })
    }

    /// The store's address.
    pub fn url(&self) -> &str {
        self.storage.url().as_str()
    }

    /// The names of the logs that there are, in order. One of them may be being made at this
    /// moment, so that it cannot be opened yet.
    pub async fn names(&self) -> Result<Vec<String>> {
        let mut names = self.storage.folder(LOGS)?.folders().await?;
        names.retain(|name| is_log_name(name));
        names.sort();
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

    /// A log, for reading.
    pub async fn log(&self, name: &str) -> Result<Log> {
        let no_such_log = || Error::NoSuchLog(name.to_owned());
        if !is_log_name(name) {
            return Err(no_such_log());
        }
        let storage = self.storage.folder(&format!("{LOGS}/{name}"))?;
        if storage.directory().is_some_and(|dir| !dir.is_dir()) {
            return Err(no_such_log());
        }
        let table = Table::new(storage.clone())?;
        let kind = table.kind().await?.ok_or_else(no_such_log)?;
        let keys = self.load_keys(name).ok();
        let vkey = match &keys {
            Some(keys) => keys.vkey().to_owned(),
            None => {
                let key = storage.get(&tlog_name("key")).await?;
                String::from_utf8_lossy(&key).trim().to_owned()
            }
        };
        let (state, positions) = table.load(&vkey).await?;
        let shared = Shared {
            name: name.into(),
            kind,
            vkey,
            storage,
            table,
            state: watch::channel(Arc::new(state)).0,
            positions: RwLock::new(positions),
            files: FileCache::default(),
            checkpointing: Arc::default(),
            keys: keys.map(Arc::new),
            clock: self.clock,
        };
        Ok(Log { shared: Arc::new(shared) })
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
        Writer::start(log, options).await
    }

    async fn create(&self, name: &str, kind: Kind) -> Result<Log> {
        if !is_log_name(name) {
            return Err(Error::LogName(name.to_owned()));
        }
        let dir = self.keys_dir(name)?;
        let keys = match LogKeys::load(dir, name) {
            Ok(keys) => keys,
            Err(_) => {
                let origin = match &self.origin {
                    Some(origin) => format!("{origin}/{name}"),
                    None => {
                        format!("sporlog.invalid/{}/{name}", &uuid::Uuid::new_v4().simple().to_string()[..12])
                    }
                };
                match LogKeys::generate(dir, name, &origin) {
                    Ok(keys) => keys,
                    // Another process may be making the same log at this moment.
                    Err(error) => {
                        tokio::time::sleep(MOMENT).await;
                        LogKeys::load(dir, name).map_err(|_| error)?
                    }
                }
            }
        };
        let storage = self.storage.folder(&format!("{LOGS}/{name}"))?;
        storage.put(&tlog_name("key"), format!("{}\n", keys.vkey()).into()).await?;
        Table::new(storage)?.create(name, kind, keys.origin(), now_micros() / 1_000).await?;
        self.log(name).await
    }

    fn load_keys(&self, name: &str) -> Result<LogKeys> {
        LogKeys::load(self.keys_dir(name)?, name)
    }

    fn keys_dir(&self, name: &str) -> Result<&PathBuf> {
        self.keys.as_ref().ok_or_else(|| Error::Keys {
            log: name.to_owned(),
            place: "nowhere".into(),
            reason: "a store that is no local folder needs `keys` to be configured".into(),
        })
    }
}

/// 1 to 64 lower-case letters, digits, `-` and `_`, beginning with a letter.
pub fn is_log_name(name: &str) -> bool {
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    name.len() <= 64 && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase()) && name.bytes().all(rest)
}
