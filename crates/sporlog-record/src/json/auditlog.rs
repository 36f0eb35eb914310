//! Audit records, as OS2faktor Login's API hands them out; also Sporlog's own.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, StringBuilder};

use super::{Columns, Field, Members, Notes, Other, Place, Room, integer_of, text_of};
use crate::identifier::{cpr, mask};
use crate::{Rules, time};

const TTS: usize = 0;
const PERSON_ID: usize = 3;
const CPR: usize = 5;
const PERFORMER_ID: usize = 6;
const LOG_ACTION: usize = 8;
const DETAIL_TYPE: usize = 12;
const SOURCE_ID: usize = 15;
/// The record's own id, behind the columns: it has none here.
const ID: usize = 16;
const FIELDS: usize = 17;
const COLUMNS: usize = 16;

/// The columns of audit records.
#[derive(Debug)]
pub(super) struct AuditlogColumns {
    /// By the columns' numbers; those of the numbers below stay unused.
    texts: [StringBuilder; COLUMNS],
    person_id: Int64Builder,
    performer_id: Int64Builder,
    source_id: Int64Builder,
}

impl AuditlogColumns {
    pub(super) fn with(room: Room) -> Self {
        AuditlogColumns {
            texts: std::array::from_fn(|_| room.texts()),
            person_id: Int64Builder::with_capacity(room.values),
            performer_id: Int64Builder::with_capacity(room.values),
            source_id: Int64Builder::with_capacity(room.values),
        }
    }
}

/// An audit record that is in order.
pub(super) struct AuditlogRow<'a> {
    texts: [Option<Cow<'a, str>>; COLUMNS],
    occurred_at: Option<i64>,
    person_id: Option<i64>,
    performer_id: Option<i64>,
    source_id: Option<i64>,
}

impl Columns<FIELDS> for AuditlogColumns {
    const NAMES: [&'static str; FIELDS] = [
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
        "id",
    ];

    type Row<'a> = AuditlogRow<'a>;

    fn judge<'a>(members: &mut Members<'a, FIELDS>, _: &Rules, notes: &mut Notes) -> Option<AuditlogRow<'a>> {
        let integer =
            |field: usize, notes: &mut Notes| integer_of(members.fields.get(field)?, name(field), notes);
        let person_id = integer(PERSON_ID, notes);
        let performer_id = integer(PERFORMER_ID, notes);
        let source_id = integer(SOURCE_ID, notes);
        let id = integer(ID, notes);
        let given = |field: usize| members.fields.get(field).is_some_and(Field::is_given);
        let (has_tts, has_action) = (given(TTS), given(LOG_ACTION));
        let texts: [Option<Cow<str>>; COLUMNS] = std::array::from_fn(|field| match field {
            PERSON_ID | PERFORMER_ID | SOURCE_ID => None,
            _ => text_of(members.fields.get_mut(field)?, name(field), notes),
        });
        let text = |field: usize| texts.get(field).and_then(Option::as_deref);
        let place = |field: usize| members.fields.get(field).map_or(Place::Record, Field::place);

        let occurred_at = match text(TTS).map(time::parse_iso) {
            Some(Ok(time)) => Some(time),
            Some(Err(error)) => {
                notes.error("tts", "time", error.to_string(), place(TTS));
                None
            }
            None if has_tts => None,
            None => {
                let text = "the record does not say when it happened";
                notes.remark("tts", "required", text, place(TTS));
                None
            }
        };
        if let Some(number) = text(CPR)
            && !number.is_empty()
            && !cpr::is_plain(number)
        {
            let text = format!("this is not a CPR number of 10 digits: {}", mask(number));
            notes.remark("cpr", "cpr", text, place(CPR));
        }
        if !has_action || text(LOG_ACTION) == Some("") {
            let text = "the record does not say what was done";
            notes.error("logAction", "required", text, place(LOG_ACTION));
        }
        if let Some(format) = text(DETAIL_TYPE)
            && !matches!(format, "JSON" | "XML" | "TEXT")
        {
            let text = "this is none of JSON, XML and TEXT";
            notes.remark("detailType", "detail-type", text, place(DETAIL_TYPE));
        }
        let source_id = match (id, source_id) {
            (Some(id), Some(other)) if id != other => {
                let text = "the record also has an id, which is taken instead; this one is kept in extra";
                notes.remark("sourceId", "source-id", text, place(SOURCE_ID));
                if let Some(ordinal) = members.fields.get(SOURCE_ID).and_then(|field| field.ordinal) {
                    members.others.push(Other { name: Cow::Borrowed("sourceId"), ordinal, unknown: false });
                }
                Some(id)
            }
            (id, source_id) => id.or(source_id),
        };
        Some(AuditlogRow { texts, occurred_at, person_id, performer_id, source_id })
    }

    fn occurred_at(row: &AuditlogRow) -> Option<i64> {
        row.occurred_at
    }

    fn append(&mut self, row: AuditlogRow) {
        for (column, text) in self.texts.iter_mut().zip(row.texts) {
            column.append_option(text);
        }
        self.person_id.append_option(row.person_id);
        self.performer_id.append_option(row.performer_id);
        self.source_id.append_option(row.source_id);
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let column = |(field, texts): (usize, &mut StringBuilder)| -> ArrayRef {
            let texts = texts.finish();
            match field {
                PERSON_ID => Arc::new(self.person_id.finish()),
                PERFORMER_ID => Arc::new(self.performer_id.finish()),
                SOURCE_ID => Arc::new(self.source_id.finish()),
                _ => Arc::new(texts),
            }
        };
        self.texts.iter_mut().enumerate().map(column).collect()
    }
}

fn name(field: usize) -> &'static str {
    AuditlogColumns::NAMES.get(field).copied().unwrap_or_default()
}
