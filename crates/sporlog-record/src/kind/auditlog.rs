//! Audit records, as OS2faktor Login's API hands them out; also Sporlog's own record of who read what.
//!
//! `id` is the log's own; `sourceId` is the id that the record had where it came from. An audit record names the
//! third party who acted for somebody (`performerId`), and otherwise the person has acted themself.

use super::{Definition, Format, Json, Roles, source_id};
use crate::Rules;
use crate::column::{Column, Content};
use crate::identifier::{cpr, mask};
use crate::json::fields::Fields;
use crate::json::notes::Notes;

/// A column that the API shows even where there is no value.
const fn shown(column: Column) -> Column {
    Column { shows_null: true, ..column }
}

const fn integer(name: &'static str) -> Column {
    Column::new(name, Content::Integer)
}

/// The columns, and behind them the field `id`, which becomes `sourceId`.
const FIELDS: [Column; 17] = [
    shown(Column::text("tts")).distinct(),
    shown(Column::text("ipAddress")),
    shown(Column::text("correlationId")).distinct(),
    shown(integer("personId")),
    shown(Column::text("personName")),
    shown(Column::text("cpr")).distinct(),
    shown(integer("performerId")),
    shown(Column::text("performerName")),
    shown(Column::text("logAction")).required(),
    shown(Column::text("message")),
    shown(Column::text("personDomain")),
    shown(Column::text("samaccountName")),
    shown(Column::text("detailType")),
    shown(Column::text("detailContent")).distinct(),
    shown(Column::text("detailSupplement")).distinct(),
    integer("sourceId").distinct(),
    integer("id"),
];

const TTS: usize = 0;
const CPR: usize = 5;
const LOG_ACTION: usize = 8;
const DETAIL_TYPE: usize = 12;
const SOURCE_ID: usize = 15;
const ID: usize = 16;

pub(super) static DEFINITION: Definition = Definition {
    name: "auditlog",
    format: Format::Json(Json { fields: &FIELDS, judge }),
    columns: FIELDS.split_at(ID).0,
    roles: Some(Roles {
        actor: &["performerId", "samaccountName"],
        subject: &["cpr"],
        organisation: &["personDomain"],
        recipient: &[],
        system: &[],
        action: &["logAction"],
        ground: &["message"],
        case_id: &[],
        time: "tts",
    }),
    organisations: &[],
    identity: &[],
    source_id: &["sourceId"],
    shows_id: true,
};

fn judge(fields: &mut Fields<'_>, _: &Rules, notes: &mut Notes) -> Option<i64> {
    let occurred_at = source_id::time(fields, TTS, notes);
    if let Some(number) = fields.text(CPR)
        && !number.is_empty()
        && !cpr::is_plain(number)
    {
        let text = format!("this is not a CPR number of 10 digits: {}", mask(number));
        notes.remark(fields.at(CPR), "cpr", text);
    }
    if fields.text(LOG_ACTION) == Some("") {
        notes.error(fields.at(LOG_ACTION), "required", "the record does not say what was done");
    }
    if fields.text(DETAIL_TYPE).is_some_and(|form| !matches!(form, "JSON" | "XML" | "TEXT" | "XML_ZIP")) {
        notes.remark(fields.at(DETAIL_TYPE), "detail-type", "this is none of JSON, XML, TEXT and XML_ZIP");
    }
    source_id::take(fields, ID, SOURCE_ID, notes);
    occurred_at
}
