//! One CSV record at a time, strictly: where its fields begin and end.
//!
//! The rule is RFC 4180's, with nothing forgiven: a field is either in quotes from its first
//! character to its last, with `""` for a quote inside, or holds no quote at all. Strictness is
//! what makes it safe to look for record ends by counting quotes alone, as the
//! [`Splitter`](super::Splitter) does: as long as no record breaks the rule, both see the same
//! ends, and the first that breaks it refuses the file. It also finds a lost quote where it was
//! lost, not a gigabyte later.

use memchr::{memchr, memchr3};

/// Where a field's text lies in the bytes scanned, its quotes left out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell {
    start: u32,
    /// The end; its top bit says whether the text holds `""`.
    end: u32,
}

const ESCAPED: u32 = 1 << 31;

impl Cell {
    /// Bytes past this cannot be pointed at by a cell.
    pub(super) const MAX_BYTES: usize = (ESCAPED - 1) as usize;

    #[inline]
    fn new(start: usize, end: usize, escaped: bool) -> Self {
        Cell { start: start as u32, end: end as u32 | if escaped { ESCAPED } else { 0 } }
    }

    #[inline]
    pub(super) fn start(self) -> usize {
        self.start as usize
    }

    #[inline]
    pub(super) fn end(self) -> usize {
        (self.end & !ESCAPED) as usize
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.start() == self.end()
    }

    /// Whether quotes inside are still doubled.
    #[inline]
    pub(super) fn is_escaped(self) -> bool {
        self.end & ESCAPED != 0
    }
}

/// Where a record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Behind its last field.
    pub(super) text: usize,
    /// Where the next record begins.
    pub(super) next: usize,
}

/// How a record breaks the rule on quotes. The field is the one that was being read: it would
/// have been the next cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A field's quote is never closed.
    Open,
    /// There is text between a field's closing quote and the next separator.
    TextAfterQuote,
    /// A quote stands within a field that does not begin with one.
    QuoteInText,
}

/// Scans the record that begins at `at`, and appends its cells.
///
/// `unquoted` is told the number of each field that has text and no quotes. `bytes` must not be
/// longer than [`Cell::MAX_BYTES`]. On an error the cells before the broken field are there, and
/// the position is that of the field.
#[inline]
pub(super) fn scan_record(
    bytes: &[u8],
    mut at: usize,
    separator: u8,
    cells: &mut Vec<Cell>,
    mut unquoted: impl FnMut(usize),
) -> Result<End, (Broken, usize)> {
    let first = cells.len();
    loop {
        let field = at;
        if bytes.get(at) == Some(&b'"') {
            let start = at + 1;
            let mut from = start;
            let close = loop {
                let Some(quote) = memchr(b'"', bytes.get(from..).unwrap_or_default()) else {
                    return Err((Broken::Open, field));
                };
                let quote = from + quote;
                if bytes.get(quote + 1) != Some(&b'"') {
                    break quote;
                }
                from = quote + 2;
            };
            at = close + 1;
            let next = match (bytes.get(at), bytes.get(at + 1)) {
                (Some(&byte), _) if byte == separator => None,
                (Some(b'\n'), _) => Some(at + 1),
                (Some(b'\r'), Some(b'\n')) => Some(at + 2),
                (Some(b'\r'), None) => Some(at + 1),
                (None, _) => Some(at),
                _ => return Err((Broken::TextAfterQuote, field)),
            };
            cells.push(Cell::new(start, close, from != start));
            match next {
                Some(next) => return Ok(End { text: at, next }),
                None => at += 1,
            }
        } else {
            let rest = bytes.get(at..).unwrap_or_default();
            let length = memchr3(separator, b'\n', b'"', rest).unwrap_or(rest.len());
            let stop = rest.get(length).copied();
            let mut end = at + length;
            if stop == Some(b'"') {
                return Err((Broken::QuoteInText, field));
            }
            let ends = stop != Some(separator);
            if ends && length > 0 && rest.get(length - 1) == Some(&b'\r') {
                end -= 1;
            }
            if end > field {
                unquoted(cells.len() - first);
            }
            cells.push(Cell::new(field, end, false));
            at += length + usize::from(stop.is_some());
            if ends {
                return Ok(End { text: end, next: at });
            }
        }
    }
}

/// The end of the line at `at`, if there is nothing on it: the next line's beginning.
#[inline]
pub(super) fn blank_line(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'\n' => Some(at + 1),
        b'\r' => match bytes.get(at + 1) {
            Some(b'\n') => Some(at + 2),
            None => Some(at + 1),
            Some(_) => None,
        },
        _ => None,
    }
}

/// How many lines end in these bytes.
pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(text: &str) -> Result<Vec<Vec<String>>, (Broken, usize)> {
        let bytes = text.as_bytes();
        let (mut at, mut records) = (0, Vec::new());
        while at < bytes.len() {
            if let Some(next) = blank_line(bytes, at) {
                at = next;
                continue;
            }
            let mut cells = Vec::new();
            at = scan_record(bytes, at, b',', &mut cells, |_| ())?.next;
            let cell = |c: &Cell| text[c.start()..c.end()].replace("\"\"", "\"");
            records.push(cells.iter().map(cell).collect());
        }
        Ok(records)
    }

    #[test]
    fn fields() {
        let cases = [
            ("a,b\n", vec![vec!["a", "b"]]),
            ("a,b", vec![vec!["a", "b"]]),
            ("a,b\r\n\r\n\nc,d\r", vec![vec!["a", "b"], vec!["c", "d"]]),
            ("\"a\",\"b\"\r", vec![vec!["a", "b"]]),
            (",\n,", vec![vec!["", ""], vec!["", ""]]),
            ("\"\",\"\"\"\"\n", vec![vec!["", "\""]]),
            ("\"a\nb\",\"c,\"\"d\"\"\"\r\n", vec![vec!["a\nb", "c,\"d\""]]),
        ];
        for (text, expected) in cases {
            assert_eq!(scan(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn broken() {
        let cases = [
            ("a,\"b", Broken::Open, 2),
            ("a,\"b\"\"", Broken::Open, 2),
            ("\"a\"b,c", Broken::TextAfterQuote, 0),
            ("\"a\" ,c", Broken::TextAfterQuote, 0),
            ("\"a\"\rb", Broken::TextAfterQuote, 0),
            ("x,a\"b\"", Broken::QuoteInText, 2),
            ("x, \"b\"", Broken::QuoteInText, 2),
        ];
        for (text, broken, at) in cases {
            assert_eq!(scan(text), Err((broken, at)), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_read_as_the_csv_crate_reads_it(text in "[ab,\"\n|;]{0,40}") {
            let text = text.replace('|', "\r\n"); // a CR alone ends a record for the csv crate
            if let Ok(records) = scan(&text) {
                let mut reader = csv::ReaderBuilder::new()
                    .has_headers(false).flexible(true).from_reader(text.as_bytes());
                let expected: Vec<Vec<String>> = reader.records()
                    .map(|r| r.unwrap().iter().map(str::to_owned).collect()).collect();
                prop_assert_eq!(records, expected);
            }
        }
    }
}
