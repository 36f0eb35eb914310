//! A day's files, from the log to the outboxes: written in one pass, made durable, signed, recorded in the access
//! log, and published.

use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use sporlog_intake::Result;
use sporlog_intake::access_event::{AccessEvent, ORIGIN};
use sporlog_intake::blocking::blocking;
use sporlog_intake::writers::record_access;

use super::day_files::{FileInfo, WrittenFile};
use super::due_days::{DueDay, ReceivedDay, count};
use super::manifest::{FORMAT, Manifest};
use super::outbox::Outbox;
use super::scan_rows::{Scan, stopped};
use super::{Collected, Collection};

/// The most files that are open at once; for further outboxes the day is read again.
const OPEN_FILES: usize = 256;
/// Access events that are recorded side by side.
const RECORDING: usize = 16;

impl Collection<'_> {
    /// Writes the files of all days, or counts their rows.
    pub(super) async fn collect<'a>(&self, due: &'a [DueDay]) -> Result<Vec<Collected>> {
        let passes =
            |due: &'a DueDay| due.outboxes.chunks(OPEN_FILES).map(|outboxes| (&due.received, outboxes));
        let passes: Vec<_> = due.iter().flat_map(passes).collect();
        let total = passes.iter().map(|(day, _)| count(&day.ids)).sum();
        let (mut done, mut collected) = (0, Vec::new());
        for (day, outboxes) in passes {
            let (log, ids, stop) = (self.log.clone(), day.ids.clone(), self.request.stop.clone());
            let scan = Scan { log, ids, stop, progress: self.progress.clone(), before: done, total };
            collected.extend(match self.request.dry_run {
                true => self.count(scan, day, outboxes).await?,
                false => self.write(scan, day, outboxes).await?,
            });
            done += count(&day.ids);
        }
        Ok(collected)
    }

    async fn count(&self, scan: Scan, day: &ReceivedDay, outboxes: &[Outbox]) -> Result<Vec<Collected>> {
        let counts = scan.count(outboxes.iter().map(|outbox| outbox.organisation.clone()).collect()).await?;
        let counted = |(outbox, rows)| collected(day, outbox, rows, Vec::new(), true);
        Ok(outboxes.iter().zip(counts).map(counted).collect())
    }

    async fn write(&self, scan: Scan, day: &ReceivedDay, outboxes: &[Outbox]) -> Result<Vec<Collected>> {
        // A crash up to the first publication leaves files in folders that are not served; the next collection
        // removes these.
        let writer = |outbox: &Outbox| outbox.writer(day.day, self.request.max_bytes);
        let written = scan.write(outboxes.iter().map(writer).collect()).await?;
        let checkpoint = String::from_utf8_lossy(&self.log.checkpoint_at(day.size).await?).into_owned();
        let mut ready = Vec::with_capacity(outboxes.len());
        for (outbox, written) in outboxes.iter().zip(written) {
            ready.push((outbox, self.manifest(day, outbox, &written, &checkpoint)?, written));
        }
        // That a municipality has no rows is stated only where this cannot change.
        let is_shown = |manifest: &Manifest| manifest.complete || manifest.rows > 0;
        let shown = ready.iter().filter(|(_, manifest, _)| is_shown(manifest));
        let events: Vec<_> = shown.map(|(outbox, manifest, _)| self.record(outbox, manifest)).collect();
        futures::stream::iter(events).buffer_unordered(RECORDING).try_collect::<()>().await?;
        let mut all = Vec::with_capacity(ready.len());
        for (outbox, manifest, written) in ready {
            if self.request.stop.is_cancelled() {
                return Err(stopped());
            }
            let mut set = collected(day, outbox, manifest.rows, manifest.files.clone(), false);
            if is_shown(&manifest) {
                let outbox = outbox.clone();
                set.changed = blocking(move || outbox.publish(&manifest, &written)).await?;
            }
            if set.changed {
                metrics::counter!("sporlog_collect_rows_total").increment(set.rows);
                metrics::counter!("sporlog_collect_bytes_total").increment(set.bytes);
            }
            all.push(set);
        }
        Ok(all)
    }

    fn manifest(
        &self,
        day: &ReceivedDay,
        outbox: &Outbox,
        written: &[WrittenFile],
        checkpoint: &str,
    ) -> Result<Manifest> {
        let files: Vec<_> = written.iter().map(|(_, info)| info.clone()).collect();
        let mut manifest = Manifest {
            format: FORMAT.to_owned(),
            organisation: outbox.organisation.clone(),
            day: day.day,
            log: self.log.name().to_owned(),
            complete: day.complete,
            rows: files.iter().map(|info| info.rows).sum(),
            first_id: files.first().map(|info| info.first_id),
            last_id: files.last().map(|info| info.last_id),
            scanned: day.scanned(),
            files,
            tree_size: day.size,
            checkpoint: checkpoint.to_owned(),
            statement: String::new(),
        };
        manifest.sign(self.log)?;
        Ok(manifest)
    }

    async fn record(&self, outbox: &Outbox, manifest: &Manifest) -> Result<()> {
        let Manifest { organisation, day, rows, .. } = manifest;
        let event = AccessEvent {
            performer: &self.request.performer,
            action: "COLLECT",
            subject: None,
            address: None,
            correlation: None,
            message: format!("collect {} of {organisation} on {day} for {}", manifest.log, outbox.account),
            parameters: json!({
                "log": manifest.log,
                "account": outbox.account,
                "organisation": organisation,
                "day": day,
                "complete": manifest.complete,
                "rows": rows,
                "files": manifest.files.len(),
                "program": ORIGIN,
            }),
        };
        record_access(self.writers, &event).await
    }
}

fn collected(
    day: &ReceivedDay,
    outbox: &Outbox,
    rows: u64,
    files: Vec<FileInfo>,
    changed: bool,
) -> Collected {
    Collected {
        day: day.day,
        account: outbox.account.clone(),
        organisation: outbox.organisation.clone(),
        complete: day.complete,
        rows,
        bytes: files.iter().map(|info| info.bytes).sum(),
        folder: outbox.folder(day.day),
        files,
        changed,
    }
}
