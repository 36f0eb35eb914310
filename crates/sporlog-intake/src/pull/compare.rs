//! The log beside what the upstream still has: what differs, what is gone there, what is missing here.
//!
//! Records are compared by id and all fields but `samaccountName`, which the upstream reads from the person as they are
//! now. Differences name ids and fields, and no values.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use sporlog_ledger::{Log, Store};
use sporlog_record::Rules;

use super::page::{Judging, Piece, Range, together};
use super::reader;
use super::settings::Settings;
use super::stored::{Fields, records, source_ids};
use super::upstream::Upstream;
use crate::error::Result;
use crate::quarantine::Quarantine;

/// The outcome of a comparison.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// Up to which of the upstream's ids records were compared.
    pub up_to: i64,
    /// Records that the upstream still has.
    pub there: u64,
    /// Of these, records that are the same here.
    pub same: u64,
    /// Records with a difference.
    pub different: u64,
    /// Records that are not here.
    pub missing: u64,
    /// Records that are in the quarantine.
    pub quarantined: u64,
    /// Records that the upstream has no more, and that are kept here.
    pub kept: u64,
    /// The first and the last id of these.
    pub kept_ids: Option<(i64, i64)>,
}

/// A record that is not the same here as there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The record's id there.
    pub source_id: i64,
    /// The record's id in the log; `None` if it is missing.
    pub id: Option<u64>,
    /// The fields that differ.
    pub fields: Vec<&'static str>,
}

/// Compares all that the upstream still has, up to where the pull has come, with the log. `told` hears of each
/// difference, and `progress` of how many ids have been compared.
pub async fn compare(
    settings: &Settings,
    store: &Store,
    rules: Rules,
    mut told: impl FnMut(Difference),
    progress: impl Fn(u64, u64),
) -> Result<Compared> {
    let log = store.log(&settings.log).await?;
    let position = log.position(&settings.position("")).map_or(0, |position| position.version.max(0));
    let refused = Quarantine::new(store.clone()).begun().await?;
    let source = settings.position("");
    let is_refused =
        |id: i64| refused.as_ref().is_some_and(|log| log.position(&format!("{source}@{id}")).is_some());
    // Of ids that were used twice, the later ones count.
    let mut here: BTreeMap<i64, u64> = source_ids(&log).await?.into_iter().collect();
    let upstream = Arc::new(Upstream::new(settings)?);
    let up_to = upstream.head().await?.min(position);
    let judging = Arc::new(Judging { kind: settings.kind, rules, source: source.clone() });
    let mut compared = Compared { up_to, ..Compared::default() };
    let mut parts = reader::read(&upstream, &judging, Range { after: 0, to: up_to });
    while let Some(part) = parts.recv().await {
        let piece = together(settings.kind, part?.pieces)?;
        compare_piece(&log, &piece, &mut here, &is_refused, &mut compared, &mut told).await?;
        if let Some(highest) = piece.highest {
            progress(highest.unsigned_abs(), up_to.unsigned_abs());
        }
    }
    let kept = here.range(..=position);
    compared.kept = kept.clone().count() as u64;
    compared.kept_ids = kept.clone().next().zip(kept.last()).map(|(first, last)| (*first.0, *last.0));
    Ok(compared)
}

async fn compare_piece(
    log: &Log,
    piece: &Piece,
    here: &mut BTreeMap<i64, u64>,
    is_refused: &impl Fn(i64) -> bool,
    compared: &mut Compared,
    told: &mut impl FnMut(Difference),
) -> Result<()> {
    let kind = log.kind();
    let rows: Vec<_> = piece.ids.iter().map(|id| here.remove(id)).collect();
    let stored = records(log, &rows.iter().flatten().copied().collect::<Vec<_>>()).await?;
    let given = Fields::of(kind, &piece.rows)?;
    for (at, (source_id, row)) in std::iter::zip(&piece.ids, rows).enumerate() {
        compared.there += 1;
        let Some(id) = row else {
            let counted =
                if is_refused(*source_id) { &mut compared.quarantined } else { &mut compared.missing };
            *counted += 1;
            if !is_refused(*source_id) {
                told(Difference { source_id: *source_id, id: None, fields: Vec::new() });
            }
            continue;
        };
        let fields = stored.differing(id, &given, at, true);
        if fields.is_empty() {
            compared.same += 1;
        } else {
            compared.different += 1;
            told(Difference { source_id: *source_id, id: Some(id), fields });
        }
    }
    for refused in &piece.refused {
        compared.there += 1;
        let corrected = here.remove(&refused.id).is_some();
        if corrected || is_refused(refused.id) {
            compared.quarantined += 1;
        } else {
            compared.missing += 1;
            told(Difference { source_id: refused.id, id: None, fields: Vec::new() });
        }
    }
    Ok(())
}
