//! `sporlog compact` and `sporlog expire`: housekeeping and retention.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use sporlog_intake::expiry;
use sporlog_ledger::{Expired, Writer, WriterOptions};

use crate::access::{Access, record_access};
use crate::cli::{CompactArgs, ExpireArgs};
use crate::output::{Outcome, counted, note};
use crate::session::Session;

pub async fn compact(session: &Session, args: &CompactArgs) -> Result<Outcome> {
    let writer = writer(session, &args.log.log).await?;
    let done = writer.compact(Duration::from_mins(args.grace)).await;
    writer.close().await?;
    let done = done?;
    let (merged, into, removed) = (done.merged as u64, done.into as u64, done.cleaned as u64);
    let facts = json!({"log": args.log.log, "merged": merged, "into": into, "removed": removed});
    let (merged, left) = (counted(merged, "file"), counted(removed, "left-over file"));
    session.print(&facts, &format!("{}: {merged} merged into {into}, {left} removed", args.log.log))?;
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
    let facts = json!({
        "log": args.log.log, "before": args.before, "dryRun": args.dry_run, "records": expired.records,
        "files": expired.files, "bytes": expired.bytes, "firstLeft": first, "needsForce": needs_force,
    });
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    let (records, files) = (counted(expired.records, "record"), counted(expired.files as u64, "file"));
    let (log, bytes) = (&args.log.log, expired.bytes);
    let text = format!("{log}: {records} in {files}, {bytes} bytes, {verb}; the first left is {first}");
    session.print(&facts, &text)?;
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
        record_access(session, &session.store()?, Access::new(expiry::ACTION, message, parameters)).await
    })
    .await
}

/// The writer of a log that is there.
async fn writer(session: &Session, name: &str) -> Result<Writer> {
    let store = session.store()?;
    let kind = store.log(name).await?.kind();
    Ok(store.writer(name, kind, WriterOptions { take_turns: true }).await?)
}
