//! Where the last complete record of a buffer ends, and on which line.
//!
//! One thread reads a file and hands slabs of whole records to the workers that parse them; it
//! must be many times faster than they are. So it looks at no field: a record ends at a line's
//! end that an even number of quotes precedes. Counting quotes and lines runs at memory speed,
//! and only the way back from the buffer's end to the last such line end goes quote by quote.

use memchr::{memchr, memchr_iter, memmem, memrchr2};

use super::header::Header;
use super::refusal::{self, FileRefusal};
use super::scan::count_lines;
use super::slab;
use crate::Rules;

/// Bytes that are counted together, so that the second count finds them in the cache.
const BLOCK: usize = 32 << 10;

/// Finds record ends in a file that is read buffer by buffer, from behind its [`Header`] on.
///
/// The buffers hold each byte of the file once. What is left of a buffer behind its last record
/// end is the caller's to keep, and to put before the next one's.
#[derive(Debug, Clone)]
pub struct Splitter {
    /// The line that the next byte is on.
    line: u64,
    /// Whether the next byte is within quotes.
    quoted: bool,
    /// The line on which the unfinished record begins.
    record_line: u64,
    /// The unfinished record's bytes so far.
    pending: usize,
    /// The file's bytes so far.
    bytes: u64,
    max_record_bytes: usize,
    max_file_bytes: u64,
}

/// What [`Splitter::split`] found in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Behind the last complete record's end; 0 if no record ends in this buffer.
    pub end: usize,
    /// The line on which the first of the records that end here begins.
    pub first_line: u64,
}

impl Splitter {
    /// Begins behind the header.
    pub fn new(header: &Header, rules: &Rules) -> Self {
        Splitter {
            line: header.first_line(),
            quoted: false,
            record_line: header.first_line(),
            pending: 0,
            bytes: header.body() as u64,
            max_record_bytes: rules.max_record_bytes,
            max_file_bytes: rules.revision.max_file_bytes,
        }
    }

    /// Takes the file's next bytes and says where the last record that ends in them ends.
    ///
    /// Refused are a record that outgrows `max_record_bytes` before it ends, so that no caller
    /// need ever keep more than that and a buffer, a file that outgrows `max_file_bytes`, and a file with a run of NUL
    /// bytes.
    pub fn split(&mut self, bytes: &[u8]) -> Result<Cut, FileRefusal> {
        self.check_pending()?;
        let mut lines = 0;
        let mut quotes = 0;
        let mut nul = false;
        for block in bytes.chunks(BLOCK) {
            lines += count_lines(block);
            quotes += memchr_iter(b'"', block).count();
            nul |= memchr(0, block).is_some();
        }
        // Before any record is parsed: what a run of NUL bytes has replaced may be quotes and line ends.
        if let Some(at) = nul.then(|| memmem::find(bytes, b"\0\0")).flatten() {
            let (before, run) = bytes.split_at(at);
            let length = run.iter().take_while(|byte| **byte == 0).count();
            return Err(refusal::nul_run(self.line + count_lines(before), length));
        }
        let quoted = self.quoted ^ (quotes % 2 == 1);
        let end = last_record_end(bytes, quoted);
        let rest = bytes.get(end..).unwrap_or_default();

        let cut = Cut { end, first_line: self.record_line };
        self.line += lines;
        self.quoted = quoted;
        self.bytes += bytes.len() as u64;
        if end == 0 {
            self.pending += bytes.len();
        } else {
            self.pending = rest.len();
            self.record_line = self.line - count_lines(rest);
        }
        if self.bytes > self.max_file_bytes {
            return Err(refusal::file_too_large(self.max_file_bytes));
        }
        if end == 0 {
            self.check_pending()?; // else what comes before it is parsed first, and judged first
        }
        Ok(cut)
    }

    fn check_pending(&self) -> Result<(), FileRefusal> {
        let line_end = b"\r\n".len(); // which is not the record's
        if self.pending > self.max_record_bytes.saturating_add(line_end) {
            return Err(refusal::record_too_large(self.record_line, self.max_record_bytes));
        }
        Ok(())
    }

    /// Ends the file: `rest` is what no [`Cut`] has taken. Gives the line on which it begins.
    ///
    /// A rest without a line's end is a last record like any other. A rest with an open quote
    /// means that the file was cut off in the middle of a record, or that a quote was lost: the
    /// file is refused.
    pub fn finish(&self, header: &Header, rest: &[u8]) -> Result<u64, FileRefusal> {
        self.check_pending()?;
        if rest.trim_ascii_end().ends_with(b"\x1a") {
            return Err(refusal::end_mark(self.line));
        }
        if self.quoted {
            return Err(slab::explain_open_quote(header, rest, self.record_line));
        }
        Ok(self.record_line)
    }
}

/// Behind the last line end that lies outside quotes, 0 if there is none; `quoted` says whether
/// the bytes end within quotes.
fn last_record_end(bytes: &[u8], mut quoted: bool) -> usize {
    let mut end = bytes.len();
    while let Some(at) = memrchr2(b'"', b'\n', bytes.get(..end).unwrap_or_default()) {
        if bytes.get(at) == Some(&b'"') {
            quoted = !quoted;
        } else if !quoted {
            return at + 1;
        }
        end = at;
    }
    0
}
