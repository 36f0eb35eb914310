//! A command's surroundings: its configuration, the store, the rules.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use sporlog_intake::access_event;
use sporlog_intake::delivery::{Overlap, OverlapPolicy};
use sporlog_intake::names;
use sporlog_ledger::{Error, Log, Store, StoreOptions, matches};
use sporlog_record::{Kind, Rules};

use crate::cli::Global;
use crate::config::Config;
use crate::output::Output;

/// What a command works with.
pub struct Session {
    global: Global,
    config: Config,
    /// Results are for machines.
    pub json: bool,
}

impl Session {
    /// Reads the configuration.
    pub fn new(global: &Global) -> Result<Self> {
        Ok(Session { config: Config::load(global)?, json: global.json, global: global.clone() })
    }

    /// What is configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the configuration is read from.
    pub fn global(&self) -> &Global {
        &self.global
    }

    /// Prints the one result of a command: for machines as an object, and else in words.
    pub fn print(&self, facts: &impl Serialize, text: &str) -> io::Result<()> {
        let mut out = Output::new()?;
        if self.json {
            out.json(facts)?
        } else {
            writeln!(out, "{text}")?
        }
        out.flush()
    }

    /// The store, which must be there.
    pub fn store(&self) -> Result<Store> {
        self.open(false)
    }

    /// The store, made if need be.
    pub fn store_or_new(&self) -> Result<Store> {
        self.open(true)
    }

    fn open(&self, create: bool) -> Result<Store> {
        let options = StoreOptions {
            address: self.config.store(),
            keys: self.config.keys(),
            // A variable that is empty sets nothing.
            origin: self.config.origin.clone().filter(|origin| !origin.is_empty()),
            create,
            cache_bytes: Some(self.config.ledger.cache_bytes),
            cache_folder: self.config.ledger.cache_folder(),
            ..StoreOptions::default()
        };
        Ok(Store::open(options)?)
    }

    /// How records are judged.
    pub fn rules(&self) -> Result<Rules> {
        self.config.rules()
    }

    /// The folder of the keys, if it is known.
    pub fn keys(&self, store: &Store) -> Option<PathBuf> {
        let in_store = || Some(store.directory()?.join("keys"));
        self.config.keys().or_else(in_store)
    }

    /// The folder of what organisations, topics and systems are called: in the store, or beside the keys of one in a
    /// bucket.
    pub fn names(&self, store: &Store) -> Result<PathBuf> {
        let folder = store.directory().or_else(|| self.keys(store));
        Ok(folder
            .context("names lie beside the keys, whose folder has to be configured")?
            .join(names::FOLDER))
    }

    /// A log, for reading; `None` if it is one that every store may have, and nothing has been
    /// written to it yet.
    pub async fn log_if_begun(&self, store: &Store, name: &str) -> Result<Option<Log>> {
        match store.log(name).await {
            Ok(log) => Ok(Some(log)),
            Err(Error::NoSuchLog(_)) if self.expected_kind(name).is_some() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The logs that `pattern` stands for, for reading: one, or all whose names match it where there is
    /// a `*` in it. They are of one kind. None if nothing has been written to any of them yet.
    pub async fn logs_of(&self, store: &Store, pattern: &str) -> Result<Vec<Log>> {
        if !pattern.contains('*') {
            return Ok(self.log_if_begun(store, pattern).await?.into_iter().collect());
        }
        let mut logs = Vec::new();
        for name in store.names().await? {
            if matches(pattern, &name) {
                logs.extend(self.log_if_begun(store, &name).await?);
            }
        }
        match logs.first().map(Log::kind) {
            None => bail!("no log's name matches '{pattern}'; `sporlog logs` lists those there are"),
            Some(kind) if logs.iter().any(|log| log.kind() != kind) => {
                bail!("'{pattern}' matches logs of several kinds; name those of one")
            }
            Some(_) => Ok(logs),
        }
    }

    /// Of what kind the log of this name has to be, if that is settled beforehand.
    pub fn expected_kind(&self, name: &str) -> Option<Kind> {
        match name {
            access_event::LOG => Some(Kind::Auditlog),
            sporlog_intake::quarantine::LOG => Some(Kind::Quarantine),
            _ => {
                let declared = self.config.logs.iter().find(|log| log.name == name).map(|log| log.kind);
                let pulled = || self.config.pulls.iter().find(|pull| pull.log == name).map(|pull| pull.kind);
                let declared = declared.or_else(pulled);
                declared.or_else(|| Kind::DELIVERED.into_iter().find(|kind| kind.name() == name))
            }
        }
    }

    /// What becomes of rows that the log has already: what the configuration says, unless they are to be taken.
    pub fn overlap_policy(&self, take: bool) -> OverlapPolicy {
        let configured = self.config.sftp.as_ref().map(|sftp| sftp.overlap_policy()).unwrap_or_default();
        OverlapPolicy { rows: if take { Overlap::Take } else { configured.rows }, ..configured }
    }

    /// Whether records of `kind` may be imported into the log `name`.
    pub fn check_import(&self, name: &str, kind: Kind) -> Result<()> {
        if name == access_event::LOG || name == sporlog_intake::quarantine::LOG {
            bail!("the log '{name}' is Sporlog's own; --log names another");
        }
        match self.expected_kind(name) {
            Some(expected) if expected != kind => {
                bail!("the log '{name}' is for {expected} records; --log names another")
            }
            _ => Ok(()),
        }
    }
}

/// At most so many bytes of a file, or of standard input where `-` stands for it.
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => io::stdin().take(limit).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)),
    };
    read.with_context(|| path.display().to_string())?;
    Ok(bytes)
}

/// A public key as it is given on the command line: the key itself, or a file with it.
pub fn public_key(given: &str) -> Result<String> {
    // A key's parts are joined by `+`; a file's name may have that, too, but then it is there.
    let key = match Path::new(given).is_file() {
        true => std::fs::read_to_string(given).with_context(|| given.to_owned())?,
        false => given.to_owned(),
    };
    Ok(key.trim().to_owned())
}
