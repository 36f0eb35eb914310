//! Queries that a cluster of Apache Ballista runs.
//!
//! A query is planned here, over the same tables and views as in [`query`](crate::query), and the physical plan is sent to the
//! scheduler. Scheduler and executors need nothing of ours: the plan names the data files of one state of each log by their
//! addresses, has the records of the journal in it, and calls DataFusion's own functions alone. Where Ballista would give
//! another answer than one process, the plan is changed, or the query refused.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use ballista_core::execution_plans::execute_physical_plan;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::ballista_default_optimizer_rules;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;
use datafusion::physical_plan::{ExecutionPlan, execute_stream, replace_children_if_necessary};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_proto::protobuf::PhysicalPlanNode;
use futures::StreamExt;
use tokio::net::TcpStream;
use url::Url;

use crate::arithmetic::CheckOverflow;
use crate::error::{Error, Result};
use crate::log::Log;
use crate::sql::{Rows, explain, plan, register, with_unique_names};

/// The scheduler's port, if the address has none.
const PORT: u16 = 50050;
/// So long the scheduler may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many bytes of data files make one partition of the work.
const PARTITION_BYTES: u64 = 32 << 20;
/// With fewer partitions some executors would have nothing to do, with more each would have too little.
const PARTITIONS: (u64, u64) = (4, 1_024);
/// Ballista's rule that puts an `EmptyExec` into a plan that runs: see [`as_ballista_needs`].
const PROPAGATE_EMPTY: &str = "ballista.planner.propagate_empty.enabled";

/// Like [`query`](crate::query), run by the cluster whose scheduler is at `address` (`df://HOST:PORT`), which may take `limit` until
/// the rows are there. How much memory a query may use is the executors' own setting. A query that reads no data file is
/// run here.
pub async fn query_on_cluster(logs: &[Log], sql: &str, address: &str, limit: Duration) -> Result<Rows> {
    let scheduler = reach(address).await?;
    let bytes: u64 = logs.iter().map(|log| log.state().files.iter().map(|file| file.size).sum::<u64>()).sum();
    let partitions = (bytes / PARTITION_BYTES).clamp(PARTITIONS.0, PARTITIONS.1) as usize;
    let config = SessionConfig::new()
        .with_information_schema(true)
        .with_target_partitions(partitions)
        .upgrade_for_ballista()
        .set_bool(PROPAGATE_EMPTY, false);
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_optimizer_rules(ballista_default_optimizer_rules())
        .build();
    let context = SessionContext::new_with_state(state);
    context.add_analyzer_rule(Arc::new(CheckOverflow::WithDecimals));
    register(&context, logs, sql, |log| {
        let (url, prefix) = log.shared.storage.shared()?;
        Ok((ObjectStoreUrl::parse(url)?, prefix))
    })
    .await?;
    let planned = async {
        let frame = plan(&context, sql).await?;
        refuse_many_rows_for_one(frame.logical_plan())?;
        as_ballista_needs(frame.create_physical_plan().await?)
    };
    let plan = planned.await.map_err(|error| Error::Query(explain(&context, sql, &error)))?;
    if !reads_files(&plan) {
        let (schema, batches) = with_unique_names(execute_stream(plan, context.task_ctx())?);
        return Ok((schema, batches.map(|batch| Ok(batch?)).boxed()));
    }
    let config = context.copied_config();
    let codec = config.ballista_physical_extension_codec();
    let (settings, session) = (config.ballista_config(), context.session_id());
    let answer = execute_physical_plan::<PhysicalPlanNode>(
        scheduler,
        &settings,
        plan,
        codec.as_ref(),
        session,
        config,
    );
    let address = address.to_owned();
    // If the scheduler has lost a task's result, or no executor can take a task, the job never ends.
    let answer = tokio::time::timeout(limit, answer).await.map_err(|_| {
        let seconds = limit.as_secs();
        Error::Query(format!(
            "the cluster at {address} did not answer the query within {seconds} seconds (sql.cluster_seconds); the scheduler's log \
             says whether executors were lost or could not take a task"
        ))
    })?;
    let (schema, batches) = with_unique_names(answer.map_err(|error| failed(&address, &error))?);
    Ok((schema, batches.map(move |batch| batch.map_err(|error| failed(&address, &error))).boxed()))
}

/// The scheduler's URL, once it accepts connections.
async fn reach(address: &str) -> Result<String> {
    let url = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "df" | "http"));
    let host = url.as_ref().and_then(Url::host_str).filter(|host| !host.is_empty());
    let Some((url, host)) = url.as_ref().zip(host) else {
        return Err(Error::Query(format!(
            "'{address}' is no address of a Ballista scheduler: df://HOST:PORT is expected"
        )));
    };
    let place = format!("{host}:{}", url.port().unwrap_or(PORT));
    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(&place)).await;
    let reason = match connected {
        Ok(Ok(_)) => return Ok(format!("http://{place}")),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} seconds", PATIENCE.as_secs()),
    };
    Err(Error::Query(format!("no Ballista scheduler can be reached at {place}: {reason}")))
}

/// Ballista makes a join of a subquery that stands for a value. If the subquery has several rows, the join has them, too, where
/// one process reports an error.
fn refuse_many_rows_for_one(plan: &LogicalPlan) -> DataFusionResult<()> {
    plan.apply_with_subqueries(|plan| {
        plan.apply_expressions(|expr| {
            expr.apply(|expr| match expr {
                Expr::ScalarSubquery(query)
                    if query.outer_ref_columns.is_empty()
                        && query.subquery.max_rows().is_none_or(|rows| rows > 1) =>
                {
                    Err(DataFusionError::Plan(
                        "on a cluster, a subquery that stands for a value has to have one row at most: use an aggregate, or \
                         LIMIT 1"
                            .into(),
                    ))
                }
                _ => Ok(TreeNodeRecursion::Continue),
            })
        })
    })?;
    Ok(())
}

/// The plan with two changes.
///
/// A nested-loop join that gives out rows of its left side by what all of the right side has, gets the right side in one
/// task. DataFusion has its tasks share what they found; in different processes they cannot. Coalescing alone would not do: when
/// the scheduler plans a stage, it drops that again where no operator asks for one partition, as a limit does.
///
/// A row, or no row, that comes from no table is read from memory. Ballista changes these nodes in those tasks of a
/// `UNION ALL` that have other parts to do, and the scheduler drops the results of tasks whose plans have different metrics.
fn as_ballista_needs(plan: Arc<dyn ExecutionPlan>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let changed = plan.transform_up(|plan| {
        if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
            use JoinType::{Inner, Right, RightAnti, RightMark, RightSemi};
            if matches!(join.join_type(), Inner | Right | RightSemi | RightAnti | RightMark) {
                return Ok(Transformed::no(plan));
            }
            let right = Arc::new(CoalescePartitionsExec::new(join.right().clone()));
            let children = vec![join.left().clone(), Arc::new(GlobalLimitExec::new(right, 0, None)) as _];
            return Ok(Transformed::yes(replace_children_if_necessary(plan.clone(), children)?));
        }
        let rows = usize::from(plan.is::<PlaceholderRowExec>());
        if rows == 0 && !plan.is::<EmptyExec>() {
            return Ok(Transformed::no(plan));
        }
        let schema = plan.schema();
        let columns = schema.fields().iter().map(|field| new_null_array(field.data_type(), rows)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
        Ok(Transformed::yes(MemorySourceConfig::try_new_exec(&[vec![batch]], schema, None)?))
    })?;
    Ok(changed.data)
}

/// Whether the plan reads a data file.
fn reads_files(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let source = plan.downcast_ref::<DataSourceExec>().map(DataSourceExec::data_source);
    source.is_some_and(|source| source.downcast_ref::<FileScanConfig>().is_some())
        || plan.children().into_iter().any(reads_files)
}

/// What is said of a query that the cluster did not answer.
fn failed(address: &str, error: &DataFusionError) -> Error {
    let text = error.to_string();
    let missing = text.split_once("Object at location ").and_then(|(_, rest)| rest.split_once(" not found"));
    Error::Query(if let Some((file, _)) = missing {
        format!(
            "an executor did not find {file}: if the log was compacted or records expired meanwhile, run the query again; \
             otherwise every executor needs the store at the place that it has here"
        )
    } else if text.contains("message length too large") {
        format!(
            "the query is too long for the cluster at {address}: the newest records, which are in no data file yet, go with it; \
             `sporlog compact` puts those of a log into a data file"
        )
    } else {
        format!("the cluster at {address} did not answer the query: {text}")
    })
}
