//! How a data file is laid out, and how it is written: one small one from memory, or a large one
//! whose row groups are encoded by several threads and written in order.
//!
//! Pages are small, so that a page of records or a person's rows cost little to read; dictionaries
//! are kept for columns whose values repeat, because a dictionary of unique values has to be read
//! whole before a single value can be. Statistics are written where they help to skip: `id` and
//! the two times. Page statistics are not needed, as ids are contiguous within a file.

use std::io::Write;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};
use sporlog_record::Kind;
use sporlog_record::column::Values;

use crate::delta::Sha;
use crate::schema::{ENGINE, table_schema};

/// Rows in a page.
pub(crate) const PAGE_ROWS: usize = 1_024;
/// Bytes in a page, where records are large.
const PAGE_BYTES: usize = 256 << 10;
/// Smaller files than this, of a few records each, are not compressed: they are soon merged with
/// others, and setting up a compressor for each of their columns would cost more than all the rest.
pub(crate) const PACKED_FROM: usize = 4 << 20;
/// Rows in a row group.
pub(crate) const GROUP_ROWS: usize = 64 << 10;

/// How files of this kind are written.
pub(crate) fn properties(kind: Kind, packed: bool) -> WriterProperties {
    let column = |name: &str| ColumnPath::from(name);
    let compression =
        if packed { Compression::ZSTD(ZstdLevel::default()) } else { Compression::UNCOMPRESSED };
    let mut builder = WriterProperties::builder()
        .set_created_by(ENGINE.to_owned())
        .set_compression(compression)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(PAGE_ROWS)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_statistics_enabled(EnabledStatistics::None);
    for field in table_schema(kind).fields() {
        let values = if field.name() == "id" { Values::Distinct } else { kind.values_of(field.name()) };
        if values != Values::Repeating {
            builder = builder.set_column_dictionary_enabled(column(field.name()), false);
            // Lengths apart from the bytes: what is left is all of one sort, and compresses better.
            let encoding = match field.data_type() {
                DataType::Int64 | DataType::Timestamp(..) => Encoding::DELTA_BINARY_PACKED,
                _ if values == Values::Prefixed => Encoding::DELTA_BYTE_ARRAY,
                _ => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            };
            builder = builder.set_column_encoding(column(field.name()), encoding);
        }
        if matches!(field.data_type(), DataType::Int64 | DataType::Timestamp(..)) {
            // Packed already; and whoever reads a page needs a decompressor for each column that is not.
            builder = builder.set_column_compression(column(field.name()), Compression::UNCOMPRESSED);
        }
        if ["id", "received_at", "occurred_at"].contains(&field.name().as_str()) {
            builder = builder.set_column_statistics_enabled(column(field.name()), EnabledStatistics::Chunk);
        }
    }
    builder.build()
}

/// A whole file in memory, for few records.
pub(crate) fn encode(kind: Kind, batches: &[&RecordBatch]) -> Result<Bytes, ParquetError> {
    let size: usize = batches.iter().map(|batch| batch.get_array_memory_size()).sum();
    let packed = size >= PACKED_FROM;
    // The file is hardly ever larger. Where it is smaller, the rest is memory that is never touched.
    let mut bytes = Vec::with_capacity(size.max(64 << 10));
    let mut writer = ArrowWriter::try_new(&mut bytes, table_schema(kind), Some(properties(kind, packed)))?;
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.close()?;
    Ok(bytes.into())
}

/// Encodes row groups, in any thread and any order.
#[derive(Clone)]
pub(crate) struct GroupEncoder {
    schema: SchemaRef,
    factory: Arc<ArrowRowGroupWriterFactory>,
}

impl GroupEncoder {
    pub(crate) fn new(kind: Kind, packed: bool) -> Result<Self, ParquetError> {
        let schema = table_schema(kind);
        let properties = Some(properties(kind, packed));
        let writer = ArrowWriter::try_new(std::io::sink(), schema.clone(), properties)?;
        let (_, factory) = writer.into_serialized_writer()?;
        Ok(GroupEncoder { schema, factory: Arc::new(factory) })
    }

    /// One row group: the column chunks of these batches.
    pub(crate) fn encode(&self, batches: &[RecordBatch]) -> Result<Vec<ArrowColumnChunk>, ParquetError> {
        let mut writers = self.factory.create_column_writers(0)?;
        for (column, writer) in writers.iter_mut().enumerate() {
            let field = self.schema.field(column);
            for batch in batches {
                for leaf in compute_leaves(field, batch.column(column))? {
                    writer.write(&leaf)?;
                }
            }
        }
        writers.into_iter().map(|writer| writer.close()).collect()
    }
}

/// A file that row groups are appended to; its digest is taken as it is written.
pub(crate) struct FileWriter<W: Write + Send> {
    writer: SerializedFileWriter<Digesting<W>>,
}

impl<W: Write + Send> FileWriter<W> {
    pub(crate) fn new(kind: Kind, packed: bool, sink: W) -> Result<Self, ParquetError> {
        let sink = Digesting { inner: sink, digest: Sha256::new(), size: 0 };
        let writer = ArrowWriter::try_new(sink, table_schema(kind), Some(properties(kind, packed)))?;
        Ok(FileWriter { writer: writer.into_serialized_writer()?.0 })
    }

    pub(crate) fn append(&mut self, group: Vec<ArrowColumnChunk>) -> Result<(), ParquetError> {
        let mut writer = self.writer.next_row_group()?;
        for chunk in group {
            chunk.append_to_row_group(&mut writer)?;
        }
        writer.close().map(drop)
    }

    /// Bytes written so far.
    pub(crate) fn size(&self) -> u64 {
        self.writer.inner().size
    }

    /// Writes the footer and gives the sink back, with the file's size and digest.
    pub(crate) fn finish(self) -> Result<(W, u64, Sha), ParquetError> {
        let sink = self.writer.into_inner()?;
        Ok((sink.inner, sink.size, sink.digest.finalize().into()))
    }
}

struct Digesting<W> {
    inner: W,
    digest: Sha256,
    size: u64,
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.digest.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
