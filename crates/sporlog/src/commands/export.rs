//! `sporlog export revision`: a municipality's revision logs as CSV files, one for each day.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use chrono::Utc;
use serde_json::json;
use sporlog_exchange::collection::export::{ExportRequest, Exported, export};
use sporlog_intake::Error;
use sporlog_record::Kind;
use sporlog_record::identifier::cvr;

use crate::access::{Access, record_access};
use crate::cli::ExportRevisionArgs;
use crate::outfile::already_there;
use crate::output::{Outcome, Output, counted, note};
use crate::progress::Progress;
use crate::session::Session;

pub async fn run(session: &Session, args: &ExportRevisionArgs) -> Result<Outcome> {
    let (from, to) = (args.date.or(args.from), args.date.or(args.to));
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        bail!("--from is later than --to");
    }
    let store = session.store()?;
    let log = session.log_if_begun(&store, &args.log).await?;
    if let Some(log) = &log
        && log.kind() != Kind::Revision
    {
        bail!("the log '{}' holds {} records, not revision", log.name(), log.kind());
    }
    let parameters = json!({"log": args.log, "organisation": args.organisation, "from": from, "to": to});
    let access = Access::new("EXPORT", format!("export {} of {}", args.log, args.organisation), parameters);
    record_access(session, &store, access).await?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let request = ExportRequest {
        organisation: args.organisation.clone(),
        from,
        to,
        folder: args.out.clone(),
        replace: args.force,
        max_bytes: args.max_bytes,
    };
    let exported = match &log {
        Some(log) => export(log, &request, Arc::new(Progress::of_records("export"))).await,
        None => Ok(Vec::new()),
    };
    let exported = exported.map_err(|error| match error {
        Error::Read { name, source } if source.kind() == ErrorKind::AlreadyExists => {
            anyhow!(already_there(Path::new(&name)))
        }
        error => error.into(),
    })?;
    let today = Utc::now().date_naive();
    if exported.iter().any(|file| file.day >= today) {
        note("the day is not over (UTC); what comes in later today is not in its files");
    }
    print_files(session, args, &exported)?;
    if exported.is_empty() && !cvr::is_valid(&args.organisation) {
        note("the check digit of this CVR number does not match");
    }
    Ok(Outcome::Done)
}

fn print_files(session: &Session, args: &ExportRevisionArgs, exported: &[Exported]) -> Result<()> {
    let mut out = Output::new()?;
    let (rows, bytes) = exported.iter().fold((0, 0), |sum, file| (sum.0 + file.rows, sum.1 + file.bytes));
    if session.json {
        let organisation = &args.organisation;
        out.json(&json!({"organisation": organisation, "rows": rows, "bytes": bytes, "files": exported}))?;
    } else {
        for Exported { path, rows, bytes, sha256, .. } in exported {
            writeln!(out, "{}  {rows} rows  {bytes} bytes  sha256 {sha256}", path.display())?;
        }
        let (rows, files) = (counted(rows, "row"), counted(exported.len() as u64, "file"));
        writeln!(out, "{rows} of {} in {files}, {bytes} bytes", args.organisation)?;
    }
    Ok(out.flush()?)
}
