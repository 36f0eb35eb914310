//! The records of one request, judged: rows of those that are in order, and what is wrong with the rest.
//!
//! Small bodies are judged where they are, since handing them to another thread would cost more than
//! the work; large ones off the runtime.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use axum::body::Bytes;
use axum::http::StatusCode;
use sha2::{Digest, Sha256};
use sporlog_intake::quarantine::out_of_bounds;
use sporlog_record::json::{Judged, RecordReader, RowsBuilder, remarks_column};
use sporlog_record::{Finding, Kind, Position, Rules};

use super::page::Bounds;
use crate::problem::Problem;
use sporlog_record::hex;

/// The most records of a request.
pub(super) const MAX_RECORDS: usize = 10_000;
/// Bodies below this are judged at once.
const DIRECT: usize = 256 << 10;

/// How records are set down in a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// One object, or an array of them.
    Json,
    /// An object a line.
    Lines,
    /// One object.
    Object,
}

/// By what a request's records are judged, and what is stored with each.
pub(super) struct Judge {
    /// What the log holds.
    pub kind: Kind,
    /// How they are judged.
    pub rules: Rules,
    /// Who sends them.
    pub sender: Arc<str>,
    /// Whose records they may send.
    pub bounds: Bounds,
    /// What the request carries besides.
    pub envelope: Option<String>,
}

/// The records of a request.
pub(super) struct Batch {
    /// Where they come from: `http:<sender>/<16 hex digits of the body's SHA-256>`. A record's origin is
    /// this, a colon and its number.
    pub source: String,
    /// Those that were accepted, in order.
    pub rows: RecordBatch,
    /// All of them, in order.
    pub records: Vec<Record>,
    /// What the request carries besides.
    pub envelope: Option<String>,
    /// Whose records the sender may send.
    pub bounds: Bounds,
}

/// A record of a request.
pub(super) struct Record {
    /// Its line, or its number in the array; from 1.
    pub line: u64,
    /// What became of it.
    pub verdict: Verdict,
    at: Position,
    content: Bytes,
}

/// What became of a record.
pub(super) enum Verdict {
    /// It is in order. These remarks, a JSON array, are stored with it.
    Accepted(Option<String>),
    /// It is not, for these reasons.
    Refused(Vec<Finding>),
}

impl Batch {
    /// The numbers of those that were accepted, and the remarks on them.
    pub fn accepted(&self) -> impl Iterator<Item = (u64, Option<&str>)> {
        self.records.iter().filter_map(|record| match &record.verdict {
            Verdict::Accepted(remarks) => Some((record.line, remarks.as_deref())),
            Verdict::Refused(_) => None,
        })
    }

    /// Those that were refused: number, reasons and content.
    pub fn refused(&self) -> impl Iterator<Item = (u64, &[Finding], &Bytes)> {
        self.records.iter().filter_map(|record| match &record.verdict {
            Verdict::Refused(findings) => Some((record.line, &**findings, &record.content)),
            Verdict::Accepted(_) => None,
        })
    }
}

impl Judge {
    /// Judges the records in `body`. It is a problem if there is none, if there are too many, or if it
    /// cannot be told where one ends.
    pub async fn judge(self, body: Bytes, layout: Layout) -> Result<Batch, Problem> {
        if body.len() < DIRECT {
            return self.judge_now(&body, layout);
        }
        let judged = tokio::task::spawn_blocking(move || self.judge_now(&body, layout)).await;
        judged.unwrap_or_else(|error| Err(Problem::internal(&error)))
    }

    fn judge_now(self, body: &Bytes, layout: Layout) -> Result<Batch, Problem> {
        let source = format!("http:{}/{}", self.sender, hex(&Sha256::digest(body)[..8]));
        let mut judging = Judging {
            judge: &self,
            source: &source,
            builder: match layout {
                Layout::Object => RowsBuilder::for_few(self.kind, &self.rules),
                Layout::Json | Layout::Lines => RowsBuilder::new(self.kind, &self.rules),
            },
            records: Vec::new(),
        };
        let start = Position { line: 1, column: 1 };
        match layout {
            Layout::Lines => {
                let mut from = 0;
                for (number, line) in (1..).zip(body.split(|byte| *byte == b'\n')) {
                    let range = from..from + line.len();
                    from = range.end + 1;
                    if !line.trim_ascii().is_empty() {
                        judging.take(body.slice(range), number, Position { line: number, column: 1 })?;
                    }
                }
            }
            Layout::Json if is_array(body) => {
                let records = RecordReader::new(&body[..], self.rules.max_record_bytes);
                for (number, record) in (1..).zip(records) {
                    let record = record.map_err(|error| {
                        let problem = Problem::bad_request("the array cannot be read; nothing was stored");
                        problem.with_errors(vec![error.to_finding()])
                    })?;
                    judging.take(record.bytes.into(), number, record.at)?;
                }
            }
            Layout::Json if body.trim_ascii().is_empty() => {}
            Layout::Json | Layout::Object => judging.take(body.clone(), 1, start)?,
        }
        let Judging { mut builder, mut records, .. } = judging;
        if records.is_empty() {
            return Err(Problem::bad_request("there is no record in the body"));
        }
        let rows = builder.finish();
        let rows = if self.bounds.are_open() { rows } else { self.within_bounds(&rows, &mut records)? };
        Ok(Batch { source, rows, records, envelope: self.envelope, bounds: self.bounds })
    }

    /// Refuses, of the records that became rows, those that are of none of the sender's organisations.
    fn within_bounds(&self, rows: &RecordBatch, records: &mut [Record]) -> Result<RecordBatch, Problem> {
        let admitted: Vec<bool> =
            (0..rows.num_rows()).map(|row| self.bounds.admit(self.kind, rows, row)).collect();
        let accepted = records.iter_mut().filter(|record| matches!(record.verdict, Verdict::Accepted(_)));
        for (record, _) in accepted.zip(&admitted).filter(|(_, admitted)| !**admitted) {
            record.verdict = Verdict::Refused(vec![out_of_bounds(record.at)]);
        }
        filter_record_batch(rows, &BooleanArray::from(admitted)).map_err(|error| Problem::internal(&error))
    }
}

/// A request's records on their way to becoming rows.
struct Judging<'a> {
    judge: &'a Judge,
    source: &'a str,
    builder: RowsBuilder<'a>,
    records: Vec<Record>,
}

impl Judging<'_> {
    fn take(&mut self, content: Bytes, line: u64, at: Position) -> Result<(), Problem> {
        if self.records.len() == MAX_RECORDS {
            let detail = format!("a request may bring {MAX_RECORDS} records at most; send several");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
        }
        let origin = format!("{}:{line}", self.source);
        let verdict = match self.builder.push_with(&content, &origin, self.judge.envelope.as_deref(), at) {
            Judged::Accepted(remarks) => Verdict::Accepted(remarks_column(&remarks)),
            Judged::Refused(mut findings) => {
                findings.sort_by_key(|finding| finding.position);
                Verdict::Refused(findings)
            }
        };
        self.records.push(Record { line, verdict, at, content });
        Ok(())
    }
}

/// An error about a record as a whole.
pub(super) fn error(rule: &'static str, text: &'static str, position: Position) -> Finding {
    Finding::error(rule, text, position)
}

fn is_array(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    body.trim_ascii_start().first() == Some(&b'[')
}
