//! What goes wrong. A faulty record is a good one with one thing changed, as suppliers get it
//! wrong: about half of the faults are errors by the spec, which refuse the record, the others
//! remarks, which are stored with it.

use std::ops::Range;

use sporlog_record::Kind;
use sporlog_record::kind::REVISION_COLUMNS;

use crate::chance::Dice;

/// One way of getting a field, or the whole record, wrong.
enum Change {
    /// Puts this in its place; in JSON, with quotation marks where it is to be a string.
    Set(&'static str),
    /// Counts its last digit up by one: a check digit no longer holds.
    Miscount,
    /// Loses its last digit.
    Shorten,
    /// Adds these members to the JSON object.
    Add(&'static str),
    /// Cuts the line off in the middle.
    CutOff,
}
use Change::{Add, CutOff, Miscount, Set, Shorten};

/// The field concerned, and what becomes of it.
type Fault = (&'static str, Change);

/// Faults of a revision log. They stay within their field, for a row of another width would refuse
/// the whole file.
const ROW: [Fault; 14] = [
    // Errors.
    ("TransaktionsId", Set("")),
    ("TransaktionsTid", Set("31-FEB-2024 04.03.47.056000000")),
    ("TransaktionsTid", Set("i går kl. 9.15")),
    ("BrugerId", Set("")),
    ("KalderOrganisation", Shorten),
    ("KalderOrganisation", Set("Aarhus Kommune")),
    ("KalderItSystemInstans", Set("")),
    // Remarks.
    ("TransaktionsTid", Set("01-JAN-2099 00.00.00.000000000")),
    ("BrugerId", Set("YK16")),
    ("KalderOrganisation", Miscount),
    ("KalderItSystemInstans", Set("YDELSESBLIK-PROD-1")),
    ("KalderIP", Set("10.20.300.4")),
    ("KalderIP", Set("sagsbehandler-pc-17")),
    ("BorgerId", Set("710101808")),
];

/// Faults of a disclosure.
const DISCLOSURE: [Fault; 16] = [
    // Errors.
    ("person", Shorten),
    ("person", Set("1818075")),
    ("mottaker", Set("null")),
    ("tema", Set("\"SYKE\"")),
    ("behandlingsGrunnlag", Set("\"\"")),
    ("uthentingsTidspunkt", Set("\"19.10.2018 12:24\"")),
    ("leverteData", Set("null")),
    ("", CutOff),
    // Remarks.
    ("person", Miscount),
    ("mottaker", Miscount),
    ("uthentingsTidspunkt", Set("\"1970-01-01T00:00:00\"")),
    ("uthentingsTidspunkt", Set("\"2099-12-31T23:59:59.999\"")),
    ("leverteData", Set("\"{ikke base64}\"")),
    ("leverteData", Set("\"PHhtbD5pa2tlIGpzb248L3htbD4=\"")),
    ("samtykkeToken", Set("\"mangler\"")),
    ("", Add("\"saksnummer\":\"2024/118\",")),
];

/// Faults of an MFA log.
const MFA: [Fault; 6] = [
    // Errors.
    ("createdTts", Set("\"26-07-2022 06:50\"")),
    ("status", Set("17")),
    ("", CutOff),
    // Remarks.
    ("createdTts", Set("null")),
    ("pushTts", Set("\"26-07-2022 06:50\"")),
    ("", Add("\"nodeId\":2,")),
];

/// Faults of an audit log.
const AUDITLOG: [Fault; 8] = [
    // Errors.
    ("personId", Set("\"tre hundrede\"")),
    ("tts", Set("\"26-07-2022 06:50\"")),
    ("logAction", Set("17")),
    ("", CutOff),
    // Remarks.
    ("cpr", Shorten),
    ("detailType", Set("\"YAML\"")),
    ("tts", Set("\"2099-12-31T23:59:59\"")),
    ("", Add("\"nodeId\":3,")),
];

/// Says which records are struck, and by what; from dice of its own, so that nothing else changes.
pub(crate) struct Faults {
    dice: Dice,
    share: f64,
}

impl Faults {
    /// Strikes a `share` of the records.
    pub(crate) fn new(seed: u64, share: f64) -> Self {
        Faults { dice: Dice::new(seed, 1), share }
    }

    /// Whether the next record is struck.
    pub(crate) fn strike(&mut self) -> bool {
        self.share > 0.0 && self.dice.unit() < self.share
    }
}

/// Gives the record at the end of `out`, which begins at `start`, one fault.
pub(crate) fn spoil(kind: Kind, out: &mut Vec<u8>, start: usize, faults: &mut Faults) {
    let choices: &[Fault] = match kind {
        Kind::Revision | Kind::Quarantine => &ROW,
        Kind::Disclosure => &DISCLOSURE,
        Kind::Auditlog => &AUDITLOG,
        Kind::Mfa => &MFA,
    };
    let (name, change) = faults.dice.pick(choices);
    let range = match (change, REVISION_COLUMNS.iter().position(|column| column == name)) {
        (Add(_) | CutOff, _) => Some(0..0),
        (_, Some(column)) if kind == Kind::Revision => csv_field(&out[start..], column),
        _ => json_value(&out[start..], name),
    };
    if let Some(range) = range {
        apply(out, start, range, change);
    }
}

fn apply(out: &mut Vec<u8>, start: usize, range: Range<usize>, change: &Change) {
    let field = start + range.start..start + range.end;
    let last_digit = out[field.clone()].iter().rposition(u8::is_ascii_digit).map(|at| field.start + at);
    match (change, last_digit) {
        (Set(text), _) => {
            out.splice(field, text.bytes());
        }
        (Miscount, Some(at)) => out[at] = if out[at] == b'9' { b'0' } else { out[at] + 1 },
        (Shorten, Some(at)) => {
            out.remove(at);
        }
        (Miscount | Shorten, None) => {}
        (Add(members), _) => {
            out.splice(start + 1..start + 1, members.bytes());
        }
        (CutOff, _) => {
            let mut end = start + (out.len() - start) / 2;
            // Not within a character: the line is broken, its encoding is not.
            while out[end] & 0xc0 == 0x80 {
                end -= 1;
            }
            out.truncate(end);
            out.push(b'\n');
        }
    }
}

/// Where a field's text lies in a row whose fields are all quoted.
fn csv_field(row: &[u8], column: usize) -> Option<Range<usize>> {
    let mut begin = 1;
    let mut at = 1;
    let mut field = 0;
    while at < row.len() {
        if row[at] != b'"' {
            at += 1;
        } else if row.get(at + 1) == Some(&b'"') {
            at += 2;
        } else if field == column {
            return Some(begin..at);
        } else {
            field += 1;
            // Past the quotation mark, the comma, and the next field's quotation mark.
            begin = at + 3;
            at = begin;
        }
    }
    None
}

/// Where a member's value lies in a JSON object without white space, quotation marks included.
fn json_value(line: &[u8], name: &str) -> Option<Range<usize>> {
    // Within a string the closing quotation mark would be escaped, and so does not match.
    let key = format!("\"{name}\":");
    let begin = line.windows(key.len()).position(|window| window == key.as_bytes())? + key.len();
    let mut at = begin;
    if line.get(at) != Some(&b'"') {
        let length = line[at..].iter().position(|byte| matches!(byte, b',' | b'}'))?;
        return Some(begin..begin + length);
    }
    loop {
        at += 1;
        match line.get(at)? {
            b'\\' => at += 1,
            b'"' => return Some(begin..at + 1),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_past_doubled_quotation_marks() {
        let row = "\"a\",\"{\"\"x\"\",\"\"y\"\"}\",\"\",\"z\"\n";
        let field = |column| csv_field(row.as_bytes(), column).map(|range| &row[range]);
        assert_eq!(field(0), Some("a"));
        assert_eq!(field(1), Some("{\"\"x\"\",\"\"y\"\"}"));
        assert_eq!(field(2), Some(""));
        assert_eq!(field(3), Some("z"));
        assert_eq!(field(4), None);
    }

    #[test]
    fn values_are_found_past_escapes() {
        let line = r#"{"a":"say \"b\":1","b":null,"c":"x\\","d":17}"#;
        let value = |name| json_value(line.as_bytes(), name).map(|range| &line[range]);
        assert_eq!(value("a"), Some(r#""say \"b\":1""#));
        assert_eq!(value("b"), Some("null"));
        assert_eq!(value("c"), Some(r#""x\\""#));
        assert_eq!(value("d"), Some("17"));
        assert_eq!(value("e"), None);
    }
}
