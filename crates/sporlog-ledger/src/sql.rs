//! SQL over the logs, read-only: each log as a table, and the view `events` over all of them.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use chrono::DateTime;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::TableReference;
use datafusion::config::Dialect;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use object_store::ObjectMeta;
use sporlog_record::Kind;

use crate::error::Result;
use crate::log::Log;
use crate::merge::matches;
use crate::schema::table_schema;
use crate::table_state::TableState;

/// Memory that a query may use before it has to spill to disk or fail.
const QUERY_MEMORY: usize = 256 << 20;

/// The name under which DataFusion knows the store.
const STORE: &str = "sporlog://store";

/// Runs a query over `logs`, which are seen as they are now.
///
/// Only queries: nothing that would change, create or set anything. A log's name stands for its
/// records; `events` is what all kinds have in common.
pub async fn query(logs: &[Log], sql: &str) -> Result<SendableRecordBatchStream> {
    let config = SessionConfig::new().with_information_schema(true);
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(QUERY_MEMORY, 1.0).build_arc()?;
    let context = SessionContext::new_with_config_rt(config, runtime);
    let url = ObjectStoreUrl::parse(STORE)?;
    for log in logs {
        context.register_object_store(url.as_ref(), log.shared.storage.store());
        let table = LogTable { log: log.clone(), state: log.state(), url: url.clone() };
        context.register_table(log.name(), Arc::new(table))?;
    }
    let parts: Vec<_> = logs.iter().filter_map(|log| events_of(log.name(), log.kind())).collect();
    if !parts.is_empty() {
        context.sql(&format!("CREATE VIEW events AS {}", parts.join(" UNION ALL "))).await?;
    }
    register_patterns(&context, logs, sql).await?;
    let only_queries =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    Ok(context.sql_with_options(sql, only_queries).await?.execute_stream().await?)
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

/// A log's share of the view `events`; none if its records are no events.
fn events_of(log: &str, kind: Kind) -> Option<String> {
    let roles = kind.definition().roles.as_ref()?.named().map(|(role, columns)| {
        let values: Vec<_> = columns.iter().map(|name| format!("CAST(\"{name}\" AS VARCHAR)")).collect();
        match values.as_slice() {
            [] => format!("CAST(NULL AS VARCHAR) AS {role}"),
            values => format!("coalesce({}) AS {role}", values.join(", ")),
        }
    });
    let roles = roles.join(", ");
    Some(format!("SELECT '{log}' AS log, id, occurred_at, received_at, {roles} FROM \"{log}\""))
}

/// A log as DataFusion sees it: the files of one state.
#[derive(Debug)]
struct LogTable {
    log: Log,
    state: Arc<TableState>,
    url: ObjectStoreUrl,
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
            let location = self.log.shared.storage.path(&file.name());
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
        Ok(DataSourceExec::from_data_source(config))
    }
}
