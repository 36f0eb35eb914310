//! A scheduler or an executor of Ballista: `ballista scheduler …`, `ballista executor …`, with the arguments and the S3
//! settings of the programs `ballista-scheduler` and `ballista-executor` of the same version. They have nothing of ours. The tests
//! use this program, so that DataFusion is not built once more for theirs.

use std::sync::Arc;

use anyhow::{Result, bail};
use ballista_core::object_store::{
    runtime_env_with_s3_support, session_config_with_s3_support, session_state_with_s3_support,
};
use ballista_executor::executor_process::{ExecutorProcessConfig, start_executor_process};
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::start_server;
use clap::Parser;

// The stack of a scheduler's thread has to hold a plan as it is walked through.
const STACK_BYTES: usize = 32 << 20;

fn main() -> Result<()> {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let role = arguments.next().unwrap_or_default();
    let arguments = std::iter::once(program).chain(arguments);
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr).init();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    match role.as_str() {
        "scheduler" => runtime.block_on(scheduler(arguments)),
        "executor" => runtime.block_on(executor(arguments)),
        _ => bail!("'scheduler' or 'executor' is expected"),
    }
}

async fn scheduler(arguments: impl Iterator<Item = String>) -> Result<()> {
    let given = ballista_scheduler::config::Config::parse_from(arguments);
    let address = format!("{}:{}", given.bind_host, given.bind_port).parse()?;
    let config = SchedulerConfig::try_from(given)?
        .with_override_config_producer(Arc::new(session_config_with_s3_support))
        .with_override_session_builder(Arc::new(session_state_with_s3_support));
    let cluster = BallistaCluster::new_from_config(&config).await?;
    Ok(start_server(cluster, address, Arc::new(config)).await?)
}

async fn executor(arguments: impl Iterator<Item = String>) -> Result<()> {
    let mut config =
        ExecutorProcessConfig::try_from(ballista_executor::config::Config::parse_from(arguments))?;
    config.override_config_producer = Some(Arc::new(session_config_with_s3_support));
    config.override_runtime_producer = Some(Arc::new(runtime_env_with_s3_support));
    Ok(start_executor_process(Arc::new(config)).await?)
}
