//! Why a file is refused whole, and in which words its supplier is told.

use std::borrow::Cow;

use super::scan::{Broken, count_lines};
use crate::{Finding, Position};

/// A file is refused whole: it is kept, and nothing of it goes in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct FileRefusal {
    /// What is wrong, in the order of the file; never empty.
    pub findings: Vec<Finding>,
}

impl FileRefusal {
    /// Where the first fault was found. Of several slabs' refusals, the earliest one counts: what
    /// comes behind a lost quote is no longer what it seems.
    pub fn position(&self) -> Position {
        self.findings.first().map_or(START, |finding| finding.position)
    }
}

pub(super) const START: Position = Position { line: 1, column: 1 };

/// A refusal for one reason.
pub(super) fn refuse(
    rule: &'static str,
    position: Position,
    text: impl Into<Cow<'static, str>>,
) -> FileRefusal {
    FileRefusal { findings: vec![Finding::error(rule, text, position)] }
}

pub(super) fn file_too_large(limit: u64) -> FileRefusal {
    refuse(
        "file-size",
        START,
        format!("the file has more than {limit} bytes: deliver it in parts, by day at the most"),
    )
}

pub(super) fn record_too_large(line: u64, limit: usize) -> FileRefusal {
    let text = format!(
        "the record that begins here has more than {limit} bytes; \
         perhaps a closing quote was lost"
    );
    refuse("record-size", Position { line, column: 1 }, text)
}

/// The refusal of bytes that are not UTF-8; `rest` begins with the first that is not.
pub(super) fn not_utf8(position: Position, rest: &[u8]) -> FileRefusal {
    let byte = rest.first().copied().unwrap_or_default();
    let guess = match byte {
        0xa0..=0xff => "it looks like ISO 8859-1",
        _ => "it looks like Windows-1252 or another 8-bit character set",
    };
    let text = format!(
        "the file is not UTF-8 (byte 0x{byte:02X} here); {guess}: deliver it in UTF-8, \
         or have encoding = \"iso-8859-1\" set for this supplier"
    );
    refuse("encoding", position, text)
}

/// The refusal of a record that breaks the rule on quotes: `bytes[record..]` is the record, which
/// begins on `line`, and `field` where the broken field begins, which is the `column`th.
pub(super) fn quotes(
    broken: Broken,
    bytes: &[u8],
    record: usize,
    field: usize,
    line: u64,
    column: u64,
) -> FileRefusal {
    let line = line + count_lines(bytes.get(record..field).unwrap_or_default());
    let text = match broken {
        Broken::Open => {
            "the quote that opens this field is never closed: the file was cut off in the middle \
             of a record, or a quote was lost"
        }
        Broken::TextAfterQuote => {
            "text stands behind this field's closing quote: a quote within a text is written \
             twice, and nothing comes between the last quote and the separator"
        }
        Broken::QuoteInText if bytes.get(field..).is_some_and(|rest| rest.starts_with(b"\xef\xbb\xbf")) => {
            "a byte-order mark stands before this field's quote, in the middle of the file: two files were put \
             together here; deliver each by itself"
        }
        Broken::QuoteInText => {
            "a quote stands within a field that does not begin with one: put the whole text in \
             quotes, and write a quote within it twice"
        }
    };
    refuse("quotes", Position { line, column }, text)
}

/// The refusal of a file that ends within quotes, where nothing more is known.
pub(super) fn open_quote(line: u64) -> FileRefusal {
    let text = "the file ends within quotes: it was cut off in the middle of this record";
    refuse("quotes", Position { line, column: 1 }, text)
}

/// The refusal of a file with a run of NUL bytes, which no text has.
pub(super) fn nul_run(line: u64, length: usize) -> FileRefusal {
    let text = format!(
        "{length} NUL bytes stand here in a row, where a part of the file is missing: its upload was cut off and gone \
         on with at the wrong place, or the file was never written to its end; deliver it anew"
    );
    refuse("nul", Position { line, column: 1 }, text)
}

/// The refusal of a file that ends with DOS's mark of a file's end.
pub(super) fn end_mark(line: u64) -> FileRefusal {
    let text = "the file ends with the byte 0x1A (Ctrl-Z), an end mark of DOS: leave this byte out";
    refuse("end-mark", Position { line, column: 1 }, text)
}

/// The refusal of a slab that does not fit in one batch of columns.
pub(super) fn slab_too_large(line: u64) -> FileRefusal {
    let text = "the records from here on are too large to be taken together";
    refuse("slab-size", Position { line, column: 1 }, text)
}

/// The error of a row that has another number of columns than the header.
pub(super) fn misfit(line: u64, found: usize, width: usize, cut_off: bool) -> Finding {
    let position = Position { line, column: found.min(width) as u64 + 1 };
    if cut_off {
        let text = format!(
            "the file was cut off in the middle of this record: it has {found} of {width} columns, \
             and no line end"
        );
        return Finding::error("cut-off", text, position);
    }
    let text = format!("this row has {found} columns, and the header has {width}");
    Finding::error("width", text, position)
}

/// The remarks on a whole file, once it has gone in: whether some text was not in quotes, and how
/// many lines had nothing on them.
pub fn file_remarks(unquoted: bool, blank_lines: u64) -> Vec<Finding> {
    let mut remarks = Vec::new();
    if unquoted {
        let text = "some texts are not in quotes: put every text in quotes";
        remarks.push(Finding::remark("unquoted", text, START));
    }
    if blank_lines > 0 {
        let text = format!("blank lines were skipped: {blank_lines}");
        remarks.push(Finding::remark("blank-lines", text, START));
    }
    remarks
}
