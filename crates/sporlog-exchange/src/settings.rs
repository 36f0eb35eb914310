//! The configuration section `[sftp]`: the server, the accounts, and their limits.
//!
//! ```toml
//! [sftp]
//! listen = "127.0.0.1:2222"
//!
//! [[sftp.account]]
//! name = "ky-leverandoer"
//! role = "supplier"
//! keys = ["ssh-ed25519 AAAA… drift@leverandoer"]
//!
//! [[sftp.account]]
//! name = "kommune-64942212"
//! role = "municipality"
//! cvr  = ["64942212"]
//! keys = ["ssh-ed25519 AAAA… drift@kommune"]
//! ```

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::NaiveTime;
use serde::{Deserialize, Serialize};
use sporlog_ledger::is_log_name;
use sporlog_record::Rules;
use sporlog_record::identifier::cvr;
use sporlog_record::rules::Encoding;

pub use sporlog_intake::delivery::Overlap;
use sporlog_intake::delivery::OverlapPolicy;
use sporlog_intake::{Error, Result};

/// The folder of the exchange in a store on a local disk, unless configured otherwise.
pub const FOLDER: &str = "exchange";
/// How long a file that our server has closed has to rest until it is complete …
const SETTLE_CLOSED: Duration = Duration::from_secs(2);
/// … and any other file, of which only the time of change is known.
const SETTLE_WATCHED: Duration = Duration::from_secs(10);

/// The section `[sftp]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where `sporlog serve` listens for SFTP.
    pub listen: SocketAddr,
    /// The exchange's folder: homes, the register of deliveries, the host key.
    pub root: Option<PathBuf>,
    /// The server's private keys, in OpenSSH's format; by default one that is made at the first start.
    pub host_keys: Vec<PathBuf>,
    /// The log that deliveries are stored in and municipalities' files are collected from.
    pub log: String,
    /// Seconds after its last byte when a file counts as complete; by default 2 where our server has
    /// seen it closed, 10 where another serves the folders.
    pub settle_seconds: Option<u32>,
    /// What to do with rows that the log has from another file, whichever way a file comes in.
    pub overlap: Overlap,
    /// For how many days after its receipt a row is compared with new deliveries.
    pub overlap_days: u32,
    /// When the municipalities' files of the day before are written, local time; `"never"` is for
    /// those who run `sporlog collect` themselves.
    pub collect_at: CollectAt,
    /// Limits, unless an account has its own.
    pub limits: Limits,
    /// The suppliers and municipalities.
    #[serde(rename = "account")]
    pub accounts: Vec<Account>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 2222)),
            root: None,
            host_keys: Vec::new(),
            log: "revision".to_owned(),
            settle_seconds: None,
            overlap: OverlapPolicy::default().rows,
            overlap_days: OverlapPolicy::default().days,
            collect_at: CollectAt::default(),
            limits: Limits::default(),
            accounts: Vec::new(),
        }
    }
}

/// The settings in use. All parts of a running exchange share them and see at once that accounts came, went or changed;
/// the other settings stay.
#[derive(Debug, Clone)]
pub struct LiveSettings(Arc<RwLock<Arc<Settings>>>);

impl From<Settings> for LiveSettings {
    fn from(settings: Settings) -> Self {
        LiveSettings(Arc::new(RwLock::new(Arc::new(settings))))
    }
}

impl LiveSettings {
    /// The settings at this moment.
    pub fn now(&self) -> Arc<Settings> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the accounts. Within about a second those who come can sign in, and connections of those that went or
    /// changed are ended.
    pub fn set_accounts(&self, accounts: Vec<Account>) {
        let mut settings = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *settings = Arc::new(Settings { accounts, ..Settings::clone(&settings) });
    }
}

/// When the nightly collection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct CollectAt(pub Option<NaiveTime>);

impl Default for CollectAt {
    fn default() -> Self {
        CollectAt(NaiveTime::from_hms_opt(2, 0, 0))
    }
}

impl TryFrom<String> for CollectAt {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "never" {
            return Ok(CollectAt(None));
        }
        let time = NaiveTime::parse_from_str(&text, "%H:%M");
        time.map(|time| CollectAt(Some(time)))
            .map_err(|_| format!("'{text}' is no time of day: it is written as \"02:00\", or \"never\""))
    }
}

/// Limits of the server and of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The most bytes of a file.
    pub file_bytes: u64,
    /// The most files in an account's inbox at once.
    pub files: usize,
    /// The most connections of one account at once.
    pub sessions: usize,
    /// The most bytes a second, up and down together; absent for no limit.
    pub bytes_per_second: Option<u32>,
    /// The most connections at once in all, including those that have not signed in yet.
    pub connections: usize,
    /// A connection without a request for so long is ended.
    pub idle_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            file_bytes: 2 << 30,
            files: 1_000,
            sessions: 8,
            bytes_per_second: None,
            connections: 200,
            idle_seconds: 300,
        }
    }
}

/// A supplier or a municipality.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The user name.
    pub name: String,
    /// Whether the account delivers or fetches.
    pub role: Role,
    /// The account's public keys, as lines of OpenSSH's `authorized_keys`, without options.
    #[serde(default)]
    pub keys: Vec<String>,
    /// A municipality's CVR numbers, whose rows it gets.
    #[serde(default)]
    pub cvr: Vec<String>,
    /// The account's folder; by default `accounts/<name>` in the exchange's.
    pub home: Option<PathBuf>,
    /// How often a supplier is expected to deliver.
    #[serde(default)]
    pub rhythm: Rhythm,
    /// The encoding of a supplier's files, if it is not UTF-8.
    pub encoding: Option<Encoding>,
    /// The separator of a supplier's columns, if it is not a comma.
    pub separator: Option<char>,
    /// Whether a municipality may delete what it has fetched.
    #[serde(default)]
    pub delete_fetched: bool,
    /// Bytes of a file, instead of the general limit.
    pub file_bytes: Option<u64>,
    /// Files in the inbox, instead of the general limit.
    pub files: Option<usize>,
    /// Connections at once, instead of the general limit.
    pub sessions: Option<usize>,
    /// Bytes a second, instead of the general limit.
    pub bytes_per_second: Option<u32>,
}

/// The role of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Delivers an IT system's revision log.
    Supplier,
    /// Fetches its rows.
    Municipality,
}

/// How often deliveries are expected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rhythm {
    /// Each day.
    #[default]
    Daily,
    /// Each week.
    Weekly,
    /// Whenever there is something.
    Irregular,
}

impl fmt::Display for Rhythm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Account {
    /// Whether the account delivers.
    pub fn is_supplier(&self) -> bool {
        self.role == Role::Supplier
    }

    /// What is wrong with the account; `is_new` if no account before has its name.
    fn problem(&self, is_new: bool) -> Option<String> {
        let name = &self.name;
        if !is_account_name(name) {
            return Some(format!(
                ".name: '{name}': a name has 1 to 64 letters, digits, '-', '_' or '.', and begins with a letter or a digit"
            ));
        }
        if !is_new {
            return Some(format!(": '{name}' is there twice"));
        }
        if let Some(wrong) = self.cvr.iter().find(|number| !cvr::is_plain(number)) {
            return Some(format!(": '{name}': cvr: '{wrong}' does not have 8 digits"));
        }
        match self.role {
            Role::Municipality if self.cvr.is_empty() => {
                Some(format!(": '{name}': a municipality needs cvr, its CVR numbers"))
            }
            Role::Supplier if !self.cvr.is_empty() => {
                Some(format!(": '{name}': cvr is for municipalities; this is a supplier"))
            }
            _ => None,
        }
    }

    /// `rules` as they apply to this account's files.
    pub fn rules(&self, rules: &Rules, limits: &Limits) -> Rules {
        let mut rules = rules.clone();
        rules.revision.encoding = self.encoding.unwrap_or(rules.revision.encoding);
        rules.revision.separator = self.separator.unwrap_or(rules.revision.separator);
        rules.revision.max_file_bytes = rules.revision.max_file_bytes.min(self.limits(limits).file_bytes);
        rules
    }

    /// The general limits, with those that this account has of its own.
    pub fn limits(&self, general: &Limits) -> Limits {
        Limits {
            file_bytes: self.file_bytes.unwrap_or(general.file_bytes),
            files: self.files.unwrap_or(general.files),
            sessions: self.sessions.unwrap_or(general.sessions),
            bytes_per_second: self.bytes_per_second.or(general.bytes_per_second),
            ..general.clone()
        }
    }
}

impl Settings {
    /// Settings of earlier versions, and what holds instead of them.
    pub const REMOVED: [(&str, &str); 3] = [
        ("sftp.limits.handles", "a connection may have 100 files and folders open"),
        (
            "sftp.limits.sign_in_seconds",
            "signing in may take 30 seconds, or sftp.limits.idle_seconds if that is less",
        ),
        ("sftp.limits.sign_in_attempts", "6 keys may be tried on a connection"),
    ];

    /// What becomes of rows that the log has already.
    pub fn overlap_policy(&self) -> OverlapPolicy {
        OverlapPolicy { rows: self.overlap, days: self.overlap_days }
    }

    /// Makes the paths that are relative to the configuration's folder absolute.
    pub fn relative_to(&mut self, folder: &Path) {
        let homes = self.accounts.iter_mut().filter_map(|account| account.home.as_mut());
        for path in self.root.iter_mut().chain(&mut self.host_keys).chain(homes) {
            *path = folder.join(&path);
        }
    }

    /// Checks that the settings are consistent.
    pub fn check(&self) -> Result<()> {
        self.problem().map_or(Ok(()), |(_, text)| Err(Error::Settings(text)))
    }

    /// The first thing that is wrong with the settings, and the number of the account that it is about.
    pub fn problem(&self) -> Option<(Option<usize>, String)> {
        if !is_log_name(&self.log) {
            return Some((None, format!("sftp.log: '{}' is no name for a log", self.log)));
        }
        let mut names = HashSet::new();
        self.accounts.iter().enumerate().find_map(|(at, account)| {
            let is_new = names.insert(account.name.to_ascii_lowercase());
            account.problem(is_new).map(|text| (Some(at), format!("sftp.account{text}")))
        })
    }

    /// The account of this name.
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.name == name)
    }

    /// The folder of the exchange: as set, or in the store's folder.
    pub fn root(&self, store: Option<&Path>) -> Result<PathBuf> {
        let root = self.root.clone().or_else(|| store.map(|store| store.join(FOLDER)));
        root.ok_or_else(|| {
            Error::Settings("sftp.root has to be set, for the store is no local folder".into())
        })
    }

    /// How long a file has to rest until it is complete: one that our server has `closed`, or another.
    pub fn settle(&self, closed: bool) -> Duration {
        let set = self.settle_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        set.unwrap_or(if closed { SETTLE_CLOSED } else { SETTLE_WATCHED })
    }
}

fn is_account_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    name.len() <= 64
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(plain)
}
