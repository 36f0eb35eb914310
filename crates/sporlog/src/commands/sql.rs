//! `sporlog sql`: read-only queries over the logs, one at a time, those of a file, or in a shell.

use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow::array::types::{Float32Type, Float64Type};
use arrow::array::{Array, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, DataType, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, LineDelimited, NullableEncoder, WriterBuilder};
use arrow::json::{Encoder, EncoderFactory, EncoderOptions};
use futures::{Stream, TryStreamExt};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::json;
use sporlog_ledger::Store;
use sporlog_record::identifier::personal_numbers;

use crate::access::{Access, record_access};
use crate::cli::{Engine, SqlArgs, SqlFormat};
use crate::outfile::Sink;
use crate::output::Outcome;
use crate::session::Session;
use crate::text::{Table, print_table, terminal_width, write_csv};

mod shell;

/// Of a query, so much stands in the access log's message; its details have all of it.
const MESSAGE_CHARS: usize = 200;

pub async fn run(session: &Session, args: &SqlArgs) -> Result<Outcome> {
    #[cfg(not(feature = "ballista"))]
    if args.cluster.is_some() {
        bail!(
            "this sporlog was built without clusters; `cargo build --release --workspace --features ballista` builds one with \
             them"
        );
    }
    if let Some(Engine::Spark) = args.views {
        let views = sporlog_ledger::spark_views(&session.store()?.logs().await?);
        let mut out = Sink::open(&args.out)?;
        out.write_all(views.as_bytes())?;
        out.finish()?;
        return Ok(Outcome::Done);
    }
    let default = if session.json { SqlFormat::Json } else { SqlFormat::Table };
    let format = args.format.unwrap_or(default);
    if format == SqlFormat::Parquet && args.out.out.is_none() && stdout().is_terminal() {
        bail!("Parquet is not for a terminal; --out FILE says where it goes");
    }
    let queries = match (&args.query, &args.file) {
        (_, Some(file)) => {
            let name = || file.display().to_string();
            let text = std::fs::read_to_string(file).with_context(name)?;
            sporlog_ledger::statements(&text).with_context(name)?
        }
        (Some(query), _) if query != "-" => vec![query.clone()],
        (None, _) if stdin().is_terminal() && args.out.out.is_some() => {
            bail!("--out is for one query; give the query before it")
        }
        (None, _) if stdin().is_terminal() => {
            return shell::run(session, format, args.cluster.as_deref()).await;
        }
        _ => vec![std::io::read_to_string(stdin().take(1 << 20)).context("standard input")?],
    };
    if format == SqlFormat::Parquet && queries.len() > 1 {
        bail!("a Parquet file holds the rows of one statement, and there are {}", queries.len());
    }
    let (store, cluster) = (session.store()?, args.cluster.as_deref());
    let mut out = Sink::open(&args.out)?;
    let terminal = args.out.out.is_none().then(terminal_width).flatten();
    for (n, query) in queries.iter().enumerate() {
        if n > 0 && matches!(format, SqlFormat::Table | SqlFormat::Csv) {
            writeln!(out)?;
        }
        if args.file.is_some() && format == SqlFormat::Table {
            write_comments(query, &mut out)?;
        }
        let answered = answer(session, &store, cluster, query, format, terminal, &mut out).await;
        match &args.file {
            Some(file) => answered.with_context(|| format!("{}, statement {}", file.display(), n + 1))?,
            None => answered?,
        }
    }
    out.finish()?;
    Ok(Outcome::Done)
}

/// The comment lines that a statement begins with, as a heading.
fn write_comments(statement: &str, out: &mut impl Write) -> Result<()> {
    for line in statement.lines().map_while(|line| line.strip_prefix("--")) {
        writeln!(out, "{}", line.trim())?;
    }
    Ok(())
}

/// Records the access, and writes what the query gives, for a terminal of so many columns if there is one. The query is run
/// here, or by a cluster.
async fn answer(
    session: &Session,
    store: &Store,
    cluster: Option<&str>,
    query: &str,
    format: SqlFormat,
    terminal: Option<usize>,
    out: &mut (impl Write + Send),
) -> Result<()> {
    let mut parameters = json!({"query": query});
    if let Some(cluster) = cluster {
        parameters["cluster"] = cluster.into();
    }
    let access = Access {
        action: "SQL",
        subjects: personal_numbers(query),
        message: format!("sql {}", query.chars().take(MESSAGE_CHARS).collect::<String>()),
        parameters,
    };
    record_access(session, store, access).await?;
    let logs = store.logs().await?;
    let settings = &session.config().sql;
    let (schema, batches) = match cluster {
        #[cfg(feature = "ballista")]
        Some(cluster) => {
            let limit = std::time::Duration::from_secs(settings.cluster_seconds.get());
            sporlog_ledger::query_on_cluster(&logs, query, cluster, limit).await?
        }
        _ => sporlog_ledger::query(&logs, query, settings.memory_bytes.get()).await?,
    };
    write(format, terminal, schema, batches, out).await
}

async fn write(
    format: SqlFormat,
    terminal: Option<usize>,
    schema: SchemaRef,
    mut batches: impl Stream<Item = Result<RecordBatch, sporlog_ledger::Error>> + Unpin,
    out: &mut (impl Write + Send),
) -> Result<()> {
    let json = || WriterBuilder::new().with_explicit_nulls(true).with_encoder_factory(Arc::new(NoNumbers));
    match format {
        SqlFormat::Table => {
            let mut table = Table::new(&schema);
            while !table.has_more()
                && let Some(batch) = batches.try_next().await?
            {
                table.push(&batch)?;
            }
            print_table(&table, terminal, out)?;
        }
        SqlFormat::Csv => {
            // An empty batch writes the header, also where there is no row.
            write_csv(&RecordBatch::new_empty(schema), true, out)?;
            while let Some(batch) = batches.try_next().await? {
                write_csv(&batch, false, out)?;
            }
        }
        SqlFormat::Json => {
            let mut json = json().build::<_, JsonArray>(&mut *out);
            while let Some(batch) = batches.try_next().await? {
                json.write(&batch)?;
            }
            json.finish()?;
            drop(json);
            writeln!(out)?;
        }
        SqlFormat::Ndjson => {
            let mut json = json().build::<_, LineDelimited>(out);
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

/// JSON has no infinity and no NaN: they become the texts `"Infinity"`, `"-Infinity"` and `"NaN"`, as PostgreSQL writes them.
/// The writer of the library would make `null` of them.
#[derive(Debug)]
struct NoNumbers;

impl EncoderFactory for NoNumbers {
    fn make_default_encoder<'a>(
        &self,
        _: &'a FieldRef,
        array: &'a dyn Array,
        _: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        let encoder: Box<dyn Encoder + 'a> = match array.data_type() {
            DataType::Float32 => Box::new(Float(array.as_primitive::<Float32Type>())),
            DataType::Float64 => Box::new(Float(array.as_primitive::<Float64Type>())),
            _ => return Ok(None),
        };
        Ok(Some(NullableEncoder::new(encoder, array.nulls().cloned())))
    }
}

struct Float<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType<Native: Into<f64> + serde::Serialize>> Encoder for Float<'_, T> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let value = self.0.value(row);
        let text = match value.into() {
            f64::INFINITY => "\"Infinity\"",
            f64::NEG_INFINITY => "\"-Infinity\"",
            number if number.is_nan() => "\"NaN\"",
            // Writing a number into memory cannot fail.
            _ => return serde_json::to_writer(out, &value).unwrap_or_default(),
        };
        out.extend_from_slice(text.as_bytes());
    }
}
