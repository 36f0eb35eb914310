//! What a log has of an upstream's records: their ids there, and the fields in which they can be compared.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::TryStreamExt;
use sporlog_ledger::{Error as LedgerError, Log};
use sporlog_record::Kind;
use sporlog_record::kind::EXTRA;

use crate::error::{Error, Result};

/// What the upstream changes in records that it has handed out.
const CHANGES: &str = "samaccountName";
/// Rows that lie this near to each other are read at once.
const NEAR: u64 = 256;

/// The ids that a log's records had where they came from, in the order of the log, and their ids in it.
pub(super) async fn source_ids(log: &Log) -> Result<Vec<(i64, u64)>, LedgerError> {
    let mut batches = log.read_columns(0, None, &["id", "sourceId"]);
    let mut all = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        let column = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
        let (Some(ids), Some(sources)) = (column("id"), column("sourceId")) else {
            return Err(LedgerError::Columns("the columns id and sourceId are expected".into()));
        };
        let numbered =
            |row: usize| sources.is_valid(row).then(|| (sources.value(row), ids.value(row) as u64));
        all.extend((0..batch.num_rows()).filter_map(numbered));
    }
    Ok(all)
}

/// The fields of rows that are compared, as texts.
pub(super) struct Fields(Vec<(&'static str, StringArray)>);

impl Fields {
    /// Those of `rows`, and the fields that are not known.
    pub(super) fn of(kind: Kind, rows: &RecordBatch) -> Result<Self> {
        let names = kind.columns().iter().map(|column| column.name);
        let compared = names.filter(|name| *name != CHANGES && !kind.source_columns().contains(name));
        let text = |name: &'static str| {
            let column = rows
                .column_by_name(name)
                .ok_or_else(|| LedgerError::Columns(format!("{name} is missing")))?;
            let text = cast(column, &DataType::Utf8).map_err(LedgerError::from)?;
            Ok((name, text.as_string::<i32>().clone()))
        };
        Ok(Fields(compared.chain([EXTRA]).map(text).collect::<Result<_>>()?))
    }

    fn at(&self, row: usize) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        self.0.iter().map(move |(name, texts)| (*name, texts.is_valid(row).then(|| texts.value(row))))
    }
}

/// Rows of a log, by their ids.
pub(super) struct Stored {
    fields: Vec<Fields>,
    places: HashMap<u64, (usize, usize)>,
}

impl Stored {
    /// The fields in which the record `id` and a row of `given` differ; all, if there is no such record any more.
    pub(super) fn differing(&self, id: u64, given: &Fields, row: usize, extra: bool) -> Vec<&'static str> {
        let stored = self.places.get(&id).and_then(|(batch, row)| Some((self.fields.get(*batch)?, *row)));
        let Some((fields, there)) = stored else { return given.0.iter().map(|(name, _)| *name).collect() };
        let differ =
            std::iter::zip(fields.at(there), given.at(row)).filter(|(there, given)| there.1 != given.1);
        differ.map(|(there, _)| there.0).filter(|name| extra || *name != EXTRA).collect()
    }
}

/// The records of `log` with these ids, as far as they are there.
pub(super) async fn records(log: &Log, ids: &[u64]) -> Result<Stored> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    let mut stored = Stored { fields: Vec::new(), places: HashMap::new() };
    for run in ids.chunk_by(|a, b| b - a <= NEAR) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let mut batches = log.read(first - 1, Some(last - first + 1));
        while let Some(batch) = batches.try_next().await? {
            let numbers = batch.column_by_name("id").and_then(|c| c.as_primitive_opt::<Int64Type>());
            let numbers = numbers.ok_or_else(|| Error::Internal("a log without ids".into()))?;
            let place = |(row, id): (usize, &i64)| (id.unsigned_abs(), (stored.fields.len(), row));
            stored.places.extend(numbers.values().iter().enumerate().map(place));
            stored.fields.push(Fields::of(log.kind(), &batch)?);
        }
    }
    Ok(stored)
}
