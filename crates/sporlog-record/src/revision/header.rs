//! A delivery's header: which column stands where.
//!
//! Names are matched as people and scanners write them: without regard to case, and with `I`, `l`,
//! `1` and `|` taken for one another, since the printed spec itself has `Transaktionsld` for
//! `TransaktionsId`. What is wrong with a file as a whole (its character set, its separator)
//! shows here first, so this is also where it is told in plain words.

use std::borrow::Cow;

use encoding_rs::WINDOWS_1252;

use super::refusal::{self, FileRefusal, START, refuse};
use super::scan::{self, Cell, scan_record};
use crate::kind::REVISION_COLUMNS;
use crate::rules::Encoding;
use crate::{Finding, Position, Rules};

/// How many of [`REVISION_COLUMNS`], from the first on, a file must have.
const REQUIRED: usize = 5;

/// Names of unknown columns that a remark lists, and how much of each.
const NAMES_SHOWN: usize = 20;
const NAME_SHOWN: usize = 60;

/// Longest name of an unknown column: it is stored with each row that has a value there.
const NAME_BYTES: usize = 128;

/// A file's first record, understood.
#[derive(Debug, Clone)]
pub struct Header {
    separator: u8,
    encoding: Encoding,
    /// The number of each known column in the file, in the order of [`REVISION_COLUMNS`].
    places: [Option<usize>; REVISION_COLUMNS.len()],
    /// The unknown columns: their numbers, and their names as given.
    unknown: Vec<(usize, String)>,
    width: usize,
    body: usize,
    first_line: u64,
    unquoted: bool,
    remarks: Vec<Finding>,
}

/// Files that are often delivered in place of CSV, and how they begin.
const ARCHIVES: [(&[u8], &str); 3] = [
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook"),
    (b"\xfd7zXZ\0", "a file packed with xz"),
    (b"BZh", "a file packed with bzip2"),
];

impl Header {
    /// A header must end within so many bytes.
    pub const MAX_BYTES: usize = 1 << 20;

    /// Reads the header off the first bytes of a file.
    ///
    /// `start` is the whole file, or at least its first [`Header::MAX_BYTES`].
    pub fn parse(start: &[u8], rules: &Rules) -> Result<Header, FileRefusal> {
        let separator = separator(rules.revision.separator)?;
        if start.starts_with(&[0xff, 0xfe]) || start.starts_with(&[0xfe, 0xff]) {
            return Err(refuse("encoding", START, "the file is in UTF-16: deliver it in UTF-8"));
        }
        if let Some((_, format)) = ARCHIVES.iter().find(|(begin, _)| start.starts_with(begin)) {
            let text = format!("this is {format}: deliver the CSV itself, or packed with gzip or Zstandard");
            return Err(refuse("encoding", START, text));
        }
        let (mut at, encoding) = if start.starts_with(b"\xef\xbb\xbf") {
            (3, Encoding::Utf8) // whatever the supplier is configured for: the file says so itself
        } else {
            (0, rules.revision.encoding)
        };
        let mut line = 1;
        while let Some(next) = scan::blank_line(start, at) {
            (at, line) = (next, line + 1);
        }
        if at == start.len() {
            return Err(refuse("empty", START, "the file is empty: not even a header is in it"));
        }
        let position = Position { line, column: 1 };
        let (end, complete) = record_end(start, at);
        let raw = start.get(at..end).unwrap_or_default();
        let whole = complete || start.len() < Self::MAX_BYTES;
        let text = decode(raw, encoding, position, whole)?;
        check_first_line(&text, position)?;
        check_separator(&text, separator, position)?;
        let limit = rules.revision.max_columns;
        if memchr::memchr_iter(separator, text.as_bytes()).take(limit).count() == limit {
            // Separators in quoted names count as well here: a bound, exact enough before parsing.
            let text = format!("the header has more than {limit} columns");
            return Err(refuse("columns", position, text));
        }
        if !whole {
            let text = format!(
                "no line ends within the first {} bytes: a header is expected there, on a line \
                 of its own",
                Self::MAX_BYTES
            );
            return Err(refuse("header", position, text));
        }

        let bytes = text.as_bytes();
        let (mut cells, mut unquoted) = (Vec::new(), false);
        let scanned = scan_record(bytes, 0, separator, &mut cells, |_| unquoted = true);
        let end_of = scanned.map_err(|(broken, field)| {
            let column = cells.len() as u64 + 1;
            refusal::quotes(broken, bytes, 0, field, line, column)
        })?;
        if memchr::memchr(b'\r', bytes.get(..end_of.text).unwrap_or_default()).is_some() {
            let text = "lines end with CR alone: end them with CR LF or LF";
            return Err(refuse("line-end", position, text));
        }
        let names = cells.iter().map(|cell| name(&text, *cell)).collect();

        let mut header = Header {
            separator,
            encoding,
            places: [None; REVISION_COLUMNS.len()],
            unknown: Vec::new(),
            width: cells.len(),
            body: end,
            first_line: line + scan::count_lines(raw),
            unquoted,
            remarks: Vec::new(),
        };
        header.place(names, position)?;
        Ok(header)
    }

    /// Where the first row begins: so many bytes from the file's beginning.
    pub fn body(&self) -> usize {
        self.body
    }

    /// The line on which the first row begins.
    pub fn first_line(&self) -> u64 {
        self.first_line
    }

    /// How many columns the file has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether a column's name was not in quotes.
    pub fn unquoted(&self) -> bool {
        self.unquoted
    }

    /// What is doubtful about the header: its unknown columns.
    pub fn remarks(&self) -> &[Finding] {
        &self.remarks
    }

    pub(super) fn separator(&self) -> u8 {
        self.separator
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The number, from 0, that a known column has in the file.
    pub(super) fn places(&self) -> &[Option<usize>; REVISION_COLUMNS.len()] {
        &self.places
    }

    /// The name of the column that has this number in the file, as findings give it.
    pub(super) fn column(&self, number: usize) -> Cow<'static, str> {
        let known = self.places.iter().position(|place| *place == Some(number));
        let unknown =
            || self.unknown.iter().find(|(place, _)| *place == number).map(|(_, name)| shown(name).into());
        known.map(|known| REVISION_COLUMNS[known].into()).or_else(unknown).unwrap_or_default()
    }

    pub(super) fn unknown(&self) -> &[(usize, String)] {
        &self.unknown
    }

    /// Puts each name in its place.
    fn place(&mut self, names: Vec<String>, position: Position) -> Result<(), FileRefusal> {
        let known: Vec<String> = REVISION_COLUMNS.iter().map(|name| folded(name)).collect();
        let mut seen = std::collections::HashSet::new();
        let mut twice = Vec::new();
        for (number, given) in names.into_iter().enumerate() {
            let column = number as u64 + 1;
            let mut name = given.trim().to_owned();
            if name.is_empty() {
                name = format!("column {column}"); // such as spreadsheets leave behind the last
            }
            let folded = folded(&name);
            let known = known.iter().position(|known| *known == folded);
            if !seen.insert(folded) {
                let text = format!("column '{}' is there twice", shown(&name));
                twice.push(Finding::error("duplicate", text, Position { column, ..position }));
            }
            match known.and_then(|known| self.places.get_mut(known)) {
                Some(place) => *place = Some(number),
                None => self.unknown.push((number, name)),
            }
        }

        // A file without a header begins with a row, and its fields must not be shown to anyone.
        if self.places.iter().all(Option::is_none) {
            let text = "the first record is no header: none of the columns' names is in it";
            return Err(refuse("header", position, text));
        }
        if let Some((number, name)) = self.unknown.iter().find(|(_, name)| name.len() > NAME_BYTES) {
            let position = Position { column: *number as u64 + 1, ..position };
            let text = format!("this column's name is longer than {NAME_BYTES} bytes: {}", shown(name));
            return Err(refuse("header", position, text));
        }
        if !twice.is_empty() {
            twice.truncate(NAMES_SHOWN);
            return Err(FileRefusal { findings: twice });
        }
        let missing: Vec<&str> = REVISION_COLUMNS
            .iter()
            .zip(&self.places)
            .take(REQUIRED)
            .filter(|(_, place)| place.is_none())
            .map(|(name, _)| *name)
            .collect();
        if !missing.is_empty() {
            let text = format!("required columns are missing: {}", missing.join(", "));
            return Err(refuse("required", position, text));
        }
        if let Some((first, _)) = self.unknown.first() {
            let names = self.unknown.iter().take(NAMES_SHOWN);
            let mut list = names.map(|(_, name)| shown(name)).collect::<Vec<_>>().join(", ");
            if self.unknown.len() > NAMES_SHOWN {
                list += &format!(" and {} more", self.unknown.len() - NAMES_SHOWN);
            }
            let text = format!("columns that the specification does not know are kept: {list}");
            let position = Position { column: *first as u64 + 1, ..position };
            self.remarks.push(Finding::remark("unknown-column", text, position));
        }
        Ok(())
    }
}

/// The separator as a byte.
fn separator(configured: char) -> Result<u8, FileRefusal> {
    match u8::try_from(configured) {
        Ok(byte) if byte.is_ascii() && !matches!(byte, b'"' | b'\r' | b'\n' | 0) => Ok(byte),
        _ => {
            let text =
                format!("{configured:?} cannot be a separator: set separator to a comma or a semicolon");
            Err(refuse("separator", START, text))
        }
    }
}

/// Behind the record that begins at `at`, its line's end included, by the count of quotes; and
/// whether a line's end was found.
fn record_end(bytes: &[u8], at: usize) -> (usize, bool) {
    let mut quoted = false;
    for offset in memchr::memchr2_iter(b'"', b'\n', bytes.get(at..).unwrap_or_default()) {
        if bytes.get(at + offset) == Some(&b'"') {
            quoted = !quoted;
        } else if !quoted {
            return (at + offset + 1, true);
        }
    }
    (bytes.len(), false)
}

/// The header's text; `whole` is false if its end lies beyond the bytes at hand.
fn decode(raw: &[u8], encoding: Encoding, position: Position, whole: bool) -> Result<String, FileRefusal> {
    if memchr::memchr(0, raw).is_some() {
        let text = "the header holds NUL bytes: the file is in UTF-16, or is no text; \
                    deliver it as CSV in UTF-8";
        return Err(refuse("nul", position, text));
    }
    match encoding {
        Encoding::Latin1 => Ok(decode_latin1(raw).into_owned()),
        Encoding::Utf8 => match std::str::from_utf8(raw) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) if !whole && error.error_len().is_none() => {
                Ok(String::from_utf8_lossy(raw).into_owned())
            }
            Err(error) => {
                let rest = raw.get(error.valid_up_to()..).unwrap_or_default();
                Err(refusal::not_utf8(position, rest))
            }
        },
    }
}

/// The text of bytes in ISO 8859-1, which the WHATWG reads as Windows-1252. The five bytes that Windows-1252 does not
/// define are control characters.
pub(super) fn decode_latin1(bytes: &[u8]) -> Cow<'_, str> {
    WINDOWS_1252.decode_without_bom_handling(bytes).0
}

/// The bytes that [`decode_latin1`] made this text of.
pub(super) fn encode_latin1(text: &str) -> Vec<u8> {
    WINDOWS_1252.encode(text).0.into_owned()
}

/// Refuses the line by which spreadsheets are told the separator.
fn check_first_line(text: &str, position: Position) -> Result<(), FileRefusal> {
    let first = text.trim_end().trim_matches('"').to_ascii_lowercase();
    if first.strip_prefix("sep=").is_some_and(|separator| separator.chars().count() <= 1) {
        let text = "the file begins with the line 'sep=', which is for spreadsheets: leave this line out, so that \
                    the header is the first line";
        return Err(refuse("header", position, text));
    }
    Ok(())
}

/// Tells a file with the other separator from one whose header is merely short of columns.
fn check_separator(text: &str, separator: u8, position: Position) -> Result<(), FileRefusal> {
    let found = |byte: u8| memchr::memchr(byte, text.as_bytes()).is_some();
    let text = match separator {
        _ if found(separator) => return Ok(()),
        b',' if found(b';') => {
            "the file has semicolons between its columns, and a comma is expected: \
             deliver it with commas, or have separator = \";\" set for this supplier"
        }
        b';' if found(b',') => {
            "the file has commas between its columns, and a semicolon is expected from this \
             supplier: deliver it with semicolons, or have separator = \",\" set"
        }
        _ if found(b'\t') => "the file has tabs between its columns: deliver it with commas",
        _ => return Ok(()),
    };
    Err(refuse("separator", position, text))
}

fn name(text: &str, cell: Cell) -> String {
    let name = text.get(cell.start()..cell.end()).unwrap_or_default();
    if cell.is_escaped() { name.replace("\"\"", "\"") } else { name.to_owned() }
}

/// A name as names are compared.
fn folded(name: &str) -> String {
    let fold = |c| if matches!(c, 'l' | '1' | '|') { 'i' } else { c };
    name.chars().flat_map(char::to_lowercase).map(fold).collect()
}

/// A name as a message shows it.
fn shown(name: &str) -> String {
    let mut shown: String = name.chars().take(NAME_SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    crate::identifier::mask_text(&shown).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\",\"KalderOrganisation\",\"KalderItSystemInstans\"";

    fn parse(text: impl AsRef<[u8]>) -> Result<Header, Finding> {
        Header::parse(text.as_ref(), &Rules::default()).map_err(|refusal| {
            assert_eq!(refusal.findings.len(), 1);
            refusal.findings[0].clone()
        })
    }

    #[track_caller]
    fn refused(text: impl AsRef<[u8]>, rule: &str, words: &str) {
        let finding = parse(text).unwrap_err();
        assert_eq!(finding.rule, rule, "{finding}");
        assert!(finding.text.contains(words), "{finding}");
    }

    #[test]
    fn the_printed_names_are_understood() {
        // As tables 1 and 2 of the spec have them, letters misread and all.
        let names = "Transaktionsld,TransaktionsTid,Brugerld,KalderOrganisation,KalderltSystemInstans,\
            Logld,CallersServiceCallldentifier,ModtagerAftaleld,Parametre,KaldtServiceld,KalderIP,\
            BrugerNavn,kalderltSystemNavn,ServiceNavn,Note,Borgerld,Sagld,Partld,Opgaveld,\
            BrugerKalderOrganisationEnhedld,BrugerOrganisationEnhedNavn,SvarReaktion,ServiceAftaleUUID";
        let header = parse(names).unwrap();
        let expected: Vec<_> = (0..23).map(Some).collect();
        assert_eq!(header.places()[..], expected[..]);
        assert!(header.remarks().is_empty());
        assert!(header.unquoted());
        assert!(
            parse("TRANSAKTIONSID,transaktionstid,BRUGER|D,kalderorganisation,Kalder1tSystemInstans").is_ok()
        );
    }

    #[test]
    fn order_does_not_matter_and_unknown_columns_are_kept() {
        let header = parse(format!("\u{feff}\"Region\",{HEADER},\"\"\r\nrow")).unwrap();
        assert_eq!(header.width(), 7);
        assert_eq!(header.places()[0], Some(1));
        assert_eq!(header.unknown(), [(0, "Region".to_owned()), (6, "column 7".to_owned())]);
        assert_eq!(header.remarks().len(), 1);
        assert_eq!(
            header.remarks()[0].to_string(),
            "1:1: remark -: columns that the specification does not know are kept: Region, column 7"
        );
        assert_eq!(header.body(), 3 + 9 + HEADER.len() + 3 + 2);
        assert_eq!(header.first_line(), 2);
        assert!(!header.unquoted());
    }

    #[test]
    fn lines_before_and_within_the_header_are_counted() {
        let header = parse(format!("\r\n\n{HEADER},\"two\nlines\"\nrow")).unwrap();
        assert_eq!(header.first_line(), 5);
        let header = parse(HEADER).unwrap();
        assert_eq!((header.body(), header.first_line()), (HEADER.len(), 1));
    }

    #[test]
    fn files_that_are_no_such_csv() {
        refused("", "empty", "empty");
        refused("\u{feff}\r\n\n", "empty", "empty");
        refused(
            HEADER.replace(',', ";"),
            "separator",
            "semicolons between its columns, and a comma is expected",
        );
        refused(HEADER.replace(',', "\t"), "separator", "tabs");
        for line in ["sep=,\r\n", "SEP=;\n", "\"sep=,\"\n", "\u{feff}sep=\t\n"] {
            refused(format!("{line}{HEADER}"), "header", "'sep=', which is for spreadsheets");
        }
        refused(b"\xff\xfe\"\0T\0", "encoding", "UTF-16");
        refused(
            b"PK\x03\x04\x14\0",
            "encoding",
            "a ZIP archive or an Excel workbook: deliver the CSV itself",
        );
        refused(b"\xfd7zXZ\0\0", "encoding", "xz");
        refused(b"BZh91AY", "encoding", "bzip2");
        refused(HEADER.replace("Id", "I\0d"), "nul", "NUL");
        let latin1 = [HEADER.as_bytes(), b",\"Bem\xe6rkning\"\n"].concat();
        refused(&latin1, "encoding", "ISO 8859-1: deliver it in UTF-8, or have encoding");
        refused(format!("{HEADER},\"Note\nrow,row\nrow"), "quotes", "never closed");
        refused(format!("{HEADER},\"Note\"x\n"), "quotes", "closing quote");
        refused(format!("{HEADER}\rrow\rrow"), "quotes", "closing quote");
        refused(format!("{}\rrow\rrow", HEADER.replace('"', "")), "line-end", "CR alone");
        refused("\"0101018081\",\"x\",\"y\"\n", "header", "no header");
        refused(format!("{HEADER},{}", "x".repeat(129)), "header", "longer than 128 bytes: xxx");
        refused("x".repeat(Header::MAX_BYTES), "header", "no line ends");
    }

    #[test]
    fn columns_that_are_missing_double_or_too_many() {
        refused(
            "BrugerId,TransaktionsId\n",
            "required",
            "TransaktionsTid, KalderOrganisation, KalderItSystemInstans",
        );
        refused(format!("{HEADER},Transaktionsld"), "duplicate", "'Transaktionsld' is there twice");
        refused(format!("{HEADER},Region,region"), "duplicate", "'region'");
        let many: Vec<String> = (0..100_000).map(|n| format!("\"c{n}\"")).collect();
        refused(many.join(","), "columns", "more than 1000");
    }

    #[test]
    fn another_separator_and_character_set_where_configured() {
        let mut rules = Rules::default();
        rules.revision.separator = ';';
        rules.revision.encoding = Encoding::Latin1;
        let text = [HEADER.replace(',', ";").as_bytes(), b";Bem\xe6rkning\n"].concat();
        let header = Header::parse(&text, &rules).unwrap();
        assert_eq!(header.unknown(), [(5, "Bemærkning".to_owned())]);
        let refusal = Header::parse(HEADER.as_bytes(), &rules).unwrap_err();
        assert!(refusal.to_string().contains("commas"), "{refusal}");
        rules.revision.separator = '"';
        assert_eq!(Header::parse(&text, &rules).unwrap_err().findings[0].rule, "separator");
        rules.revision.separator = 'æ';
        assert!(Header::parse(&text, &rules).is_err());
    }
}
