//! Where one record of a file ends and the next begins.
//!
//! A file is taken as it comes: a record a line (JSON Lines), objects one after another, over
//! several lines if they like, or one array of them. Nothing is parsed here. Only so much is
//! looked at as tells where a record ends, so that one with an error in it can be refused alone,
//! and no more is held in memory than one record may be long.

use std::borrow::Cow;
use std::io::{self, Read};

use super::scan::Scan;
use super::window::Window;
use crate::{Finding, Position, Severity};

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
    /// It could not be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// There is nothing in it but white space.
    #[error("the file is empty: expected are JSON objects, one a line or in an array")]
    Empty,
    /// It ends within its array.
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
            FileError::Io(_) | FileError::Empty => Position { line: 1, column: 1 },
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
            FileError::CutOff { .. } => "cut-off",
            FileError::TooLarge { .. } => "record-size",
            FileError::Separator { .. } | FileError::Trailing { .. } => "array",
        };
        Finding {
            severity: Severity::Error,
            field: Cow::Borrowed(""),
            rule,
            text: Cow::Owned(self.to_string()),
            position: self.position(),
        }
    }
}

/// Reads a file record by record. After an error there is no more.
#[derive(Debug)]
pub struct RecordReader<R> {
    window: Window<R>,
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
        RecordReader { window: Window::new(reader), limit: max_record_bytes, layout: Layout::Unknown }
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
        self.window.skip_byte_order_mark()?;
        self.window.skip_blank()?;
        match self.window.peek(0)? {
            None => return Err(FileError::Empty),
            Some(b'[') => {
                self.window.pass(1);
                return Ok(Layout::ArrayBegin);
            }
            Some(b'{') => {}
            Some(_) => return Ok(Layout::Lines),
        }
        let mut scan = Scan::of_value(b'{');
        loop {
            let line_end = memchr::memchr(b'\n', self.window.rest());
            let line = self.window.rest().get(..line_end.unwrap_or(usize::MAX));
            let line = line.unwrap_or(self.window.rest());
            if let Some(end) = scan.find_end(line) {
                return Ok(match self.window.peek_behind_spaces(end, self.limit)? {
                    Some(b'{') => Layout::Objects,
                    _ => Layout::Lines,
                });
            }
            if let Some(line_end) = line_end {
                let last = line.trim_ascii_end().last().copied();
                if scan.is_in_text() {
                    return Ok(Layout::Lines);
                }
                return Ok(match self.window.peek_behind_blank(line_end, self.limit)? {
                    Some(b'{') if last != Some(b'[') => Layout::Lines,
                    Some(_) => Layout::Objects,
                    None => Layout::Lines,
                });
            }
            if self.window.rest().len() > self.limit {
                return Err(self.too_large());
            }
            if !self.window.more()? {
                return Ok(Layout::Lines);
            }
        }
    }

    fn read_line(&mut self) -> Result<Option<RawRecord>, FileError> {
        loop {
            let mut searched = 0;
            let (length, behind) = loop {
                let rest = self.window.rest();
                let unsearched = rest.get(searched..).unwrap_or_default();
                if let Some(newline) = memchr::memchr(b'\n', unsearched) {
                    break (searched + newline, searched + newline + 1);
                }
                searched = rest.len();
                // A line's end may stand behind the last byte that a record can have.
                if searched > self.limit.saturating_add(2) {
                    return Err(self.too_large());
                }
                if !self.window.more()? {
                    break (searched, searched);
                }
            };
            if behind == 0 {
                return Ok(None);
            }
            let line = self.window.rest().get(..length).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.trim_ascii().is_empty() {
                self.window.pass(behind);
                continue;
            }
            if line.len() > self.limit {
                return Err(self.too_large());
            }
            let record = RawRecord { bytes: line.to_vec(), at: self.window.position() };
            self.window.pass(behind);
            return Ok(Some(record));
        }
    }

    /// The next of several objects; what is none is taken to its line's end. The last may lack its
    /// end, and is then refused as a record.
    fn read_object(&mut self) -> Result<Option<RawRecord>, FileError> {
        self.window.skip_blank_and_comments()?;
        match self.window.peek(0)? {
            None => Ok(None),
            Some(b'{') => {
                let end = self.find_end(Scan::of_value(b'{'))?;
                Ok(Some(self.take(end.unwrap_or(self.window.rest().len()))))
            }
            Some(_) => self.read_line(),
        }
    }

    /// The next of an array's elements.
    fn read_element(&mut self) -> Result<Option<RawRecord>, FileError> {
        self.window.skip_blank_and_comments()?;
        match (self.layout, self.window.peek(0)?) {
            (_, None) => return Err(FileError::CutOff { at: self.window.position() }),
            (_, Some(b']')) => return self.finish_array(),
            (Layout::Array, Some(b',')) => {
                self.window.pass(1);
                self.window.skip_blank_and_comments()?;
            }
            (Layout::ArrayBegin, Some(_)) => self.layout = Layout::Array,
            (_, Some(_)) => return Err(FileError::Separator { at: self.window.position() }),
        }
        let first = match self.window.peek(0)? {
            None => return Err(FileError::CutOff { at: self.window.position() }),
            Some(b',' | b']') => return Err(FileError::Separator { at: self.window.position() }),
            Some(first) => first,
        };
        match self.find_end(Scan::of_value(first))? {
            Some(end) => Ok(Some(self.take(end))),
            None => Err(FileError::CutOff { at: self.window.position() }),
        }
    }

    fn finish_array(&mut self) -> Result<Option<RawRecord>, FileError> {
        self.window.pass(1);
        self.window.skip_blank_and_comments()?;
        match self.window.peek(0)? {
            None => Ok(None),
            Some(_) => Err(FileError::Trailing { at: self.window.position() }),
        }
    }

    /// Where the value that begins here ends; `None` if the file ends first.
    fn find_end(&mut self, mut scan: Scan) -> Result<Option<usize>, FileError> {
        loop {
            let end = scan.find_end(self.window.rest());
            if end.unwrap_or(self.window.rest().len()) > self.limit {
                return Err(self.too_large());
            }
            if end.is_some() || !self.window.more()? {
                return Ok(end);
            }
        }
    }

    fn take(&mut self, length: usize) -> RawRecord {
        let bytes = self.window.rest().get(..length).unwrap_or_default();
        let record = RawRecord { bytes: bytes.to_vec(), at: self.window.position() };
        self.window.pass(length);
        record
    }

    fn too_large(&self) -> FileError {
        FileError::TooLarge { at: self.window.position(), limit: self.limit }
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
