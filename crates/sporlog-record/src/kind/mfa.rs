//! Log-ins with a second factor, as OS2faktor Login's MFA log hands them out.
//!
//! `id` is the log's own; `sourceId` is the id that the record had where it came from. Times are written
//! `2026-11-03 06:50:55`.

use super::{Definition, Format, Json, Roles, source_id};
use crate::column::{Column, Content};
use crate::json::fields::Fields;
use crate::json::notes::Notes;
use crate::{Rules, time};

/// A text that the API shows even where there is no value.
const fn text(name: &'static str) -> Column {
    Column { shows_null: true, ..Column::text(name) }
}

/// The columns, and behind them the field `id`, which becomes `sourceId`.
const FIELDS: [Column; 11] = [
    text("clientType"),
    text("createdTts").distinct(),
    text("deviceId"),
    text("fetchTts").distinct(),
    text("pushTts").distinct(),
    text("responseTts").distinct(),
    text("status"),
    text("systemName"),
    text("username"),
    Column::new("sourceId", Content::Integer).distinct(),
    Column::new("id", Content::Integer),
];

const CREATED: usize = 1;
const TIMES: [usize; 3] = [3, 4, 5];
const SOURCE_ID: usize = 9;
const ID: usize = 10;

pub(super) static DEFINITION: Definition = Definition {
    name: "mfa",
    format: Format::Json(Json { fields: &FIELDS, judge }),
    columns: FIELDS.split_at(ID).0,
    roles: Some(Roles {
        actor: &["username"],
        subject: &[],
        organisation: &[],
        recipient: &[],
        system: &["systemName"],
        action: &["status"],
        ground: &[],
        case_id: &[],
        time: "createdTts",
    }),
    organisations: &[],
    identity: &[],
    source_id: &["sourceId"],
    shows_id: true,
};

fn judge(fields: &mut Fields<'_>, _: &Rules, notes: &mut Notes) -> Option<i64> {
    for column in TIMES {
        if let Some(Err(error)) = fields.text(column).map(time::parse_iso) {
            notes.remark(fields.at(column), "time", error.to_string());
        }
    }
    source_id::take(fields, ID, SOURCE_ID, notes);
    source_id::time(fields, CREATED, notes)
}

#[cfg(test)]
mod tests {
    use crate::json::{Judged, RowsBuilder};
    use crate::{Kind, Position, Rules};

    #[test]
    fn a_record_of_the_api_is_accepted_as_it_stands() {
        let rules = Rules::default();
        let mut builder = RowsBuilder::new(Kind::Mfa, &rules);
        let mut push =
            |record: &str| builder.push(record.as_bytes(), "test", Position { line: 1, column: 1 });
        let record = r#"{"id":7,"clientType":"ANDROID","createdTts":"2026-11-03 06:50:55","deviceId":"123-456-789-012",
            "fetchTts":null,"pushTts":"2026-11-03 06:50:56","responseTts":"2026-11-03 06:51:02","status":"ACCEPTED",
            "systemName":"OS2faktor Login","username":"bsg"}"#;
        assert_eq!(push(record), Judged::Accepted(Vec::new()));
        let Judged::Accepted(remarks) = push(r#"{"id":8,"pushTts":"soon"}"#) else { panic!("refused") };
        assert_eq!(remarks.iter().map(|remark| remark.rule).collect::<Vec<_>>(), ["time", "required"]);
        assert!(matches!(push(r#"{"id":9,"createdTts":"soon"}"#), Judged::Refused(_)));
        let rows = builder.finish();
        let ids = arrow::array::AsArray::as_primitive::<arrow::datatypes::Int64Type>(&rows["sourceId"]);
        assert_eq!(ids.values(), &[7, 8]);
    }
}
