//! What the kinds have in common whose records come from a system that numbers them: the field `id` becomes the
//! column `sourceId`, for `id` is the log's own; and the time may be unknown.

use crate::json::fields::{Fields, Other, Value};
use crate::json::notes::{Notes, Place};
use crate::time;

/// Moves the value of the field `id` into the column `source_id`.
pub(super) fn take(fields: &mut Fields<'_>, id: usize, source_id: usize, notes: &mut Notes) {
    let Some(given) = fields.integer(id) else { return };
    if let (Some(other), (_, Place::Value(ordinal))) = (fields.integer(source_id), fields.at(source_id))
        && given != other
    {
        let text = "the record also has an id, which is taken instead; this one is kept in extra";
        notes.remark(fields.at(source_id), "source-id", text);
        let value = other.to_string().into();
        fields.others.push(Other { name: "sourceId".into(), ordinal, value, unknown: false });
    }
    fields.set(source_id, Value::Integer(given));
}

/// When it happened, by the text in `column`; a record that does not say is accepted with a remark.
pub(super) fn time(fields: &Fields<'_>, column: usize, notes: &mut Notes) -> Option<i64> {
    match fields.text(column).map(time::parse_iso) {
        Some(Ok(time)) => return Some(time),
        Some(Err(error)) => notes.error(fields.at(column), "time", error.to_string()),
        None if fields.is_absent(column) => {
            notes.remark(fields.at(column), "required", "the record does not say when it happened");
        }
        None => {}
    }
    None
}
