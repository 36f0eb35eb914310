//! What goes to standard error: warnings, unless more or less is asked for.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

use crate::cli::Global;

/// The variable that overrides `-v` and `-q`, in the syntax of `tracing-subscriber`'s filters.
pub const FILTER: &str = "SPORLOG_LOG";

/// Starts logging. Sporlog's own crates are turned up by `-v`, those it is built on by the variable only.
pub fn start(global: &Global) {
    let ours = |level: &str| {
        format!("warn,sporlog={level},sporlog_intake={level},sporlog_ledger={level},sporlog_record={level}")
    };
    let default = match (global.quiet, global.verbose) {
        (true, _) => "error".to_owned(),
        (false, 0) => "warn".to_owned(),
        (false, 1) => ours("info"),
        (false, 2) => ours("debug"),
        (false, _) => ours("trace"),
    };
    let filter = match std::env::var(FILTER) {
        Ok(set) => EnvFilter::try_new(&set).unwrap_or_else(|error| {
            eprintln!("sporlog: {FILTER} is ignored: {error}");
            EnvFilter::new(&default)
        }),
        Err(_) => EnvFilter::new(&default),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .init();
}
