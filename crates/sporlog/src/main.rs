//! `sporlog`: who saw or was given whose data, kept in logs that prove themselves.
//!
//! This crate is the command line: it reads what is asked for, wires the other crates together and
//! says what came of it. It holds no rules of its own.
//!
//! | module | idea |
//! |---|---|
//! | [`cli`] | what can be asked for, and the help text |
//! | [`commands`] | one module for each command |
//! | [`config`] | the configuration file, the environment, and what they leave unsaid |
//! | [`session`] | a command's surroundings: its configuration, store and rules |
//! | [`access`] | every access to the data is itself recorded |
//! | [`output`], [`rows`], [`text`], [`outfile`], [`progress`] | results on standard output or in files, and exit codes |
//! | [`timerange`] | the times that `--from` and `--to` take |
//! | [`keyfile`] | the keys of those who use the server |
//! | [`pages`], [`session_file`] | the pages for persons, and how they sign in; the keys of their sessions |
//! | [`reload`] | a configuration that has changed, in a process that runs |
//! | [`served`] | a transparency log that is served over HTTP |
//! | [`interrupt`] | Ctrl-C |
//! | [`logging`] | what goes to standard error |
#![forbid(unsafe_code)]

mod access;
mod cli;
mod commands;
mod config;
mod exchange;
mod interrupt;
mod keyfile;
mod logging;
mod outfile;
mod output;
mod pages;
mod progress;
mod reload;
mod rows;
mod served;
mod session;
mod session_file;
mod text;
mod timerange;

use std::process::ExitCode;

use clap::Parser;

/// A server's many threads allocate what other threads free. The system's allocator keeps that for each
/// thread it was allocated in, and the process grows without need.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            logging::set_json_if_asked_for(&std::env::args().collect::<Vec<_>>());
            if !error.use_stderr() || !logging::is_json() {
                error.exit();
            }
            return output::failed(&anyhow::Error::msg(error.to_string()));
        }
    };
    logging::start(&cli.global);
    match commands::run(cli) {
        Ok(outcome) => outcome.into(),
        Err(error) => output::failed(&error),
    }
}
