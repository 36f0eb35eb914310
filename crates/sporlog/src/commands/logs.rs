//! `sporlog logs` and `sporlog head`: what there is, how far it goes, and new logs.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sporlog_ledger::{Error, WriterOptions};
use sporlog_record::Kind;

use crate::cli::{LogsArgs, LogsCommand};
use crate::output::{Outcome, Output, print_error};
use crate::session::Session;

pub async fn logs(session: &Session, args: &LogsArgs) -> Result<Outcome> {
    match &args.what {
        None => list(session).await,
        Some(LogsCommand::Create { logs, kind }) => create(session, logs, *kind).await,
    }
}

async fn create(session: &Session, names: &[String], kind: Option<Kind>) -> Result<Outcome> {
    let mut logs = Vec::with_capacity(names.len());
    for name in names {
        if let Some(kind) = kind {
            session.check_import(name, kind)?;
        }
        let kind = kind.or_else(|| session.expected_kind(name));
        let kind = kind.with_context(|| format!("--kind has to say what the records of '{name}' are"))?;
        logs.push((name, kind));
    }
    let store = session.store_or_new()?;
    for (name, kind) in logs {
        store.writer(name, kind, WriterOptions { take_turns: true }).await?.close().await?;
    }
    Ok(Outcome::Done)
}

async fn list(session: &Session) -> Result<Outcome> {
    let store = session.store()?;
    let names = store.names().await?;
    let mut out = Output::new()?;
    if !session.json {
        writeln!(out, "{:<20} {:<11} {:>12} {:>12} {:>14}", "LOG", "KIND", "FIRST", "HEAD", "BYTES")?;
    }
    let mut outcome = Outcome::Done;
    for name in names {
        let log = match store.log(&name).await {
            Ok(log) => log,
            // Being made at this moment, or left half-made by a crash.
            Err(Error::NoSuchLog(_)) => continue,
            // The others are shown all the same.
            Err(error) => {
                print_error(&format!("{name}: {error}"));
                outcome = Outcome::Failed;
                continue;
            }
        };
        let (name, kind) = (log.name(), log.kind());
        let folder = store.directory().map(|dir| dir.join("logs").join(name));
        let bytes = folder.map(|folder| size_of(&folder)).transpose()?;
        if session.json {
            let (first, head) = (log.first(), log.head());
            out.json(&json!({"log": name, "kind": kind, "first": first, "head": head, "bytes": bytes}))?;
        } else {
            let bytes = bytes.map_or("-".to_owned(), |bytes| bytes.to_string());
            let (kind, first, head) = (kind.name(), log.first(), log.head());
            writeln!(out, "{name:<20} {kind:<11} {first:>12} {head:>12} {bytes:>14}")?;
        }
    }
    out.flush()?;
    Ok(outcome)
}

/// The bytes of all files below a folder; one that goes away meanwhile counts for nothing.
fn size_of(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path())?,
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
    }
    Ok(bytes)
}

pub async fn head(session: &Session, name: &str) -> Result<Outcome> {
    let store = session.store()?;
    let head = session.log_if_begun(&store, name).await?.map_or(0, |log| log.head());
    session.print(&json!({"head": head}), &head.to_string())?;
    Ok(Outcome::Done)
}
