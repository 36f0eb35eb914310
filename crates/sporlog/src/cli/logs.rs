//! The arguments of `sporlog logs`.

use clap::{Args, Subcommand};
use sporlog_record::Kind;

use super::{delivered_kind, examples};

/// List the logs of the store, or make some.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct LogsArgs {
    #[command(subcommand)]
    pub what: Option<LogsCommand>,
}

/// What can be done with logs.
#[derive(Debug, Subcommand)]
pub enum LogsCommand {
    /// Make logs, and their keys, before there are records
    ///
    /// Otherwise a log is made with its first record. Servers that share a bucket need the same keys, and so each log has to be
    /// there before the keys are handed out. Nothing happens to a log that is there.
    #[command(after_help = examples::LOGS_CREATE)]
    Create {
        /// Their names
        #[arg(value_name = "LOG", required = true)]
        logs: Vec<String>,
        /// What their records are [default: what the configuration says of them, or their name]
        #[arg(long, value_name = "KIND", value_parser = delivered_kind())]
        kind: Option<Kind>,
    },
}
