//! What became of a delivery, for whoever has delivered it. The lists and notes of a receipt have the same shape whichever
//! way the delivery came.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sporlog_ledger::ReceivedBefore;
use sporlog_record::{Finding, Kind};

use crate::source::Source;

/// The most notes in each list of a receipt; its counts are of all.
pub const LISTED_ROWS: usize = 10_000;

/// The outcome of a delivery.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The file's name.
    pub file: String,
    /// The kind of its records.
    pub kind: Kind,
    /// The log that the records are in.
    pub log: String,
    /// The SHA-256 of the file as delivered, in hexadecimal; absent when it was not read to its end.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The file's size as delivered.
    pub bytes: u64,
    /// Records stored.
    pub accepted: u64,
    /// Records refused, each kept in the quarantine.
    pub quarantined: u64,
    /// Remarks on accepted records, skipped ones included.
    pub remarks: u64,
    /// Rows that the log had before, from other files.
    pub overlapping: u64,
    /// Overlapping rows that were not stored again.
    pub skipped: u64,
    /// The first record's id, if any was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_id: Option<u64>,
    /// The last record's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_id: Option<u64>,
    /// When the log received the records, to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at: Option<DateTime<Utc>>,
    /// Since when the log has the same bytes, to the second; then nothing was stored now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub already_since: Option<DateTime<Utc>>,
    /// The deliveries that the overlapping rows came in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub overlaps: Vec<Earlier>,
    /// Remarks on the file as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub file_remarks: Vec<Finding>,
    /// Why the file was refused whole; then nothing of it was stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Finding>,
    /// The refused records and why, the first [`LISTED_ROWS`] of these notes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined_rows: Vec<Note>,
    /// The remarks on accepted records, the first [`LISTED_ROWS`] of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarked_rows: Vec<Note>,
    /// How long the import took, in seconds.
    pub seconds: f64,
}

impl Receipt {
    /// The receipt of a delivery that has not been read yet.
    pub fn begun(source: &Source, kind: Kind, log: &str) -> Self {
        Receipt {
            file: source.name().to_owned(),
            kind,
            log: log.to_owned(),
            sha256: String::new(),
            bytes: source.size().unwrap_or_default(),
            accepted: 0,
            quarantined: 0,
            remarks: 0,
            overlapping: 0,
            skipped: 0,
            first_id: None,
            last_id: None,
            received_at: None,
            already_since: None,
            overlaps: Vec::new(),
            file_remarks: Vec::new(),
            refused: Vec::new(),
            quarantined_rows: Vec::new(),
            remarked_rows: Vec::new(),
            seconds: 0.0,
        }
    }

    /// Whether everything in the file is stored, now or before.
    pub fn is_clean(&self) -> bool {
        self.quarantined == 0 && self.refused.is_empty()
    }
}

/// An earlier delivery that a receipt names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Earlier {
    /// The delivery's id; absent if the rows came from another account or by another way than SFTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The name of the delivery's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// When the log received the delivery's rows.
    pub received_at: DateTime<Utc>,
    /// How many rows of the present file it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
}

impl Earlier {
    /// The deliveries that the rows came in, earliest first. `named` gives the id and the file of a delivery that is
    /// known; of others, those received within an hour are one, for rows may have come one by one.
    pub fn deliveries(
        received: &[ReceivedBefore],
        named: impl Fn(&ReceivedBefore) -> Option<(String, String)>,
    ) -> Vec<Earlier> {
        let mut all: Vec<Earlier> = Vec::new();
        for before in received {
            let (delivery, file) = named(before).unzip();
            let received_at = DateTime::from_timestamp_micros(before.at).unwrap_or_default();
            let hour = |at: DateTime<Utc>| at.timestamp() / 3_600;
            let same = |last: &&mut Earlier| {
                last.delivery.is_none() && delivery.is_none() && hour(last.received_at) == hour(received_at)
            };
            match all.last_mut().filter(same) {
                Some(last) => {
                    last.received_at = received_at;
                    last.rows = last.rows.map(|rows| rows + before.rows);
                }
                None => all.push(Earlier { delivery, file, received_at, rows: Some(before.rows) }),
            }
        }
        all
    }
}

/// A finding about a file or a row, with its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// The field, empty if it is about the row or the file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
    /// A short, stable name of the rule.
    pub rule: String,
    /// What is wrong, and what was expected.
    pub text: String,
    /// The row's `TransaktionsId`, for a row of a revision file that has one.
    #[serde(rename = "TransaktionsId", default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
}

impl Note {
    /// A note about the file as a whole.
    pub fn on_file(rule: &str, text: &str) -> Self {
        let (rule, text) = (rule.to_owned(), text.to_owned());
        Note { line: 1, column: 1, field: String::new(), rule, text, transaction_id: None }
    }
}

impl From<&Finding> for Note {
    fn from(finding: &Finding) -> Self {
        Note {
            line: finding.position.line,
            column: finding.position.column,
            field: finding.field.clone().into_owned(),
            rule: finding.rule.to_owned(),
            text: finding.text.clone().into_owned(),
            transaction_id: finding.transaction_id.clone(),
        }
    }
}
