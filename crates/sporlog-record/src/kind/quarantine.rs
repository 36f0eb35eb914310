//! The quarantine's rows: what was refused and why, and what became of it.
//!
//! A row is written once and never changed: that something was put in after all, or given up, is
//! a further row which names the first.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};

use super::{Definition, Format, Kind};
use crate::Finding;
use crate::column::{Column, Content};

const COLUMNS: [Column; 9] = [
    Column::text("action"),
    Column::new("item", Content::Integer).distinct(),
    Column::text("kind"),
    Column::text("log"),
    Column::text("source"),
    Column::new("line", Content::Integer).distinct(),
    Column::new("reasons", Content::Json).distinct(),
    Column::new("content", Content::Bytes).distinct(),
    Column::text("note"),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "quarantine",
    format: Format::Internal,
    columns: &COLUMNS,
    roles: None,
    organisations: &[],
    identity: &[],
    source_id: &[],
    shows_id: false,
};

/// What happened to something refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Action {
    /// It was refused.
    #[default]
    Refused,
    /// It was corrected, and went in.
    Replayed,
    /// It was given up.
    Discarded,
}

/// One row of the quarantine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineRecord {
    /// What happened.
    pub action: Action,
    /// The id of the `REFUSED` row that this one is about; `None` if it is one.
    pub item: Option<i64>,
    /// The kind of record that it was delivered as.
    pub kind: String,
    /// The log that it was meant for.
    pub log: String,
    /// Where it came from.
    pub source: String,
    /// The line of its source on which it begins, or its offset in a partition.
    pub line: Option<i64>,
    /// Why it was refused, all of it.
    pub reasons: Vec<Finding>,
    /// What was refused, byte for byte.
    pub content: Vec<u8>,
    /// What its message carried besides, as one JSON object.
    pub envelope: Option<String>,
    /// What whoever decided on it has to say.
    pub note: Option<String>,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Refused => "REFUSED",
            Action::Replayed => "REPLAYED",
            Action::Discarded => "DISCARDED",
        })
    }
}

/// Puts records into rows of [`Kind::Quarantine`], all with the same origin and time (a local
/// time in microseconds).
///
/// `reasons` becomes a JSON array of objects with `severity`, `field`, `rule`, `text`, `line` and
/// `column`; null if there are none.
pub fn rows(records: &[QuarantineRecord], origin: &str, occurred_at_micros: i64) -> RecordBatch {
    let count = records.len();
    let none = || -> ArrayRef { Arc::new(StringArray::new_null(count)) };
    let texts = |text: fn(&QuarantineRecord) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(text)))
    };
    let integers = |integer: fn(&QuarantineRecord) -> Option<i64>| -> ArrayRef {
        Arc::new(records.iter().map(integer).collect::<Int64Array>())
    };
    let actions = records.iter().map(|record| record.action.to_string());
    let contents = records.iter().map(|record| &record.content);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from_value(occurred_at_micros, count)),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(origin, count))),
        none(),
        Arc::new(records.iter().map(|record| record.envelope.as_deref()).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(actions)),
        integers(|record| record.item),
        texts(|record| &record.kind),
        texts(|record| &record.log),
        texts(|record| &record.source),
        integers(|record| record.line),
        Arc::new(records.iter().map(reasons).collect::<StringArray>()),
        Arc::new(BinaryArray::from_iter_values(contents)),
        Arc::new(records.iter().map(|record| record.note.as_deref()).collect::<StringArray>()),
        none(),
    ];
    RecordBatch::try_new(Kind::Quarantine.row_schema(), columns)
        .expect("one value per record of the schema's type in each column")
}

fn reasons(record: &QuarantineRecord) -> Option<String> {
    if record.reasons.is_empty() {
        return None;
    }
    // Writing texts and numbers into a text cannot fail.
    serde_json::to_string(&record.reasons).ok()
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::{Position, Severity};

    #[test]
    fn records_become_rows() {
        let refused = QuarantineRecord {
            action: Action::Refused,
            item: None,
            kind: "revision".to_owned(),
            log: "revision".to_owned(),
            source: "sftp:kmd/2026-01-05.csv".to_owned(),
            line: Some(7),
            reasons: vec![Finding {
                severity: Severity::Error,
                field: "KalderOrganisation".into(),
                rule: "digits",
                text: "8 digits are expected".into(),
                transaction_id: None,
                position: Position { line: 7, column: 4 },
            }],
            content: b"\"a\",\xff".to_vec(),
            envelope: None,
            note: None,
        };
        let discarded = QuarantineRecord {
            action: Action::Discarded,
            item: Some(1),
            reasons: vec![],
            content: vec![],
            envelope: None,
            note: Some("sent again".to_owned()),
            ..refused.clone()
        };
        let rows = rows(&[refused, discarded], "quarantine", 1_000_000);
        assert_eq!(rows.num_rows(), 2);
        let text = |name: &str, row| rows[name].as_string::<i32>().value(row).to_owned();
        assert_eq!(text("action", 0), "REFUSED");
        assert_eq!(text("action", 1), "DISCARDED");
        assert_eq!(text("origin", 1), "quarantine");
        assert_eq!(
            text("reasons", 0),
            "[{\"severity\":\"error\",\"field\":\"KalderOrganisation\",\"rule\":\"digits\",\
             \"text\":\"8 digits are expected\",\"line\":7,\"column\":4}]"
        );
        assert!(rows["reasons"].is_null(1) && rows["item"].is_null(0) && rows["note"].is_null(0));
        assert_eq!(rows["item"].as_primitive::<Int64Type>().value(1), 1);
        assert_eq!(rows["content"].as_binary::<i32>().value(0), b"\"a\",\xff");
    }

    #[test]
    fn none_become_none() {
        assert_eq!(rows(&[], "x", 0).num_rows(), 0);
    }
}
