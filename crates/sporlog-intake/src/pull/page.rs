//! The records of an answer, judged.
//!
//! A page may be longer than memory should hold: then only its beginning is judged, and the rest is asked for again.

use std::io::Read;

use arrow::array::RecordBatch;
use serde::Deserialize;
use sporlog_record::json::{Judged, RecordReader, RowsBuilder};
use sporlog_record::{Finding, Kind, Rules};

use super::failure::Failure;
use crate::error::{Error, Result};

/// No more of a page is judged when its rows take so many bytes.
const PIECE_BYTES: usize = 16 << 20;

/// The ids that are read: above `after`, up to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub after: i64,
    pub to: i64,
}

/// What a pull's records are, and how they are judged.
#[derive(Debug, Clone)]
pub(super) struct Judging {
    pub kind: Kind,
    pub rules: Rules,
    /// The beginning of their origins: `pull:NAME`.
    pub source: String,
}

/// Judged records, in the order in which they came.
#[derive(Debug)]
pub(super) struct Piece {
    /// The accepted records, and the id of each.
    pub rows: RecordBatch,
    pub ids: Vec<i64>,
    pub refused: Vec<Refused>,
    /// The highest id; `None` if there was no record.
    pub highest: Option<i64>,
    /// The lowest id of the range, and the lowest one beyond it.
    pub lowest: Option<i64>,
    pub beyond: Option<i64>,
    /// The page goes on behind these.
    pub is_cut: bool,
}

impl Piece {
    /// About how much memory it takes, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let refused: usize = self.refused.iter().map(|refused| refused.content.len()).sum();
        self.rows.get_array_memory_size() + refused
    }
}

/// A record that cannot go into its log.
#[derive(Debug)]
pub(super) struct Refused {
    pub id: i64,
    pub content: Vec<u8>,
    pub findings: Vec<Finding>,
}

/// Judges the records of a page, those of `range`; others are passed over. `at` is the request, for errors. Blocks.
pub(super) fn judge(at: &str, body: impl Read, judging: &Judging, range: Range) -> Result<Piece> {
    let malformed = |found| Failure::Format {
        at: at.to_owned(),
        expected: "a JSON array of records with an integer `id` each",
        found,
    };
    let mut builder = RowsBuilder::new(judging.kind, &judging.rules);
    let (mut ids, mut refused, mut is_cut) = (Vec::new(), Vec::new(), false);
    let (mut highest, mut lowest, mut beyond) = (None, None, None::<i64>);
    for record in RecordReader::new(body, judging.rules.max_record_bytes) {
        let record = record.map_err(|error| malformed(error.to_string()))?;
        let id = id_of(&record.bytes)
            .ok_or_else(|| malformed(format!("the record at line {} has none", record.at.line)))?;
        highest = highest.max(Some(id));
        if id > range.to {
            beyond = Some(beyond.map_or(id, |beyond| beyond.min(id)));
            continue;
        }
        if id <= range.after {
            continue;
        }
        lowest = Some(lowest.map_or(id, |lowest: i64| lowest.min(id)));
        let origin = format!("{}@{id}", judging.source);
        match builder.push(&record.bytes, &origin, record.at) {
            Judged::Accepted(_) => ids.push(id),
            Judged::Refused(findings) => refused.push(Refused { id, content: record.bytes, findings }),
        }
        if builder.bytes() >= PIECE_BYTES {
            is_cut = true;
            break;
        }
    }
    Ok(Piece { rows: builder.finish(), ids, refused, highest, lowest, beyond, is_cut })
}

/// The id of a record, whatever else is in it.
fn id_of(record: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Numbered {
        id: i64,
    }
    serde_json::from_slice(record).ok().map(|Numbered { id }| id)
}

/// The pieces as one, in their order.
pub(super) fn together(kind: Kind, pieces: Vec<Piece>) -> Result<Piece> {
    let rows = arrow::compute::concat_batches(&kind.row_schema(), pieces.iter().map(|piece| &piece.rows));
    let mut all = Piece {
        rows: rows.map_err(|e| Error::Ledger(e.into()))?,
        ids: Vec::new(),
        refused: Vec::new(),
        highest: None,
        lowest: None,
        beyond: None,
        is_cut: false,
    };
    for piece in pieces {
        all.ids.extend(piece.ids);
        all.refused.extend(piece.refused);
        all.highest = all.highest.max(piece.highest);
    }
    debug_assert_eq!(all.rows.num_rows(), all.ids.len());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(json: &str, range: Range) -> Result<Piece> {
        let judging =
            Judging { kind: Kind::Auditlog, rules: Rules::default(), source: "pull:test".to_owned() };
        super::judge("read", json.as_bytes(), &judging, range)
    }

    const ALL: Range = Range { after: 0, to: i64::MAX };

    #[test]
    fn records_are_accepted_or_refused_by_their_ids() {
        let json = r#"[{"id":5,"logAction":"A"},{"id":7},{"id":9,"logAction":"B","new":1}, {"id":12,"logAction":"C"}]"#;
        let piece = judge(json, Range { after: 5, to: 9 }).expect("judged");
        assert_eq!((piece.ids, piece.highest, piece.is_cut), (vec![9], Some(12), false));
        assert_eq!(piece.refused.iter().map(|refused| refused.id).collect::<Vec<_>>(), [7]);
        let piece = judge("[]", ALL).expect("judged");
        assert_eq!((piece.rows.num_rows(), piece.highest), (0, None));
    }

    #[test]
    fn what_is_no_page_is_an_error_without_a_quotation() {
        for wrong in [
            r#"[{"id":5,"logAction":"0101018081"}"#,
            r#"[{"id":5,"logAction":"0101018081"},"#,
            r#"[{"id":"5","logAction":"0101018081"}]"#,
            r#"[{"logAction":"0101018081"}]"#,
            r#"[{"id":5,"logAction":"0101018081"}] x"#,
            r#"["0101018081"]"#,
        ] {
            let error = judge(wrong, ALL).expect_err(wrong).to_string();
            assert!(error.contains("is expected") && !error.contains("0101018081"), "{error}");
        }
    }

    #[test]
    fn of_a_long_page_the_beginning_is_judged() {
        let record =
            |id: u32| format!("{{\"id\":{id},\"logAction\":\"A\",\"message\":\"{}\"}}", "x".repeat(9 << 20));
        let json = format!("[{}]", (1..=3).map(record).collect::<Vec<_>>().join(","));
        let first = judge(&json, ALL).expect("judged");
        assert_eq!((&first.ids[..], first.is_cut), (&[1, 2][..], true));
        let rest = judge(&json, Range { after: 2, ..ALL }).expect("judged");
        assert_eq!((&rest.ids[..], rest.is_cut), (&[3][..], false));
        assert_eq!(together(Kind::Auditlog, vec![first, rest]).expect("one").ids, [1, 2, 3]);
    }
}
