//! The record kinds, and all that is known of their columns.
//!
//! Each kind has a file of its own with its [`Definition`], and with the rules by which JSON records are judged. Whoever
//! stores, indexes or searches records asks the definition, and knows no column of a kind by its name; the pages and
//! the APIs of single kinds do.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

use crate::Rules;
use crate::column::{Column, Names, Values};
use crate::json::fields::Fields;
use crate::json::notes::Notes;

mod auditlog;
mod disclosure;
mod mfa;
pub mod quarantine;
mod revision;
mod source_id;

/// What a log's records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sporingslogg: what was handed out about a person, to whom, when and on what ground.
    Disclosure,
    /// Fælles Revisionslog: which citizen a member of staff looked up, through which system.
    Revision,
    /// OS2faktor Login's audit log; also Sporlog's own log of who read what.
    Auditlog,
    /// OS2faktor Login's MFA log: log-ins with a second factor.
    Mfa,
    /// What was refused and why, and what became of it (`action`).
    Quarantine,
}

/// All that is known of the columns of one kind.
#[derive(Debug)]
pub struct Definition {
    /// The kind's name, as commands and configuration spell it.
    pub name: &'static str,
    /// How records of this kind are delivered.
    pub format: Format,
    /// The columns that only this kind has, in the order of the specification.
    pub columns: &'static [Column],
    /// What the columns mean; `None` if the records are no events.
    pub roles: Option<Roles>,
    /// The columns that say which organisations a record is of: whose employee acted, or who was given the data.
    /// Whoever is bounded to certain organisations sees the records that name one of them in any of these columns.
    pub organisations: Names,
    /// The columns that tell that two records are the same one, delivered twice: the system that the record is of,
    /// and its ids in that system, of which the first that has a value counts. None if records of the kind are never
    /// compared: their sources number them, or send each once.
    pub identity: Names,
    /// The column with the id that a record had in the system that it came from, if such systems number their records.
    pub source_id: Names,
    /// Whether the kind's own API shows the record's id in the log as the first field.
    pub shows_id: bool,
}

/// How records of a kind are delivered.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// As JSON objects: in files, as messages, or posted one by one.
    Json(Json),
    /// As CSV files.
    Csv,
    /// Not at all: Sporlog writes these records itself.
    Internal,
}

/// How JSON records of a kind are read.
#[derive(Debug, Clone, Copy)]
pub struct Json {
    /// The fields that a record may have: those of the kind's columns, in their order, and perhaps more.
    pub(crate) fields: &'static [Column],
    pub(crate) judge: Judge,
}

/// Judges a record whose fields have the right types, and changes them to what is stored. Gives the time at which it
/// happened, as a local time in microseconds; `None` where an error was noted, or the kind allows none.
type Judge = fn(&mut Fields<'_>, &Rules, &mut Notes) -> Option<i64>;

/// What the columns of a kind mean, in terms that all kinds share. A role is played by the first of its columns
/// that has a value; by none if there are no columns.
#[derive(Debug)]
pub struct Roles {
    /// Who did it.
    pub actor: Names,
    /// Whom the record is about, by which a person finds their own records.
    pub subject: Names,
    /// Whose employee or system did it.
    pub organisation: Names,
    /// Who was given the data.
    pub recipient: Names,
    /// Through which system it was done.
    pub system: Names,
    /// What was done.
    pub action: Names,
    /// On what ground.
    pub ground: Names,
    /// In which case.
    pub case_id: Names,
    /// When it was done, as its source wrote it: one column.
    pub time: &'static str,
}

impl Roles {
    /// The roles by their names.
    pub fn named(&self) -> [(&'static str, Names); 8] {
        [
            ("actor", self.actor),
            ("subject", self.subject),
            ("organisation", self.organisation),
            ("recipient", self.recipient),
            ("system", self.system),
            ("action", self.action),
            ("ground", self.ground),
            ("case_id", self.case_id),
        ]
    }
}

/// The column of what a record's message carried besides the record (a key, headers, a time), as one
/// JSON object; null for most.
pub const ENVELOPE: &str = "envelope";

/// The last column of every kind: fields that the spec does not know, as one JSON object.
pub const EXTRA: &str = "extra";

/// The columns of a revision log, in the order of the spec; the first five are required.
pub const REVISION_COLUMNS: [&str; 23] = names(&revision::COLUMNS);

/// The column of a revision log that says whose a row is.
pub const REVISION_ORGANISATION: &str = revision::ORGANISATION;

const fn names<const N: usize>(columns: &[Column; N]) -> [&'static str; N] {
    let mut names = [""; N];
    let mut at = 0;
    while at < N {
        names[at] = columns[at].name;
        at += 1;
    }
    names
}

impl Kind {
    /// All kinds.
    const ALL: [Kind; 5] = [Kind::Disclosure, Kind::Revision, Kind::Auditlog, Kind::Mfa, Kind::Quarantine];

    /// The kinds that records are delivered as.
    pub const DELIVERED: [Kind; 4] = [Kind::Disclosure, Kind::Revision, Kind::Auditlog, Kind::Mfa];

    /// What is known of the kind's columns.
    pub fn definition(self) -> &'static Definition {
        match self {
            Kind::Disclosure => &disclosure::DEFINITION,
            Kind::Revision => &revision::DEFINITION,
            Kind::Auditlog => &auditlog::DEFINITION,
            Kind::Mfa => &mfa::DEFINITION,
            Kind::Quarantine => &quarantine::DEFINITION,
        }
    }

    /// The kind's name, as commands and configuration spell it.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// How records of the kind are delivered.
    pub fn format(self) -> Format {
        self.definition().format
    }

    /// The columns that only this kind has, in the order of the specification.
    pub fn columns(self) -> &'static [Column] {
        self.definition().columns
    }

    /// The columns of a row before it has a number: the common ones, the native ones, [`EXTRA`].
    ///
    /// Texts are `Utf8`, as given; `occurred_at` is a local time in microseconds without a zone,
    /// null only where an audit record has no `tts`; `remarks` and `envelope` are null where there is
    /// none.
    pub fn row_schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; Kind::ALL.len()]> = LazyLock::new(|| {
            Kind::ALL.map(|kind| {
                let common = [
                    Field::new("occurred_at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
                    Field::new("origin", DataType::Utf8, false),
                    Field::new("remarks", DataType::Utf8, true),
                    Field::new(ENVELOPE, DataType::Utf8, true),
                ];
                let native = kind.columns().iter().map(Column::field);
                let fields =
                    common.into_iter().chain(native).chain([Field::new(EXTRA, DataType::Utf8, true)]);
                Arc::new(Schema::new(fields.collect::<Vec<_>>()))
            })
        });
        SCHEMAS[self as usize].clone()
    }

    /// How the values of a column of [`Kind::row_schema`] resemble each other.
    pub fn values_of(self, column: &str) -> Values {
        match column {
            "occurred_at" | ENVELOPE | EXTRA => Values::Distinct,
            "origin" => Values::Prefixed,
            native => {
                let native = self.columns().iter().find(|column| column.name == native);
                native.map_or(Values::Repeating, |column| column.values)
            }
        }
    }

    /// The columns by which a person finds the records about them: the first that has a value says whom a record is
    /// about.
    pub fn subject_columns(self) -> Names {
        self.definition().roles.as_ref().map_or(&[], |roles| roles.subject)
    }

    /// The columns by which a user's records are found: the first that has a value says who acted.
    pub fn actor_columns(self) -> Names {
        self.definition().roles.as_ref().map_or(&[], |roles| roles.actor)
    }

    /// Whether a column identifies the record, a person, a user or an organisation: no value of such a column may have
    /// an invisible character.
    pub fn is_identifying(self, column: &str) -> bool {
        let names = [
            self.identity_columns(),
            self.subject_columns(),
            self.actor_columns(),
            self.organisation_columns(),
        ];
        names.iter().any(|names| names.contains(&column))
    }

    /// The columns that say which organisations a record is of.
    pub fn organisation_columns(self) -> Names {
        self.definition().organisations
    }

    /// Whether a row names one of these organisations.
    pub fn is_of(self, batch: &RecordBatch, row: usize, organisations: &[String]) -> bool {
        self.organisation_columns().iter().any(|column| {
            let values = batch.column_by_name(column).and_then(|column| column.as_string_opt::<i32>());
            values.is_some_and(|values| {
                values.is_valid(row) && organisations.iter().any(|one| one == values.value(row))
            })
        })
    }

    /// The column with the id that a record had where it came from, if there is one.
    pub fn source_columns(self) -> Names {
        self.definition().source_id
    }

    /// The columns that tell that two records are the same one ([`Identities`](crate::identity::Identities)).
    pub fn identity_columns(self) -> Names {
        self.definition().identity
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no kind's.
#[derive(Debug, thiserror::Error)]
#[error("'{name}' is no kind of record: it is one of {}", Kind::DELIVERED.map(Kind::name).join(", "))]
pub struct UnknownKind {
    name: String,
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| UnknownKind { name: name.to_owned() })
    }
}
