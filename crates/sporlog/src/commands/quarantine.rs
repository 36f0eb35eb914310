//! `sporlog quarantine`: what was refused and why, and what becomes of it.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sporlog_intake::quarantine::{Item, Meant, Quarantine, Refused, Replay};
use sporlog_ledger::ReceivedBefore;
use sporlog_record::identifier::mask_text;

use crate::access::{Access, record_access};
use crate::cli;
use crate::output::{Outcome, Output, utc};
use crate::session::{Session, read_bounded};

pub async fn run(session: &Session, what: cli::Quarantine) -> Result<Outcome> {
    match what {
        cli::Quarantine::List { log } => list(session, log.as_deref()).await,
        cli::Quarantine::Show { id, content } => show(session, id, content).await,
        cli::Quarantine::Replay { id, file, force } => replay(session, id, file.as_deref(), force).await,
        cli::Quarantine::Discard { items, delivery, reason } => {
            let delivery = delivery.map(Meant::Delivery);
            discard(session, &items.into_iter().chain(delivery).collect::<Vec<_>>(), &reason).await
        }
    }
}

/// What waits. There is nothing of a record in it but where it stood and what was wrong with it.
async fn list(session: &Session, log: Option<&str>) -> Result<Outcome> {
    let quarantine = Quarantine::new(session.store()?);
    let mut out = Output::new()?;
    let items = quarantine.list().await?;
    for item in items.iter().filter(|item| log.is_none_or(|log| item.log == log)) {
        if session.json {
            out.json(&facts(item))?;
            continue;
        }
        let (id, since, place) = (item.id, utc(item.refused_at), place(item));
        let reasons = reasons(item);
        let first = reasons.first().map_or_else(|| "-".to_owned(), reason);
        let more = match reasons.len() {
            0 | 1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        writeln!(out, "{id}  {since}  {}  {place}  {first}{more}", item.log)?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

async fn show(session: &Session, id: u64, content: bool) -> Result<Outcome> {
    let store = session.store()?;
    let parameters = json!({"item": id});
    let access = Access::new("QUARANTINE_SHOW", format!("quarantine show {id}"), parameters);
    record_access(session, &store, access).await?;
    let quarantine = Quarantine::new(store);
    let Refused { item, content: bytes, header, organisations } = quarantine.show(id).await?;
    let mut out = Output::new()?;
    if content {
        out.write_all(&bytes)?;
    } else if session.json {
        let mut facts = facts(&item);
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("header".into(), header.into());
            facts.insert("senderOrganisations".into(), organisations.into());
            let envelope = item.envelope.as_deref().and_then(|json| serde_json::from_str(json).ok());
            facts.insert("envelope".into(), envelope.unwrap_or_default());
            match std::str::from_utf8(&bytes) {
                Ok(text) => facts.insert("content".into(), text.into()),
                Err(_) => facts.insert("contentBase64".into(), BASE64_STANDARD.encode(&bytes).into()),
            };
        }
        out.json(&facts)?;
    } else {
        let waits = quarantine.list().await?.iter().any(|waiting| waiting.id == id);
        writeln!(out, "item      {id}{}", if waits { "" } else { " (has been replayed or discarded)" })?;
        writeln!(out, "refused   {}", utc(item.refused_at))?;
        writeln!(out, "meant for {} ({})", item.log, item.kind)?;
        writeln!(out, "from      {}", place(&item))?;
        for finding in reasons(&item) {
            writeln!(out, "          {}", reason(&finding))?;
        }
        if let Some(organisations) = organisations {
            writeln!(out, "sender    may deliver for {} only", organisations.join(", "))?;
        }
        if let Some(header) = header {
            writeln!(out, "header    {}", header.trim_end())?;
        }
        match (item.delivery(), &item.envelope) {
            (Some(delivery), _) => writeln!(out, "delivery  {delivery}")?,
            (None, Some(envelope)) => writeln!(out, "envelope  {envelope}")?,
            (None, None) => {}
        }
        writeln!(out, "content   {} bytes:", bytes.len())?;
        out.write_all(&bytes)?;
        writeln!(out)?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

async fn replay(session: &Session, id: u64, file: Option<&Path>, force: bool) -> Result<Outcome> {
    let rules = session.rules()?;
    // Somewhat more than the limit is read, so that the record's own check can refuse it.
    let limit = (rules.max_record_bytes as u64).saturating_add(1 << 20);
    let corrected = file.map(|file| read_bounded(file, limit)).transpose()?;
    let quarantine = Quarantine::new(session.store()?);
    let log = quarantine.show(id).await?.item.log;
    let replayed = quarantine.replay(id, corrected, &rules, session.overlap_policy(force)).await;
    quarantine.close().await?;
    let replayed = replayed?;
    let (outcome, facts, text) = match replayed {
        Replay::Appended(appended) => (
            Outcome::Done,
            json!({"item": id, "log": log, "id": appended.last}),
            format!("item {id} is now record {} of {log}", appended.last),
        ),
        Replay::AlreadyThere(ReceivedBefore { at, first_id, .. }) => (
            Outcome::Differs,
            json!({"item": id, "log": log, "same": first_id, "receivedAt": utc(at)}),
            format!(
                "item {id} is the same row as record {first_id} of {log}, received at {}; nothing has changed: \
                 discard the item, or store it all the same with --force",
                utc(at)
            ),
        ),
        Replay::StillRefused(findings) => {
            let file = file.map_or_else(|| format!("item {id}"), |file| file.display().to_string());
            let lines: String = findings.iter().map(|finding| format!("{file}:{finding}\n")).collect();
            (
                Outcome::Differs,
                json!({"item": id, "log": log, "refused": findings}),
                format!("{lines}item {id} is still refused; nothing has changed"),
            )
        }
    };
    session.print(&facts, &text)?;
    Ok(outcome)
}

async fn discard(session: &Session, meant: &[Meant], reason: &str) -> Result<Outcome> {
    if reason.trim().is_empty() {
        bail!("--reason says nothing");
    }
    let quarantine = Quarantine::new(session.store()?);
    let discarded = quarantine.discard(meant, reason).await;
    quarantine.close().await?;
    let discarded = discarded?;
    if discarded.is_empty() {
        bail!("none of these items waits; `sporlog quarantine list` lists those that do");
    }
    let mut out = Output::new()?;
    match discarded.as_slice() {
        ids if session.json => {
            ids.iter().try_for_each(|id| out.json(&json!({"item": id, "discarded": true})))?
        }
        [id] => writeln!(out, "item {id} is discarded")?,
        ids => writeln!(out, "{} items are discarded", ids.len())?,
    }
    out.flush()?;
    Ok(Outcome::Done)
}

fn facts(item: &Item) -> Value {
    json!({
        "id": item.id, "refusedAt": utc(item.refused_at), "kind": item.kind, "log": item.log,
        "source": item.source, "line": item.line, "delivery": item.delivery(), "reasons": reasons(item),
    })
}

/// What is wrong with an item: the errors, which refused it, before the remarks.
fn reasons(item: &Item) -> Vec<Value> {
    let mut reasons: Vec<Value> = serde_json::from_str(&item.reasons).unwrap_or_default();
    reasons.sort_by_key(|finding| finding["severity"] != "error");
    reasons
}

/// `severity FIELD: text`, as the findings were written.
fn reason(finding: &Value) -> String {
    let text = |name: &str| finding.get(name).and_then(Value::as_str).unwrap_or_default();
    let field = match text("field") {
        "" => "-",
        field => field,
    };
    let line = format!("{} {field}: {}", text("severity"), text("text"));
    mask_text(&line).into_owned()
}

fn place(item: &Item) -> String {
    match item.line {
        Some(line) => format!("{}:{line}", item.source),
        None => item.source.clone(),
    }
}
