//! `sporlog compact` and `sporlog expire`: housekeeping and retention.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use sporlog_intake::expiry;
use sporlog_ledger::{Expired, Writer, WriterOptions};

use crate::access::{Access, record_access};
use crate::cli::{CompactArgs, ExpireArgs};
use crate::output::{Outcome, Output, counted, note};
use crate::session::Session;

pub async fn compact(session: &Session, args: &CompactArgs) -> Result<Outcome> {
    let writer = writer(session, &args.log.log).await?;
    let done = writer.compact(Duration::from_mins(args.grace)).await;
    writer.close().await?;
    let done = done?;
    let mut out = Output::new()?;
    let (merged, into, cleaned) = (done.merged as u64, done.into as u64, done.cleaned as u64);
    if session.json {
        out.json(&json!({"log": args.log.log, "merged": merged, "into": into, "removed": cleaned}))?;
    } else {
        let merged = counted(merged, "file");
        let left = counted(cleaned, "left-over file");
        writeln!(out, "{}: {merged} merged into {into}, {left} removed", args.log.log)?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

pub async fn expire(session: &Session, args: &ExpireArgs) -> Result<Outcome> {
    let month = chrono::Utc::now().format("%Y-%m").to_string();
    let needs_force = args.before > month;
    if needs_force && !args.force && !args.dry_run {
        bail!("--before {} would remove records of the running month ({month}); --force does", args.before);
    }
    let writer = writer(session, &args.log.log).await?;
    let expired = expire_on_record(session, &writer, args).await;
    writer.close().await?;
    let expired = expired?;
    let first = expired.first_left;
    let mut out = Output::new()?;
    if session.json {
        out.json(&json!({
            "log": args.log.log, "before": args.before, "dryRun": args.dry_run, "records": expired.records,
            "files": expired.files, "bytes": expired.bytes, "firstLeft": first, "needsForce": needs_force,
        }))?;
    } else {
        let verb = if args.dry_run { "would be removed" } else { "removed" };
        let (records, files) = (counted(expired.records, "record"), counted(expired.files as u64, "file"));
        let (log, bytes) = (&args.log.log, expired.bytes);
        writeln!(out, "{log}: {records} in {files}, {bytes} bytes, {verb}; the first left is {first}")?;
    }
    out.flush()?;
    if args.dry_run && needs_force && !args.force {
        note(&format!("--force will be needed: {} is after the running month ({month})", args.before));
    }
    Ok(Outcome::Done)
}

/// What would be removed is recorded before it is removed.
async fn expire_on_record(session: &Session, writer: &Writer, args: &ExpireArgs) -> Result<Expired> {
    if args.dry_run {
        return Ok(writer.log().expirable(&args.before));
    }
    expiry::expire(writer, &args.before, async |message, parameters| {
        let access = Access { action: expiry::ACTION, subjects: Vec::new(), message, parameters };
        record_access(session, &session.store()?, access).await
    })
    .await
}

/// The writer of a log that is there.
async fn writer(session: &Session, name: &str) -> Result<Writer> {
    let store = session.store()?;
    let kind = store.log(name).await?.kind();
    Ok(store.writer(name, kind, WriterOptions { take_turns: true }).await?)
}
