//! The Delta table of a log: which files it is made of, and how its next version is committed.
//!
//! A version is committed by putting its file in the Delta log if there is none yet: that is the
//! only moment of truth. The file list is kept in memory and moved on by what is committed, never
//! read again; only opening reads it, from the newest Delta checkpoint and the commits since.
//!
//! Every commit of ours says in its `commitInfo`, under `sporlog`, how long the log is after it,
//! the tree's root then, and the [chain](TableState::chain) over all commits before it. So a record
//! that is in the table and not yet in a tile is committed to all the same, and no commit can be
//! changed without breaking the chain, whose end is signed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use deltalake::kernel::transaction::CommitData;
use deltalake::kernel::{Action, Add, Remove, Transaction};
use deltalake::logstore::LogStoreRef;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sporlog_record::Kind;
use tlog_tiles::tlog::{EMPTY_HASH, Hash};

use crate::error::{Error, Result};
use crate::schema;
use crate::storage::Storage;
use crate::tlog::read_note;
use sporlog_record::hex;

/// The folder of the table within the log's.
pub(crate) const TABLE: &str = "table";
/// The folder of the key indexes within the log's.
pub(crate) const INDEX: &str = "index";

/// A digest.
pub(crate) type Sha = [u8; 32];

/// One Parquet file of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// Its path, relative to the table's folder: `month=2026-11/<first>-<random>.parquet`.
    pub path: String,
    /// Its first record's id.
    pub first: u64,
    /// Its last record's id; all between are in it.
    pub last: u64,
    /// Its size in bytes.
    pub size: u64,
    /// What it has to be, byte for byte.
    pub sha256: Sha,
    /// The digest of its key index, if it has one.
    pub index: Option<Sha>,
    /// The earliest and latest `occurred_at`, in microseconds; `None` where no record has one.
    pub occurred: Option<(i64, i64)>,
    /// The earliest and latest `received_at`, in microseconds UTC.
    pub received: (i64, i64),
}

impl DataFile {
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

    fn tags(&self) -> HashMap<String, Option<String>> {
        let mut tags = HashMap::from([("sporlog.sha256".to_owned(), Some(hex(self.sha256)))]);
        if let Some(index) = &self.index {
            tags.insert("sporlog.index".to_owned(), Some(hex(index)));
        }
        tags
    }

    fn add(&self, data_change: bool) -> Add {
        let stats = Stats {
            num_records: self.rows(),
            min_values: Bounds::new(self.first, self.occurred.map(|o| o.0), self.received.0),
            max_values: Bounds::new(self.last, self.occurred.map(|o| o.1), self.received.1),
        };
        Add {
            path: self.path.clone(),
            partition_values: HashMap::from([("month".to_owned(), Some(self.month().to_owned()))]),
            size: self.size as i64,
            modification_time: self.received.1 / 1_000,
            data_change,
            stats: serde_json::to_string(&stats).ok(),
            tags: Some(self.tags()),
            ..Add::default()
        }
    }

    fn remove(&self, data_change: bool, now_ms: i64) -> Remove {
        Remove {
            path: self.path.clone(),
            data_change,
            deletion_timestamp: Some(now_ms),
            extended_file_metadata: Some(true),
            partition_values: Some(HashMap::from([("month".to_owned(), Some(self.month().to_owned()))])),
            size: Some(self.size as i64),
            tags: Some(self.tags()),
            ..Remove::default()
        }
    }

    /// The file that the commit or checkpoint `source` adds.
    fn from_action(
        source: &str,
        path: &str,
        size: i64,
        tags: &HashMap<String, String>,
        stats: &str,
    ) -> Result<Self> {
        let bad = |what: &str| Error::damaged(source, format!("its entry for {path} has no {what}"));
        let digest = |tag: &str| tags.get(tag).and_then(|t| unhex(t));
        let stats: Stats = serde_json::from_str(stats).map_err(|_| bad("statistics"))?;
        let (min, max) = (stats.min_values, stats.max_values);
        // What is reckoned with these numbers must not overflow, whatever is written there.
        let rows = max.id.checked_sub(min.id).filter(|_| min.id > 0 && i64::try_from(max.id).is_ok());
        if rows.map(|rows| rows + 1) != Some(stats.num_records) {
            return Err(bad("possible statistics"));
        }
        Ok(DataFile {
            path: path.to_owned(),
            first: min.id,
            last: max.id,
            size: size.try_into().map_err(|_| bad("size"))?,
            sha256: digest("sporlog.sha256").ok_or_else(|| bad("digest"))?,
            index: digest("sporlog.index"),
            occurred: min.occurred().zip(max.occurred()),
            received: (
                min.received().ok_or_else(|| bad("time"))?,
                max.received().ok_or_else(|| bad("time"))?,
            ),
        })
    }
}

/// Delta's statistics of a file, as far as they are given.
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

/// How far a source has been taken in: Delta's `txn` action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The source's own position, such as a Kafka offset.
    pub version: i64,
    /// When that was committed, in milliseconds UTC.
    pub at: i64,
}

/// What our commits say about the log, in `commitInfo` under `sporlog`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Statement {
    size: u64,
    root: String,
    previous: String,
}

/// A table's state at a version.
#[derive(Debug, Clone)]
pub(crate) struct TableState {
    /// The version.
    pub version: u64,
    /// The files, in the order of their ids.
    pub files: Vec<Arc<DataFile>>,
    /// The number of records ever appended, which is the newest id.
    pub size: u64,
    /// The tree's root.
    pub root: Hash,
    /// A digest over all commits: `chain(v) = SHA-256(chain(v - 1) ‖ SHA-256(commit v))`.
    pub chain: Sha,
}

impl TableState {
    /// The oldest id that is still there; one above the newest if none is.
    pub(crate) fn first(&self) -> u64 {
        self.files.first().map_or(self.size + 1, |f| f.first)
    }

    /// The files that may hold ids above `after`, oldest first.
    pub(crate) fn files_after(&self, after: u64) -> &[Arc<DataFile>] {
        &self.files[self.files.partition_point(|f| f.last <= after)..]
    }

    /// The file that holds `id`.
    pub(crate) fn file_of(&self, id: u64) -> Option<&Arc<DataFile>> {
        self.files_after(id.checked_sub(1)?).first().filter(|f| f.first <= id)
    }

    fn apply(&mut self, parsed: Parsed) {
        if !parsed.removed.is_empty() {
            self.files.retain(|f| !parsed.removed.contains(&f.path));
        }
        for file in parsed.added {
            let at = self.files.partition_point(|f| f.first < file.first);
            self.files.insert(at, Arc::new(file));
        }
    }
}

/// The positions of all sources.
pub(crate) type Positions = HashMap<String, Position>;

/// What the names of sources begin with that are a single request each. There is no end to them, so
/// they are forgotten after [`REMEMBERED`].
pub const ONCE: &str = "once:";
/// For how long a single request is remembered.
pub const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// Forgets single requests of long ago; `now_ms` is milliseconds since 1970.
pub(crate) fn forget_old(positions: &mut Positions, now_ms: i64) {
    let oldest = now_ms.saturating_sub(REMEMBERED.as_millis() as i64);
    positions.retain(|app, position| position.at >= oldest || !app.starts_with(ONCE));
}

/// What a commit changes.
#[derive(Debug, Default)]
pub(crate) struct Change {
    pub added: Vec<DataFile>,
    pub removed: Vec<Arc<DataFile>>,
    pub positions: Vec<(String, i64)>,
    /// The log's size and root after it, if it appends.
    pub appended: Option<(u64, Hash)>,
    /// Whether records come or go, other than in a compaction.
    pub data_change: bool,
}

/// What became of a commit.
pub(crate) enum Committed {
    /// It is there.
    Done(TableState),
    /// Somebody else's commit has this version.
    Taken,
    /// It is not known: the store failed, and could not be asked either.
    Unknown(Error),
}

/// The actions of one commit that matter here.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub added: Vec<DataFile>,
    pub removed: Vec<String>,
    pub positions: Vec<(String, Position)>,
    statement: Option<Statement>,
}

impl Parsed {
    /// The size and root that the commit states, and the chain before it.
    pub(crate) fn statement(&self) -> Option<(u64, Hash, Sha)> {
        let s = self.statement.as_ref()?;
        let root = Hash(BASE64_STANDARD.decode(&s.root).ok()?.try_into().ok()?);
        Some((s.size, root, unhex(&s.previous)?))
    }
}

/// Reads the actions of the commit file `name`.
pub(crate) fn parse_commit(name: &str, bytes: &[u8]) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    for line in bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
        let action: Action = serde_json::from_slice(line).map_err(|e| Error::damaged(name, e))?;
        match action {
            Action::Add(add) => {
                let tags = add.tags.unwrap_or_default();
                let tags = tags.into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
                let stats = add.stats.as_deref().unwrap_or_default();
                parsed.added.push(DataFile::from_action(name, &add.path, add.size, &tags, stats)?);
            }
            Action::Remove(remove) => parsed.removed.push(remove.path),
            Action::Txn(txn) => parsed.positions.push((
                txn.app_id,
                Position { version: txn.version, at: txn.last_updated.unwrap_or_default() },
            )),
            Action::CommitInfo(info) => {
                let statement = info.info.get("sporlog").cloned();
                parsed.statement = statement.and_then(|s| serde_json::from_value(s).ok());
            }
            _ => {}
        }
    }
    Ok(parsed)
}

/// The chain after a commit, from the chain before it.
pub(crate) fn extend_chain(chain: &Sha, commit: &[u8]) -> Sha {
    Sha256::new().chain_update(chain).chain_update(Sha256::digest(commit)).finalize().into()
}

/// The name of a version's file, relative to the log's folder.
pub(crate) fn commit_name(version: u64) -> String {
    format!("{TABLE}/_delta_log/{version:020}.json")
}

/// The Delta log of one log.
pub(crate) struct Table {
    storage: Storage,
    log_store: LogStoreRef,
}

impl Table {
    /// The table in the log's folder `storage`.
    pub(crate) fn new(storage: Storage) -> Result<Self> {
        let folder = storage.folder(TABLE)?;
        let builder = DeltaTableBuilder::from_url(folder.url().clone())?;
        let builder = builder.with_storage_backend(storage.store(), folder.url().clone());
        Ok(Table { storage, log_store: builder.build_storage()? })
    }

    /// Makes the table, empty, as version 0; nothing happens if it is there.
    pub(crate) async fn create(&self, log: &str, kind: Kind, origin: &str, now_ms: i64) -> Result<()> {
        let statement =
            Statement { size: 0, root: BASE64_STANDARD.encode(EMPTY_HASH.0), previous: hex(Sha::default()) };
        let actions = [
            serde_json::json!({"commitInfo": {
                "timestamp": now_ms, "operation": "CREATE TABLE", "engineInfo": schema::ENGINE,
                "sporlog": statement,
            }}),
            serde_json::json!({"protocol": {
                "minReaderVersion": 3, "minWriterVersion": 7,
                "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz", "invariants"],
            }}),
            serde_json::json!({"metaData": {
                "id": uuid::Uuid::new_v4().to_string(), "name": log,
                "description": format!("Sporlog's log '{log}' of {kind} records"),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": schema::delta_schema(kind),
                "partitionColumns": ["month"],
                "configuration": {
                    "sporlog.log": log, "sporlog.kind": kind.name(), "sporlog.origin": origin,
                    // Other programs must not shorten the chain of commits.
                    "delta.enableExpiredLogCleanup": "false",
                },
                "createdTime": now_ms,
            }}),
        ];
        let lines: Vec<String> = actions.iter().map(ToString::to_string).collect();
        self.storage.put_new(&commit_name(0), lines.join("\n").into()).await.map(drop)
    }

    /// What kind of log this is, from its metadata in version 0; `None` if there is no table.
    pub(crate) async fn kind(&self) -> Result<Option<Kind>> {
        let name = commit_name(0);
        let Some(first) = self.storage.try_get(&name).await? else {
            // A log that is being made has none yet; one that has others has lost it.
            let others = self.storage.try_get(&commit_name(1)).await?;
            return others.map_or(Ok(None), |_| Err(Error::damaged(name, "it is missing")));
        };
        for line in first.split(|b| *b == b'\n') {
            if let Ok(Action::Metadata(metadata)) = serde_json::from_slice(line) {
                let get = |key: &str| metadata.configuration().get(key).cloned().unwrap_or_default();
                let kind = get("sporlog.kind").parse().map_err(|e| Error::damaged(&name, e))?;
                return Ok(Some(kind));
            }
        }
        Err(Error::damaged(name, "it has no metadata"))
    }

    /// Reads the state at the newest version. `vkey` is the log's public key.
    pub(crate) async fn load(&self, vkey: &str) -> Result<(TableState, Positions)> {
        let mut positions = Positions::new();
        let mut state =
            TableState { version: 0, files: Vec::new(), size: 0, root: EMPTY_HASH, chain: Sha::default() };
        // The checkpoint knows the files; what its commit stated is in the commit.
        let next = self.load_checkpoint(vkey, &mut state, &mut positions).await?.unwrap_or_default();
        let from_checkpoint = (next > 0).then_some(next);
        let mut version = next;
        while let Some(bytes) = self.read_commit(version).await? {
            self.advance(&mut state, &mut positions, version, &bytes, from_checkpoint == Some(version))?;
            version += 1;
        }
        if version == 0 {
            return Err(Error::damaged(commit_name(0), "it is not there"));
        }
        forget_old(&mut positions, chrono::Utc::now().timestamp_millis());
        Ok((state, positions))
    }

    /// Takes in what others have committed since `state`; says whether any of it appended.
    pub(crate) async fn catch_up(&self, state: &mut TableState, positions: &mut Positions) -> Result<bool> {
        let size = state.size;
        while let Some(bytes) = self.read_commit(state.version + 1).await? {
            let version = state.version + 1;
            self.advance(state, positions, version, &bytes, false)?;
        }
        Ok(state.size != size)
    }

    fn advance(
        &self,
        state: &mut TableState,
        positions: &mut Positions,
        version: u64,
        bytes: &[u8],
        known: bool,
    ) -> Result<()> {
        let parsed = parse_commit(&commit_name(version), bytes)?;
        let (size, root, previous) = parsed
            .statement()
            .ok_or_else(|| Error::damaged(commit_name(version), "this commit was not made by Sporlog"))?;
        (state.version, state.size, state.root) = (version, size, root);
        state.chain = extend_chain(&previous, bytes);
        if !known {
            positions.extend(parsed.positions.iter().cloned());
            state.apply(parsed);
        }
        Ok(())
    }

    pub(crate) async fn read_commit(&self, version: u64) -> Result<Option<Bytes>> {
        self.storage.try_get(&commit_name(version)).await
    }

    /// Commits `change` as the version after `state`'s, once `before` has succeeded: the writing of
    /// what the change adds. If it fails, nothing is committed.
    pub(crate) async fn commit(
        &self,
        state: &TableState,
        change: Change,
        now_ms: i64,
        before: impl Future<Output = Result<()>>,
    ) -> Result<Committed> {
        let version = state.version + 1;
        let (size, root) = change.appended.unwrap_or((state.size, state.root));
        let statement = Statement { size, root: BASE64_STANDARD.encode(root.0), previous: hex(state.chain) };
        let info = HashMap::from([(
            "sporlog".to_owned(),
            serde_json::to_value(statement).map_err(|e| Error::damaged(commit_name(version), e))?,
        )]);
        let adds = change.added.iter().map(|f| Action::Add(f.add(change.data_change)));
        let removes = change.removed.iter().map(|f| Action::Remove(f.remove(change.data_change, now_ms)));
        let txns =
            change.positions.iter().map(|(app, v)| Transaction::new_with_last_update(app, *v, Some(now_ms)));
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: Some(vec!["month".to_owned()]),
            predicate: None,
        };
        let data = CommitData::new(removes.chain(adds).collect(), operation, info, txns.collect());
        let bytes = data.get_bytes().map_err(|e| Error::damaged(commit_name(version), e))?;

        let name = commit_name(version);
        match self.storage.put_new_after(&name, bytes.clone(), before).await? {
            Ok(true) => {}
            Ok(false) => return Ok(Committed::Taken),
            // The answer may have been lost on the way: what counts is what is there.
            Err(e) => match self.read_commit(version).await {
                Ok(Some(there)) if there == bytes => {}
                Ok(Some(_)) => return Ok(Committed::Taken),
                Ok(None) => return Err(e),
                Err(_) => return Ok(Committed::Unknown(e)),
            },
        }
        let mut next = state.clone();
        (next.version, next.size, next.root) = (version, size, root);
        next.chain = extend_chain(&state.chain, &bytes);
        let removed = change.removed.iter().map(|f| f.path.clone()).collect();
        next.apply(Parsed { added: change.added, removed, ..Parsed::default() });
        Ok(Committed::Done(next))
    }

    /// Writes a Delta checkpoint of the newest version, from which the table opens at once, and
    /// gives the names of the files that it is made of.
    pub(crate) async fn checkpoint(&self) -> Result<Vec<String>> {
        let mut table = DeltaTable::new(self.log_store.clone());
        table.load().await?;
        deltalake::checkpoints::create_checkpoint(&table, None).await.map_err(|e| Error::Io {
            what: format!("{TABLE}/_delta_log: writing a checkpoint"),
            source: std::io::Error::other(e),
        })?;
        let version = table.version().unwrap_or_default();
        let mut names = vec![checkpoint_name(version)];
        // Without the hint if a crash came before it: a checkpoint that is there is not written again.
        let last = last_checkpoint_name();
        if self.storage.exists(&last).await? {
            names.push(last);
        }
        Ok(names)
    }

    /// Removes all Delta checkpoints but the one in `keep`. What nobody has signed for is what a
    /// crash left, or worse, and must not be built upon.
    pub(crate) async fn forget_checkpoints(&self, keep: &[(String, Sha)]) -> Result<()> {
        let mut names = self.storage.list(&format!("{TABLE}/_delta_log")).await?;
        let last = last_checkpoint_name();
        names.retain(|name| *name == last || name.ends_with(".checkpoint.parquet"));
        names.retain(|name| !keep.iter().any(|(kept, _)| kept == name));
        self.storage.remove(names).await
    }

    /// The newest Delta checkpoint and its version, if the log's key has signed for it. One that is
    /// damaged, or that a crash left unsigned, is none: every commit is there to be read instead.
    async fn signed_checkpoint(&self, vkey: &str) -> Result<Option<(u64, Bytes)>> {
        #[derive(Deserialize)]
        struct LastCheckpoint {
            version: u64,
        }
        let Some(note) = read_note(&self.storage, vkey).await? else { return Ok(None) };
        let signed = |name: &str, bytes: &[u8]| {
            let digest: Sha = Sha256::digest(bytes).into();
            note.files.iter().any(|(signed, sha256)| signed == name && *sha256 == digest)
        };
        let last = last_checkpoint_name();
        let hint = self.storage.try_get(&last).await?.filter(|hint| signed(&last, hint));
        let hint = hint.and_then(|hint| serde_json::from_slice::<LastCheckpoint>(&hint).ok());
        let Some(LastCheckpoint { version }) = hint else { return Ok(None) };
        let name = checkpoint_name(version);
        let bytes = self.storage.try_get(&name).await?.filter(|bytes| signed(&name, bytes));
        Ok(bytes.map(|bytes| (version, bytes)))
    }

    /// The files and positions of the newest Delta checkpoint, and its version.
    async fn load_checkpoint(
        &self,
        vkey: &str,
        state: &mut TableState,
        positions: &mut Positions,
    ) -> Result<Option<u64>> {
        let Some((version, bytes)) = self.signed_checkpoint(vkey).await? else { return Ok(None) };
        let name = checkpoint_name(version);
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(Error::parquet(&name))?;
        let schema = builder.parquet_schema();
        let mask = ProjectionMask::columns(
            schema,
            ["add.path", "add.size", "add.tags", "add.stats", "txn.appId", "txn.version", "txn.lastUpdated"],
        );
        let mut files = BTreeMap::new();
        for batch in builder.with_projection(mask).build().map_err(Error::parquet(&name))? {
            read_checkpoint_rows(&name, &batch?, &mut files, positions)?;
        }
        state.files = files.into_values().map(Arc::new).collect();
        Ok(Some(version))
    }
}

fn checkpoint_name(version: u64) -> String {
    format!("{TABLE}/_delta_log/{version:020}.checkpoint.parquet")
}

fn last_checkpoint_name() -> String {
    format!("{TABLE}/_delta_log/_last_checkpoint")
}

fn read_checkpoint_rows(
    name: &str,
    batch: &RecordBatch,
    files: &mut BTreeMap<u64, DataFile>,
    positions: &mut Positions,
) -> Result<()> {
    let missing = |what: &str| Error::damaged(name, format!("it has no column {what}"));
    let group =
        |what: &str| batch.column_by_name(what).and_then(|c| c.as_struct_opt()).ok_or_else(|| missing(what));
    if let Ok(adds) = group("add") {
        let path = adds.column_by_name("path").and_then(|c| c.as_string_opt::<i32>());
        let size = adds.column_by_name("size").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let tags = adds.column_by_name("tags").and_then(|c| c.as_map_opt());
        let stats = adds.column_by_name("stats").and_then(|c| c.as_string_opt::<i32>());
        let (path, size) =
            (path.ok_or_else(|| missing("add.path"))?, size.ok_or_else(|| missing("add.size"))?);
        let (tags, stats) =
            (tags.ok_or_else(|| missing("add.tags"))?, stats.ok_or_else(|| missing("add.stats"))?);
        for row in (0..batch.num_rows()).filter(|row| adds.is_valid(*row) && path.is_valid(*row)) {
            let entries = tags.value(row);
            let pair = entries.column(0).as_string_opt::<i32>().zip(entries.column(1).as_string_opt::<i32>());
            let (keys, values) = pair.ok_or_else(|| missing("add.tags"))?;
            let tags =
                keys.iter().zip(values).filter_map(|(k, v)| Some((k?.to_owned(), v?.to_owned()))).collect();
            let file =
                DataFile::from_action(name, path.value(row), size.value(row), &tags, stats.value(row))?;
            files.insert(file.first, file);
        }
    }
    if let Ok(txns) = group("txn") {
        let app = txns.column_by_name("appId").and_then(|c| c.as_string_opt::<i32>());
        let version = txns.column_by_name("version").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let at = txns.column_by_name("lastUpdated").and_then(|c| c.as_primitive_opt::<Int64Type>());
        let (app, version) =
            (app.ok_or_else(|| missing("txn.appId"))?, version.ok_or_else(|| missing("txn.version"))?);
        for row in (0..batch.num_rows()).filter(|row| txns.is_valid(*row) && app.is_valid(*row)) {
            let at = at.filter(|at| at.is_valid(row)).map_or(0, |at| at.value(row));
            positions.insert(app.value(row).to_owned(), Position { version: version.value(row), at });
        }
    }
    Ok(())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_requests_are_forgotten() {
        let week = REMEMBERED.as_millis() as i64;
        let at = |at| Position { version: 1, at };
        let all = [("once:a", 99), ("once:b", 100), ("file:c", 0), ("kafka:t:0", 0)];
        let mut positions: Positions = all.map(|(app, then)| (app.to_owned(), at(then))).into();
        forget_old(&mut positions, week + 100);
        let mut left: Vec<_> = positions.into_keys().collect();
        left.sort();
        assert_eq!(left, ["file:c", "kafka:t:0", "once:b"]);
    }
}
