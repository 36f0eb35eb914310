//! The receipt of a delivery: what became of the file, for its supplier and for the register.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sporlog_intake::import;
pub use sporlog_intake::import::{Earlier, LISTED_ROWS, Note};

/// The time in a delivery's id.
pub(crate) const ID_TIME: &str = "%Y%m%dT%H%M%SZ";

/// The most overlapped deliveries that the register keeps of a receipt.
const LISTED_OVERLAPS: usize = 20;

/// What became of a delivery.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The delivery's id: the time of the claim, and a random part.
    pub delivery: String,
    /// The account that the file came from.
    pub account: String,
    /// The file's name, with unprintable characters escaped.
    pub file: String,
    /// The log that the rows are in.
    pub log: String,
    /// The outcome.
    pub outcome: Outcome,
    /// When the file was claimed.
    pub taken_at: DateTime<Utc>,
    /// When the log received the rows; this decides for which day they are collected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_at: Option<DateTime<Utc>>,
    /// The file's size.
    pub bytes: u64,
    /// The SHA-256 of the file, in hexadecimal; empty if the file could not be read.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Rows stored now.
    pub accepted: u64,
    /// Rows that were refused; each is kept in the quarantine.
    pub quarantined: u64,
    /// Remarks on accepted rows, skipped ones included.
    pub remarks: u64,
    /// Rows that the log had before, from other files.
    pub overlapping: u64,
    /// Overlapping rows that were not stored again.
    pub skipped: u64,
    /// The first stored row's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_id: Option<u64>,
    /// The last stored row's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_id: Option<u64>,
    /// For a repeated file: the delivery that had the same bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Earlier>,
    /// The earlier deliveries that the overlapping rows came in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlaps: Vec<Earlier>,
    /// Remarks on the file as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file_remarks: Vec<Note>,
    /// Why the file was refused whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Note>,
    /// The refused rows and why, the first [`LISTED_ROWS`] of these notes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined_rows: Vec<Note>,
    /// The remarks on accepted rows, the first [`LISTED_ROWS`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarked_rows: Vec<Note>,
    /// Seconds from the claim to the receipt.
    pub seconds: f64,
}

/// The outcome of a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The good rows are in the log; other rows may be in the quarantine.
    Accepted,
    /// The same bytes were stored before; nothing was stored now.
    Repeated,
    /// The file was refused whole, and is kept aside.
    #[default]
    Refused,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The id of a delivery that is taken at this time: the time, and a random part.
pub fn delivery_id(taken_at: DateTime<Utc>) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", taken_at.format(ID_TIME), random.get(..8).unwrap_or_default())
}

impl Receipt {
    /// A receipt that says that nothing is stored, to be filled in.
    pub fn begun(delivery: &str, account: &str, file: String, log: &str, taken_at: DateTime<Utc>) -> Self {
        Receipt {
            delivery: delivery.to_owned(),
            account: account.to_owned(),
            file,
            log: log.to_owned(),
            taken_at,
            ..Receipt::default()
        }
    }

    /// The receipt with what an import came to: the outcome, the counts, and what is wrong with the file.
    #[must_use]
    pub fn of_import(self, import: &import::Receipt) -> Self {
        Receipt {
            outcome: if import.refused.is_empty() { Outcome::Accepted } else { Outcome::Refused },
            bytes: import.bytes,
            sha256: import.sha256.clone(),
            accepted: import.accepted,
            quarantined: import.quarantined,
            remarks: import.remarks,
            overlapping: import.overlapping,
            skipped: import.skipped,
            file_remarks: import.file_remarks.iter().map(Note::from).collect(),
            refused: import.refused.iter().map(Note::from).collect(),
            quarantined_rows: import.quarantined_rows.clone(),
            remarked_rows: import.remarked_rows.clone(),
            ..self
        }
    }

    /// The receipt without long lists, as the register keeps it.
    pub fn brief(&self) -> Self {
        let mut brief = Receipt { quarantined_rows: Vec::new(), remarked_rows: Vec::new(), ..self.clone() };
        brief.overlaps.truncate(LISTED_OVERLAPS);
        brief
    }

    /// The rows of the file, as delivered: stored, skipped and refused ones.
    pub fn rows(&self) -> u64 {
        self.accepted.saturating_add(self.skipped).saturating_add(self.quarantined)
    }

    /// Refused rows for each row delivered, 0 to 1; 1 for a file that was refused whole.
    pub fn error_rate(&self) -> f64 {
        let rows = self.rows();
        match self.outcome {
            Outcome::Refused => 1.0,
            _ if rows == 0 => 0.0,
            _ => self.quarantined as f64 / rows as f64,
        }
    }
}
