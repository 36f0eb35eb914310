//! `sporlog export auditlog --as revision`: audit records as a CSV file of a revision log.

use std::io::Write;

use anyhow::{Result, bail};
use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use serde_json::json;
use sporlog_record::Kind;
use sporlog_record::revision::{Caller, revision_rows, write_csv_header, write_csv_rows};
use sporlog_record::time::format_local;

use crate::access::{Access, record_access};
use crate::cli::ExportAuditlogArgs;
use crate::outfile::OutFile;
use crate::output::{Outcome, Output, counted};
use crate::session::Session;
use crate::timerange;

/// A revision log's file has no more bytes.
const MOST_BYTES: u64 = 2_000_000_000;

pub async fn run(session: &Session, args: &ExportAuditlogArgs) -> Result<Outcome> {
    timerange::check(args.from, args.to)?;
    let store = session.store()?;
    let Some(log) = session.log_if_begun(&store, &args.log).await? else {
        bail!("the log '{}' has no records", args.log);
    };
    if log.kind() != Kind::Auditlog {
        bail!("the log '{}' holds {} records, not auditlog", log.name(), log.kind());
    }
    let parameters = json!({
        "log": args.log,
        "organisation": args.organisation,
        "from": args.from.map(format_local),
        "to": args.to.map(format_local),
    });
    let access = Access::new("EXPORT", format!("export {} as revision", args.log), parameters);
    record_access(session, &store, access).await?;
    let caller = Caller { organisation: &args.organisation, system: &args.system };
    let (mut rows, mut bytes) = (0, 0);
    let mut file = OutFile::create(&args.out, args.force)?;
    let mut buffer = Vec::new();
    write_csv_header(&mut buffer);
    let mut batches = log.read(0, None);
    loop {
        bytes += buffer.len() as u64;
        if bytes > MOST_BYTES {
            bail!("the file would be longer than {MOST_BYTES} bytes; --from and --to make several of it");
        }
        file.write_all(&buffer)?;
        buffer.clear();
        let Some(batch) = batches.try_next().await? else { break };
        let times = batch
            .column_by_name("occurred_at")
            .and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let time = |row: usize| times.filter(|times| times.is_valid(row)).map(|times| times.value(row));
        let wanted = |row: usize| {
            let from = args.from.is_none_or(|from| time(row).is_some_and(|time| time >= from));
            from && args.to.is_none_or(|to| time(row).is_some_and(|time| time < to))
        };
        let wanted: BooleanArray = (0..batch.num_rows()).map(|row| Some(wanted(row))).collect();
        let batch = revision_rows(&filter_record_batch(&batch, &wanted)?, caller)?;
        rows += batch.num_rows() as u64;
        write_csv_rows(&batch, 0..batch.num_rows(), &mut buffer)?;
    }
    file.finish()?;
    let mut out = Output::new()?;
    if session.json {
        out.json(&json!({"path": args.out, "rows": rows, "bytes": bytes}))?;
    } else {
        writeln!(out, "{}  {}  {bytes} bytes", args.out.display(), counted(rows, "row"))?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}
