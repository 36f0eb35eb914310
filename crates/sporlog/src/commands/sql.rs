//! `sporlog sql`: read-only queries over the logs.

use std::io::{IsTerminal, Read, Write, stdin, stdout};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonArray, LineDelimited};
use arrow::util::pretty::pretty_format_batches;
use futures::{Stream, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::json;

use crate::access::{Access, record_access};
use crate::cli::{SqlArgs, SqlFormat};
use crate::outfile::OutFile;
use crate::output::{Outcome, Output, print_error};
use crate::session::Session;

/// A table for reading ends here.
const TABLE_ROWS: usize = 1_000;
/// Of a query, so much stands in the access log's message; its details have all of it.
const MESSAGE_CHARS: usize = 200;

pub async fn run(session: &Session, args: &SqlArgs) -> Result<Outcome> {
    let default = if session.json { SqlFormat::Json } else { SqlFormat::Table };
    let format = args.format.unwrap_or(default);
    if format == SqlFormat::Parquet && args.out.out.is_none() && stdout().is_terminal() {
        bail!("Parquet is not for a terminal; --out FILE says where it goes");
    }
    let query = match args.query.as_str() {
        "-" => std::io::read_to_string(stdin().take(1 << 20)).context("standard input")?,
        query => query.to_owned(),
    };
    let store = session.store()?;
    let access = Access {
        action: "SQL",
        subject: None,
        message: format!("sql {}", query.chars().take(MESSAGE_CHARS).collect::<String>()),
        parameters: json!({"query": query}),
    };
    record_access(session, &store, access).await?;
    let logs = store.logs().await?;
    let batches = sporlog_ledger::query(&logs, &query).await?;
    let schema = batches.schema();
    match &args.out.out {
        Some(path) => {
            let mut file = OutFile::create(path, args.out.force)?;
            write(format, schema, batches, &mut file).await?;
            file.finish()?;
        }
        None => {
            let mut out = Output::new()?;
            write(format, schema, batches, &mut out).await?;
            out.flush()?;
        }
    }
    Ok(Outcome::Done)
}

async fn write<E>(
    format: SqlFormat,
    schema: SchemaRef,
    mut batches: impl Stream<Item = Result<RecordBatch, E>> + Unpin,
    out: &mut (impl Write + Send),
) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match format {
        SqlFormat::Table => write_table(schema, batches, out).await?,
        SqlFormat::Csv => {
            let mut csv = arrow::csv::WriterBuilder::new().with_header(true).build(out);
            // An empty batch writes the header, also where there is no row.
            csv.write(&RecordBatch::new_empty(schema))?;
            while let Some(batch) = batches.try_next().await? {
                csv.write(&batch)?;
            }
        }
        SqlFormat::Json => {
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut json = builder.build::<_, JsonArray>(&mut *out);
            while let Some(batch) = batches.try_next().await? {
                json.write(&batch)?;
            }
            json.finish()?;
            drop(json);
            writeln!(out)?;
        }
        SqlFormat::Ndjson => {
            let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut json = builder.build::<_, LineDelimited>(out);
            while let Some(batch) = batches.try_next().await? {
                json.write(&batch)?;
            }
            json.finish()?;
        }
        SqlFormat::Parquet => {
            let compression = Compression::ZSTD(Default::default());
            let properties = WriterProperties::builder().set_compression(compression).build();
            let mut parquet = ArrowWriter::try_new(out, schema, Some(properties))?;
            while let Some(batch) = batches.try_next().await? {
                parquet.write(&batch)?;
            }
            parquet.close()?;
        }
    }
    Ok(())
}

async fn write_table<E>(
    schema: SchemaRef,
    mut batches: impl Stream<Item = Result<RecordBatch, E>> + Unpin,
    out: &mut impl Write,
) -> Result<()>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let mut shown = vec![RecordBatch::new_empty(schema)];
    let mut left = TABLE_ROWS;
    while let Some(batch) = batches.try_next().await? {
        shown.push(batch.slice(0, batch.num_rows().min(left)));
        if batch.num_rows() > left {
            print_error(&format!(
                "note: there are more than these {TABLE_ROWS} rows; --format csv gives all"
            ));
            break;
        }
        left -= batch.num_rows();
    }
    Ok(writeln!(out, "{}", pretty_format_batches(&shown)?)?)
}
