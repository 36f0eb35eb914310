//! One module for each command.

use anyhow::{Context, Result};
use tokio::runtime;

use crate::cli::{Cli, Command};
use crate::output::Outcome;
use crate::session::Session;

mod apikey;
mod backup;
mod check;
mod collect;
mod compact;
pub mod config;
mod consume;
mod deliveries;
mod delivery;
mod exchange;
mod export;
mod export_auditlog;
mod files;
mod find;
mod import;
mod key;
mod logs;
mod names;
mod prove;
mod pull;
mod quarantine;
mod read;
mod restore;
mod sample;
mod serve;
mod sql;
mod store;
mod verify;

/// Does what was asked for.
pub fn run(cli: Cli) -> Result<Outcome> {
    // These need neither a store nor a configuration.
    match cli.command {
        Command::Config(args) => return config::run(&cli.global, &args.what),
        Command::Sample(args) => return sample::run(&args),
        Command::Completions(args) => return completions(args.shell),
        _ => {}
    }
    let session = Session::new(&cli.global)?;
    let runtime = runtime::Builder::new_multi_thread().enable_all().build().context("starting threads")?;
    let uses_all_settings = matches!(
        cli.command,
        Command::Serve(_) | Command::Consume(_) | Command::Exchange(_) | Command::Collect(_)
    );
    let ended = runtime.block_on(run_in(&session, cli.command));
    ended.map_err(|error| if uses_all_settings { config::with_errors(&cli.global, error) } else { error })
}

async fn run_in(session: &Session, command: Command) -> Result<Outcome> {
    match command {
        Command::Check(args) => check::run(session, args).await,
        Command::Import(args) => import::run(session, &args).await,
        Command::Serve(args) => serve::run(session, &args).await,
        Command::Consume(args) => consume::run(session, &args).await,
        Command::Pull(args) => pull::run(session, &args).await,
        Command::Exchange(args) => exchange::run(session, &args).await,
        Command::Collect(args) => collect::run(session, &args).await,
        Command::Deliveries(args) => deliveries::run(session, &args).await,
        Command::Logs(args) => logs::logs(session, &args).await,
        Command::Head(log) => logs::head(session, &log.log).await,
        Command::Read(args) => read::run(session, &args).await,
        Command::Find(args) => find::run(session, &args).await,
        Command::Export(args) => match args.what {
            crate::cli::Export::Revision(args) => export::run(session, &args).await,
            crate::cli::Export::Auditlog(args) => export_auditlog::run(session, &args).await,
        },
        Command::Files(args) => files::run(session, &args).await,
        Command::Sql(args) => sql::run(session, &args).await,
        Command::Prove(args) => prove::run(session, &args).await,
        Command::Verify(args) => verify::run(session, &args).await,
        Command::Quarantine(args) => quarantine::run(session, args.what).await,
        Command::Expire(args) => compact::expire(session, &args).await,
        Command::Compact(args) => compact::compact(session, &args).await,
        Command::Backup(args) => backup::run(session, &args).await,
        Command::Restore(args) => restore::run(session, &args).await,
        Command::Store(args) => store::run(session, args.what).await,
        Command::Key(args) => match args.what {
            crate::cli::Key::Show { log, vkey } => key::show(session, &log.log, vkey).await,
            crate::cli::Key::Rotate(log) => key::rotate(session, &log.log).await,
            crate::cli::Key::Retire(log) => key::retire(session, &log.log).await,
        },
        Command::Names(args) => names::run(session, &args.what).await,
        Command::Apikey(args) => apikey::run(session, args.what).await,
        // They have been seen to above.
        Command::Config(_) => Ok(Outcome::Done),
        Command::Sample(args) => sample::run(&args),
        Command::Completions(args) => completions(args.shell),
    }
}

fn completions(shell: clap_complete::Shell) -> Result<Outcome> {
    use clap::CommandFactory;
    use std::io::Write;
    // Generated into memory: the generator panics where a pipe breaks.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sporlog", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Outcome::Done)
}
