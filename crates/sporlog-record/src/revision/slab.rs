//! A slab, which is some megabytes of whole records, becomes columns. Slabs are independent of
//! each other, so as many are parsed at a time as there are processors.
//!
//! A slab goes through in chunks of some hundred rows, small enough to stay in the cache between
//! the steps: scan the rows into cells, check that they are UTF-8, judge each row, and append
//! what is accepted column by column.

use std::borrow::Cow;

use arrow::array::RecordBatch;

use super::check::{Judge, NO_TEXTS, transaction_id};
use super::columns::{Accepted, Chunk, Columns};
use super::header::{self, Header};
use super::refusal::{self, FileRefusal};
use super::scan::{Cell, End, blank_line, count_lines, scan_record};
use crate::json::remarks_column;
use crate::rules::Encoding;
use crate::{Finding, Kind, Position, Rules, Severity, invisible};

/// A chunk ends when it has so many rows, or so many bytes.
const CHUNK_ROWS: usize = 256;
const CHUNK_BYTES: usize = 256 << 10;

/// So many rows of another width are named; the file is refused for the first already.
const MISFITS_NAMED: usize = 100;

/// What a slab came to.
#[derive(Debug)]
pub struct Slab {
    /// The accepted rows, of [`Kind::row_schema`].
    pub rows: RecordBatch,
    /// The rows that are refused alone.
    pub refused: Vec<RefusedRow>,
    /// How many remarks the accepted rows have.
    pub remarks: u64,
    /// Those remarks one by one, as many as were asked for.
    pub findings: Vec<Finding>,
    /// How many records there are, accepted and refused.
    pub records: u64,
    /// How many lines these records and the blank lines between them take.
    pub lines: u64,
    /// How many lines with nothing on them were skipped.
    pub blank_lines: u64,
    /// Whether some text was not in quotes.
    pub unquoted: bool,
}

/// A row that is refused, while the rest of its file goes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRow {
    /// The line that it begins on.
    pub line: u64,
    /// The row byte for byte as delivered, without its line's end.
    pub bytes: Vec<u8>,
    /// What is wrong with it, and what else is doubtful.
    pub findings: Vec<Finding>,
}

/// Parses a slab of whole records, the first of which begins on `first_line` of the file.
///
/// A row's `origin` is `{origin}:{line}`. `collect` is how many remarks are given one by one. Only a file's
/// last record may lack its line's end; a single row is a slab too, which is how a refused row
/// that was mended is put in.
pub fn parse_slab(
    header: &Header,
    rules: &Rules,
    bytes: &[u8],
    first_line: u64,
    origin: &str,
    collect: usize,
) -> Result<Slab, FileRefusal> {
    let decoded;
    let bytes = match header.encoding() {
        Encoding::Utf8 => bytes,
        Encoding::Latin1 => {
            decoded = header::decode_latin1(bytes);
            decoded.as_bytes()
        }
    };
    if bytes.len() > Cell::MAX_BYTES {
        return Err(refusal::slab_too_large(first_line));
    }
    Parser::new(header, rules, bytes, first_line, collect).parse(origin)
}

struct Parser<'a> {
    header: &'a Header,
    rules: &'a Rules,
    bytes: &'a [u8],
    collect: usize,
    /// Where the next record begins.
    at: usize,
    /// The line on which the chunk begins.
    line: u64,
    first_line: u64,
    /// The columns that want quotes.
    texts: Vec<bool>,
    misfits: Vec<Finding>,
    blank_lines: u64,
    unquoted: bool,
    /// The chunk's rows, and their cells.
    rows: Vec<Row>,
    cells: Vec<Cell>,
    accepted: Vec<Accepted>,
}

struct Row {
    start: usize,
    end: usize,
    line: u64,
}

impl<'a> Parser<'a> {
    fn new(header: &'a Header, rules: &'a Rules, bytes: &'a [u8], first_line: u64, collect: usize) -> Self {
        let mut texts = vec![true; header.width()];
        for place in NO_TEXTS.iter().filter_map(|column| header.places()[*column]) {
            if let Some(text) = texts.get_mut(place) {
                *text = false;
            }
        }
        Parser {
            header,
            rules,
            bytes,
            collect,
            at: 0,
            line: first_line,
            first_line,
            texts,
            misfits: Vec::new(),
            blank_lines: 0,
            unquoted: false,
            rows: Vec::with_capacity(CHUNK_ROWS),
            cells: Vec::with_capacity(CHUNK_ROWS * header.width()),
            accepted: Vec::with_capacity(CHUNK_ROWS),
        }
    }

    fn parse(mut self, origin: &str) -> Result<Slab, FileRefusal> {
        let mut judge = Judge::new(self.header, self.rules);
        let mut columns = None;
        let (mut refused, mut findings) = (Vec::new(), Vec::new());
        let (mut records, mut remarks) = (0, 0);

        while self.at < self.bytes.len() {
            let base = self.at;
            let text = match self.scan_chunk().and_then(|()| self.chunk_text(base)) {
                Ok(text) => text,
                Err(fatal) => {
                    self.misfits.extend(fatal.findings);
                    return Err(FileRefusal { findings: self.misfits });
                }
            };
            self.number_lines(base);
            let chunk = Chunk { text, base, cells: &self.cells };
            let width = self.header.width();
            self.accepted.clear();
            for (number, row) in self.rows.iter().enumerate() {
                let cells = chunk.cells.get(number * width..).unwrap_or_default();
                let mut verdict = judge.judge(row.line, |place| {
                    cells.get(place).map(|cell| chunk.value(*cell)).unwrap_or_default()
                });
                let id = || {
                    transaction_id(self.header, |place| {
                        cells.get(place).map(|cell| chunk.value(*cell)).unwrap_or_default()
                    })
                };
                let row_bytes = self.bytes.get(row.start..row.end).unwrap_or_default();
                let mut invisible = Vec::new();
                if invisible::may_hold(row_bytes) {
                    let found = cells.iter().take(width).enumerate();
                    let found = found
                        .filter_map(|(place, cell)| self.invisible(place, &chunk.value(*cell), row.line));
                    let errors;
                    (errors, invisible) = found.partition(|finding| finding.severity == Severity::Error);
                    verdict.errors.extend::<Vec<_>>(errors);
                }
                match verdict.occurred_at {
                    Some(occurred_at) if verdict.errors.is_empty() => {
                        remarks += u64::from(verdict.remarks.len()) + invisible.len() as u64;
                        let judged = || verdict.remarks.findings(self.header, row.line);
                        let json = if invisible.is_empty() {
                            verdict.remarks.json().map(Cow::Borrowed)
                        } else {
                            let all: Vec<_> = judged().chain(invisible.iter().cloned()).collect();
                            remarks_column(&all).map(Cow::Owned)
                        };
                        let room = self.collect.saturating_sub(findings.len());
                        if room > 0 && (verdict.remarks.len() > 0 || !invisible.is_empty()) {
                            findings.extend(of_row(id(), judged().chain(invisible).take(room)));
                        }
                        let (line, row) = (row.line, number);
                        self.accepted.push(Accepted { row, line, occurred_at, remarks: json });
                    }
                    _ => {
                        let remarks = verdict.remarks.findings(self.header, row.line).chain(invisible);
                        let errors = verdict.errors.into_iter();
                        let mut findings: Vec<_> = of_row(id(), errors.chain(remarks)).collect();
                        findings.sort_by_key(|finding| finding.position.column);
                        let bytes = match self.header.encoding() {
                            Encoding::Utf8 => row_bytes.to_vec(),
                            Encoding::Latin1 => {
                                let text = text.get(row.start - base..row.end - base);
                                header::encode_latin1(text.unwrap_or_default())
                            }
                        };
                        refused.push(RefusedRow { line: row.line, bytes, findings });
                    }
                }
            }
            records += self.rows.len() as u64;
            let columns =
                columns.get_or_insert_with(|| Columns::new(self.header, origin, self.bytes.len(), &chunk));
            if !columns.append(&chunk, &self.accepted) {
                return Err(refusal::slab_too_large(self.first_line));
            }
        }
        if !self.misfits.is_empty() {
            return Err(FileRefusal { findings: self.misfits });
        }
        let empty = || RecordBatch::new_empty(Kind::Revision.row_schema());
        Ok(Slab {
            rows: columns.map_or_else(empty, Columns::finish),
            refused,
            remarks,
            findings,
            records,
            lines: self.line - self.first_line + u64::from(!self.ends_line()),
            blank_lines: self.blank_lines,
            unquoted: self.unquoted,
        })
    }

    /// Whether the slab's last line ends with a line end (or there is none).
    fn ends_line(&self) -> bool {
        self.bytes.last().is_none_or(|byte| *byte == b'\n')
    }

    /// Scans the next rows into cells.
    fn scan_chunk(&mut self) -> Result<(), FileRefusal> {
        self.rows.clear();
        self.cells.clear();
        let base = self.at;
        let width = self.header.width();
        while self.at < self.bytes.len() && self.rows.len() < CHUNK_ROWS && self.at - base < CHUNK_BYTES {
            let start = self.at;
            if let Some(next) = blank_line(self.bytes, start) {
                self.at = next;
                self.blank_lines += 1;
                continue;
            }
            let before = self.cells.len();
            let (texts, unquoted) = (&self.texts, &mut self.unquoted);
            let no_quotes = |place: usize| *unquoted |= texts.get(place).copied().unwrap_or(false);
            let scanned = scan_record(self.bytes, start, self.header.separator(), &mut self.cells, no_quotes);
            let end = match scanned {
                Ok(end) => end,
                Err((broken, field)) => {
                    self.chunk_text(base)?; // what is wrong before it comes first
                    let column = (self.cells.len() - before) as u64 + 1;
                    let line = self.line_of(base, start);
                    return Err(refusal::quotes(broken, self.bytes, start, field, line, column));
                }
            };
            if end.text - start > self.rules.max_record_bytes && self.is_too_large(start, end) {
                self.chunk_text(base)?;
                let line = self.line_of(base, start);
                return Err(refusal::record_too_large(line, self.rules.max_record_bytes));
            }
            let found = self.cells.len() - before;
            if found == width {
                self.rows.push(Row { start, end: end.text, line: 0 });
            } else {
                self.cells.truncate(before);
                if self.misfits.len() < MISFITS_NAMED {
                    let cut_off = found < width && end.next == self.bytes.len() && !self.ends_line();
                    let line = self.line_of(base, start);
                    self.misfits.push(refusal::misfit(line, found, width, cut_off));
                }
            }
            self.at = end.next;
        }
        Ok(())
    }

    /// The line that this byte of the chunk that begins at `base` is on.
    fn line_of(&self, base: usize, at: usize) -> u64 {
        self.line + count_lines(self.bytes.get(base..at).unwrap_or_default())
    }

    /// Gives the rows of the chunk that begins at `base` their lines, and goes on to the next.
    fn number_lines(&mut self, base: usize) {
        let next = self.line_of(base, self.at);
        let chunk = self.bytes.get(base..self.at).unwrap_or_default();
        if chunk.ends_with(b"\n") && next - self.line == self.rows.len() as u64 {
            // As nearly always: no text has a line end in it, and no line is blank.
            for (row, line) in self.rows.iter_mut().zip(self.line..) {
                row.line = line;
            }
        } else {
            let (mut line, mut at) = (self.line, base);
            for row in &mut self.rows {
                line += count_lines(self.bytes.get(at..row.start).unwrap_or_default());
                (row.line, at) = (line, row.start);
            }
        }
        self.line = next;
    }

    /// Whether a record is too large as delivered, which for ISO 8859-1 is a byte a character.
    fn is_too_large(&self, start: usize, end: End) -> bool {
        let record = self.bytes.get(start..end.text).unwrap_or_default();
        let length = match self.header.encoding() {
            Encoding::Utf8 => record.len(),
            Encoding::Latin1 => record.iter().filter(|&&byte| byte & 0xc0 != 0x80).count(),
        };
        length > self.rules.max_record_bytes
    }

    /// What is to be said of a field with an invisible character: an error where the column identifies, and of a NUL
    /// byte anywhere; else a remark.
    fn invisible(&self, place: usize, text: &str, line: u64) -> Option<Finding> {
        // A tab or a line end may be in a field that identifies nothing: its name is looked up only then.
        invisible::first(text, true)?;
        let name = self.header.column(place);
        let identifies = Kind::Revision.is_identifying(&name);
        let found = invisible::first(text, identifies)?;
        let position = Position { line, column: place as u64 + 1 };
        let finding = match found {
            _ if text.contains('\0') => Finding::error("nul", "the row holds a NUL byte", position),
            _ if identifies => Finding::error("invisible", invisible::finding(found), position),
            '\u{80}'..='\u{9f}' if self.header.encoding() == Encoding::Latin1 => {
                let byte = u32::from(found);
                let text =
                    format!("the text holds the byte 0x{byte:02X}, which Windows-1252 does not define");
                Finding::remark("encoding", text, position)
            }
            _ => Finding::remark("invisible", invisible::finding(found), position),
        };
        Some(finding.in_field(name))
    }

    /// The bytes from `base` to where scanning has come, as text.
    fn chunk_text(&self, base: usize) -> Result<&'a str, FileRefusal> {
        let bytes: &'a [u8] = self.bytes;
        let chunk = bytes.get(base..self.at).unwrap_or_default();
        simdutf8::basic::from_utf8(chunk).map_err(|_| {
            let valid = match std::str::from_utf8(chunk) {
                Ok(text) => text.len(),
                Err(error) => error.valid_up_to(),
            };
            let at = base + valid;
            let rest = bytes.get(at..).unwrap_or_default();
            refusal::not_utf8(self.locate(base, at), rest)
        })
    }

    /// The row and column that a byte of the chunk is in.
    fn locate(&self, base: usize, at: usize) -> Position {
        let row = self.rows.iter().enumerate().rfind(|(_, row)| row.start <= at);
        let Some((number, row)) = row.filter(|(_, row)| at < row.end) else {
            // It is in a row that is refused for its width as well.
            return Position { line: self.line_of(base, at), column: 1 };
        };
        let width = self.header.width();
        let cells = self.cells.get(number * width..(number + 1) * width).unwrap_or_default();
        let column = cells.iter().position(|cell| at < cell.end()).unwrap_or_default();
        Position { line: self.line_of(base, row.start), column: column as u64 + 1 }
    }
}

/// Findings about the row with this `TransaktionsId`.
fn of_row(id: Option<String>, findings: impl Iterator<Item = Finding>) -> impl Iterator<Item = Finding> {
    findings.map(move |finding| Finding { transaction_id: id.clone(), ..finding })
}

/// Why the rest of a file, which begins on `line`, ends within quotes.
pub(super) fn explain_open_quote(header: &Header, rest: &[u8], line: u64) -> FileRefusal {
    let mut cells = Vec::new();
    let rest = rest.get(..Cell::MAX_BYTES).unwrap_or(rest);
    match scan_record(rest, 0, header.separator(), &mut cells, |_| ()) {
        Err((broken, field)) => refusal::quotes(broken, rest, 0, field, line, cells.len() as u64 + 1),
        // An odd number of quotes cannot be scanned, so this is for a `rest` that is not the rest.
        Ok(_) => refusal::open_quote(line),
    }
}
