//! How one row is judged: which of its fields refuse it, and which are only remarked on.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::header::Header;
use crate::identifier::{cpr, cvr, is_ip_or_integer, is_uuid, mask_text};
use crate::kind::REVISION_COLUMNS;
use crate::time::{self, TimeError};
use crate::{Finding, Position, Rules};

const TRANSAKTIONS_ID: usize = 0;
const TRANSAKTIONS_TID: usize = 1;
const BRUGER_ID: usize = 2;
const KALDER_ORGANISATION: usize = 3;
const KALDER_IT_SYSTEM_INSTANS: usize = 4;
const KALDER_IP: usize = 10;
const BORGER_ID: usize = 15;

/// The most characters of a `TransaktionsId` that a finding shows.
const LONGEST_ID: usize = 100;

/// The columns that are no texts, and so need no quotes.
pub(super) const NO_TEXTS: [usize; 3] = [TRANSAKTIONS_TID, KALDER_ORGANISATION, KALDER_IP];

/// Something doubtful that a row can be remarked on for. Its text names no value, so that each
/// combination is written only once.
struct Remark {
    column: usize,
    rule: &'static str,
    text: &'static str,
}

/// Every remark that a row can have; a row's remarks are a set of these, one bit for each.
const REMARKS: [Remark; 6] = [
    Remark { column: TRANSAKTIONS_TID, rule: "future", text: "the time lies in the future" },
    Remark { column: BRUGER_ID, rule: "uuid", text: "this is not a UUID" },
    Remark {
        column: KALDER_ORGANISATION,
        rule: "check-digit",
        text: "the check digit of this CVR number does not match",
    },
    Remark { column: KALDER_IT_SYSTEM_INSTANS, rule: "uuid", text: "this is not a UUID" },
    Remark { column: KALDER_IP, rule: "ip", text: "this is neither an IPv4 or IPv6 address nor an integer" },
    Remark {
        column: BORGER_ID,
        rule: "cpr",
        text: "this is neither 10 digits nor a masked CPR number such as 2302XX22XX",
    },
];

const FUTURE: u8 = 1;
const USER_NO_UUID: u8 = 1 << 1;
const CVR_CHECK_DIGIT: u8 = 1 << 2;
const SYSTEM_NO_UUID: u8 = 1 << 3;
const NO_IP: u8 = 1 << 4;
const NO_CPR: u8 = 1 << 5;

/// A set of [`REMARKS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RemarkSet(u8);

impl RemarkSet {
    /// How many there are.
    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// As the column `remarks` holds them: a JSON array, or nothing.
    pub(super) fn json(self) -> Option<&'static str> {
        static TEXTS: LazyLock<Vec<String>> =
            LazyLock::new(|| (0..1 << REMARKS.len()).map(|bits| RemarkSet(bits).build_json()).collect());
        if self.0 == 0 { None } else { TEXTS.get(usize::from(self.0)).map(String::as_str) }
    }

    fn build_json(self) -> String {
        let one = |remark: &Remark| {
            let field = REVISION_COLUMNS[remark.column];
            format!(r#"{{"field":"{field}","rule":"{}","text":"{}"}}"#, remark.rule, remark.text)
        };
        format!("[{}]", self.iter().map(one).collect::<Vec<_>>().join(","))
    }

    fn iter(self) -> impl Iterator<Item = &'static Remark> {
        REMARKS.iter().enumerate().filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, r)| r)
    }

    /// As findings about a row that begins on this line.
    pub(super) fn findings(self, header: &Header, line: u64) -> impl Iterator<Item = Finding> {
        self.iter().map(move |remark| {
            let position = position(header, remark.column, line);
            Finding::remark(remark.rule, remark.text, position).in_field(REVISION_COLUMNS[remark.column])
        })
    }
}

/// What a row came to.
pub(super) struct Verdict {
    /// `TransaktionsTid`, if it could be read.
    pub(super) occurred_at: Option<i64>,
    pub(super) remarks: RemarkSet,
    /// What refuses the row; empty for one that is accepted.
    pub(super) errors: Vec<Finding>,
}

/// Judges one row after the other.
pub(super) struct Judge<'a> {
    header: &'a Header,
    now: i64,
    /// The last values found to be in order: these seldom change from one row to the next.
    organisation: Vec<u8>,
    system: Vec<u8>,
    address: Vec<u8>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(header: &'a Header, rules: &Rules) -> Self {
        Judge {
            header,
            now: rules.now.and_utc().timestamp_micros(),
            organisation: Vec::new(),
            system: Vec::new(),
            address: Vec::new(),
        }
    }

    /// Judges the row that begins on `line`; `field` gives the text of a column by its number in
    /// the file.
    #[inline]
    pub(super) fn judge<'t>(&mut self, line: u64, field: impl Fn(usize) -> Cow<'t, str>) -> Verdict {
        let header = self.header;
        let places = header.places();
        let value = |column: usize| places[column].map(&field).unwrap_or_default();
        let mut errors = Vec::new();
        let mut refuse = |column: usize, rule: &'static str, text: String| {
            let error = Finding::error(rule, text, position(header, column, line));
            errors.push(error.in_field(REVISION_COLUMNS[column]));
        };
        let required = || "this field is required, and it is empty".to_owned();
        let mut remarks = 0;

        if value(TRANSAKTIONS_ID).is_empty() {
            refuse(TRANSAKTIONS_ID, "required", required());
        }
        let occurred_at = match time::parse_local(&value(TRANSAKTIONS_TID)) {
            Ok(micros) => {
                if micros > self.now {
                    remarks |= FUTURE;
                }
                Some(micros)
            }
            Err(TimeError::Empty) => {
                refuse(TRANSAKTIONS_TID, "required", required());
                None
            }
            Err(error) => {
                let error = match error {
                    TimeError::Format => "this is not written as a time".to_owned(),
                    error => error.to_string(),
                };
                let text = format!(
                    "{error}: write 10-NOV-2021 04.03.47.056000000, 2021-11-10T04:03:47.056, \
                     or a date alone"
                );
                refuse(TRANSAKTIONS_TID, "time", text);
                None
            }
        };
        let user = value(BRUGER_ID);
        if user.is_empty() {
            refuse(BRUGER_ID, "required", required());
        } else if !is_uuid(user.as_bytes()) {
            remarks |= USER_NO_UUID;
        }
        let system = value(KALDER_IT_SYSTEM_INSTANS);
        if system.is_empty() {
            refuse(KALDER_IT_SYSTEM_INSTANS, "required", required());
        } else if system.as_bytes() != self.system {
            if is_uuid(system.as_bytes()) {
                remember(&mut self.system, &system);
            } else {
                remarks |= SYSTEM_NO_UUID;
            }
        }
        let organisation = value(KALDER_ORGANISATION);
        if organisation.is_empty() {
            refuse(KALDER_ORGANISATION, "required", required());
        } else if organisation.as_bytes() != self.organisation {
            if !cvr::is_plain(&organisation) {
                let text = "a CVR number of exactly 8 digits is expected".to_owned();
                refuse(KALDER_ORGANISATION, "digits", text);
            } else if cvr::is_valid(&organisation) {
                remember(&mut self.organisation, &organisation);
            } else {
                remarks |= CVR_CHECK_DIGIT;
            }
        }
        let address = value(KALDER_IP);
        if !address.is_empty() && address.as_bytes() != self.address {
            if is_ip_or_integer(&address) {
                remember(&mut self.address, &address);
            } else {
                remarks |= NO_IP;
            }
        }
        let citizen = value(BORGER_ID);
        if !citizen.is_empty() && !cpr::is_masked_or_plain(&citizen) {
            remarks |= NO_CPR;
        }
        Verdict { occurred_at, remarks: RemarkSet(remarks), errors }
    }
}

/// The `TransaktionsId` of a row, as findings show it. In a row whose columns have shifted, a personal number may stand
/// there.
pub(super) fn transaction_id<'t>(
    header: &Header,
    field: impl FnOnce(usize) -> Cow<'t, str>,
) -> Option<String> {
    let id = header.places()[TRANSAKTIONS_ID].map(field).filter(|id| !id.is_empty())?;
    let id: String = id.chars().take(LONGEST_ID).collect();
    Some(if is_uuid(id.as_bytes()) { id } else { mask_text(&id).into_owned() })
}

fn remember(known: &mut Vec<u8>, value: &str) {
    known.clear();
    known.extend_from_slice(value.as_bytes());
}

fn position(header: &Header, column: usize, line: u64) -> Position {
    let place = header.places().get(column).copied().flatten();
    Position { line, column: place.map_or(1, |place| place as u64 + 1) }
}
