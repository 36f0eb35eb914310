//! SQL over the logs, read-only: each log as a table, and the view `events` over all of them; and the same views for Spark.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::common::utils::quote_identifier;
use datafusion::config::Dialect;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use datafusion::prelude::{DataFrame, SQLOptions, SessionConfig, SessionContext};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectMeta;
use object_store::path::Path;
use sporlog_record::Kind;
use sporlog_record::time::DATE_CHARACTERS;

use crate::arithmetic::{CheckOverflow, CheckedSum};
use crate::delta::TABLE;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::merge::matches;
use crate::schema::table_schema;
use crate::table_state::TableState;

/// What DataFusion says of one of its settings, where the name of a column needs double quotes.
const SETTING_ADVICE: &str = " or disable the datafusion.sql_parser.enable_ident_normalization configuration";

/// The name under which DataFusion knows the store.
const STORE: &str = "sporlog://store";

/// A query's result: its columns, and its rows as they come.
pub type Rows = (SchemaRef, BoxStream<'static, Result<RecordBatch>>);

/// Runs a query over `logs`, which are seen as they are now, in DataFusion's dialect of SQL.
///
/// Only queries: nothing that would change, create or set anything. A log's name stands for its
/// records; `events` is what all kinds have in common. The columns of the result have names of their own: of two that are
/// called `a`, the second is called `a_1`. A query that needs more than `memory` bytes goes on in the folder for
/// temporary files where that can be done, and otherwise fails.
pub async fn query(logs: &[Log], sql: &str, memory: usize) -> Result<Rows> {
    // Merging what was spilled takes a batch of each part, and memory that is set aside: with a small limit, less of both.
    let batch_size = (memory >> 15).clamp(64, 8_192);
    let mut config = SessionConfig::new().with_information_schema(true).with_batch_size(batch_size);
    let execution = &mut config.options_mut().execution;
    execution.sort_spill_reservation_bytes = execution.sort_spill_reservation_bytes.min(memory / 16);
    let runtime =
        RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(memory))).build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.add_analyzer_rule(Arc::new(CheckOverflow::WithFunctions));
    context.register_udaf(CheckedSum::default().into());
    let url = ObjectStoreUrl::parse(STORE)?;
    for log in logs {
        context.register_object_store(url.as_ref(), log.shared.storage.store());
    }
    register(&context, logs, sql, |_| Ok((url.clone(), Path::default()))).await?;
    let planned = async { plan(&context, sql).await?.execute_stream().await };
    let batches = planned.await.map_err(|error| match out_of_memory(&error, memory) {
        Some(error) => error,
        None => Error::Query(explain(&context, sql, &error)),
    })?;
    let (schema, batches) = with_unique_names(batches);
    Ok((
        schema,
        batches.map(move |batch| batch.map_err(|e| out_of_memory(&e, memory).unwrap_or(e.into()))).boxed(),
    ))
}

/// Makes the tables and views known that a query may name. `place` says where a log's files are: the URL of an object store,
/// and what the paths that the log's storage gives begin with there.
pub(crate) async fn register(
    context: &SessionContext,
    logs: &[Log],
    sql: &str,
    place: impl Fn(&Log) -> Result<(ObjectStoreUrl, Path)>,
) -> Result<()> {
    for log in logs {
        let (url, prefix) = place(log)?;
        let table = LogTable { log: log.clone(), state: log.state(), url, prefix };
        context.register_table(log.name(), Arc::new(table))?;
    }
    if let Some(events) = events_over(logs) {
        context.sql(&format!("CREATE VIEW events AS {events}")).await?;
    }
    register_patterns(context, logs, sql).await
}

/// The plan of a statement, which has to be a query.
pub(crate) async fn plan(context: &SessionContext, sql: &str) -> DataFusionResult<DataFrame> {
    let only_queries =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    context.sql_with_options(sql, only_queries).await
}

/// What is said of a query for which the memory did not suffice.
fn out_of_memory(error: &DataFusionError, memory: usize) -> Option<Error> {
    let DataFusionError::ResourcesExhausted(reason) = error.find_root() else { return None };
    Some(Error::QueryMemory { memory, reason: reason.lines().next().unwrap_or_default().to_owned() })
}

/// The statements of a file of SQL, each with the comments before it.
pub fn statements(sql: &str) -> Result<Vec<String>> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).with_unescape(false).tokenize();
    let tokens =
        tokens.map_err(|error| Error::Query(format!("this is no SQL as DataFusion reads it: {error}")))?;
    let written = tokens.split(|token| *token == Token::SemiColon);
    let written = written.filter(|tokens| tokens.iter().any(|token| !matches!(token, Token::Whitespace(_))));
    Ok(written
        .map(|tokens| tokens.iter().map(Token::to_string).collect::<String>().trim().to_owned())
        .collect())
}

/// Statements by which Spark has views of the same names and columns as [`query`]. Spark needs Delta Lake, and sees the
/// tables alone, without the records that are in the journal still.
pub fn spark_views(logs: &[Log]) -> String {
    let of_log = |log: &Log| {
        let columns: Vec<_> =
            table_schema(log.kind()).fields().iter().map(|f| format!("`{}`", f.name())).collect();
        // Spark's name for a bucket is Hadoop's.
        let table = log.shared.storage.location(TABLE).replacen("s3://", "s3a://", 1).replace('`', "``");
        spark_view(log.name(), &format!("SELECT {} FROM delta.`{table}`", columns.join(", ")))
    };
    let events = events_over(logs).map(|events| spark_view("events", &events));
    logs.iter().map(of_log).chain(events).collect()
}

fn spark_view(name: &str, query: &str) -> String {
    format!("CREATE OR REPLACE TEMPORARY VIEW `{name}` AS {query};\n")
}

/// Why a query cannot be run, without advice that only a program could follow.
pub(crate) fn explain(context: &SessionContext, sql: &str, error: &DataFusionError) -> String {
    let state = context.state();
    let references = state.sql_to_statement(sql, &Dialect::Generic).and_then(|statement| {
        // Functions that give tables are among them.
        let mut references = state.resolve_table_references(&statement)?;
        references.retain(|reference| !state.table_functions().contains_key(reference.table()));
        Ok(references)
    });
    let missing =
        |reference: &TableReference| context.table_exist(reference.clone()).is_ok_and(|there| !there);
    if let Some(missing) = references.unwrap_or_default().into_iter().find(missing) {
        let schema = context.catalog("datafusion").and_then(|catalog| catalog.schema("public"));
        let mut names = schema.map(|schema| schema.table_names()).unwrap_or_default();
        names.sort_unstable();
        let names: Vec<_> = names.iter().map(|name| quote_identifier(name)).collect();
        return format!("there is no log or view '{missing}'; there are {}", names.join(", "));
    }
    match error.find_root() {
        DataFusionError::SQL(error, _) => {
            let text = error.to_string();
            format!(
                "this is no SQL as DataFusion reads it: {}",
                text.trim_start_matches("sql parser error: ")
            )
        }
        DataFusionError::NotImplemented(text) if text.contains("single SQL statement") => {
            "one statement is expected, and there are several".to_owned()
        }
        error => error.to_string().replace(SETTING_ADVICE, ""),
    }
}

/// The result with different names for different columns: JSON and Parquet have no others.
pub(crate) fn with_unique_names(
    batches: SendableRecordBatchStream,
) -> (SchemaRef, BoxStream<'static, DataFusionResult<RecordBatch>>) {
    let given = batches.schema();
    let mut names: Vec<String> = Vec::new();
    for field in given.fields() {
        let mut name = field.name().clone();
        let mut number = 0;
        // A later column may be called `a_1` already.
        while names.contains(&name) || (number > 0 && given.index_of(&name).is_ok()) {
            number += 1;
            name = format!("{}_{number}", field.name());
        }
        names.push(name);
    }
    if names.iter().zip(given.fields()).all(|(name, field)| name == field.name()) {
        return (given, batches.boxed());
    }
    let fields = given.fields().iter().zip(names).map(|(field, name)| field.as_ref().clone().with_name(name));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let renamed = schema.clone();
    let batches =
        batches.map(move |batch| Ok(RecordBatch::try_new(schema.clone(), batch?.columns().to_vec())?));
    (renamed, batches.boxed())
}

/// A name with `*` in it, such as `"disclosure*"`, stands for the records of all logs that it matches
/// and that are of the first one's kind, each with its log's name in the column `log`.
async fn register_patterns(context: &SessionContext, logs: &[Log], sql: &str) -> Result<()> {
    let state = context.state();
    // What is no query is refused later, with a better word for it.
    let Ok(statement) = state.sql_to_statement(sql, &Dialect::Generic) else { return Ok(()) };
    for reference in state.resolve_table_references(&statement)? {
        let pattern = reference.table();
        if !pattern.contains('*') {
            continue;
        }
        let mut matching = logs.iter().filter(|log| matches(pattern, log.name())).peekable();
        let Some(kind) = matching.peek().map(|log| log.kind()) else { continue };
        let select = |log: &Log| format!("SELECT '{0}' AS log, * FROM \"{0}\"", log.name());
        let parts: Vec<_> = matching.filter(|log| log.kind() == kind).map(select).collect();
        let view = context.sql(&parts.join(" UNION ALL ")).await?.into_view();
        context.register_table(TableReference::bare(pattern), view)?;
    }
    Ok(())
}

/// The query that is the view `events`, if any log has events. DataFusion and Spark read it as it stands.
fn events_over(logs: &[Log]) -> Option<String> {
    let parts: Vec<_> = logs.iter().filter_map(|log| events_of(log.name(), log.kind())).collect();
    (!parts.is_empty()).then(|| parts.join(" UNION ALL "))
}

/// A log's share of the view `events`; none if its records are no events.
///
/// How exact a time is, is told by the text that its source wrote: `occurred_at` of a date alone is the day's beginning.
fn events_of(log: &str, kind: Kind) -> Option<String> {
    let roles = kind.definition().roles.as_ref()?;
    let precision = format!(
        "CASE WHEN char_length(trim(`{}`)) <= {DATE_CHARACTERS} THEN 'day' \
              WHEN occurred_at IS NOT NULL THEN 'time' END AS occurred_precision",
        roles.time
    );
    let roles = roles.named().map(|(role, columns)| {
        let values: Vec<_> = columns.iter().map(|name| format!("CAST(`{name}` AS STRING)")).collect();
        match values.as_slice() {
            [] => format!("CAST(NULL AS STRING) AS {role}"),
            values => format!("coalesce({}) AS {role}", values.join(", ")),
        }
    });
    let roles = roles.join(", ");
    Some(format!("SELECT '{log}' AS log, id, occurred_at, {precision}, received_at, {roles} FROM `{log}`"))
}

/// A log as DataFusion sees it: the files of one state, and the records of the journal.
#[derive(Debug)]
struct LogTable {
    log: Log,
    state: Arc<TableState>,
    url: ObjectStoreUrl,
    prefix: Path,
}

#[async_trait]
impl TableProvider for LogTable {
    fn schema(&self) -> SchemaRef {
        table_schema(self.log.kind())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let parts = session.config().target_partitions().max(1);
        let mut groups = vec![Vec::new(); parts.min(self.state.files.len().max(1))];
        let count = groups.len();
        for (n, file) in self.state.files.iter().enumerate() {
            // As it is: built from a string, the path would be encoded once more.
            let path = self.log.shared.storage.path(&file.name());
            let location = self.prefix.parts().chain(path.parts()).collect();
            let last_modified = DateTime::UNIX_EPOCH;
            let object = ObjectMeta { location, last_modified, size: file.size, e_tag: None, version: None };
            groups[n % count].push(PartitionedFile::new_from_meta(object));
        }
        let source = Arc::new(ParquetSource::new(self.schema()));
        let config = FileScanConfigBuilder::new(self.url.clone(), source)
            .with_file_groups(groups.into_iter().map(FileGroup::new).collect())
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        let files = DataSourceExec::from_data_source(config);
        let recent: Vec<_> = self.state.recent.parts().iter().map(|part| part.rows.clone()).collect();
        if recent.is_empty() {
            return Ok(files);
        }
        let recent = MemorySourceConfig::try_new_exec(&[recent], self.schema(), projection.cloned())?;
        UnionExec::try_new(vec![files, recent])
    }
}
