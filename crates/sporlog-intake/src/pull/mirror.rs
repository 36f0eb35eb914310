//! The log that mirrors an upstream: which of its records it has, and one commit.
//!
//! A record is there already if the log has a row with its `sourceId`. Only ids up to the position are compared; higher
//! ones are new. Up to the position `top`, ids may have been used twice by an upstream that was restored from a backup:
//! there, a record is the same one only if its fields are the same, too.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use serde::Serialize;
use sporlog_ledger::{Advance, Append, Error as LedgerError, Log, Outcome, Writer};
use sporlog_record::kind::quarantine::QuarantineRecord;

use super::page::{Piece, Refused};
use super::settings::Settings;
use super::stored::{Fields, records, source_ids};
use crate::error::{Error, Result};
use crate::quarantine::{self, Quarantine};
use crate::writers::Writers;

/// The log and its positions, as this instance knows them.
pub(super) struct Mirror {
    settings: Settings,
    writer: Writer,
    quarantine: Quarantine,
    /// The highest id read; −1 if nothing has been.
    last: i64,
    settled: i64,
    late: i64,
    top: i64,
    stopped: i64,
    /// When the position was last moved, in milliseconds UTC.
    pub moved_at: Option<i64>,
    /// The quarantine, if anything has been refused: a position for each of this pull's records says that it is there.
    refusals: Option<Log>,
    /// The records above `known_above` that the log has: their ids there, and here.
    known: BTreeMap<i64, u64>,
    known_above: i64,
}

/// The records that a commit, or a pull, has dealt with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records stored, late ones included.
    pub accepted: u64,
    /// Records that turned up below ids that had been read.
    pub late: u64,
    /// Records refused; each is in the quarantine.
    pub refused: u64,
}

impl Mirror {
    /// Opens the log, which is made if it is not there.
    pub(super) async fn open(
        settings: &Settings,
        writers: &Arc<dyn Writers>,
        quarantine: &Quarantine,
    ) -> Result<Self> {
        let writer = writers.writer(&settings.log, settings.kind).await?;
        let found = writer.log().kind();
        if found != settings.kind {
            let Settings { name, log, kind, .. } = settings;
            return Err(Error::Settings(format!(
                "[[pull]] '{name}': the log '{log}' holds {found} records, not {kind}"
            )));
        }
        let mut mirror = Mirror {
            settings: settings.clone(),
            writer,
            quarantine: quarantine.clone(),
            last: -1,
            settled: -1,
            late: -1,
            top: -1,
            stopped: -1,
            moved_at: None,
            refusals: None,
            known: BTreeMap::new(),
            known_above: i64::MAX,
        };
        mirror.reload().await?;
        Ok(mirror)
    }

    /// Takes over what other instances have committed.
    pub(super) async fn reload(&mut self) -> Result<()> {
        let log = self.writer.log();
        log.refresh().await?;
        let position = |what| log.position(&self.settings.position(what));
        let version = |what| position(what).map_or(-1, |position| position.version);
        self.moved_at = position("").map(|position| position.at);
        (self.last, self.settled, self.late) = (version(""), version(":settled"), version(":late"));
        (self.top, self.stopped) = (version(":top"), version(":stopped"));
        self.refusals = self.quarantine.begun().await?;
        self.known.clear();
        // Which rows there are is read when it is asked for, so after the positions: rows that come in between are
        // known then, and moving a position from where it stood fails.
        self.known_above = if self.last.max(self.top) < 0 { -1 } else { i64::MAX };
        Ok(())
    }

    /// The highest id read; 0 if none.
    pub(super) fn last(&self) -> i64 {
        self.last.max(0)
    }

    /// Above this id, up to the position, records may still turn up.
    pub(super) fn settled(&self) -> i64 {
        self.settled.clamp(0, self.last())
    }

    /// Nothing has been read yet.
    pub(super) fn is_new(&self) -> bool {
        self.last < 0
    }

    /// The head that was below the position, if that is how it stands.
    pub(super) fn stopped(&self) -> Option<i64> {
        (self.stopped >= 0).then_some(self.stopped)
    }

    /// The log has records, and the pull is not known to it: which of them are the upstream's cannot be known.
    pub(super) fn check_begun(&self) -> Result<()> {
        let Settings { name, log, .. } = &self.settings;
        if self.is_new() && self.writer.log().head() > 0 {
            return Err(Error::Settings(format!(
                "[[pull]] '{name}': the log '{log}' has records that did not come by this pull. Name another log, or \
                 let `sporlog pull {name} --from ID` say after which id to read; records that the log has by their \
                 sourceId are not stored again"
            )));
        }
        Ok(())
    }

    /// Sets the position, whatever it was. Ids that the log may have are compared with it from then on.
    pub(super) async fn set(&mut self, from: i64) -> Result<()> {
        loop {
            let highest = source_ids(self.writer.log()).await?.into_iter().map(|(id, _)| id).max();
            let top = highest.unwrap_or(-1).max(self.last).max(self.top);
            let mut positions =
                vec![("", self.last, from), (":settled", self.settled, from), (":top", self.top, top)];
            if self.stopped >= 0 {
                positions.push((":stopped", self.stopped, -1));
            }
            if self.append(None, &positions).await?.is_some() {
                return self.reload().await;
            }
        }
    }

    /// Notes that the upstream's head is below the position, so that no start of the program goes on by itself.
    pub(super) async fn stop_at(&mut self, head: i64) -> Result<()> {
        let (last, stopped) = (self.last, self.stopped);
        self.append(None, &[("", last, last), (":stopped", stopped, head)]).await?;
        self.reload().await
    }

    /// Has the ids above `id` at hand that the log has.
    pub(super) async fn know_above(&mut self, id: i64) -> Result<()> {
        if id >= self.known_above {
            return Ok(());
        }
        let there = source_ids(self.writer.log()).await?;
        self.known = there.into_iter().filter(|(there, _)| *there > id).collect();
        self.known_above = id;
        Ok(())
    }

    /// No longer has the ids up to `id` at hand.
    pub(super) fn forget_up_to(&mut self, id: i64) {
        if id > self.known_above {
            self.known = self.known.split_off(&id.saturating_add(1));
            self.known_above = id;
        }
    }

    /// Whether the quarantine has this record.
    fn is_refused(&self, id: i64) -> bool {
        let position = |log: &Log| log.position(&self.refusal(id)).is_some();
        self.refusals.as_ref().is_some_and(position)
    }

    /// The position in the quarantine, and the origin of a record.
    fn refusal(&self, id: i64) -> String {
        format!("{}@{id}", self.settings.position(""))
    }

    /// Appends those of `piece` that are not there, and moves the position in the same step. Above `settled`, records
    /// may still turn up; whoever goes on after a crash looks back as far.
    ///
    /// A crash before the commit leaves refused records in the quarantine, which are known there when they are read
    /// again; a crash after it leaves nothing to do. If another instance has committed meanwhile, what it has stored is
    /// left out.
    pub(super) async fn commit(&mut self, piece: &Piece, settled: i64) -> Result<Totals> {
        let lowest = piece.ids.iter().chain(piece.refused.iter().map(|refused| &refused.id)).min();
        loop {
            let to = piece.highest.unwrap_or(-1).max(self.last);
            if let Some(lowest) = lowest.filter(|lowest| **lowest <= self.last.max(self.top)) {
                self.know_above((lowest - 1).min(self.known_above)).await?;
            }
            let wanted = self.wanted(piece).await?;
            let refused = self.refuse(piece).await?;
            let late = std::iter::zip(&piece.ids, &wanted)
                .filter(|(id, wanted)| **wanted && **id <= self.last)
                .count();
            let rows = match wanted.iter().all(|wanted| *wanted) {
                true => piece.rows.clone(),
                false => filter_record_batch(&piece.rows, &BooleanArray::from(wanted.clone()))
                    .map_err(LedgerError::from)?,
            };
            let accepted = rows.num_rows() as u64;
            if accepted == 0 && to == self.last {
                return Ok(Totals { refused, ..Totals::default() });
            }
            let mut positions = vec![("", self.last, to), (":settled", self.settled, settled)];
            if late > 0 {
                positions.push((":late", self.late, self.late + 1));
            }
            let Some(first) = self.append(Some(rows), &positions).await? else {
                self.reload().await?;
                continue;
            };
            let stored =
                std::iter::zip(&piece.ids, &wanted).filter(|(_, wanted)| **wanted).map(|(id, _)| *id);
            if self.known_above < i64::MAX {
                self.known.extend(stored.zip(first..));
            }
            (self.last, self.settled) = (to, settled);
            self.late += i64::from(late > 0);
            return Ok(Totals { accepted, late: late as u64, refused });
        }
    }

    /// Which of the accepted records are not there yet.
    async fn wanted(&self, piece: &Piece) -> Result<Vec<bool>> {
        let mut seen = HashSet::new();
        // The rules may have changed since a record was refused. It waits in the quarantine.
        let waits = |id: i64| id > self.top && self.is_refused(id);
        let mut wanted: Vec<bool> = piece.ids.iter().map(|id| seen.insert(*id) && !waits(*id)).collect();
        let (mut doubtful, mut there) = (Vec::new(), Vec::new());
        for (at, id) in piece.ids.iter().enumerate().filter(|(_, id)| **id <= self.last.max(self.top)) {
            match self.known.get(id) {
                Some(row) if *id <= self.top && wanted[at] => {
                    doubtful.push(at);
                    there.push(*row);
                }
                Some(_) => wanted[at] = false,
                None => {}
            }
        }
        if !doubtful.is_empty() {
            let stored = records(self.writer.log(), &there).await?;
            let given = Fields::of(self.settings.kind, &piece.rows)?;
            for (at, row) in doubtful.into_iter().zip(there) {
                wanted[at] = !stored.differing(row, &given, at, false).is_empty();
            }
        }
        Ok(wanted)
    }

    /// Puts the refused records that are not known into the quarantine; their number.
    async fn refuse(&mut self, piece: &Piece) -> Result<u64> {
        let mut seen = HashSet::new();
        let new = |refused: &&Refused| {
            let known = self.known.contains_key(&refused.id) && refused.id > self.top;
            seen.insert(refused.id) && !known && !self.is_refused(refused.id)
        };
        let refused: Vec<&Refused> = piece.refused.iter().filter(new).collect();
        if refused.is_empty() {
            return Ok(0);
        }
        let source = self.settings.position("");
        let record = |refused: &&Refused| QuarantineRecord {
            kind: self.settings.kind.name().to_owned(),
            log: self.settings.log.clone(),
            source: source.clone(),
            line: Some(refused.id),
            reasons: refused.findings.clone(),
            content: refused.content.clone(),
            ..QuarantineRecord::default()
        };
        let records: Vec<_> = refused.iter().map(record).collect();
        let rows = quarantine::rows(&records, &source);
        let positions = refused.iter().map(|refused| (self.refusal(refused.id), Advance::To(1))).collect();
        let writer = self.quarantine.writer().await?;
        let outcome = writer.append(Append { rows, positions }).await;
        if outcome.is_err() {
            self.quarantine.forget().await;
        }
        self.refusals = Some(writer.log().clone());
        match outcome? {
            Outcome::Appended(_) => Ok(records.len() as u64),
            // Another instance has refused some of them just now. The log that says so is followed from here on.
            Outcome::AlreadyThere { .. } => Box::pin(self.refuse(piece)).await,
        }
    }

    /// Appends `rows`, and moves the positions from just where they stand. The first row's id; `None` if another
    /// instance has moved one of them.
    async fn append(&self, rows: Option<RecordBatch>, positions: &[(&str, i64, i64)]) -> Result<Option<u64>> {
        let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(self.settings.kind.row_schema()));
        let step =
            |&(what, from, to): &(&str, i64, i64)| (self.settings.position(what), Advance::Step { from, to });
        let append = Append { rows, positions: positions.iter().map(step).collect() };
        Ok(match self.writer.append(append).await? {
            Outcome::Appended(appended) => Some(appended.first),
            Outcome::AlreadyThere { app, position } => {
                let position = position.version;
                tracing::info!(
                    log = self.settings.log,
                    app,
                    position,
                    "another instance has moved the position"
                );
                None
            }
        })
    }
}
