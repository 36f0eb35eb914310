//! Audit records, as OS2faktor Login's API hands them out; also Sporlog's own record of who read what.
//!
//! `id` is the log's own; `sourceId` is the id that the record had where it came from. An audit record names the
//! third party who acted for somebody (`performerId`), and otherwise the person has acted themself.

use super::{Column, Content, Definition, Format, Roles};

/// A column that the API shows even where there is no value.
const fn shown(column: Column) -> Column {
    Column { shows_null: true, ..column }
}

const fn integer(name: &'static str) -> Column {
    Column::new(name, Content::Integer)
}

const COLUMNS: [Column; 16] = [
    shown(Column::text("tts")).distinct(),
    shown(Column::text("ipAddress")),
    shown(Column::text("correlationId")).distinct(),
    shown(integer("personId")),
    shown(Column::text("personName")),
    shown(Column::text("cpr")).distinct(),
    shown(integer("performerId")),
    shown(Column::text("performerName")),
    shown(Column::text("logAction")),
    shown(Column::text("message")),
    shown(Column::text("personDomain")),
    shown(Column::text("samaccountName")),
    shown(Column::text("detailType")),
    shown(Column::text("detailContent")).distinct(),
    shown(Column::text("detailSupplement")).distinct(),
    integer("sourceId").distinct(),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "auditlog",
    format: Format::Json,
    columns: &COLUMNS,
    roles: Some(Roles {
        actor: &["performerId", "samaccountName"],
        subject: &["cpr"],
        organisation: &["personDomain"],
        recipient: &[],
        system: &[],
        action: &["logAction"],
        ground: &["message"],
        case_id: &[],
    }),
    organisations: &[],
    identity: &[],
    shows_id: true,
};
