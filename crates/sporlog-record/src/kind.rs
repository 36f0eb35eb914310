//! The record kinds and their columns.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// What a log's records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Sporingslogg: what was handed out about a person, to whom, when and on what ground.
    Disclosure,
    /// Fælles Revisionslog: which citizen a member of staff looked up, through which system.
    Revision,
    /// OS2faktor Login's audit log; also Sporlog's own log of who looked at what.
    Auditlog,
    /// What was refused and why, and what became of it (`action`).
    Quarantine,
}

/// Columns that every kind's rows begin with: when it happened, where it came from, what is doubtful,
/// and what came along with it.
pub const COMMON_COLUMNS: [&str; 4] = ["occurred_at", "origin", "remarks", ENVELOPE];

/// The column of what a record's message carried besides the record (a key, headers, a time), as one
/// JSON object; null for most.
pub const ENVELOPE: &str = "envelope";

/// The last column of every kind: fields that the spec does not know, as one JSON object.
pub const EXTRA: &str = "extra";

/// The columns of a disclosure, in the order of the spec.
pub const DISCLOSURE_COLUMNS: [&str; 10] = [
    "person",
    "mottaker",
    "tema",
    "behandlingsGrunnlag",
    "uthentingsTidspunkt",
    "leverteData",
    "leverteDataEncoding",
    "samtykkeToken",
    "dataForespoersel",
    "leverandoer",
];

/// The columns of a revision log, in the order of the spec; the first five are required.
pub const REVISION_COLUMNS: [&str; 23] = [
    "TransaktionsId",
    "TransaktionsTid",
    "BrugerId",
    "KalderOrganisation",
    "KalderItSystemInstans",
    "LogId",
    "CallersServiceCallIdentifier",
    "ModtagerAftaleId",
    "Parametre",
    "KaldtServiceId",
    "KalderIP",
    "BrugerNavn",
    "KalderItSystemNavn",
    "ServiceNavn",
    "Note",
    "BorgerId",
    "SagId",
    "PartId",
    "OpgaveId",
    "BrugerKalderOrganisationEnhedId",
    "BrugerOrganisationEnhedNavn",
    "SvarReaktion",
    "ServiceAftaleUUID",
];

/// The columns of an audit record, in the order of the spec, without `id` (the log's own),
/// and with `sourceId`, the id that the record had where it came from.
pub const AUDITLOG_COLUMNS: [&str; 16] = [
    "tts",
    "ipAddress",
    "correlationId",
    "personId",
    "personName",
    "cpr",
    "performerId",
    "performerName",
    "logAction",
    "message",
    "personDomain",
    "samaccountName",
    "detailType",
    "detailContent",
    "detailSupplement",
    "sourceId",
];

/// The columns of the quarantine. `action` is `REFUSED`, `REPLAYED` or `DISCARDED`; `item` is, for
/// the latter two, the id of the `REFUSED` record that they are about; `content` the refused bytes.
pub const QUARANTINE_COLUMNS: [&str; 9] =
    ["action", "item", "kind", "log", "source", "line", "reasons", "content", "note"];

impl Kind {
    /// The kinds that records are delivered as.
    pub const DELIVERED: [Kind; 3] = [Kind::Disclosure, Kind::Revision, Kind::Auditlog];

    /// The kind's name, as commands and configuration spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Disclosure => "disclosure",
            Kind::Revision => "revision",
            Kind::Auditlog => "auditlog",
            Kind::Quarantine => "quarantine",
        }
    }

    /// The native columns, in the order of the spec.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Kind::Disclosure => &DISCLOSURE_COLUMNS,
            Kind::Revision => &REVISION_COLUMNS,
            Kind::Auditlog => &AUDITLOG_COLUMNS,
            Kind::Quarantine => &QUARANTINE_COLUMNS,
        }
    }

    /// The columns of a row before it has a number: the common ones, the native ones, [`EXTRA`].
    ///
    /// Texts are `Utf8`, as given; `occurred_at` is a local time in microseconds without a zone,
    /// null only where an audit record has no `tts`; `remarks` and `envelope` are null where there is
    /// none.
    pub fn row_schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 4]> = LazyLock::new(|| {
            [Kind::Disclosure, Kind::Revision, Kind::Auditlog, Kind::Quarantine].map(build_schema)
        });
        SCHEMAS[self as usize].clone()
    }

    /// The column that says whom a record is about, by which a person finds their own.
    pub fn subject_column(self) -> Option<&'static str> {
        match self {
            Kind::Disclosure => Some("person"),
            Kind::Revision => Some("BorgerId"),
            Kind::Auditlog => Some("cpr"),
            Kind::Quarantine => None,
        }
    }

    /// The columns that say which organisations a record is of: whose employee looked, or who was
    /// given the data. Whoever is bounded to certain organisations sees the records that name one.
    pub fn organisation_columns(self) -> &'static [&'static str] {
        match self {
            Kind::Disclosure => &["mottaker", "leverandoer"],
            Kind::Revision => &["KalderOrganisation"],
            Kind::Auditlog | Kind::Quarantine => &[],
        }
    }
}

fn build_schema(kind: Kind) -> SchemaRef {
    let common = [
        Field::new("occurred_at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("origin", DataType::Utf8, false),
        Field::new("remarks", DataType::Utf8, true),
        Field::new(ENVELOPE, DataType::Utf8, true),
    ];
    let native = kind.columns().iter().map(|name| {
        let data_type = match *name {
            "personId" | "performerId" | "sourceId" | "item" | "line" => DataType::Int64,
            "leverteData" | "content" => DataType::Binary,
            _ => DataType::Utf8,
        };
        Field::new(*name, data_type, true)
    });
    let extra = Field::new(EXTRA, DataType::Utf8, true);
    Arc::new(Schema::new(common.into_iter().chain(native).chain([extra]).collect::<Vec<_>>()))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no kind's.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no kind of record: it is one of disclosure, revision, auditlog")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "disclosure" => Ok(Kind::Disclosure),
            "revision" => Ok(Kind::Revision),
            "auditlog" => Ok(Kind::Auditlog),
            "quarantine" => Ok(Kind::Quarantine),
            other => Err(UnknownKind(other.to_owned())),
        }
    }
}
