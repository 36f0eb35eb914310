//! One organisation's revision records as CSV files in any folder: what `sporlog export revision` does.

use std::path::PathBuf;

use chrono::NaiveDate;
use serde::Serialize;
use sporlog_intake::Result;
use sporlog_intake::blocking::blocking;
use sporlog_ledger::Log;
use tokio_util::sync::CancellationToken;

use super::Progress;
use super::day_files::{failed, names_in, publish};
use super::due_days::{count, day_of};
use super::scan_rows::Scan;
use super::split_writer::SplitWriter;

/// The files that are to be written.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// The CVR number whose rows are wanted.
    pub organisation: String,
    /// The first day of receipt (UTC); without it, the log's first.
    pub from: Option<NaiveDate>,
    /// The last day of receipt; without it, the log's last.
    pub to: Option<NaiveDate>,
    /// The folder for the files, which has to be there.
    pub folder: PathBuf,
    /// Whether files that are there already are replaced.
    pub replace: bool,
    /// A file stays below so many bytes.
    pub max_bytes: u64,
}

/// A file that was written.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// The file's path.
    #[serde(rename = "file")]
    pub path: PathBuf,
    /// The day of receipt.
    pub day: NaiveDate,
    /// How many rows the file has.
    pub rows: u64,
    /// The file's size.
    pub bytes: u64,
    /// The file's SHA-256, in hexadecimal.
    pub sha256: String,
}

/// Writes the files, one day after the other. A day's files are published when all of them are complete; without
/// rows, there are none. If a file is there already and is not to be replaced, the error is of the kind
/// `AlreadyExists`.
pub async fn export(log: &Log, request: &ExportRequest, progress: Progress) -> Result<Vec<Exported>> {
    let ExportRequest { organisation, folder, .. } = request;
    let mut received = log.received_by(day_of).await?;
    let is_after_start = |day| request.from.is_none_or(|from| from <= day);
    received.retain(|day, _| is_after_start(*day) && request.to.is_none_or(|to| *day <= to));
    let total = received.values().map(|ids| count(ids)).sum();
    let scratch = tempfile::Builder::new().prefix(".sporlog-export-").tempdir_in(folder);
    let scratch = scratch.map_err(failed(folder))?;
    let (mut done, mut exported) = (0, Vec::new());
    for (day, ids) in received {
        if !request.replace
            && let Some(name) = names_in(folder, organisation, day).map_err(failed(folder))?.first()
        {
            return Err(failed(&folder.join(name))(std::io::ErrorKind::AlreadyExists.into()));
        }
        let before = done;
        done += count(&ids);
        let (log, stop, progress) = (log.clone(), CancellationToken::new(), progress.clone());
        let scan = Scan { log, ids, stop, progress, before, total };
        let writer = SplitWriter::new(scratch.path().to_owned(), organisation, day, request.max_bytes, 0o666);
        let written = scan.write(vec![writer]).await?.pop().unwrap_or_default();
        if written.is_empty() {
            continue;
        }
        let files = written.iter().map(|(_, info)| Exported {
            path: folder.join(&info.name),
            day,
            rows: info.rows,
            bytes: info.bytes,
            sha256: info.sha256.clone(),
        });
        exported.extend(files);
        let ExportRequest { organisation, folder, replace, .. } = request.clone();
        let publish = move || {
            publish(&written, &folder, replace.then_some((organisation.as_str(), day)))
                .map_err(failed(&folder))
        };
        blocking(publish).await?;
    }
    Ok(exported)
}
