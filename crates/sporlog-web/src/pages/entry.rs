//! A record as the person concerned may see it. Nothing that is not shown, or that is still withheld, gets
//! into an [`Entry`]; so pages, exports and raw contents cannot show more than they may.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use chrono::{Days, NaiveDateTime};
use sporlog_ledger::{Error, Log, Result, matches, numbers};
use sporlog_record::Kind;
use sporlog_record::column::Names;
use sporlog_record::kind::{ENVELOPE, EXTRA, Roles};
use sporlog_record::time::micros;

use super::settings::{EMPLOYEE, Embargo, PagesSettings, ShownLog, columns, usual_fields};
use super::texts::calendar;

/// What is shown of one log.
#[derive(Debug, Clone)]
pub struct Visible {
    pub log: Log,
    fields: Vec<&'static str>,
    embargoes: Vec<Embargo>,
}

/// The column that an embargo's topic is compared with.
const TOPIC: &str = "tema";
/// How `leverteData` is stored, which no record shows.
const ENCODING: &str = "leverteDataEncoding";

/// The consent token, and what the token names besides the person: the token is withheld with either.
const TOKEN: &str = "samtykkeToken";
const IN_TOKEN: [&str; 2] = ["mottaker", "leverandoer"];

/// The unit, and the employee: what a list needs of a record besides the columns of its kind's roles.
const LISTED: [&str; 3] = ["BrugerOrganisationEnhedNavn", "BrugerNavn", "performerName"];

impl Visible {
    /// What is shown of `log`; `None` if it is not shown to persons.
    pub fn of(settings: &PagesSettings, log: Log) -> Option<Visible> {
        let ShownLog { fields, employees, .. } =
            settings.log.iter().find(|shown| matches(&shown.name, log.name()))?;
        let kind = log.kind();
        if kind.subject_columns().is_empty() || log.name() == sporlog_intake::access_event::LOG {
            return None;
        }
        let wanted = |field: &&'static str| match fields.is_empty() {
            true => usual_fields(kind).contains(field),
            false => fields.iter().any(|wanted| wanted == field),
        };
        let fields = columns(kind).filter(wanted);
        let fields = fields.filter(|field| *employees || !EMPLOYEE.contains(field)).collect();
        let embargoes = settings.embargo.iter().filter(|embargo| matches(&embargo.log, log.name()));
        let embargoes = embargoes.cloned().collect();
        Some(Visible { log, fields, embargoes })
    }

    /// The key of the text that says to persons what is in the log.
    pub fn description(&self) -> &'static str {
        match self.log.kind() {
            Kind::Disclosure => "about.disclosure",
            Kind::Revision => "about.revision",
            Kind::Auditlog | Kind::Mfa | Kind::Quarantine => "about.auditlog",
        }
    }

    /// Whether all fields of its records are shown. Only then may a person have a proof, which holds them all.
    pub fn is_whole(&self) -> bool {
        columns(self.log.kind()).all(|field| field == ENCODING || self.fields.contains(&field))
    }

    /// The fields that are shown.
    pub fn fields(&self) -> Vec<&'static str> {
        self.fields.iter().copied().filter(|field| *field != ENCODING).collect()
    }

    /// The columns that a list needs. Those that embargoes ask for are among them, whether shown or not.
    pub fn listed(&self) -> Vec<&'static str> {
        let kind = self.log.kind();
        let roles = kind.definition().roles.iter();
        let roles = roles.flat_map(|r| [r.recipient, r.organisation, r.system, r.action, r.ground]);
        let needed = roles.flatten().chain(&LISTED);
        let asked = |name| name == TOPIC || kind.organisation_columns().first() == Some(&name);
        let listed = columns(kind).filter(|name| {
            needed.clone().any(|needed| needed == name) && (self.fields.contains(name) || asked(*name))
        });
        listed.chain(["occurred_at"]).collect()
    }

    /// The columns of a whole record.
    pub fn all(&self) -> Vec<&'static str> {
        let whole = [EXTRA, ENVELOPE].into_iter().filter(|_| self.is_whole());
        ["occurred_at", "origin", "remarks"]
            .into_iter()
            .chain(columns(self.log.kind()))
            .chain(whole)
            .collect()
    }

    /// The records of a batch.
    pub fn entries(&self, batch: &RecordBatch, now: NaiveDateTime) -> Result<Vec<Entry>> {
        let (ids, received) = numbers(batch)?;
        let entry = |row| self.entry(batch, row, ids.value(row).unsigned_abs(), received.value(row), now);
        (0..batch.num_rows()).map(entry).collect()
    }

    fn entry(
        &self,
        batch: &RecordBatch,
        row: usize,
        id: u64,
        received: i64,
        now: NaiveDateTime,
    ) -> Result<Entry> {
        let kind = self.log.kind();
        let text = |name: &str| {
            let texts = batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>())?;
            texts.is_valid(row).then(|| texts.value(row).to_owned())
        };
        let occurred = batch.column_by_name("occurred_at");
        let occurred = occurred.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        let occurred = occurred.filter(|times| times.is_valid(row)).map(|times| times.value(row));
        let mut entry = Entry {
            log: self.log.name().to_owned(),
            kind,
            id,
            received,
            occurred,
            whole: self.is_whole(),
            fields: Vec::new(),
            remarks: None,
            origin: None,
            extra: None,
            envelope: None,
            withheld: Vec::new(),
            until: None,
        };
        let organisation = kind.organisation_columns().first().and_then(|column| text(column));
        let topic = text(TOPIC);
        let mut all = false;
        for embargo in &self.embargoes {
            let meant = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
            let until =
                calendar(occurred.unwrap_or(received)).checked_add_days(Days::new(embargo.days.into()));
            let Some(until) = until.filter(|until| *until > now) else { continue };
            let withheld = |c: &str| {
                embargo.fields.iter().any(|f| f == c || c == TOKEN && IN_TOKEN.contains(&f.as_str()))
            };
            let fields: Vec<_> = columns(kind).filter(|c| withheld(c)).collect();
            let something = embargo.fields.is_empty() || !fields.is_empty();
            if something && meant(&embargo.topic, &topic) && meant(&embargo.organisation, &organisation) {
                entry.until = entry.until.max(Some(until));
                all |= embargo.fields.is_empty();
                entry.withheld.extend(fields);
            }
        }
        if all {
            entry.withheld = columns(kind).collect();
            return Ok(entry);
        }
        let withheld = entry.withheld.clone();
        for name in columns(kind).filter(|name| !withheld.contains(name)) {
            let Some(column) = batch.column_by_name(name).filter(|column| column.is_valid(row)) else {
                continue;
            };
            if !self.fields.contains(&name) || name == ENCODING {
                continue;
            }
            let value = if let Some(texts) = column.as_string_opt::<i32>() {
                Value::Text(texts.value(row).to_owned())
            } else if let Some(bytes) = column.as_binary_opt::<i32>() {
                Value::Bytes {
                    bytes: bytes.value(row).to_vec(),
                    base64: text(ENCODING).as_deref() == Some("base64"),
                }
            } else if let Some(numbers) = column.as_primitive_opt::<Int64Type>() {
                Value::Text(numbers.value(row).to_string())
            } else {
                return Err(Error::Columns(format!("the column '{name}' is of a type that is not shown")));
            };
            entry.fields.push((name, value));
        }
        // Remarks quote values: those about a field go with the field.
        let remarks = text("remarks").and_then(|remarks| serde_json::from_str::<Vec<Remark>>(&remarks).ok());
        entry.remarks = remarks.map(|mut remarks| {
            let shown = |remark: &Remark| {
                remark.field.is_empty()
                    || self.fields.iter().any(|f| *f == remark.field && !withheld.contains(f))
                    || (self.is_whole() && !columns(kind).any(|column| column == remark.field))
            };
            remarks.retain(shown);
            remarks
        });
        entry.origin = text("origin");
        if self.is_whole() && withheld.is_empty() {
            entry.extra = text(EXTRA);
            entry.envelope = text(ENVELOPE);
        }
        Ok(entry)
    }
}

/// A record as it may be seen.
#[derive(Debug, Clone)]
pub struct Entry {
    pub log: String,
    pub kind: Kind,
    pub id: u64,
    /// When Sporlog received it, in microseconds UTC.
    pub received: i64,
    /// When it happened, by the wall clock.
    pub occurred: Option<i64>,
    /// All fields of its log are shown.
    whole: bool,
    fields: Vec<(&'static str, Value)>,
    pub remarks: Option<Vec<Remark>>,
    pub origin: Option<String>,
    pub extra: Option<String>,
    pub envelope: Option<String>,
    /// The fields that are withheld …
    pub withheld: Vec<&'static str>,
    /// … and until when.
    pub until: Option<NaiveDateTime>,
}

/// A field's value.
#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    /// What a text in Base64 holds, or the text itself where it was none.
    Bytes {
        bytes: Vec<u8>,
        base64: bool,
    },
}

/// A remark as it is stored with its record.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
pub struct Remark {
    pub field: String,
    pub rule: String,
}

impl Entry {
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, &Value)> {
        self.fields.iter().map(|(name, value)| (*name, value))
    }

    pub fn value(&self, field: &str) -> Option<&Value> {
        self.fields.iter().find(|(name, _)| *name == field).map(|(_, value)| value)
    }

    pub fn text(&self, field: &str) -> Option<&str> {
        match self.value(field) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn first(&self, fields: &[&str]) -> Option<&str> {
        fields.iter().find_map(|field| self.text(field))
    }

    /// What plays a role in the record.
    fn role(&self, columns: fn(&Roles) -> Names) -> Option<&str> {
        self.first(columns(self.kind.definition().roles.as_ref()?))
    }

    /// The whole record is withheld.
    pub fn is_withheld(&self) -> bool {
        self.until.is_some() && self.fields.is_empty()
    }

    /// Whether the person may have all of it, and so its proof.
    pub fn is_provable(&self) -> bool {
        self.whole && self.until.is_none()
    }

    /// When it happened, or else when it was received.
    pub fn time(&self) -> i64 {
        self.occurred.unwrap_or(self.received)
    }

    /// The number of who got the data or looked at it.
    pub fn organisation(&self) -> Option<&str> {
        self.role(|roles| if roles.recipient.is_empty() { roles.organisation } else { roles.recipient })
    }

    /// The unit within the organisation.
    pub fn unit(&self) -> Option<&str> {
        self.text("BrugerOrganisationEnhedNavn")
    }

    /// What kind of data: a code of *Tema*, a service's name, or an action.
    pub fn topic(&self) -> Option<&str> {
        self.role(|roles| roles.action.get(..1).unwrap_or_default())
    }

    /// On what ground, or for what purpose.
    pub fn ground(&self) -> Option<&str> {
        self.role(|roles| roles.ground)
    }

    /// Which employee, if that is shown.
    pub fn employee(&self) -> Option<&str> {
        self.first(&["BrugerNavn", "performerName"])
    }

    /// The number of the supplier that it went through.
    pub fn supplier(&self) -> Option<&str> {
        self.role(|roles| if roles.recipient.is_empty() { &[] } else { roles.organisation })
    }

    /// The identifier of the system that it went through.
    pub fn system(&self) -> Option<&str> {
        self.text("KalderItSystemInstans")
    }

    /// What the record itself calls the system.
    pub fn system_name(&self) -> Option<&str> {
        self.text("KalderItSystemNavn")
    }
}

/// The current local time, by which embargoes end.
pub fn now() -> NaiveDateTime {
    chrono::Local::now().naive_local()
}

/// The start of a day, in microseconds.
pub fn midnight(date: chrono::NaiveDate) -> i64 {
    micros(date.and_time(chrono::NaiveTime::MIN))
}
