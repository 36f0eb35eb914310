//! `sporlog collect`: the municipalities' files, and whether they are as they were.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;
use sporlog_exchange::Settings;
use sporlog_exchange::collection::check::{Checked, check};
use sporlog_exchange::collection::{Collected, Collection, CollectionRequest, Days};
use sporlog_intake::Error;
use sporlog_intake::writers::OwnWriters;
use sporlog_ledger::{Log, Store};

use crate::access::performer;
use crate::cli::CollectArgs;
use crate::exchange::configured;
use crate::output::{Outcome, Output, counted, note};
use crate::progress::Progress;
use crate::session::{self, Session};

pub async fn run(session: &Session, args: &CollectArgs) -> Result<Outcome> {
    if !args.check.is_empty() {
        return check_all(session, args).await;
    }
    if session.config().sftp.is_none() {
        // Says what to add, also where there is no store yet.
        anyhow::bail!(
            "the configuration has no section [sftp]: its accounts with role = \"municipality\" and their \
             cvr say for whom files are written; `sporlog config example` shows one"
        );
    }
    let store = session.store()?;
    let (settings, root) = configured(session, &store)?;
    let collected = match session.log_if_begun(&store, &settings.log).await? {
        Some(log) => collect(&store, &settings, &root, &log, args).await?,
        None => {
            note(&format!("the log '{}' is not there yet, so there is nothing to collect", settings.log));
            Vec::new()
        }
    };
    summarise(session, args, &collected)?;
    Ok(Outcome::Done)
}

async fn collect(
    store: &Store,
    settings: &Settings,
    root: &Path,
    log: &Log,
    args: &CollectArgs,
) -> Result<Vec<Collected>> {
    let days = args.date.map_or(Days::DueAndSoFar, Days::Of);
    let request = CollectionRequest {
        accounts: args.account.clone(),
        dry_run: args.dry_run,
        max_bytes: args.max_bytes,
        ..CollectionRequest::new(days, &performer())
    };
    let writers = OwnWriters::new(store.clone());
    let progress = Arc::new(Progress::of_records("collect"));
    let collection = Collection { settings, root, log, writers: &writers, request: &request, progress };
    let collected = collection.run().await;
    let closed = writers.close().await;
    let collected = collected?;
    closed?;
    Ok(collected)
}

fn summarise(session: &Session, args: &CollectArgs, collected: &[Collected]) -> Result<()> {
    let mut out = Output::new()?;
    for set in collected {
        if session.json {
            out.json(set)?;
            continue;
        }
        let Collected { day, account, organisation, rows, bytes, complete, changed, files, .. } = set;
        write!(out, "{day}  {account}  {organisation}  {}", counted(*rows, "row"))?;
        if !args.dry_run {
            write!(out, " in {}, {bytes} bytes", counted(files.len() as u64, "file"))?;
        }
        let so_far = if *complete { "" } else { "; the day is not over" };
        let unchanged = if *changed || (!complete && *rows == 0) { "" } else { "; there already" };
        writeln!(out, "{so_far}{unchanged}")?;
    }
    if !session.json {
        let rows = counted(collected.iter().map(|set| set.rows).sum(), "row");
        let files = counted(collected.iter().map(|set| set.files.len() as u64).sum(), "file");
        let bytes: u64 = collected.iter().map(|set| set.bytes).sum();
        match (collected.is_empty(), args.dry_run) {
            (true, _) => writeln!(out, "nothing to collect")?,
            (false, true) => writeln!(out, "{rows}; nothing was written")?,
            (false, false) => writeln!(out, "{rows} in {files}, {bytes} bytes")?,
        }
    }
    Ok(out.flush()?)
}

async fn check_all(session: &Session, args: &CollectArgs) -> Result<Outcome> {
    let mut out = Output::new()?;
    let mut outcome = Outcome::Done;
    for path in &args.check {
        let problems = check_one(session, args, path, &mut out).await?;
        if problems > 0 {
            outcome = Outcome::Differs;
        }
    }
    out.flush()?;
    Ok(outcome)
}

/// Checks a manifest and its files, and gives how many problems there are.
async fn check_one(session: &Session, args: &CollectArgs, path: &PathBuf, out: &mut Output) -> Result<usize> {
    let there = path.clone();
    let name = path.display();
    let checked = match tokio::task::spawn_blocking(move || check(&there)).await.context("check")? {
        // It is there, and is none.
        Err(Error::Read { source, .. }) if source.kind() == ErrorKind::InvalidData => {
            let problem = format!("it is no manifest: {source}");
            match session.json {
                true => out.json(&json!({"manifest": path, "ok": false, "problems": [problem]}))?,
                false => writeln!(out, "{name}: {problem}")?,
            }
            return Ok(1);
        }
        checked => checked?,
    };
    let Checked { manifest, mut problems } = checked;
    problems.extend(manifest.check_signatures(&public_key(session, args, &manifest.log).await?));
    if session.json {
        out.json(&json!({
            "manifest": path, "ok": problems.is_empty(), "organisation": manifest.organisation,
            "day": manifest.day, "complete": manifest.complete, "rows": manifest.rows,
            "files": manifest.files.len(), "problems": problems,
        }))?;
        return Ok(problems.len());
    }
    for problem in &problems {
        writeln!(out, "{name}: {problem}")?;
    }
    if problems.is_empty() {
        let (rows, files) = (counted(manifest.rows, "row"), counted(manifest.files.len() as u64, "file"));
        let so_far = if manifest.complete { "" } else { "; the day was not over" };
        writeln!(out, "{name}: in order, {rows} in {files}{so_far}")?;
    }
    Ok(problems.len())
}

async fn public_key(session: &Session, args: &CollectArgs, log: &str) -> Result<String> {
    let Some(key) = &args.key else {
        let log = match session.store() {
            Ok(store) => store.log(log).await.map_err(anyhow::Error::from),
            Err(error) => Err(error),
        };
        let log = log.context("--key takes the log's public key, where the log is not at hand")?;
        return Ok(log.vkey().to_owned());
    };
    session::public_key(key)
}
