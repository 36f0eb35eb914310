//! `sporlog restore`: a store from a backup, or a log that goes on without its newest records.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sporlog_ledger::{
    Backup, Copied, Error, KeySource, Log, LogKeys, RolledBack, Store, WriterOptions, copy_path,
};

use crate::access::{Access, record_access};
use crate::cli::RestoreArgs;
use crate::commands::backup::{exchange_root, print};
use crate::commands::verify::{check_log, warn_of_own_copy};
use crate::output::{Outcome, Output, note, print_error, utc};
use crate::progress::{Progress, Results};
use crate::session::Session;

pub async fn run(session: &Session, args: &RestoreArgs) -> Result<Outcome> {
    match (&args.in_place, &args.backup) {
        (Some(log), _) => in_place(session, log, args.dry_run).await,
        (None, Some(backup)) => from_backup(session, args, &Backup::open(backup)?, backup).await,
        (None, None) => bail!("BACKUP or --in-place says what is to be restored"),
    }
}

async fn from_backup(session: &Session, args: &RestoreArgs, backup: &Backup, from: &Path) -> Result<Outcome> {
    // The store may be there already, and be empty but for its keys.
    let in_store = || session.keys(&session.store().ok()?);
    let keys = session.config().keys().or_else(in_store);
    if let Some(keys) = &keys {
        backup.check_keys(keys)?;
    }
    let mut logs = Vec::new();
    for name in backup.store().names().await? {
        let key = keys.as_ref().and_then(|keys| LogKeys::load(keys, &name).ok());
        let log = match &key {
            Some(key) => backup.store().log_with_key(&name, key.vkey()).await,
            None => backup.store().log(&name).await,
        };
        logs.push(log.with_context(|| format!("the copy of the log '{name}'"))?);
    }
    if let Some(problem) = older_than(&logs, args).await? {
        print_error(&format!("{problem}; nothing was restored"));
        return Ok(Outcome::Differs);
    }
    let mut out = Output::new()?;
    for log in &logs {
        let said = say_extent(session, &mut out, log).await;
        said.with_context(|| format!("the copy of the log '{}'", log.name()))?;
    }
    out.flush()?;
    if let Some(log) = logs.iter().find(|log| log.key_source() == KeySource::LogFolder) {
        warn_of_own_copy(log.key_source());
    }
    if args.dry_run {
        return Ok(Outcome::Done);
    }
    let store = session.store_or_new()?;
    for log in &logs {
        check_is_new(&store, &session.config().store(), log).await?;
    }
    if let Some(keys) = session.keys(&store) {
        backup.restore_keys(&keys)?;
    }
    let mut outcome = Outcome::Done;
    let mut restored = Vec::new();
    for log in &logs {
        let progress = Progress::bytes(&format!("restore {}", log.name()), None, Results::Meanwhile);
        // What the key has signed since is looked at below.
        let copied = log.copy_to(&store.without_keys(), |bytes| progress.at(bytes)).await?;
        drop(progress);
        outcome = outcome.max(print(session, &mut out, log.name(), &copied)?);
        if copied.problems.is_empty() {
            restored.push(finish(&store, log, &copied, &mut out).await?);
        }
        out.flush()?;
    }
    if let Some(root) = exchange_root(session, &store) {
        copy_path(&backup.exchange(), &root, false)?;
    }
    let from = std::path::absolute(from)?.display().to_string();
    let parameters = json!({"backup": from, "logs": restored});
    let access = Access::new("RESTORE", format!("restored from the backup {from}"), parameters);
    record_access(session, &store, access).await?;
    Ok(outcome)
}

/// Why the backup is not at least as new as each of the given checkpoints, if it is not.
async fn older_than(logs: &[Log], args: &RestoreArgs) -> Result<Option<String>> {
    for path in &args.since {
        let earlier = std::fs::read(path).with_context(|| path.display().to_string())?;
        let Some(log) = logs.iter().find(|log| log.open_earlier_checkpoint(&earlier).is_ok()) else {
            bail!("{}: this is a signed checkpoint of no log in the backup", path.display());
        };
        match log.verify_since(&earlier).await {
            Ok(_) => {}
            Err(error @ (Error::Proof(_) | Error::Damaged { .. })) => {
                let name = log.name();
                return Ok(Some(format!(
                    "{name}: the backup does not go as far as {}: {error}",
                    path.display()
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

async fn say_extent(session: &Session, out: &mut Output, log: &Log) -> Result<()> {
    let Copied { version, first, head, covered, received_at, .. } = log.extent().await?;
    let received = received_at.map(utc);
    if session.json {
        out.json(&json!({
            "log": log.name(), "version": version, "first": first, "head": head, "covered": covered,
            "received": received,
        }))?;
    } else {
        let received = received.map(|at| format!("; the newest was received {at}")).unwrap_or_default();
        let name = log.name();
        writeln!(
            out,
            "{name}: the backup has records {first} to {head}, version {version}; its checkpoint covers {covered}{received}"
        )?;
    }
    Ok(())
}

/// A log that is there already is not touched, unless it is what a restore that was killed left.
async fn check_is_new(store: &Store, location: &str, log: &Log) -> Result<()> {
    let extent = async |log: &Log| log.extent().await.map(|extent| (extent.version, extent.head));
    match store.without_keys().log(log.name()).await {
        Err(Error::NoSuchLog(_)) => Ok(()),
        Ok(there) if extent(&there).await? == extent(log).await? => Ok(()),
        // A place that cannot be read says nothing of what is there.
        Err(error @ (Error::Location { .. } | Error::Storage { .. })) => Err(error.into()),
        _ => bail!(
            "there is a log '{}' in {location} already: restore into a new store, or move that log's folder away",
            log.name(),
        ),
    }
}

/// Makes a restored log one that can be appended to, if its keys are there. Gives what is recorded of it.
async fn finish(store: &Store, log: &Log, copied: &Copied, out: &mut Output) -> Result<serde_json::Value> {
    let name = log.name();
    let rolled_back = match store.roll_back(name, false).await {
        Err(Error::Keys { .. }) => {
            note(&format!("the log '{name}' cannot be appended to: its key is not in the key folder"));
            None
        }
        rolled_back => {
            let rolled_back = rolled_back?;
            store.writer(name, log.kind(), WriterOptions { take_turns: true }).await?.close().await?;
            rolled_back
        }
    };
    if let Some(rolled_back) = &rolled_back {
        writeln!(out, "{name}: {}", lost(rolled_back, false))?;
    }
    Ok(json!({
        "log": name, "version": copied.version, "size": copied.head,
        "givenUp": rolled_back.map(|rolled_back| facts(&rolled_back)),
    }))
}

async fn in_place(session: &Session, name: &str, dry_run: bool) -> Result<Outcome> {
    let store = session.store()?;
    let rolled_back = store.roll_back(name, dry_run).await?;
    let (result, text) = match &rolled_back {
        Some(rolled_back @ RolledBack { from, to }) => (
            json!({"from": from, "to": to, "log": name, "dryRun": dry_run}),
            format!("{name}: {}", lost(rolled_back, dry_run)),
        ),
        None => (
            json!({"log": name, "dryRun": dry_run, "from": null}),
            format!("{name}: nothing is missing at its end, and nothing was changed"),
        ),
    };
    session.print(&result, &text)?;
    if let (Some(rolled_back), false) = (&rolled_back, dry_run) {
        let parameters = json!({"log": name, "givenUp": facts(rolled_back)});
        let access =
            Access::new("ROLLBACK", format!("rolled back {name} to record {}", rolled_back.to), parameters);
        record_access(session, &store, access).await?;
        return check_log(session, name, None).await;
    }
    Ok(Outcome::Done)
}

fn facts(rolled_back: &RolledBack) -> serde_json::Value {
    json!({"from": rolled_back.from, "to": rolled_back.to})
}

fn lost(RolledBack { from, to }: &RolledBack, dry_run: bool) -> String {
    let verb = if dry_run { "would be given up" } else { "were given up" };
    match from.saturating_sub(*to) {
        0 => format!("commits without records, after record {to}, {verb}"),
        1 => {
            let verb = verb.replace("were", "was");
            format!("record {from}, which had been signed for, {verb}; the log goes on after record {to}")
        }
        _ => {
            let first = to + 1;
            format!(
                "records {first} to {from}, which had been signed for, {verb}; the log goes on after record {to}"
            )
        }
    }
}
