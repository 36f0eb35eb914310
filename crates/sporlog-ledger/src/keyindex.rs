//! The key index: beside each larger data file, where in it a person or a user is found.
//!
//! It is itself a small Parquet file of two columns, sorted: `key`, 32 bits of a hash of a person's
//! or a user's identifier, and `row`, the number of the row in the data file. A look-up reads the
//! one or two pages in which the key can be, and then only those rows of the data file; a row that
//! came up only because two identifiers share a hash is dropped there, where the identifier stands.

use std::sync::{Arc, LazyLock};

use arrow::array::{AsArray, RecordBatch, StringArray, UInt32Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use sporlog_record::Kind;
use sporlog_record::kind::Names;
use twox_hash::XxHash64;

use crate::delta::DataFile;
use crate::error::{Error, Result};
use crate::storage::Storage;

/// A hash and a row: `hash << 32 | row`, so that sorting postings sorts by key and then by row.
pub(crate) type Posting = u64;

/// A file with fewer rows than this has no index; looking at its key columns is as quick.
pub(crate) const MIN_ROWS: u64 = 4_096;

/// Rows of the index in a page: what one look-up decodes.
const PAGE_ROWS: usize = 2_048;

/// Whom a look-up is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// The person that records are about.
    Subject(String),
    /// Who did it.
    Actor(String),
}

impl Key {
    /// The columns of a kind that the key is compared with.
    pub(crate) fn columns(&self, kind: Kind) -> Names {
        match self {
            Key::Subject(_) => kind.subject_columns(),
            Key::Actor(_) => kind.actor_columns(),
        }
    }

    pub(crate) fn hash(&self) -> u32 {
        match self {
            Key::Subject(id) => hash(SUBJECT, id.as_bytes()),
            Key::Actor(id) => hash(ACTOR, id.as_bytes()),
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

/// The postings of a batch, its rows counted from 0, unsorted.
pub(crate) fn postings(kind: Kind, batch: &RecordBatch) -> Vec<Posting> {
    let mut postings = Vec::with_capacity(2 * batch.num_rows());
    for (role, columns) in [(SUBJECT, kind.subject_columns()), (ACTOR, kind.actor_columns())] {
        for (row, id) in identifiers(columns, batch).iter().flatten().enumerate() {
            if let Some(id) = id {
                postings.push(posting(hash(role, id.as_bytes()), row as u32));
            }
        }
    }
    postings
}

pub(crate) fn posting(key: u32, row: u32) -> Posting {
    u64::from(key) << 32 | u64::from(row)
}

/// The index file of these postings.
fn encode(name: &str, mut postings: Vec<Posting>) -> Result<Vec<u8>> {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let field = |name: &str| Field::new(name, DataType::UInt32, false);
        Arc::new(Schema::new(vec![field("key"), field("row")]))
    });
    postings.sort_unstable();
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_BINARY_PACKED)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(None)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(ColumnPath::from("key"), EnabledStatistics::Page)
        .build();
    let columns: [UInt32Array; 2] = [
        UInt32Array::from_iter_values(postings.iter().map(|p| (p >> 32) as u32)),
        UInt32Array::from_iter_values(postings.iter().map(|p| *p as u32)),
    ];
    drop(postings);
    let [key, row] = columns;
    let batch = RecordBatch::try_new(SCHEMA.clone(), vec![Arc::new(key), Arc::new(row)])?;
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, SCHEMA.clone(), Some(properties)).map_err(Error::parquet(name))?;
    writer.write(&batch).map_err(Error::parquet(name))?;
    writer.close().map_err(Error::parquet(name))?;
    Ok(bytes)
}

/// The rows that `batch`, read from an index, has for `key`.
pub(crate) fn rows_of(batch: &RecordBatch, key: u32) -> Vec<u32> {
    let columns = batch.columns();
    let pair = columns.first().zip(columns.get(1));
    let pair =
        pair.and_then(|(k, r)| k.as_primitive_opt::<UInt32Type>().zip(r.as_primitive_opt::<UInt32Type>()));
    pair.map_or_else(Vec::new, |(keys, rows)| {
        keys.values().iter().zip(rows.values()).filter(|(k, _)| **k == key).map(|(_, row)| *row).collect()
    })
}

/// Writes the key index of `file`.
pub(crate) async fn write(storage: &Storage, file: &mut DataFile, postings: Vec<Posting>) -> Result<()> {
    let name = file.index_name();
    let bytes = encode(&name, postings)?;
    file.index = Some(Sha256::digest(&bytes).into());
    storage.put(&name, bytes.into()).await
}
