//! The quarantine: refused records, and what became of each.
//!
//! The quarantine is itself a log: a record `REFUSED` holds the refused bytes and the reasons; a later
//! record `REPLAYED` or `DISCARDED` says what became of them. So a refused record cannot disappear unseen.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use chrono::DateTime;
use futures::TryStreamExt;
use serde::{Deserialize, Serialize};
use sporlog_ledger::{Advance, Append, Appended, Log, Outcome, ReceivedBefore, Store, Writer, WriterOptions};
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::kind::Format;
use sporlog_record::kind::quarantine::{Action, QuarantineRecord};
use sporlog_record::revision::{Header, parse_slab};
use sporlog_record::{Finding, Kind, Position, Rules};

use crate::delivery::{Overlap, OverlapPolicy};
use crate::error::{Error, Result};
use crate::writers::{OwnWriters, Writers};

/// The quarantine's name as a log.
pub const LOG: &str = "quarantine";
/// The member of a row's envelope that is the id of its delivery.
const DELIVERY: &str = "delivery";
/// The most items that one commit says of what became of them.
const AT_ONCE: usize = 1_000;

/// A store's quarantine. Cheap to clone; its log is made with the first refusal.
#[derive(Clone)]
pub struct Quarantine {
    store: Store,
    writers: OwnWriters,
}

/// A refused record that waits to be replayed or discarded.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    /// The item's id in the quarantine.
    pub id: u64,
    /// The time of the refusal, in microseconds UTC.
    #[serde(skip)]
    pub refused_at: i64,
    /// The kind that the record was delivered as.
    pub kind: String,
    /// The log that the record was meant for.
    pub log: String,
    /// The file or topic that the record came from.
    pub source: String,
    /// The record's line in the file; the offset of a message.
    pub line: Option<i64>,
    /// The reasons, as a JSON array of findings.
    pub reasons: String,
    /// The key, headers and time of a message, as a JSON object; the id of the delivery of a row that came over SFTP.
    #[serde(skip)]
    pub envelope: Option<String>,
}

/// Items that are meant.
#[derive(Debug, Clone)]
pub enum Meant {
    /// This one, which has to wait.
    One(u64),
    /// Those that wait from one id to another, both included.
    Range(u64, u64),
    /// Those that wait of the delivery with this id.
    Delivery(String),
}

impl Item {
    /// The id of the delivery that the record came in, if that had one.
    pub fn delivery(&self) -> Option<String> {
        let envelope: serde_json::Value = serde_json::from_str(self.envelope.as_deref()?).ok()?;
        Some(envelope.get(DELIVERY)?.as_str()?.to_owned())
    }
}

/// What the envelope of a row has of its delivery.
pub(crate) fn envelope_of_delivery(id: &str) -> String {
    serde_json::json!({DELIVERY: id}).to_string()
}

/// An item with its bytes.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The item.
    pub item: Item,
    /// The bytes, as delivered.
    pub content: Vec<u8>,
    /// The header of the CSV file that the record was in.
    pub header: Option<String>,
    /// The organisations for which the sender could deliver, if not for all.
    pub organisations: Option<Vec<String>>,
}

/// What the quarantine keeps about the sender of a record.
#[derive(Serialize, Deserialize)]
struct Bounds {
    organisations: Vec<String>,
}

/// The note of a refused record whose sender could deliver for these organisations only. A replay holds it against
/// them.
pub fn bounds_note(organisations: &[String]) -> String {
    serde_json::json!({ "organisations": organisations }).to_string()
}

/// Why a record is refused that names none of its sender's organisations.
pub fn out_of_bounds(at: Position) -> Finding {
    Finding::error(
        "organisation",
        "the record names none of the organisations that its sender may deliver for",
        at,
    )
}

/// The outcome of a replay.
#[derive(Debug)]
pub enum Replay {
    /// The record is in its log now.
    Appended(Appended),
    /// The record is still refused, for these reasons; nothing has changed.
    StillRefused(Vec<Finding>),
    /// The log has the same row already, here; nothing has changed.
    AlreadyThere(ReceivedBefore),
}

impl Quarantine {
    /// The quarantine of `store`.
    pub fn new(store: Store) -> Self {
        Quarantine { writers: OwnWriters::new(store.clone()), store }
    }

    /// The writer of the quarantine's log. Several processes take turns at it.
    pub async fn writer(&self) -> Result<Writer> {
        Ok(self.writers.writer(LOG, Kind::Quarantine).await?)
    }

    /// Forgets a writer that has stopped; the next refusal opens another.
    pub async fn forget(&self) {
        self.writers.forget(LOG).await;
    }

    /// The log, for reading; `None` if nothing has been refused yet.
    pub(crate) async fn begun(&self) -> Result<Option<Log>> {
        match self.store.log(LOG).await {
            Ok(log) => Ok(Some(log)),
            Err(sporlog_ledger::Error::NoSuchLog(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The items that wait, oldest first.
    pub async fn list(&self) -> Result<Vec<Item>> {
        let Some(log) = self.begun().await? else { return Ok(Vec::new()) };
        let mut items = BTreeMap::new();
        let mut batches = log.read(0, None);
        while let Some(batch) = batches.try_next().await? {
            for row in 0..batch.num_rows() {
                match text(&batch, "action", row) {
                    Some("REFUSED") => {
                        let item = item(&batch, row)?;
                        items.insert(item.id, item);
                    }
                    _ => {
                        let dealt_with = number(&batch, "item", row).and_then(|id| u64::try_from(id).ok());
                        dealt_with.map(|id| items.remove(&id));
                    }
                }
            }
        }
        Ok(items.into_values().collect())
    }

    /// An item with its bytes, whether it still waits or not.
    pub async fn show(&self, id: u64) -> Result<Refused> {
        let missing = |reason: &str| Error::Item { id, reason: reason.to_owned() };
        let log = self.begun().await?.ok_or_else(|| missing("the quarantine is empty"))?;
        let batch = log.record(id).await?;
        if text(&batch, "action", 0) != Some("REFUSED") {
            return Err(missing(
                "this record of the quarantine is no refused record; it says what became of one",
            ));
        }
        let content = batch.column_by_name("content").and_then(|c| c.as_binary_opt::<i32>());
        // A note is a header in CSV, and the sender's bounds in JSON.
        let note = text(&batch, "note", 0);
        let bounds = note.and_then(|note| serde_json::from_str::<Bounds>(note).ok());
        Ok(Refused {
            item: item(&batch, 0)?,
            content: content.map(|c| c.value(0).to_vec()).unwrap_or_default(),
            header: note.filter(|_| bounds.is_none()).map(str::to_owned),
            organisations: bounds.map(|bounds| bounds.organisations),
        })
    }

    async fn waiting(&self, id: u64) -> Result<Refused> {
        let refused = self.show(id).await?;
        if !self.list().await?.iter().any(|item| item.id == id) {
            return Err(Error::Item { id, reason: "the item has been replayed or discarded already".into() });
        }
        Ok(refused)
    }

    /// Puts an item into its log after all: as it is, or with `corrected` in its place. If `overlap` says so, it is
    /// left out where the log has the same row, received since so long before it was refused.
    pub async fn replay(
        &self,
        id: u64,
        corrected: Option<Vec<u8>>,
        rules: &Rules,
        overlap: OverlapPolicy,
    ) -> Result<Replay> {
        let Refused { item, content, header, organisations } = self.waiting(id).await?;
        let kind: Kind = item
            .kind
            .parse()
            .map_err(|_| Error::Item { id, reason: format!("the kind '{}' is unknown", item.kind) })?;
        let content = corrected.unwrap_or(content);
        let origin = format!("{LOG}:{id}");
        let rows = match judge(kind, &content, header.as_deref(), item.envelope.as_deref(), &origin, rules)? {
            Ok(rows) => rows,
            Err(findings) => return Ok(Replay::StillRefused(findings)),
        };
        if organisations.is_some_and(|theirs| !kind.is_of(&rows, 0, &theirs)) {
            return Ok(Replay::StillRefused(vec![out_of_bounds(Position { line: 1, column: 1 })]));
        }
        let writer = self.store.writer(&item.log, kind, WriterOptions { take_turns: true }).await?;
        let known = writer.log().position(&origin).is_some();
        if overlap.rows == Overlap::Skip && !known {
            let since = overlap.since(DateTime::from_timestamp_micros(item.refused_at).unwrap_or_default());
            let found = writer.log().overlap(&rows, since).await?;
            if let Some(before) = found.received().first() {
                writer.close().await?;
                return Ok(Replay::AlreadyThere(*before));
            }
        }
        let outcome = writer.append(Append { rows, positions: vec![(origin, Advance::To(1))] }).await?;
        writer.close().await?;
        self.note(Action::Replayed, &[&item], None).await?;
        match outcome {
            Outcome::Appended(appended) => Ok(Replay::Appended(appended)),
            // A crash came between the append and the note last time. The note has been written now.
            Outcome::AlreadyThere { .. } => Err(Error::Item {
                id,
                reason: "the item was in its log already; the quarantine says so now".into(),
            }),
        }
    }

    /// Discards items, with `reason`, and gives their ids. The refused bytes stay in the quarantine's log until retention
    /// removes them. Nothing is discarded if an item that is meant by its own id does not wait.
    pub async fn discard(&self, meant: &[Meant], reason: &str) -> Result<Vec<u64>> {
        let waiting = self.list().await?;
        for meant in meant {
            if let Meant::One(id) = meant
                && !waiting.iter().any(|item| item.id == *id)
            {
                self.waiting(*id).await?;
            }
        }
        let is_meant = |item: &&Item| {
            meant.iter().any(|meant| match meant {
                Meant::One(id) => item.id == *id,
                Meant::Range(first, last) => (*first..=*last).contains(&item.id),
                Meant::Delivery(id) => item.delivery().as_ref() == Some(id),
            })
        };
        let items: Vec<_> = waiting.iter().filter(is_meant).collect();
        for items in items.chunks(AT_ONCE) {
            self.note(Action::Discarded, items, Some(reason.to_owned())).await?;
        }
        Ok(items.iter().map(|item| item.id).collect())
    }

    async fn note(&self, action: Action, items: &[&Item], note: Option<String>) -> Result<()> {
        let record = |item: &&Item| QuarantineRecord {
            action,
            item: i64::try_from(item.id).ok(),
            kind: item.kind.clone(),
            log: item.log.clone(),
            source: item.source.clone(),
            line: item.line,
            note: note.clone(),
            ..QuarantineRecord::default()
        };
        let Some(first) = items.first() else { return Ok(()) };
        let records: Vec<_> = items.iter().map(record).collect();
        let rows = rows(&records, &format!("{LOG}:{}", first.id));
        // At most once: a second writer finds the position taken.
        let positions = items.iter().map(|item| (format!("{LOG}:{}", item.id), Advance::To(1))).collect();
        match self.writer().await?.append(Append { rows, positions }).await? {
            Outcome::AlreadyThere { .. } if items.len() > 1 => Err(Error::Item {
                id: first.id,
                reason: "somebody else has just dealt with this item or one of those after it; try again"
                    .into(),
            }),
            _ => Ok(()),
        }
    }

    /// Closes the writer, if there is one, which publishes what it has committed; the next refusal opens another.
    pub async fn close(&self) -> Result<()> {
        Ok(self.writers.close().await?)
    }
}

/// Adds to `waiting`, by the log that they were meant for, the items that came to wait after the id `seen`, takes those
/// off that were dealt with, and sets `seen` to the newest id.
pub async fn count_waiting(log: &Log, seen: &mut u64, waiting: &mut BTreeMap<String, i64>) -> Result<()> {
    let mut batches = log.read_columns(*seen, None, &["id", "action", "log"]);
    while let Some(batch) = batches.try_next().await? {
        for row in 0..batch.num_rows() {
            let count = waiting.entry(text(&batch, "log", row).unwrap_or_default().to_owned()).or_default();
            *count += if text(&batch, "action", row) == Some("REFUSED") { 1 } else { -1 };
            *seen = number(&batch, "id", row).map_or(*seen, i64::unsigned_abs);
        }
    }
    Ok(())
}

/// Rows of the quarantine, dated now.
pub(crate) fn rows(records: &[QuarantineRecord], origin: &str) -> RecordBatch {
    let now = chrono::Local::now().naive_local().and_utc().timestamp_micros();
    sporlog_record::kind::quarantine::rows(records, origin, now)
}

/// Judges one record as its source would.
fn judge(
    kind: Kind,
    content: &[u8],
    header: Option<&str>,
    envelope: Option<&str>,
    origin: &str,
    rules: &Rules,
) -> Result<std::result::Result<RecordBatch, Vec<Finding>>> {
    if !matches!(kind.format(), Format::Csv) {
        let mut builder = RowsBuilder::new(kind, rules);
        let at = Position { line: 1, column: 1 };
        return Ok(match builder.push_with(content, origin, envelope, at) {
            Judged::Accepted(_) => Ok(builder.finish()),
            Judged::Refused(findings) => Err(findings),
        });
    }
    // A corrected row may come with its own header, or without, and then has that of its file.
    let header = header.unwrap_or_default().as_bytes();
    let with_header = Header::parse(content, rules).is_ok();
    let file = if with_header { content.to_vec() } else { [header, content].concat() };
    let parsed = Header::parse(&file, rules).and_then(|header| {
        parse_slab(&header, rules, &file[header.body()..], header.first_line(), origin, 0)
    });
    Ok(match parsed {
        Ok(mut slab) => match slab.refused.pop() {
            Some(refused) => Err(refused.findings),
            None => Ok(slab.rows),
        },
        Err(refusal) => Err(refusal.findings),
    })
}

fn text<'a>(batch: &'a RecordBatch, column: &str, row: usize) -> Option<&'a str> {
    let column = batch.column_by_name(column)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn number(batch: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(column)?.as_primitive_opt::<Int64Type>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn item(batch: &RecordBatch, row: usize) -> Result<Item> {
    let owned = |column: &str| text(batch, column, row).unwrap_or_default().to_owned();
    let received = batch.column_by_name("received_at");
    let received = received.and_then(|c| c.as_primitive_opt::<arrow::datatypes::TimestampMicrosecondType>());
    Ok(Item {
        id: number(batch, "id", row).unwrap_or_default() as u64,
        refused_at: received.map_or(0, |c| c.value(row)),
        kind: owned("kind"),
        log: owned("log"),
        source: owned("source"),
        line: number(batch, "line", row),
        reasons: owned("reasons"),
        envelope: text(batch, "envelope", row).map(str::to_owned),
    })
}
