//! Refused messages into the quarantine, each once.
//!
//! They go there before their batch goes into the log. A crash in between has them read again; by
//! then the rules may have changed, and batches end elsewhere. So what counts is not how far the
//! quarantine has got, but which of the messages that the log does not cover yet are in it.

use std::collections::BTreeSet;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use sporlog_ledger::{Advance, Append, Error as LedgerError, Outcome, Store, Writer, WriterOptions};
use sporlog_record::Kind;
use sporlog_record::json::quarantine::{Action, QuarantineRecord};
use tokio::sync::RwLock;

use super::batch::Refused;
use crate::error::Result;
use crate::quarantine;

/// The way into the quarantine, for all partitions of this instance.
pub(super) struct Refusals {
    store: Store,
    writer: RwLock<Option<Writer>>,
}

/// Whose messages they are.
pub(super) struct From<'a> {
    pub log: &'a str,
    pub kind: Kind,
    /// `kafka:TOPIC/PARTITION`.
    pub source: &'a str,
    /// The name of the partition's position in the quarantine.
    pub position: &'a str,
}

/// What is in the quarantine of a partition.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// How far the partition's refused messages have been taken in; −1 if none has.
    pub position: i64,
    /// The offsets that are there of those that the log did not cover when this was read.
    pub offsets: BTreeSet<i64>,
}

impl Refusals {
    pub(super) fn new(store: Store) -> Self {
        Refusals { store, writer: RwLock::new(None) }
    }

    /// What is there of a partition whose log stands at the offset `stand`.
    pub(super) async fn known(&self, from: &From<'_>, stand: i64) -> Result<Known> {
        let mut known = Known { position: -1, offsets: BTreeSet::new() };
        // Opened anew: other instances write to it, too.
        let log = match self.store.log(quarantine::LOG).await {
            Ok(log) => log,
            Err(LedgerError::NoSuchLog(_)) => return Ok(known),
            Err(error) => return Err(error.into()),
        };
        known.position = log.position(from.position).map_or(-1, |position| position.version);
        if known.position <= stand {
            return Ok(known);
        }
        let mut batches = log.read_where(0, log.head(), "source", from.source);
        while let Some(batch) = batches.try_next().await? {
            let lines = batch.column_by_name("line").and_then(|c| c.as_primitive_opt::<Int64Type>());
            let text = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
            let (Some(lines), Some(actions), Some(logs)) = (lines, text("action"), text("log")) else {
                continue;
            };
            let rows = lines.iter().zip(actions).zip(logs);
            let offsets = rows.filter_map(|((line, action), log)| {
                (action == Some("REFUSED") && log == Some(from.log)).then_some(line).flatten()
            });
            known.offsets.extend(offsets.filter(|offset| *offset > stand));
        }
        Ok(known)
    }

    /// Puts `refused` there, in the order of their offsets. False if another instance has put
    /// something there meanwhile, or this one did not know of it: then nothing is stored, and
    /// what is known has to be read again.
    pub(super) async fn append(
        &self,
        from: &From<'_>,
        known: &mut Known,
        refused: &[&Refused],
    ) -> Result<bool> {
        let Some(last) = refused.last().map(|refused| refused.offset) else { return Ok(true) };
        let record = |refused: &&Refused| QuarantineRecord {
            action: Action::Refused,
            item: None,
            kind: from.kind.name().to_owned(),
            log: from.log.to_owned(),
            source: from.source.to_owned(),
            line: Some(refused.offset),
            reasons: refused.findings.clone(),
            content: refused.content.clone(),
            envelope: Some(refused.envelope.clone()),
            note: None,
        };
        let records: Vec<_> = refused.iter().map(record).collect();
        let rows = quarantine::rows(&records, from.source);
        drop(records);
        let to = known.position.max(last);
        let step = Advance::Step { from: known.position, to };
        let append = Append { rows, positions: vec![(from.position.to_owned(), step)] };
        match self.writer().await?.append(append).await? {
            Outcome::Appended(_) => {
                known.position = to;
                known.offsets.extend(refused.iter().map(|refused| refused.offset));
                Ok(true)
            }
            Outcome::AlreadyThere { position, .. } => {
                if position.version < known.position {
                    // Another instance wrote before we looked, and our writer has not seen it yet.
                    self.reset().await;
                }
                Ok(false)
            }
        }
    }

    async fn writer(&self) -> Result<Writer> {
        if let Some(writer) = &*self.writer.read().await {
            return Ok(writer.clone());
        }
        let mut writer = self.writer.write().await;
        if let Some(writer) = &*writer {
            return Ok(writer.clone());
        }
        let options = WriterOptions { take_turns: true };
        let opened = self.store.writer(quarantine::LOG, Kind::Quarantine, options).await?;
        Ok(writer.insert(opened).clone())
    }

    /// Gives the writer up; the next refusal opens another. What it had to publish, it publishes.
    pub(super) async fn reset(&self) {
        let writer = self.writer.write().await.take();
        if let Some(writer) = writer
            && let Err(error) = writer.close().await
        {
            tracing::debug!(%error, "the quarantine's writer had stopped before");
        }
    }
}
