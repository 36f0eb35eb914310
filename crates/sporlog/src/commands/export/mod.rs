//! `sporlog export revision`: a municipality's revision logs as CSV files, one for each day.
//!
//! ```text
//! workers: some thousand ids each → the municipality's rows → CSV       (side by side)
//! in order: CSV → the day's files, split where they would grow too large
//! ```
//!
//! What is in memory is a few parts, whatever the size of the log or of the files.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use chrono::{NaiveDate, Utc};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use sporlog_exchange::collection::days::day_of;
use sporlog_ledger::{Log, numbers};
use sporlog_record::Kind;
use sporlog_record::revision::write_csv_rows;

use crate::access::{Access, record_access};
use crate::cli::ExportRevisionArgs;
use crate::output::{Outcome, Output, counted, print_error};
use crate::progress::{Progress, Results};
use crate::session::Session;
use files::{DayFiles, Written};

mod files;

/// Ids in a worker's part: few enough that several parts fit into memory where all rows are the
/// municipality's, and no fewer than a data file keeps together.
const PART_IDS: u64 = 32 << 10;

/// Rows as CSV.
struct Piece {
    ids: Vec<u64>,
    csv: Vec<u8>,
}

/// Days of receipt, the last one included.
#[derive(Debug, Clone, Copy)]
struct Days {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
}

impl Days {
    fn have(self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }
}

pub async fn run(session: &Session, args: &ExportRevisionArgs) -> Result<Outcome> {
    let days = match args.date {
        Some(date) => Days { from: Some(date), to: Some(date) },
        None => Days { from: args.from, to: args.to },
    };
    if days.from.zip(days.to).is_some_and(|(from, to)| from > to) {
        bail!("--from is later than --to");
    }
    let store = session.store()?;
    let log = session.log_if_begun(&store, &args.log).await?;
    if let Some(log) = &log
        && log.kind() != Kind::Revision
    {
        bail!("the log '{}' holds {} records, not revision", log.name(), log.kind());
    }
    let access = Access {
        action: "EXPORT",
        subject: None,
        message: format!("export {} of {}", args.log, args.organisation),
        parameters: json!({
            "log": args.log,
            "organisation": args.organisation,
            "from": days.from,
            "to": days.to,
        }),
    };
    record_access(session, &store, access).await?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let written = match &log {
        Some(log) => export(log, args, days).await?,
        None => Vec::new(),
    };
    let today = Utc::now().date_naive();
    if written.iter().any(|file| file.day >= today) {
        print_error("note: the day is not over (UTC); what comes in later today is not in its files");
    }
    summarise(session, args, &written)?;
    Ok(Outcome::Done)
}

async fn export(log: &Log, args: &ExportRevisionArgs, days: Days) -> Result<Vec<Written>> {
    // Clocks may have been wrong, so a day has any number of ranges of ids.
    let mut received = log.received_by(day_of).await?;
    received.retain(|day, _| days.have(*day));
    let total = received.values().flatten().map(|ids| ids.end - ids.start).sum();
    let progress = Progress::records("export", total, Results::After);
    let parts = received.into_iter().flat_map(|(day, ids)| ids.into_iter().map(move |ids| (day, ids)));
    let parts = parts.flat_map(|(day, ids)| {
        let end = ids.end;
        ids.step_by(PART_IDS as usize).map(move |id| (day, id, PART_IDS.min(end - id)))
    });
    let wanted: Arc<str> = args.organisation.as_str().into();
    let make = |(day, id, count): (NaiveDate, u64, u64)| {
        let (log, wanted) = (log.clone(), wanted.clone());
        // A task of its own, so that it may run on another core.
        let task = tokio::spawn(async move { part(&log, &wanted, id, count).await });
        async move { anyhow::Ok((day, count, task.await.context("export")??)) }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    let mut parts = futures::stream::iter(parts).map(make).buffered(workers);
    let mut written = Vec::new();
    let mut open: Option<DayFiles> = None;
    let mut done = 0;
    while let Some((day, count, pieces)) = parts.try_next().await? {
        for piece in pieces {
            if open.as_ref().is_some_and(|files| files.day() != day) {
                written.extend(open.take().map(DayFiles::show).transpose()?.unwrap_or_default());
            }
            let files = match &mut open {
                Some(files) => files,
                none => none.insert(DayFiles::begin(args, day)),
            };
            files.append(&piece.ids, &piece.csv)?;
        }
        done += count;
        progress.at(done);
    }
    written.extend(open.map(DayFiles::show).transpose()?.unwrap_or_default());
    Ok(written)
}

/// The municipality's rows among `count` ids from `id` on.
async fn part(log: &Log, wanted: &str, id: u64, count: u64) -> Result<Vec<Piece>> {
    let mut batches = log.read_where(id - 1, count, "KalderOrganisation", wanted);
    let mut pieces = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        if batch.num_rows() == 0 {
            continue;
        }
        let mut csv = Vec::new();
        write_csv_rows(&batch, 0..batch.num_rows(), &mut csv)?;
        let ids = numbers(&batch)?.0.values().iter().map(|id| id.unsigned_abs()).collect();
        pieces.push(Piece { ids, csv });
    }
    Ok(pieces)
}

fn summarise(session: &Session, args: &ExportRevisionArgs, written: &[Written]) -> Result<()> {
    let mut out = Output::new()?;
    let (rows, bytes) = written.iter().fold((0, 0), |sum, file| (sum.0 + file.rows, sum.1 + file.bytes));
    if session.json {
        let organisation = &args.organisation;
        out.json(&json!({"organisation": organisation, "rows": rows, "bytes": bytes, "files": written}))?;
    } else {
        for file in written {
            let Written { path, rows, bytes, sha256, .. } = file;
            writeln!(out, "{}  {rows} rows  {bytes} bytes  sha256 {sha256}", path.display())?;
        }
        let (rows, files) = (counted(rows, "row"), counted(written.len() as u64, "file"));
        writeln!(out, "{rows} of {} in {files}, {bytes} bytes", args.organisation)?;
    }
    Ok(out.flush()?)
}
