//! Where one record of a file ends and the next begins.
//!
//! A file is taken as it comes: a record a line (JSON Lines), objects one after another, over
//! several lines if they like, or one array of them. Nothing is parsed here. Only so much is
//! looked at as tells where a record ends, so that one with an error in it can be refused alone,
//! and no more is held in memory than one record may be long.

use std::io::{self, ErrorKind, Read};

use memchr::{memchr, memchr_iter, memrchr};

use super::scan::Scan;
use super::text::characters;
use crate::{Finding, Position};

/// A record's bytes as they stand in the file. Whether they are JSON is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawRecord {
    /// The bytes, without a line's end.
    pub bytes: Vec<u8>,
    /// Where they begin.
    pub at: Position,
}

/// Why a file cannot be taken in, or not to its end.
///
/// Records that stand before the error have been handed out by then. Who takes a file as a whole
/// or not at all must read it to the end first.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file could not be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it but white space.
    #[error("the file is empty: expected are JSON objects, one a line or in an array")]
    Empty,
    /// No record at its beginning is an object: it is a file of another format.
    #[error(
        "there is no JSON object here: JSON lines or a JSON array, in UTF-8, is expected (CSV is for revision)"
    )]
    NoObject,
    /// The file ends within its array.
    #[error("the file ends before its array does, so it was cut off: deliver it once more, whole")]
    CutOff {
        /// What is incomplete: the record, or the array behind its last one.
        at: Position,
    },
    /// A record is longer than records may be.
    #[error(
        "the record that begins here has more than {limit} bytes; perhaps a quote or a brace \
         was lost, else have max_record_bytes raised"
    )]
    TooLarge {
        /// Where the record begins.
        at: Position,
        /// The greatest length.
        limit: usize,
    },
    /// Two records of an array are not separated, or a separator has no record behind it.
    #[error("a comma and then a record, or the end of the array, is expected here")]
    Separator {
        /// What stands there instead.
        at: Position,
    },
    /// There is something behind the array.
    #[error("there is something behind the array: deliver one array a file, or an object a line")]
    Trailing {
        /// Where it begins.
        at: Position,
    },
}

impl FileError {
    /// Where in the file it is.
    pub fn position(&self) -> Position {
        match self {
            FileError::Io(_) | FileError::Empty | FileError::NoObject => Position { line: 1, column: 1 },
            FileError::CutOff { at }
            | FileError::TooLarge { at, .. }
            | FileError::Separator { at }
            | FileError::Trailing { at } => *at,
        }
    }

    /// The error as a finding about the file.
    pub fn to_finding(&self) -> Finding {
        let rule = match self {
            FileError::Io(_) => "read",
            FileError::Empty => "empty",
            FileError::NoObject => "object",
            FileError::CutOff { .. } => "cut-off",
            FileError::TooLarge { .. } => "record-size",
            FileError::Separator { .. } | FileError::Trailing { .. } => "array",
        };
        Finding::error(rule, self.to_string(), self.position())
    }
}

/// How much is read at a time.
const CHUNK: usize = 64 << 10;

/// Reads a file record by record. After an error there is no more.
#[derive(Debug)]
pub struct RecordReader<R> {
    reader: R,
    ended: bool,
    /// What was read, and how much of it is passed.
    buffer: Vec<u8>,
    passed: usize,
    /// Where in the file the first byte is that is not passed.
    position: Position,
    limit: usize,
    layout: Layout,
}

/// How records are set down in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Not yet known.
    Unknown,
    /// Each on a line of its own.
    Lines,
    /// One after another.
    Objects,
    /// In an array, of which this is the beginning.
    ArrayBegin,
    /// In an array, of which one was read already.
    Array,
    /// There are no more.
    Ended,
}

impl<R: Read> Iterator for RecordReader<R> {
    type Item = Result<RawRecord, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.read().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.layout = Layout::Ended;
        }
        next
    }
}

impl<R: Read> RecordReader<R> {
    /// Reads records of up to `max_record_bytes` from `reader`, which need not be buffered.
    pub fn new(reader: R, max_record_bytes: usize) -> Self {
        RecordReader {
            reader,
            ended: false,
            buffer: Vec::new(),
            passed: 0,
            position: Position { line: 1, column: 1 },
            limit: max_record_bytes,
            layout: Layout::Unknown,
        }
    }

    fn read(&mut self) -> Result<Option<RawRecord>, FileError> {
        if self.layout == Layout::Unknown {
            self.layout = self.find_layout()?;
        }
        match self.layout {
            Layout::Unknown | Layout::Ended => Ok(None),
            Layout::Lines => self.read_line(),
            Layout::Objects => self.read_object(),
            Layout::ArrayBegin | Layout::Array => self.read_element(),
        }
    }

    /// Decides by the first record.
    ///
    /// A file that begins with an object holds a record a line, if the object ends with the line.
    /// If the first line is no complete object, it may still be that, with an error in its first
    /// record: so it is where the line ends within a text, or the next one begins an object.
    fn find_layout(&mut self) -> Result<Layout, FileError> {
        self.peek(2)?;
        if self.rest().starts_with(b"\xef\xbb\xbf") {
            self.passed += 3; // a byte-order mark counts for no column
        }
        self.skip_blank(false)?;
        match self.peek(0)? {
            None => return Err(FileError::Empty),
            Some(b'[') => {
                self.pass(1);
                return Ok(Layout::ArrayBegin);
            }
            Some(b'{') => {}
            Some(_) => return Ok(Layout::Lines),
        }
        let mut scan = Scan::of_value(b'{');
        let mut whole = false;
        let end = self.find(self.line_limit(), |rest| {
            let line_end = memchr(b'\n', rest);
            let end = scan.find_end(rest.get(..line_end.unwrap_or(rest.len())).unwrap_or_default());
            whole = end.is_some();
            end.or(line_end)
        })?;
        let Some(end) = end else { return Ok(Layout::Lines) };
        if whole {
            let spaces = |byte| matches!(byte, b' ' | b'\t' | b'\r');
            return Ok(match self.peek_behind(end, spaces)? {
                Some(b'{') => Layout::Objects,
                _ => Layout::Lines,
            });
        }
        if scan.is_in_text() {
            return Ok(Layout::Lines);
        }
        let last = self.rest().get(..end).and_then(|line| line.trim_ascii_end().last()).copied();
        Ok(match self.peek_behind(end, |byte| byte.is_ascii_whitespace())? {
            Some(b'{') if last != Some(b'[') => Layout::Lines,
            Some(_) => Layout::Objects,
            None => Layout::Lines,
        })
    }

    /// The next line with something on it.
    fn read_line(&mut self) -> Result<Option<RawRecord>, FileError> {
        loop {
            let mut searched = 0;
            let line_end = self.find(self.line_limit(), |rest| {
                let found = memchr(b'\n', rest.get(searched..).unwrap_or_default());
                let found = found.map(|at| searched + at);
                searched = rest.len();
                found
            })?;
            let length = line_end.unwrap_or(self.rest().len());
            if line_end.is_none() && length == 0 {
                return Ok(None);
            }
            let line = self.rest().get(..length).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let record = (!line.trim_ascii().is_empty()).then(|| line.to_vec());
            let at = self.position;
            if record.as_ref().is_some_and(|record| record.len() > self.limit) {
                return Err(self.too_large());
            }
            self.pass(length + usize::from(line_end.is_some()));
            if let Some(bytes) = record {
                return Ok(Some(RawRecord { bytes, at }));
            }
        }
    }

    /// The next of several objects; what is none is taken to its line's end. The last may lack its
    /// end, and is then refused as a record.
    fn read_object(&mut self) -> Result<Option<RawRecord>, FileError> {
        self.skip_blank(true)?;
        match self.peek(0)? {
            None => Ok(None),
            Some(b'{') => {
                let end = self.find_end(b'{')?;
                Ok(Some(self.take(end.unwrap_or(self.rest().len()))))
            }
            Some(_) => self.read_line(),
        }
    }

    /// The next of an array's elements.
    fn read_element(&mut self) -> Result<Option<RawRecord>, FileError> {
        self.skip_blank(true)?;
        match (self.layout, self.peek(0)?) {
            (_, None) => return Err(FileError::CutOff { at: self.position }),
            (_, Some(b']')) => return self.finish_array(),
            (Layout::Array, Some(b',')) => {
                self.pass(1);
                self.skip_blank(true)?;
            }
            (Layout::ArrayBegin, Some(_)) => self.layout = Layout::Array,
            (_, Some(_)) => return Err(FileError::Separator { at: self.position }),
        }
        let end = match self.peek(0)? {
            None => None,
            Some(b',' | b']') => return Err(FileError::Separator { at: self.position }),
            Some(first) => self.find_end(first)?,
        };
        match end {
            Some(end) => Ok(Some(self.take(end))),
            None => Err(FileError::CutOff { at: self.position }),
        }
    }

    fn finish_array(&mut self) -> Result<Option<RawRecord>, FileError> {
        self.pass(1);
        self.skip_blank(true)?;
        match self.peek(0)? {
            None => Ok(None),
            Some(_) => Err(FileError::Trailing { at: self.position }),
        }
    }

    /// Where the value that begins here with the byte `first` ends; `None` if the file ends first.
    fn find_end(&mut self, first: u8) -> Result<Option<usize>, FileError> {
        let mut scan = Scan::of_value(first);
        self.find(self.limit, |rest| scan.find_end(rest))
    }

    /// What `find` finds in the bytes from here on, of which it is given more each time, so that it lies within
    /// `limit`; `None` if the file ends first.
    fn find(
        &mut self,
        limit: usize,
        mut find: impl FnMut(&[u8]) -> Option<usize>,
    ) -> Result<Option<usize>, FileError> {
        loop {
            let found = find(self.rest());
            if found.unwrap_or(self.rest().len()) > limit {
                return Err(self.too_large());
            }
            if found.is_some() || !self.more()? {
                return Ok(found);
            }
        }
    }

    /// How far a line may go on: its end may stand behind the last byte that a record can have.
    fn line_limit(&self) -> usize {
        self.limit.saturating_add(2)
    }

    fn too_large(&self) -> FileError {
        FileError::TooLarge { at: self.position, limit: self.limit }
    }

    /// What was read and not passed.
    fn rest(&self) -> &[u8] {
        self.buffer.get(self.passed..).unwrap_or_default()
    }

    /// Reads more of the file. False at its end.
    fn more(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        // What was passed goes before the buffer would have to grow for it.
        if self.passed > self.buffer.len() / 2 {
            self.buffer.drain(..self.passed);
            self.passed = 0;
        }
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK, 0);
        let read = loop {
            match self.reader.read(self.buffer.get_mut(length..).unwrap_or_default()) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + read.as_ref().copied().unwrap_or(0).min(CHUNK));
        self.ended = matches!(read, Ok(0));
        Ok(read? > 0)
    }

    /// The byte that stands so far behind the first; `None` behind the file's end.
    fn peek(&mut self, offset: usize) -> io::Result<Option<u8>> {
        loop {
            if let Some(byte) = self.rest().get(offset) {
                return Ok(Some(*byte));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// The first byte behind `offset` that is not `blank`, if it is not too far away.
    fn peek_behind(&mut self, offset: usize, blank: impl Fn(u8) -> bool) -> io::Result<Option<u8>> {
        for at in offset..offset.saturating_add(self.limit) {
            match self.peek(at)? {
                Some(byte) if blank(byte) => {}
                other => return Ok(other),
            }
        }
        Ok(None)
    }

    /// Passes white space and, if wanted, `//` comments, of whatever length.
    fn skip_blank(&mut self, comments: bool) -> io::Result<()> {
        loop {
            let blank = self.rest().len() - self.rest().trim_ascii_start().len();
            self.pass(blank);
            if self.rest().is_empty() {
                if self.more()? {
                    continue;
                }
                return Ok(());
            }
            if !comments || self.peek(1)?.is_none() || !self.rest().starts_with(b"//") {
                return Ok(());
            }
            while !self.rest().starts_with(b"\n") {
                self.pass(memchr(b'\n', self.rest()).unwrap_or(self.rest().len()));
                if self.rest().is_empty() && !self.more()? {
                    return Ok(());
                }
            }
        }
    }

    fn take(&mut self, length: usize) -> RawRecord {
        let bytes = self.rest().get(..length).unwrap_or_default();
        let record = RawRecord { bytes: bytes.to_vec(), at: self.position };
        self.pass(length);
        record
    }

    /// Passes bytes.
    fn pass(&mut self, length: usize) {
        let bytes = self.rest().get(..length).unwrap_or(self.rest());
        let Position { mut line, mut column } = self.position;
        line += memchr_iter(b'\n', bytes).count() as u64;
        column = match memrchr(b'\n', bytes) {
            Some(newline) => 1 + characters(bytes.get(newline + 1..).unwrap_or_default()),
            None => column + characters(bytes),
        };
        self.passed += bytes.len();
        self.position = Position { line, column };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hands out a file in pieces of the given lengths, over and over.
    struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::vec::IntoIter<usize>>);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.next().unwrap_or(1).min(buffer.len()).min(self.0.len());
            let (piece, rest) = self.0.split_at(length);
            buffer[..length].copy_from_slice(piece);
            self.0 = rest;
            Ok(length)
        }
    }

    /// What the reader makes of a file: each record behind its position, and the error's rule.
    fn read_in(file: &[u8], limit: usize, pieces: Vec<usize>) -> Vec<String> {
        RecordReader::new(Pieces(file, pieces.into_iter().cycle()), limit)
            .map(|record| {
                let (at, text) = match record {
                    Ok(RawRecord { at, bytes }) => (at, String::from_utf8_lossy(&bytes).into_owned()),
                    Err(error) => (error.position(), format!("error: {}", error.to_finding().rule)),
                };
                format!("{}:{} {text}", at.line, at.column)
            })
            .collect()
    }

    fn read(file: &str) -> Vec<String> {
        read_in(file.as_bytes(), 1_000, vec![7])
    }

    #[test]
    fn a_record_a_line() {
        assert_eq!(
            read("\u{feff}{\"a\":1}\r\n\n  {\"b\":\"æ}\"}\n{\"c\":\n{\"d\":4}}\n{\"e\""),
            ["1:1 {\"a\":1}", "3:1   {\"b\":\"æ}\"}", "4:1 {\"c\":", "5:1 {\"d\":4}}", "6:1 {\"e\""]
        );
        assert_eq!(read("{}"), ["1:1 {}"]);
        assert_eq!(read("x\n{}"), ["1:1 x", "2:1 {}"]);
        assert_eq!(read("{} x\n{}"), ["1:1 {} x", "2:1 {}"]);
    }

    #[test]
    fn a_first_line_with_an_error_in_it_is_a_line_still() {
        assert_eq!(read("{\"a\":1,\n{\"b\":2}"), ["1:1 {\"a\":1,", "2:1 {\"b\":2}"]);
        assert_eq!(read("{\"a\":\"x\n\n {\"b\":2}"), ["1:1 {\"a\":\"x", "3:1  {\"b\":2}"]);
        assert_eq!(read("{\"a\""), ["1:1 {\"a\""]);
        assert_eq!(read("{\"a\"\n"), ["1:1 {\"a\""]);
    }

    #[test]
    fn objects_over_several_lines() {
        let one = "{ // it's\n  \"a\": [\n{}]\n}";
        assert_eq!(read(one), [format!("1:1 {one}")]);
        assert_eq!(
            read("{\n}{\n} {}\n // {\n{\"x\n}\nx {}\n{"),
            ["1:1 {\n}", "2:2 {\n}", "3:3 {}", "5:1 {\"x\n}", "7:1 x {}", "8:1 {"]
        );
        assert_eq!(read("{\"a\":1}{\"a\":2}"), ["1:1 {\"a\":1}", "1:8 {\"a\":2}"]);
        assert_eq!(read("{\"a\": [\n{}]}"), ["1:1 {\"a\": [\n{}]}"]);
    }

    #[test]
    fn an_array() {
        assert_eq!(read("[]"), [] as [&str; 0]);
        assert_eq!(
            read(" [ // x\n {\"æ\": [1]}, {\"b\n},12 ,{\"c\":2}\n]\n"),
            ["2:2 {\"æ\": [1]}", "2:14 {\"b\n}", "3:3 12 ", "3:7 {\"c\":2}"]
        );
        for (file, last) in [
            ("[", "1:2 error: cut-off"),
            ("[{}", "1:4 error: cut-off"),
            ("[{},", "1:5 error: cut-off"),
            ("[{\"a\":1},{\"b\":", "1:10 error: cut-off"),
            ("[{} {}]", "1:5 error: array"),
            ("[{},]", "1:5 error: array"),
            ("[,{}]", "1:2 error: array"),
            ("[{}]\n[{}]", "2:1 error: array"),
        ] {
            assert_eq!(read(file).last().map(String::as_str), Some(last), "{file}");
        }
    }

    #[test]
    fn nothing_at_all() {
        for file in ["", " \r\n ", "\u{feff}", "\u{feff}\n"] {
            assert!(read(file).last().unwrap().ends_with("error: empty"), "{file:?}");
        }
    }

    #[test]
    fn no_record_is_longer_than_allowed() {
        let long = format!("{{\"a\":\"{}\"}}", "x".repeat(92));
        assert_eq!(long.len(), 100);
        let longer = long.replace("a", "aa");
        let too_large = |file: String| {
            let records = read_in(file.as_bytes(), 100, vec![usize::MAX]);
            records.last().unwrap().ends_with("error: record-size")
        };
        for (before, after) in
            [("", ""), ("", "\r\n"), ("{}\n", "\n{}\n"), ("{}{}", "{}"), ("[", "]"), ("[{},", ",{}]")]
        {
            assert!(!too_large(format!("{before}{long}{after}")), "{before:?} {after:?}");
            assert!(too_large(format!("{before}{longer}{after}")), "{before:?} {after:?}");
        }
        // Neither white space nor comments belong to a record.
        let blank = format!("{}// {}\n", " \n".repeat(500), "x".repeat(500));
        assert!(!too_large(format!("[{blank}{{}}{blank},{blank}{{}}{blank}]{blank}")));
    }

    #[test]
    fn a_broken_reader_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("unplugged"))
            }
        }
        let mut reader = RecordReader::new(Broken, 100);
        assert!(matches!(reader.next(), Some(Err(FileError::Io(_)))));
        assert!(reader.next().is_none());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_file_is_read(
            file in "(\\[)?([{}\\[\\]\",:/x\\\\ \n]|\\{\"a\":1\\}|//|,\n){0,40}",
            limit in 1..60_usize,
            pieces in prop::collection::vec(1..9_usize, 1..5),
        ) {
            let whole = read_in(file.as_bytes(), limit, vec![usize::MAX]);
            prop_assert_eq!(read_in(file.as_bytes(), limit, pieces), whole);
        }

        #[test]
        fn every_way_of_setting_records_down_gives_the_same(
            numbers in prop::collection::vec(any::<u32>(), 1..20), pretty in any::<bool>(),
        ) {
            let records: Vec<_> = numbers
                .iter()
                .map(|number| serde_json::json!({"n": number, "t": format!("}}\"{number}]")}))
                .map(|record| match pretty {
                    true => serde_json::to_string_pretty(&record).unwrap(),
                    false => record.to_string(),
                })
                .collect();
            let array = format!("[{}]", records.join(" ,\n"));
            for file in [records.join("\n"), records.join("\n") + "\n", records.join(""), array] {
                let found: Result<Vec<_>, _> = RecordReader::new(file.as_bytes(), 1_000).collect();
                let found = found.unwrap().into_iter().map(|record| String::from_utf8(record.bytes).unwrap());
                prop_assert_eq!(found.collect::<Vec<_>>(), records.clone());
            }
        }
    }
}
