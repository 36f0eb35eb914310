//! Delta checkpoints: the table's state at a version as one Parquet file, from which this program and
//! every reader of Delta tables opens the table at once.
//!
//! A Delta checkpoint is a short cut and never a source of truth. It is written from the state in memory,
//! whose commits were verified one by one. It is read only if the signed note on the table has its
//! digest. And verification compares what it holds with what the commits say. Without one, all commits
//! are read.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::commit::{Commit, Position, position};
use crate::delta::{
    Action, DELTA_LOG, DataFile, Metadata, Protocol, Sha, Txn, checkpoint_name, checkpoint_version,
};
use crate::error::{Error, Result};
use crate::recent::Recent;
use crate::schema::ENGINE;
use crate::storage::Storage;
use crate::table_state::{ONCE, Positions, TableState, forget_old};
use crate::tlog::{TableNote, read_note};

/// Rows encoded at once.
const BATCH_ROWS: usize = 1_024;

/// What a Delta checkpoint holds.
#[derive(Debug)]
pub(crate) struct DeltaCheckpoint {
    pub protocol: Protocol,
    pub metadata: Metadata,
    /// In the order of their ids.
    pub files: Vec<DataFile>,
    pub positions: Positions,
}

/// The hint by which readers of Delta tables find the newest checkpoint.
#[derive(Serialize, Deserialize)]
struct LastCheckpoint {
    version: u64,
    size: u64,
}

/// The name of the hint, relative to the log's folder.
pub(crate) fn last_checkpoint_name() -> String {
    format!("{DELTA_LOG}/_last_checkpoint")
}

/// Writes a Delta checkpoint of `state`, whose sources stand at `positions`. Gives its name and digest.
pub(crate) async fn write(
    storage: &Storage,
    state: &TableState,
    positions: &Positions,
) -> Result<(String, Sha)> {
    let name = checkpoint_name(state.version);
    let protocol = Action { protocol: Some((*state.protocol).clone()), ..Action::default() };
    let metadata = Action { meta_data: Some((*state.metadata).clone()), ..Action::default() };
    let txn = |(app, position): (&String, &Position)| {
        Action::from(Txn { app_id: app.clone(), version: position.version, last_updated: Some(position.at) })
    };
    let actions = [protocol, metadata]
        .into_iter()
        .chain(state.files.iter().map(|file| file.add(false).into()))
        .chain(positions.iter().map(txn));
    let actions: Vec<Action> = actions.collect();
    let bytes = encode(&name, &actions)?;
    let mut digest: Sha = Sha256::digest(&bytes).into();
    let mut hint = hint(state.version, actions.len() as u64)?;
    if !storage.put_new(&name, bytes.clone()).await? {
        // Another process has written one of this version: it stays if it holds the same. It may be gone
        // already, where that process has written a newer one.
        let there = storage.try_get(&name).await?.unwrap_or_default();
        let theirs = DeltaCheckpoint::decode(&name, there.clone()).and_then(|mut other| {
            let hint = other.hint(state.version)?;
            // Each process forgets single requests at a time of its own.
            forget_old(&mut other.positions, chrono::Utc::now().timestamp_millis());
            Ok(other.difference(state, positions).is_none().then_some(hint))
        });
        match theirs {
            Ok(Some(theirs)) => (digest, hint) = (Sha256::digest(&there).into(), theirs),
            _ => storage.put(&name, bytes).await?,
        }
    }
    storage.put(&last_checkpoint_name(), hint).await?;
    Ok((name, digest))
}

/// The version of the oldest checkpoint that somebody may open the table by: the one that the signed note
/// or the hint names. 0 if there is none.
pub(crate) async fn oldest_needed(storage: &Storage, vkey: &str) -> Result<u64> {
    let note = read_note(storage, vkey).await?;
    let signed = note.iter().flat_map(|note| &note.files).filter_map(|(name, _)| checkpoint_version(name));
    let hint = storage.try_get(&last_checkpoint_name()).await?;
    let hint = hint.and_then(|hint| serde_json::from_slice::<LastCheckpoint>(&hint).ok());
    Ok(signed.chain(hint.map(|hint| hint.version)).min().unwrap_or_default())
}

fn hint(version: u64, size: u64) -> Result<Bytes> {
    let hint = serde_json::to_vec(&LastCheckpoint { version, size });
    hint.map(Bytes::from).map_err(|e| Error::damaged(last_checkpoint_name(), e))
}

fn encode(name: &str, actions: &[Action]) -> Result<Bytes> {
    let schema = checkpoint_schema();
    let mut decoder = ReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS).build_decoder()?;
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_created_by(ENGINE.to_owned()).build();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, schema, Some(properties)).map_err(Error::parquet(name))?;
    for rows in actions.chunks(BATCH_ROWS) {
        decoder.serialize(rows)?;
        if let Some(batch) = decoder.flush()? {
            writer.write(&batch).map_err(Error::parquet(name))?;
        }
    }
    writer.close().map_err(Error::parquet(name))?;
    Ok(bytes.into())
}

/// The columns of a checkpoint, one for each sort of action. `remove` has no rows: files are deleted by
/// this program alone.
fn checkpoint_schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let text = |name: &str| field(name, DataType::Utf8);
    let long = |name: &str| field(name, DataType::Int64);
    let int = |name: &str| field(name, DataType::Int32);
    let flag = |name: &str| field(name, DataType::Boolean);
    let texts = |name: &str| field(name, DataType::List(Arc::new(text("element"))));
    let group = |name: &str, fields: Vec<Field>| field(name, DataType::Struct(Fields::from(fields)));
    let map = |name: &str| {
        let pair = Fields::from(vec![Field::new("key", DataType::Utf8, false), text("value")]);
        let pairs = Field::new("key_value", DataType::Struct(pair), false);
        field(name, DataType::Map(Arc::new(pairs), false))
    };
    let features = vec![
        int("minReaderVersion"),
        int("minWriterVersion"),
        texts("readerFeatures"),
        texts("writerFeatures"),
    ];
    let metadata = vec![
        text("id"),
        text("name"),
        text("description"),
        group("format", vec![text("provider"), map("options")]),
        text("schemaString"),
        texts("partitionColumns"),
        map("configuration"),
        long("createdTime"),
    ];
    let add = vec![
        text("path"),
        map("partitionValues"),
        long("size"),
        long("modificationTime"),
        flag("dataChange"),
        text("stats"),
        map("tags"),
    ];
    let remove = vec![text("path"), long("deletionTimestamp"), flag("dataChange")];
    Arc::new(Schema::new(vec![
        group("txn", vec![text("appId"), long("version"), long("lastUpdated")]),
        group("add", add),
        group("remove", remove),
        group("metaData", metadata),
        group("protocol", features),
    ]))
}

impl DeltaCheckpoint {
    /// The newest checkpoint and its version, if `note` has its digest.
    pub(crate) async fn load_signed(
        storage: &Storage,
        note: Option<&TableNote>,
    ) -> Result<Option<(u64, Self)>> {
        let signed = note.into_iter().flat_map(|note| &note.files);
        for (name, digest) in signed {
            let Some(version) = checkpoint_version(name) else { continue };
            let Some(bytes) = storage.try_get(name).await? else { continue };
            if Sha::from(Sha256::digest(&bytes)) == *digest {
                return Ok(Some((version, Self::decode(name, bytes)?)));
            }
        }
        Ok(None)
    }

    /// Reads the checkpoint `name`.
    pub(crate) fn decode(name: &str, bytes: Bytes) -> Result<Self> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(Error::parquet(name))?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["protocol", "metaData", "add", "txn"]);
        let (mut protocol, mut metadata) = (None, None);
        let (mut files, mut positions) = (Vec::new(), Positions::new());
        for batch in builder.with_projection(mask).build().map_err(Error::parquet(name))? {
            for action in actions_of(name, &batch?)? {
                protocol = action.protocol.or(protocol);
                metadata = action.meta_data.or(metadata);
                if let Some(add) = action.add {
                    files.push(DataFile::from_add(name, add)?);
                }
                positions.extend(action.txn.as_ref().map(position));
            }
        }
        files.sort_by_key(|file| file.first);
        let missing = |what: &str| Error::damaged(name, format!("it has no {what}"));
        Ok(DeltaCheckpoint {
            protocol: protocol.ok_or_else(|| missing("protocol"))?,
            metadata: metadata.ok_or_else(|| missing("metadata"))?,
            files,
            positions,
        })
    }

    /// How this Delta checkpoint differs from `state`, whose sources stand at `positions`. Positions whose
    /// names begin with [`ONCE`] are forgotten after a week, and so may be missing.
    pub(crate) fn difference(&self, state: &TableState, positions: &Positions) -> Option<&'static str> {
        let same_files = self.files.len() == state.files.len()
            && self.files.iter().zip(state.files.iter()).all(|(file, there)| *file == **there);
        let known = |(app, position): (&String, &_)| positions.get(app) == Some(position);
        let missing = |app: &String| !app.starts_with(ONCE) && !self.positions.contains_key(app);
        if !same_files {
            Some("it holds other files than the commits up to its version")
        } else if !self.positions.iter().all(known) || positions.keys().any(missing) {
            Some("it holds other positions of sources than the commits up to its version")
        } else if self.protocol != *state.protocol || self.metadata != *state.metadata {
            Some("it holds another protocol or other metadata than the commits up to its version")
        } else {
            None
        }
    }

    /// The state of `version`, which this checkpoint holds and whose commit is `commit`.
    pub(crate) fn into_state(self, version: u64, commit: &Commit) -> TableState {
        let DeltaCheckpoint { protocol, metadata, files, .. } = self;
        let mut state = TableState {
            version,
            files: Arc::new(files.into_iter().map(Arc::new).collect()),
            recent: Recent::none(version, Sha::default()),
            size: commit.size,
            root: commit.root,
            chain: Sha::default(),
            signed: false,
            protocol: Arc::new(protocol),
            metadata: Arc::new(metadata),
        };
        state.moved_to(version, commit, &commit.previous);
        state
    }

    /// What the hint on this checkpoint, of `version`, has to be.
    pub(crate) fn hint(&self, version: u64) -> Result<Bytes> {
        hint(version, (2 + self.files.len() + self.positions.len()) as u64)
    }
}

fn actions_of(name: &str, batch: &RecordBatch) -> Result<Vec<Action>> {
    let mut lines = Vec::new();
    let mut writer = LineDelimitedWriter::new(&mut lines);
    writer.write(batch)?;
    writer.finish()?;
    let lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|e| Error::damaged(name, e))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::LogKeys;
    use crate::table::Table;

    #[tokio::test]
    async fn the_same_is_signed_for_whoever_of_two_processes_has_forgotten_single_requests() -> Result<()> {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = LogKeys::generate(dir.path(), "log", "sporlog.invalid/log")?;
        let positions = |names: &[&str]| -> Positions {
            names.iter().map(|name| ((*name).to_owned(), Position { version: 1, at: 0 })).collect()
        };
        let (all, left) = (positions(&["once:of long ago", "file:x"]), positions(&["file:x"]));
        for (one, other) in [(&all, &left), (&left, &all)] {
            let storage = Storage::open("memory:///", true)?;
            let table = Table::new("log", storage.clone());
            table.create(&keys, sporlog_record::Kind::Auditlog, 0).await?;
            let (_, state) = table.first().await?.expect("a table");
            let written = write(&storage, &state, one).await?;
            assert_eq!(write(&storage, &state, other).await?, written);
            let there = storage.get(&written.0).await?;
            assert_eq!(Sha::from(Sha256::digest(&there)), written.1);
            let hint = DeltaCheckpoint::decode(&written.0, there)?.hint(state.version)?;
            assert_eq!(storage.get(&last_checkpoint_name()).await?, hint);
        }
        Ok(())
    }
}
