//! The key index: beside each larger data file, where in it a person, a user or a row is found.
//!
//! An index is itself a small Parquet file. Its columns are `key`, 32 bits of a hash of what is looked up, `row`,
//! the number of the row in the data file, and for kinds whose rows have an identity ([`Identities`]) `check`, 16
//! further bits of the hash. The persons and users are a row group, and the identities of the rows are another, which
//! the file's metadata name ([`IDENTITIES`]); each is sorted by `key`. An index whose metadata do not was written by an
//! earlier version of this program, or is of another kind, and has no identities.
//!
//! A look-up reads the pages in which its keys can be, and then those rows of the data file; a row that came up
//! only because two hashes begin alike is dropped there, where the columns themselves stand.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt16Array, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt16Type, UInt32Type};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::basic::{Compression, Encoding};
use parquet::file::metadata::KeyValue;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use sporlog_record::Kind;
use sporlog_record::column::Names;
use sporlog_record::identity::Identities;
use twox_hash::XxHash64;

use crate::delta::DataFile;
use crate::error::{Error, Result};
use crate::files::{OpenFile, PageIndexes};
use crate::log::Shared;
use crate::storage::Storage;

/// The hash of a row's identity and a row: `hash << 32 | row`. The hash has 96 bits of a SHA-256: two identities
/// with the same one cannot be made, so one delivery cannot pass a row off as another's.
pub(crate) type RowKey = u128;

/// A file with fewer rows than this has no index; looking at its key columns is as quick.
pub(crate) const MIN_ROWS: u64 = 4_096;

/// Rows of the index in a page: what one look-up decodes.
const PAGE_ROWS: usize = 2_048;
/// Rows of the index that are decoded at once where many are wanted.
const BATCH_ROWS: usize = 16_384;

/// The entry in an index's metadata that says which row group is the first after those of persons and users.
const IDENTITIES: &str = "sporlog.identities";

/// Whom a look-up is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The person that records are about.
    Subject(String),
    /// Who did it.
    Actor(String),
    /// The id that a record had where it came from. The index does not have it.
    Source(String),
}

impl Key {
    /// The columns of a kind that the key is compared with.
    pub(crate) fn columns(&self, kind: Kind) -> Names {
        match self {
            Key::Subject(_) => kind.subject_columns(),
            Key::Actor(_) => kind.actor_columns(),
            Key::Source(_) => kind.source_columns(),
        }
    }

    /// The value that is looked for.
    pub fn value(&self) -> &str {
        match self {
            Key::Subject(id) | Key::Actor(id) | Key::Source(id) => id,
        }
    }

    /// What the index has it under, if it does.
    pub(crate) fn hash(&self) -> Option<u32> {
        match self {
            Key::Subject(id) => Some(hash(SUBJECT, id.as_bytes())),
            Key::Actor(id) => Some(hash(ACTOR, id.as_bytes())),
            Key::Source(_) => None,
        }
    }
}

const SUBJECT: u64 = 1;
const ACTOR: u64 = 2;

fn hash(role: u64, identifier: &[u8]) -> u32 {
    (XxHash64::oneshot(role, identifier) >> 32) as u32
}

/// The identifiers that a key is compared with, row by row: of the key's columns, the first that has a value.
/// `None` if the kind has no such columns.
pub(crate) fn identifiers(columns: Names, batch: &RecordBatch) -> Option<StringArray> {
    let mut texts = columns.iter().map(|name| {
        let text = cast(batch.column_by_name(name)?, &DataType::Utf8).ok()?;
        text.as_string_opt::<i32>().cloned()
    });
    let first = texts.next()??;
    texts.try_fold(first, |first, next| {
        Some(first.iter().zip(&next?).map(|(first, next)| first.or(next)).collect())
    })
}

/// What the index of a data file is made of, unsorted.
#[derive(Default)]
pub(crate) struct Postings {
    /// Persons and users: `hash << 32 | row`, so that sorting sorts by key and then by row.
    people: Vec<u64>,
    rows: Vec<RowKey>,
}

impl Postings {
    /// The postings of a batch, its rows counted from 0.
    pub(crate) fn of(kind: Kind, batch: &RecordBatch) -> Self {
        let mut people = Vec::with_capacity(2 * batch.num_rows());
        for (role, columns) in [(SUBJECT, kind.subject_columns()), (ACTOR, kind.actor_columns())] {
            for (row, id) in identifiers(columns, batch).iter().flatten().enumerate() {
                if let Some(id) = id {
                    people.push(u64::from(hash(role, id.as_bytes())) << 32 | row as u64);
                }
            }
        }
        Postings { people, rows: row_keys(kind, batch) }
    }

    /// Adds those of rows that come `later` rows after the first one here.
    pub(crate) fn append(&mut self, others: Postings, later: u32) {
        // The row is the lower part of each number.
        self.people.extend(others.people.into_iter().map(|posting| posting + u64::from(later)));
        self.rows.extend(others.rows.into_iter().map(|key| key + RowKey::from(later)));
    }

    /// The keys of the rows themselves.
    pub(crate) fn row_keys(&self) -> &[RowKey] {
        &self.rows
    }
}

/// The keys of the rows of a batch, counted from 0; rows without an identity have none.
pub(crate) fn row_keys(kind: Kind, batch: &RecordBatch) -> Vec<RowKey> {
    let Some(identities) = Identities::of(kind, batch) else { return Vec::new() };
    let mut identity = Vec::new();
    let key = |row: usize| {
        identities.write(row, &mut identity).then(|| {
            let mut hash = [0; 16];
            hash.copy_from_slice(&Sha256::digest(&identity)[..16]);
            RowKey::from_be_bytes(hash) >> 32 << 32 | row as RowKey
        })
    };
    (0..batch.num_rows()).filter_map(key).collect()
}

/// The hash in a row's key, without the row.
pub(crate) fn row_hash(key: RowKey) -> RowKey {
    key >> 32
}

/// What an index has of a row's key: `key` and `check`, 48 bits.
pub(crate) fn indexed(key: RowKey) -> u64 {
    (key >> 80) as u64
}

/// The index file of these postings.
fn encode(kind: Kind, name: &str, mut postings: Postings) -> Result<Vec<u8>> {
    static SCHEMAS: LazyLock<[SchemaRef; 2]> = LazyLock::new(|| {
        let field = |name: &str| Field::new(name, DataType::UInt32, false);
        let people = vec![field("key"), field("row")];
        let rows = [people.clone(), vec![Field::new("check", DataType::UInt16, false)]].concat();
        [people, rows].map(|fields| Arc::new(Schema::new(fields)))
    });
    let identities = !kind.identity_columns().is_empty();
    let schema = &SCHEMAS[usize::from(identities)];
    // A row group that has no rows is not written.
    let first = usize::from(!postings.people.is_empty()).to_string();
    postings.people.sort_unstable();
    postings.rows.sort_unstable();
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_BINARY_PACKED)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(ColumnPath::from("key"), EnabledStatistics::Page)
        .set_key_value_metadata(identities.then(|| vec![KeyValue::new(IDENTITIES.to_owned(), first)]))
        .build();
    let batch = |keys: UInt32Array, rows: UInt32Array, checks: UInt16Array| {
        let columns = [Arc::new(keys) as ArrayRef, Arc::new(rows), Arc::new(checks)];
        RecordBatch::try_new(schema.clone(), columns.into_iter().take(schema.fields().len()).collect())
    };
    let Postings { people, rows } = postings;
    let people = batch(
        people.iter().map(|posting| (posting >> 32) as u32).collect::<Vec<_>>().into(),
        people.iter().map(|posting| *posting as u32).collect::<Vec<_>>().into(),
        vec![0; people.len()].into(),
    )?;
    let rows = batch(
        rows.iter().map(|key| (key >> 96) as u32).collect::<Vec<_>>().into(),
        rows.iter().map(|key| *key as u32).collect::<Vec<_>>().into(),
        rows.iter().map(|key| (key >> 80) as u16).collect::<Vec<_>>().into(),
    )?;
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties)).map_err(Error::parquet(name))?;
    for group in [people, rows] {
        writer.write(&group).and_then(|()| writer.flush()).map_err(Error::parquet(name))?;
    }
    writer.close().map_err(Error::parquet(name))?;
    Ok(bytes)
}

/// Writes the key index of `file`.
pub(crate) async fn write(
    storage: &Storage,
    kind: Kind,
    file: &mut DataFile,
    postings: Postings,
) -> Result<()> {
    let name = file.index_name();
    let bytes = encode(kind, &name, postings)?;
    file.index = Some(Sha256::digest(&bytes).into());
    storage.put(&name, bytes.into()).await
}

/// The rows of `file` that its index has for `key`.
pub(crate) async fn rows_of(shared: &Shared, file: &DataFile, key: u32) -> Result<Vec<u32>> {
    let open = shared.files.open(&shared.storage, &file.index_name(), PageIndexes::Bounds).await?;
    let groups = 0..identity_group(&open).unwrap_or(open.metadata().num_row_groups());
    let mut batches = pages(file, open, groups, |min, max| min <= key && key <= max)?;
    let mut found = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        let (keys, rows) = keys_and_rows(file, &batch)?;
        found.extend(keys.iter().zip(rows).filter(|(k, _)| **k == key).map(|(_, row)| *row));
    }
    Ok(found)
}

/// The identities that the index of `file` has, in batches for [`indexed_rows`], ascending; those pages in which a
/// key is `wanted`, given the least and greatest key of a page. `None` if the index has no identities.
pub(crate) async fn identities(
    shared: &Shared,
    file: &DataFile,
    wanted: impl Fn(u32, u32) -> bool,
) -> Result<Option<Batches>> {
    let open = shared.files.open(&shared.storage, &file.index_name(), PageIndexes::Bounds).await?;
    let Some(first) = identity_group(&open) else { return Ok(None) };
    let groups = first..open.metadata().num_row_groups();
    pages(file, open, groups, wanted).map(Some)
}

/// The row group of an index from which on there are identities; `None` if it was written without.
fn identity_group(open: &OpenFile) -> Option<usize> {
    let metadata = open.metadata().file_metadata().key_value_metadata()?;
    let entry = metadata.iter().find(|entry| entry.key == IDENTITIES)?;
    entry.value.as_ref()?.parse().ok()
}

/// What [`indexed`] gives for each row in a batch of identities, and the row.
pub(crate) fn indexed_rows<'a>(
    file: &DataFile,
    batch: &'a RecordBatch,
) -> Result<impl Iterator<Item = (u64, u32)> + use<'a>> {
    let (keys, rows) = keys_and_rows(file, batch)?;
    let checks = batch.columns().get(2).and_then(|column| column.as_primitive_opt::<UInt16Type>());
    let checks = checks.ok_or_else(|| not_an_index(file))?.values();
    let joined = keys.iter().zip(checks).map(|(key, check)| u64::from(*key) << 16 | u64::from(*check));
    Ok(joined.zip(rows.iter().copied()))
}

/// Batches of an index.
pub(crate) type Batches = BoxStream<'static, Result<RecordBatch>>;

/// The pages of some row groups of an index in which there are keys that are `wanted`.
fn pages(
    file: &DataFile,
    open: OpenFile,
    groups: Range<usize>,
    wanted: impl Fn(u32, u32) -> bool,
) -> Result<Batches> {
    let name = file.index_name();
    let missing = || Error::damaged(&name, "it has no page index");
    let metadata = open.metadata().clone();
    let (Some(bounds), Some(places)) = (metadata.column_index(), metadata.offset_index()) else {
        return Err(missing());
    };
    let mut selectors = Vec::new();
    for group in groups.clone() {
        let rows = metadata.row_groups().get(group).ok_or_else(missing)?.num_rows();
        let bounds = bounds.get(group).and_then(|g| g.first()).ok_or_else(missing)?;
        let places = places.get(group).and_then(|g| g.first()).ok_or_else(missing)?.page_locations();
        let ColumnIndexMetaData::INT32(bounds) = bounds else { return Err(missing()) };
        for (page, place) in places.iter().enumerate() {
            let end = places.get(page + 1).map_or(rows, |next| next.first_row_index);
            let rows = (end - place.first_row_index) as usize;
            // The file format knows no unsigned numbers; these are, and sorted as such.
            let within = bounds.min_value(page).zip(bounds.max_value(page));
            let within = within.is_some_and(|(min, max)| wanted(*min as u32, *max as u32));
            selectors.push(if within { RowSelector::select(rows) } else { RowSelector::skip(rows) });
        }
    }
    if selectors.iter().all(|selector| selector.skip) {
        return Ok(futures::stream::empty().boxed());
    }
    let open = open.with_row_groups(groups.collect()).with_row_selection(RowSelection::from(selectors));
    let stream = open.with_batch_size(BATCH_ROWS).build().map_err(Error::parquet(&name))?;
    Ok(stream.map_err(Error::parquet_stream(&name)).boxed())
}

fn keys_and_rows<'a>(file: &DataFile, batch: &'a RecordBatch) -> Result<(&'a [u32], &'a [u32])> {
    let column = |number: usize| batch.columns().get(number)?.as_primitive_opt::<UInt32Type>();
    let columns = column(0).zip(column(1)).ok_or_else(|| not_an_index(file))?;
    Ok((columns.0.values(), columns.1.values()))
}

fn not_an_index(file: &DataFile) -> Error {
    Error::damaged(file.index_name(), "it has not the columns of a key index")
}
