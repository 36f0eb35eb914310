//! The records of an answer, judged.
//!
//! A page may be longer than memory should hold, so it is judged in pieces.

use arrow::array::RecordBatch;
use serde::Deserialize;
use sporlog_record::json::{Judged, RecordReader, RowsBuilder};
use sporlog_record::{Finding, Kind, Rules};

use super::failure::Failure;
use super::upstream::Body;
use crate::error::{Error, Result};

/// A piece ends when its rows take so many bytes.
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

/// A page that is being judged.
pub(super) struct Page {
    /// The request, for errors.
    at: String,
    records: RecordReader<Body>,
    ended: bool,
}

impl Page {
    pub(super) fn new(at: String, body: Body, rules: &Rules) -> Self {
        Page { at, records: RecordReader::new(body, rules.max_record_bytes), ended: false }
    }

    /// Whether all of it has been judged.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Judges the next records, those of `range`; others are passed over. Blocks.
    pub(super) fn judge(&mut self, judging: &Judging, range: Range) -> Result<Piece> {
        let malformed = |at: &str, found| Failure::Format {
            at: at.to_owned(),
            expected: "a JSON array of records with an integer `id` each",
            found,
        };
        let mut builder = RowsBuilder::new(judging.kind, &judging.rules);
        let (mut ids, mut refused) = (Vec::new(), Vec::new());
        let (mut highest, mut lowest, mut beyond) = (None, None, None::<i64>);
        self.ended = true;
        for record in self.records.by_ref() {
            let record = record.map_err(|error| malformed(&self.at, error.to_string()))?;
            let id = id_of(&record.bytes).ok_or_else(|| {
                malformed(&self.at, format!("the record at line {} has none", record.at.line))
            })?;
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
                self.ended = false;
                break;
            }
        }
        Ok(Piece { rows: builder.finish(), ids, refused, highest, lowest, beyond })
    }
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
    use std::io::Cursor;

    use super::*;

    fn judge(json: &str, range: Range) -> Result<(Piece, bool)> {
        let judging =
            Judging { kind: Kind::Auditlog, rules: Rules::default(), source: "pull:test".to_owned() };
        let body = Box::new(Cursor::new(json.as_bytes().to_vec()));
        let mut page = Page::new("read".into(), body, &judging.rules);
        let piece = page.judge(&judging, range)?;
        Ok((piece, page.is_ended()))
    }

    const ALL: Range = Range { after: 0, to: i64::MAX };

    #[test]
    fn records_are_accepted_or_refused_by_their_ids() {
        let json = r#"[{"id":5,"logAction":"A"},{"id":7},{"id":9,"logAction":"B","new":1}, {"id":12,"logAction":"C"}]"#;
        let (piece, ended) = judge(json, Range { after: 5, to: 9 }).expect("judged");
        assert_eq!((piece.ids, piece.highest, ended), (vec![9], Some(12), true));
        assert_eq!(piece.refused.iter().map(|refused| refused.id).collect::<Vec<_>>(), [7]);
        let (piece, _) = judge("[]", ALL).expect("judged");
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
    fn a_long_page_is_judged_in_pieces() {
        let record =
            |id: u32| format!("{{\"id\":{id},\"logAction\":\"A\",\"message\":\"{}\"}}", "x".repeat(9 << 20));
        let json = format!("[{}]", (1..=3).map(record).collect::<Vec<_>>().join(","));
        let judging =
            Judging { kind: Kind::Auditlog, rules: Rules::default(), source: "pull:test".to_owned() };
        let mut page = Page::new("read".into(), Box::new(Cursor::new(json.into_bytes())), &judging.rules);
        let mut pieces = Vec::new();
        while !page.is_ended() {
            pieces.push(page.judge(&judging, ALL).expect("judged"));
        }
        assert_eq!(pieces.iter().map(|piece| piece.ids.clone()).collect::<Vec<_>>(), [vec![1, 2], vec![3]]);
        assert_eq!(together(Kind::Auditlog, pieces).expect("one").ids, [1, 2, 3]);
    }
}
