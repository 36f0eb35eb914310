//! Records by their ids: in order from one on, or just these.
//!
//! Ids are contiguous within a part, so an id is a row number. Of a file, only the pages in which the wanted rows lie
//! are read, and for whoever reads on, each once ([`crate::blocks`]); the records of the journal are in memory.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::compute::kernels::cmp::eq;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::error::ArrowError;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicateFn, RowFilter, RowSelection, RowSelectionPolicy, RowSelector,
};

use crate::blocks::BLOCK_ROWS;
use crate::delta::DataFile;
use crate::error::{Error, Result};
use crate::files::{OpenFile, PageIndexes};
use crate::log::{Log, Shared};
use crate::recent::{Part, RecentRows};
use crate::schema::table_schema;
use crate::table_state::TableState;

/// Batches of a log, in some order that the giver promises.
pub type Batches = BoxStream<'static, Result<RecordBatch>>;

/// Rows in a batch of a scan, at most …
const BATCH_ROWS: usize = 4_096;
/// … and at least, and the bytes that it should come to: records may be of a kilobyte or of many
/// megabytes.
const MIN_BATCH_ROWS: usize = 8;
const BATCH_BYTES: usize = 4 << 20;

impl Log {
    /// The records with ids above `after`, ascending, at most `limit` of them; columns as in
    /// [`table_schema`](crate::table_schema). What is appended after the call is not in it.
    pub fn read(&self, after: u64, limit: Option<u64>) -> Batches {
        let (shared, state) = (self.shared.clone(), self.state());
        let Some(limit) = limit.filter(|limit| *limit <= BLOCK_ROWS as u64) else {
            return in_order(shared, state, after, limit);
        };
        let count = ids_for(&state, after, limit);
        let parts = parts(&state, after, Some(count));
        let last = after.saturating_add(count).min(state.size);
        if shared.blocks.reads_on(&shared.name, after, last) {
            in_blocks(shared, parts)
        } else {
            scan(shared, parts, None, None)
        }
    }

    /// Of the `count` ids above `after`, or of all, these columns, in the order of the table; no others are
    /// read.
    pub fn read_columns(&self, after: u64, count: Option<u64>, columns: &'static [&'static str]) -> Batches {
        scan(self.shared.clone(), parts(&self.state(), after, count), Some(columns), None)
    }

    /// Of the `count` ids above `after`, the records whose text `column` is `value`, ascending. Of
    /// all others, only that column is decoded.
    pub fn read_where(&self, after: u64, count: u64, column: &'static str, value: &str) -> Batches {
        let value = StringArray::new_scalar(value);
        let filter = Filter { column, wanted: Arc::new(move |texts| eq(texts, &value)) };
        scan(self.shared.clone(), parts(&self.state(), after, Some(count)), None, Some(filter))
    }

    /// Of the `count` ids above `after`, these columns of the records whose text `column` is `wanted`,
    /// ascending. Of all others, only that column is decoded: that pays where few are wanted.
    pub fn read_columns_if(
        &self,
        after: u64,
        count: u64,
        columns: &'static [&'static str],
        column: &'static str,
        wanted: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Batches {
        let wanted = Arc::new(move |texts: &StringArray| {
            Ok(texts.iter().map(|text| Some(text.is_some_and(&wanted))).collect())
        });
        let parts = parts(&self.state(), after, Some(count));
        scan(self.shared.clone(), parts, Some(columns), Some(Filter { column, wanted }))
    }

    /// The record with this id, as a batch of one row.
    pub async fn record(&self, id: u64) -> Result<RecordBatch> {
        let state = self.state();
        let missing = |why: String| Error::NoSuchRecord { log: self.name().to_owned(), id, why };
        if id == 0 || id > state.size {
            return Err(missing(format!("its ids are 1 to {}", state.size)));
        }
        let part = state.part_of(id).ok_or_else(|| missing("it has expired".into()))?;
        let rows = [(id - part.first()) as u32];
        let mut batches = rows_of(&self.shared, &part, &rows, None).await?;
        let batch = batches.try_next().await?;
        batch.ok_or_else(|| Error::damaged(part.name(), "it has fewer rows than the Delta log says"))
    }
}

/// See [`Log::read`].
pub(crate) fn in_order(
    shared: Arc<Shared>,
    state: Arc<TableState>,
    after: u64,
    limit: Option<u64>,
) -> Batches {
    let count = limit.map(|limit| ids_for(&state, after, limit));
    scan(shared, parts(&state, after, count), None, None)
}

/// A part of the log, and which of its rows are wanted.
type Selected = (Part, Range<usize>);

/// Which records are wanted, by the texts of a column.
#[derive(Clone)]
struct Filter {
    column: &'static str,
    wanted: Arc<Wanted>,
}

/// Which of these texts are wanted.
type Wanted = dyn Fn(&StringArray) -> Result<BooleanArray, ArrowError> + Send + Sync;

/// Of these parts, in their order, these columns of the records that are wanted.
fn scan(
    shared: Arc<Shared>,
    parts: Vec<Selected>,
    columns: Option<&'static [&'static str]>,
    filter: Option<Filter>,
) -> Batches {
    let open = move |(part, rows): Selected| {
        let (shared, filter) = (shared.clone(), filter.clone());
        async move { select_if(&shared, &part, selection(&part, &rows), columns, filter).await }
    };
    futures::stream::iter(parts).then(open).try_flatten().boxed()
}

/// Of these parts, in their order, all columns of the records that are wanted, from whole blocks of files.
fn in_blocks(shared: Arc<Shared>, parts: Vec<Selected>) -> Batches {
    let open = move |(part, rows): Selected| {
        let shared = shared.clone();
        async move {
            let batches = match &part {
                Part::File(file) => from_blocks(&shared, file, &rows).await?,
                Part::Recent(_) => None,
            };
            match batches {
                Some(batches) => Ok(futures::stream::iter(batches.into_iter().map(Ok)).boxed()),
                None => select(&shared, &part, selection(&part, &rows), None).await,
            }
        }
    };
    futures::stream::iter(parts).then(open).try_flatten().boxed()
}

/// These rows of `file`, from the blocks that hold them; `None` if its records are so large that blocks would be, too.
async fn from_blocks(
    shared: &Shared,
    file: &Arc<DataFile>,
    wanted: &Range<usize>,
) -> Result<Option<Vec<RecordBatch>>> {
    let open = shared.files.open(&shared.storage, &file.name(), PageIndexes::Locations).await?;
    let (mut batches, mut next) = (Vec::new(), 0);
    for group in open.metadata().row_groups() {
        let rows = next..next + group.num_rows() as usize;
        next = rows.end;
        let bytes = group.total_byte_size().unsigned_abs();
        let are_large = batch_rows(bytes, rows.len() as u64) < BLOCK_ROWS;
        for start in rows.clone().step_by(BLOCK_ROWS) {
            let block = start..rows.end.min(start + BLOCK_ROWS);
            let (from, to) = (wanted.start.max(block.start), wanted.end.min(block.end));
            if from < to {
                if are_large {
                    return Ok(None);
                }
                batches.push(whole_block(shared, file, block).await?.slice(from - start, to - from));
            }
        }
    }
    Ok(Some(batches))
}

/// A block of `file`: kept, or decoded and kept.
async fn whole_block(shared: &Shared, file: &Arc<DataFile>, block: Range<usize>) -> Result<RecordBatch> {
    if let Some(rows) = shared.blocks.get(&shared.name, file, block.start) {
        return Ok(rows);
    }
    let part = Part::File(file.clone());
    let batches = select(shared, &part, selection(&part, &block), None).await?;
    let rows = concat_batches(&table_schema(shared.kind), &batches.try_collect::<Vec<_>>().await?)?;
    if rows.num_rows() != block.len() {
        return Err(Error::damaged(file.name(), "its pages have fewer rows than its footer says"));
    }
    shared.blocks.put(&shared.name, file, block.start, rows.clone());
    Ok(rows)
}

/// How many ids above `after` it takes for `limit` records: retention leaves gaps.
fn ids_for(state: &TableState, after: u64, limit: u64) -> u64 {
    let mut left = limit;
    for part in state.parts_after(after) {
        let first = part.first().max(after + 1);
        let there = part.last() + 1 - first;
        if there >= left {
            return first + left - 1 - after;
        }
        left -= there;
    }
    u64::MAX
}

/// The `count` ids above `after`, or all, in the parts that hold some of them.
fn parts(state: &TableState, after: u64, count: Option<u64>) -> Vec<Selected> {
    let end = count.map_or(u64::MAX, |count| after.saturating_add(count).saturating_add(1));
    let select = |part: Part| {
        let rows =
            after.saturating_add(1).saturating_sub(part.first())..end.min(part.last() + 1) - part.first();
        (part, rows.start as usize..rows.end as usize)
    };
    state.parts_after(after).take_while(|part| part.first() < end).map(select).collect()
}

/// These rows of `part`; `None` if they are all.
fn selection(part: &Part, rows: &Range<usize>) -> Option<RowSelection> {
    let some = rows.start > 0 || rows.end < part.rows() as usize;
    some.then(|| vec![RowSelector::skip(rows.start), RowSelector::select(rows.len())].into())
}

/// These rows of `part`, ascending, counted from 0; of all columns, or of those named.
pub(crate) async fn rows_of(
    shared: &Shared,
    part: &Part,
    rows: &[u32],
    columns: Option<&[&str]>,
) -> Result<Batches> {
    let mut selectors = Vec::with_capacity(2 * rows.len());
    let mut next = 0;
    for &row in rows {
        if row > next {
            selectors.push(RowSelector::skip((row - next) as usize));
        }
        selectors.push(RowSelector::select(1));
        next = row + 1;
    }
    select(shared, part, Some(RowSelection::from(selectors)), columns).await
}

/// The selected rows of `part`; of all columns, or of those named.
pub(crate) async fn select(
    shared: &Shared,
    part: &Part,
    selection: Option<RowSelection>,
    columns: Option<&[&str]>,
) -> Result<Batches> {
    select_if(shared, part, selection, columns, None).await
}

/// Like [`select`], of those rows alone that the filter wants.
async fn select_if(
    shared: &Shared,
    part: &Part,
    selection: Option<RowSelection>,
    columns: Option<&[&str]>,
    filter: Option<Filter>,
) -> Result<Batches> {
    let file = match part {
        Part::File(file) => file,
        Part::Recent(recent) => return in_memory(recent, selection, columns, filter),
    };
    let mut open = open_at(shared, file, selection).await?;
    if let Some(Filter { column, wanted }) = filter {
        let mask = ProjectionMask::columns(open.parquet_schema(), [column]);
        let wanted = ArrowPredicateFn::new(mask, move |batch| wanted(texts(Some(batch.column(0)))?));
        // Where matches are strewn, the reader would by itself decode everything and filter then.
        open = open
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_row_filter(RowFilter::new(vec![Box::new(wanted)]));
    }
    if let Some(columns) = columns {
        let mask = ProjectionMask::columns(open.parquet_schema(), columns.iter().copied());
        open = open.with_projection(mask);
    }
    stream(file, open)
}

/// The same of records of the journal.
fn in_memory(
    recent: &RecentRows,
    selection: Option<RowSelection>,
    columns: Option<&[&str]>,
    filter: Option<Filter>,
) -> Result<Batches> {
    let batch = batch_rows(recent.rows.get_array_memory_size() as u64, recent.rows.num_rows() as u64);
    let mut rows = recent.rows.clone();
    if let Some(selection) = selection {
        let (mut slices, mut next) = (Vec::new(), 0);
        for selector in selection.iter() {
            if !selector.skip {
                slices.push(rows.slice(next, selector.row_count));
            }
            next += selector.row_count;
        }
        rows = match &slices[..] {
            [slice] => slice.clone(),
            _ => concat_batches(&rows.schema(), &slices)?,
        };
    }
    if let Some(Filter { column, wanted }) = filter {
        rows = filter_record_batch(&rows, &wanted(texts(rows.column_by_name(column))?)?)?;
    }
    if let Some(columns) = columns {
        let schema = rows.schema();
        let fields = schema.fields().iter().enumerate();
        let wanted = fields.filter(|(_, field)| columns.contains(&field.name().as_str()));
        rows = rows.project(&wanted.map(|(index, _)| index).collect::<Vec<_>>())?;
    }
    let starts = (0..rows.num_rows()).step_by(batch);
    let batches: Vec<_> =
        starts.map(|start| Ok(rows.slice(start, batch.min(rows.num_rows() - start)))).collect();
    Ok(futures::stream::iter(batches).boxed())
}

fn texts(column: Option<&ArrayRef>) -> Result<&StringArray, ArrowError> {
    let texts = column.and_then(|column| column.as_string_opt());
    texts.ok_or_else(|| ArrowError::SchemaError("a column of texts was expected".into()))
}

/// Opens `file` at the selected rows.
async fn open_at(shared: &Shared, file: &DataFile, selection: Option<RowSelection>) -> Result<OpenFile> {
    let (storage, name) = (&shared.storage, file.name());
    let Some(selection) = selection else { return shared.files.open_whole(storage, &name).await };
    let open = shared.files.open(storage, &name, PageIndexes::Locations).await?;
    // Row groups without a selected row need not be looked at.
    let sizes: Vec<_> = open.metadata().row_groups().iter().map(|g| g.num_rows() as usize).collect();
    let mut rest = selection;
    let (mut groups, mut kept) = (Vec::new(), Vec::new());
    for (group, size) in sizes.into_iter().enumerate() {
        let part = rest.split_off(size);
        if part.selects_any() {
            groups.push(group);
            let mut selectors: Vec<RowSelector> = part.into();
            let covered: usize = selectors.iter().map(|s| s.row_count).sum();
            if covered < size {
                selectors.push(RowSelector::skip(size - covered));
            }
            kept.extend(selectors);
        }
    }
    Ok(open.with_row_groups(groups).with_row_selection(RowSelection::from(kept)))
}

fn stream(file: &DataFile, open: OpenFile) -> Result<Batches> {
    let name = file.name();
    let (rows, bytes) = open.metadata().row_groups().iter().fold((0, 0), |(rows, bytes), group| {
        (rows + group.num_rows().unsigned_abs(), bytes + group.total_byte_size().unsigned_abs())
    });
    let stream = open.with_batch_size(batch_rows(bytes, rows)).build().map_err(Error::parquet(&name))?;
    Ok(stream.map_err(Error::parquet_stream(&name)).boxed())
}

/// How many rows a batch has where `rows` come to so many bytes.
fn batch_rows(bytes: u64, rows: u64) -> usize {
    let each = usize::try_from(bytes / rows.max(1)).unwrap_or(usize::MAX).max(1);
    (BATCH_BYTES / each).clamp(MIN_BATCH_ROWS, BATCH_ROWS)
}
