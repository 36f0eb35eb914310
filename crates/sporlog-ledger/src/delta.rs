//! The actions of the Delta protocol that a log's table is made of, as they are written, and the data
//! file that an `add` action describes.
//!
//! A commit of the Delta log is one action a line; a Delta checkpoint is one action a row. Actions and
//! fields that are not listed here are ignored when they are read. Source: Delta Transaction Log
//! Protocol, sections "Actions" and "Per-file Statistics".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sporlog_record::{Kind, hex};

use crate::error::{Error, Result};
use crate::schema;

/// The folder of the table within the log's.
pub(crate) const TABLE: &str = "table";
/// The folder of the Delta log within the log's.
pub(crate) const DELTA_LOG: &str = "table/_delta_log";
const CHECKPOINT_SUFFIX: &str = ".checkpoint.parquet";

/// The name of the Delta checkpoint of `version`, relative to the log's folder.
pub(crate) fn checkpoint_name(version: u64) -> String {
    format!("{DELTA_LOG}/{version:020}{CHECKPOINT_SUFFIX}")
}

/// The version of the Delta checkpoint `name`, if it is one.
pub(crate) fn checkpoint_version(name: &str) -> Option<u64> {
    name.strip_prefix(DELTA_LOG)?.strip_prefix('/')?.strip_suffix(CHECKPOINT_SUFFIX)?.parse().ok()
}
/// The folder of the key indexes within the log's.
pub(crate) const INDEX: &str = "index";

/// A SHA-256 digest.
pub(crate) type Sha = [u8; 32];

/// One action: exactly one of its fields is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
}

impl From<Add> for Action {
    fn from(add: Add) -> Self {
        Action { add: Some(add), ..Action::default() }
    }
}

impl From<Txn> for Action {
    fn from(txn: Txn) -> Self {
        Action { txn: Some(txn), ..Action::default() }
    }
}

/// What a reader and a writer of the table have to be able to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Protocol {
    min_reader_version: i32,
    min_writer_version: i32,
    #[serde(default)]
    reader_features: Vec<String>,
    #[serde(default)]
    writer_features: Vec<String>,
}

impl Protocol {
    /// The protocol of every log's table. A column that is not nullable counts as an invariant, and
    /// writer version 7 has to list that feature: Spark reads no table that does not.
    pub(crate) fn current() -> Self {
        let features = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: features(&["timestampNtz"]),
            writer_features: features(&["timestampNtz", "invariants"]),
        }
    }
}

/// The table's name, columns and configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    id: String,
    name: Option<String>,
    description: Option<String>,
    format: Format,
    schema_string: String,
    partition_columns: Vec<String>,
    pub configuration: BTreeMap<String, String>,
    created_time: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    provider: String,
    #[serde(default)]
    options: BTreeMap<String, String>,
}

impl Metadata {
    /// The metadata of the table of a new log.
    pub(crate) fn new(log: &str, kind: Kind, origin: &str, now_ms: i64) -> Self {
        let configuration = [
            ("sporlog.log", log),
            ("sporlog.kind", kind.name()),
            ("sporlog.origin", origin),
            // Other programs must not remove commits: the chain would lose its beginning.
            ("delta.enableExpiredLogCleanup", "false"),
        ];
        Metadata {
            id: uuid::Uuid::new_v4().to_string(),
            name: Some(log.to_owned()),
            description: Some(format!("Sporlog's log '{log}' of {kind} records")),
            format: Format { provider: "parquet".into(), options: BTreeMap::new() },
            schema_string: schema::delta_schema(kind),
            partition_columns: vec!["month".into()],
            configuration: configuration.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            created_time: Some(now_ms),
        }
    }
}

/// How far a source has been taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Txn {
    pub app_id: String,
    pub version: i64,
    /// Milliseconds UTC.
    pub last_updated: Option<i64>,
}

/// A data file becomes part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    path: String,
    partition_values: BTreeMap<String, String>,
    size: i64,
    modification_time: i64,
    data_change: bool,
    stats: Option<String>,
    tags: Option<BTreeMap<String, String>>,
}

/// A data file is no longer part of the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    pub path: String,
    deletion_timestamp: Option<i64>,
    data_change: bool,
    extended_file_metadata: Option<bool>,
    partition_values: Option<BTreeMap<String, String>>,
    size: Option<i64>,
}

/// One Parquet file of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// The file's path, relative to the table's folder: `month=2026-11/<first>-<random>.parquet`.
    pub path: String,
    /// The first record's id.
    pub first: u64,
    /// The last record's id; the file has all ids in between.
    pub last: u64,
    /// The file's size in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub sha256: Sha,
    /// The digest of its key index, if it has one.
    pub index: Option<Sha>,
    /// The earliest and latest `occurred_at`, in microseconds; `None` where no record has one.
    pub occurred: Option<(i64, i64)>,
    /// The earliest and latest `received_at`, in microseconds UTC.
    pub received: (i64, i64),
}

const SHA256_TAG: &str = "sporlog.sha256";
const INDEX_TAG: &str = "sporlog.index";

impl DataFile {
    /// A data file that is yet to be written: its name, and what is known of it. `last` may be
    /// provisional: the name only says where the file begins.
    pub(crate) fn new(first: u64, last: u64, received_at: i64) -> Self {
        let month = month_of(received_at);
        let unique = uuid::Uuid::new_v4().simple().to_string();
        DataFile {
            path: format!("month={month}/{first:012}-{}.parquet", &unique[..12]),
            first,
            last,
            size: 0,
            sha256: Sha::default(),
            index: None,
            occurred: None,
            received: (received_at, received_at),
        }
    }

    /// How many records it holds.
    pub(crate) fn rows(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The month of receipt, `2026-11`, by which the table is partitioned.
    pub(crate) fn month(&self) -> &str {
        self.path.strip_prefix("month=").and_then(|p| p.get(..7)).unwrap_or_default()
    }

    /// Relative to the log's folder.
    pub(crate) fn name(&self) -> String {
        format!("{TABLE}/{}", self.path)
    }

    /// The key index's name, relative to the log's folder.
    pub(crate) fn index_name(&self) -> String {
        format!("{INDEX}/{}", self.path)
    }

    fn partition(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("month".to_owned(), self.month().to_owned())])
    }

    /// The action that adds this file to the table.
    pub(crate) fn add(&self, data_change: bool) -> Add {
        let stats = Stats {
            num_records: self.rows(),
            min_values: Bounds::new(self.first, self.occurred.map(|o| o.0), self.received.0),
            max_values: Bounds::new(self.last, self.occurred.map(|o| o.1), self.received.1),
        };
        let index = self.index.map(|index| (INDEX_TAG.to_owned(), hex(index)));
        Add {
            path: self.path.clone(),
            partition_values: self.partition(),
            size: self.size as i64,
            modification_time: self.received.1 / 1_000,
            data_change,
            stats: serde_json::to_string(&stats).ok(),
            tags: Some([(SHA256_TAG.to_owned(), hex(self.sha256))].into_iter().chain(index).collect()),
        }
    }

    /// The action that removes this file from the table.
    pub(crate) fn remove(&self, data_change: bool, now_ms: i64) -> Remove {
        Remove {
            path: self.path.clone(),
            deletion_timestamp: Some(now_ms),
            data_change,
            extended_file_metadata: Some(true),
            partition_values: Some(self.partition()),
            size: Some(self.size as i64),
        }
    }

    /// The file that `add` describes; `source` is the commit or Delta checkpoint that `add` stands in.
    pub(crate) fn from_add(source: &str, add: Add) -> Result<Self> {
        let bad = |what: &str| Error::damaged(source, format!("its entry for {} has no {what}", add.path));
        let tags = add.tags.as_ref();
        let digest = |tag: &str| tags.and_then(|tags| unhex(tags.get(tag)?));
        let stats = add.stats.as_deref().and_then(|stats| serde_json::from_str::<Stats>(stats).ok());
        let stats = stats.ok_or_else(|| bad("statistics"))?;
        let (min, max) = (stats.min_values, stats.max_values);
        // Later arithmetic with these numbers must not overflow, whatever is written there.
        let rows = max.id.checked_sub(min.id).filter(|_| min.id > 0 && i64::try_from(max.id).is_ok());
        if rows.map(|rows| rows + 1) != Some(stats.num_records) {
            return Err(bad("possible statistics"));
        }
        Ok(DataFile {
            first: min.id,
            last: max.id,
            size: add.size.try_into().map_err(|_| bad("size"))?,
            sha256: digest(SHA256_TAG).ok_or_else(|| bad("digest"))?,
            index: digest(INDEX_TAG),
            occurred: min.occurred().zip(max.occurred()),
            received: (
                min.received().ok_or_else(|| bad("time"))?,
                max.received().ok_or_else(|| bad("time"))?,
            ),
            path: add.path,
        })
    }
}

/// The month of a time of receipt, in microseconds UTC: `2026-11`.
pub(crate) fn month_of(received_at: i64) -> String {
    chrono::DateTime::from_timestamp_micros(received_at).unwrap_or_default().format("%Y-%m").to_string()
}

/// The names of data files and of the indexes that they may have.
pub(crate) fn names_of<'a>(files: impl IntoIterator<Item = &'a DataFile>) -> Vec<String> {
    files.into_iter().flat_map(|f| [f.name(), f.index_name()]).collect()
}

/// Delta's statistics of a file, as far as they are written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    num_records: u64,
    min_values: Bounds,
    max_values: Bounds,
}

#[derive(Serialize, Deserialize)]
struct Bounds {
    id: u64,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    occurred_at: Option<String>,
}

const LOCAL: &str = "%Y-%m-%dT%H:%M:%S%.6f";
const UTC: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

impl Bounds {
    fn new(id: u64, occurred: Option<i64>, received: i64) -> Self {
        let text = |micros, format| {
            chrono::DateTime::from_timestamp_micros(micros).map(|t| t.naive_utc().format(format).to_string())
        };
        Bounds {
            id,
            received_at: text(received, UTC).unwrap_or_default(),
            occurred_at: occurred.and_then(|o| text(o, LOCAL)),
        }
    }

    fn parse(text: &str, format: &str) -> Option<i64> {
        chrono::NaiveDateTime::parse_from_str(text, format).ok().map(|t| t.and_utc().timestamp_micros())
    }

    fn occurred(&self) -> Option<i64> {
        self.occurred_at.as_deref().and_then(|t| Self::parse(t, LOCAL))
    }

    fn received(&self) -> Option<i64> {
        Self::parse(&self.received_at, UTC)
    }
}

/// 64 hexadecimal digits as the 32 bytes that they stand for.
pub(crate) fn unhex(text: &str) -> Option<Sha> {
    let digits = text.as_bytes();
    let mut bytes = Sha::default();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
