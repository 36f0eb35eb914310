//! For programs: everything about the person as CSV or JSON, and the proof of a record.

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{NaiveDateTime, SecondsFormat};
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json, json};
use sporlog_ledger::{Error, Key, Located, Result as LedgerResult};

use super::entry::{Entry, Remark, Value, Visible, now};
use super::layout::{Visitor, record_access};
use super::record::own;
use crate::api::reader::Trace;
use crate::server::{Class, RequestPermit};
use crate::{App, Problem};

/// Records read at once.
const CHUNK: usize = 100;
/// The columns of a CSV export before the fields.
const FIRST: [&str; 5] = ["log", "id", "receivedAt", "occurredAt", "withheldUntil"];

const BOM: &[u8] = "\u{feff}".as_bytes();

/// The proof of one record, as `sporlog prove` writes it.
pub async fn proof(
    State(app): State<App>,
    Path((log, id)): Path<(String, String)>,
    visitor: Visitor,
    trace: Trace,
) -> Response {
    let Some(person) = visitor.signed.clone() else { return Redirect::to("/").into_response() };
    let answer = async {
        // The proof reads the record; whether the person may have it is in the columns of a list.
        let (visible, entry) = own(&app, &person, &log, &id, Visible::listed).await?;
        if !entry.is_provable() {
            return Err(Problem::forbidden(
                "a part of this record is not shown, and a proof would hold all of it",
            ));
        }
        let parameters = json!({"log": log, "id": entry.id});
        record_access(&app, &trace, &person, "MY_PROOF", "a person took a proof", parameters).await?;
        let name = format!("attachment; filename=\"{log}-{}.tlog-proof\"", entry.id);
        let name = HeaderValue::from_str(&name).map_err(|error| Problem::internal(&error))?;
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
            (header::CONTENT_DISPOSITION, name),
        ];
        Ok((headers, visible.log.prove(entry.id).await?).into_response())
    };
    visitor.answer(answer.await)
}

/// Everything that is shown to the person, the newest of each log first.
pub async fn export(
    State(app): State<App>,
    visitor: Visitor,
    trace: Trace,
    permit: RequestPermit,
) -> Response {
    let Some(person) = visitor.signed.clone() else { return Redirect::to("/").into_response() };
    let answer = async {
        let (csv, mime, name) = match visitor.parameter("format") {
            Some("csv") => (true, "text/csv; charset=utf-8", "attachment; filename=\"sporlog.csv\""),
            Some("json") => (false, "application/json", "attachment; filename=\"sporlog.json\""),
            _ => return Err(Problem::bad_request("'format' is csv or json")),
        };
        permit.move_to(Class::Export)?;
        let mut logs = Vec::new();
        for visible in app.pages.visible(&app.catalog).await? {
            logs.push((visible.log.locate(Key::Subject(person.pid.clone())).await?, visible));
        }
        let names: Vec<_> = logs.iter().map(|(_, visible)| visible.log.name()).collect();
        let parameters = json!({"logs": names, "format": if csv { "csv" } else { "json" }});
        record_access(&app, &trace, &person, "MY_EXPORT", "a person took everything", parameters).await?;
        let mut fields: Vec<&'static str> = Vec::new();
        for field in logs.iter().flat_map(|(_, visible)| visible.fields()) {
            if !fields.contains(&field) {
                fields.push(field);
            }
        }
        let headers = [(header::CONTENT_TYPE, mime), (header::CONTENT_DISPOSITION, name)];
        Ok((headers, body(written(logs, csv, fields))).into_response())
    };
    visitor.answer(answer.await)
}

/// The body of an export. If the text breaks off, so does the answer: no browser takes a part for the whole.
fn body(written: impl Stream<Item = LedgerResult<Vec<u8>>> + Send + 'static) -> Body {
    Body::from_stream(written.inspect_err(|error| tracing::error!(%error, "an export broke off")))
}

/// The text of an export, chunk by chunk.
fn written(
    logs: Vec<(Located, Visible)>,
    csv: bool,
    fields: Vec<&'static str>,
) -> impl Stream<Item = LedgerResult<Vec<u8>>> {
    let header = || csv_row(FIRST.into_iter().chain(fields.iter().copied()));
    // Without a byte-order mark, Excel takes æ, ø and å for something else.
    let begin = if csv { [BOM.to_vec(), header()].concat() } else { b"[".to_vec() };
    let end = if csv { Vec::new() } else { b"\n]\n".to_vec() };
    let entries = futures::stream::iter(logs).map(|(located, visible)| {
        let chunks = futures::stream::try_unfold(Some(u64::MAX), move |before| {
            let (located, visible) = (located.clone(), visible.clone());
            async move {
                let Some(before) = before else { return Ok(None) };
                let (batches, next) = located.read(before, CHUNK, &visible.all()).await?;
                Ok::<_, Error>(Some((entries_of(&visible, batches, now())?, next)))
            }
        });
        chunks.boxed()
    });
    let mut first = true;
    let chunks = entries.flatten().map(move |entries| {
        let mut out = Vec::new();
        for entry in &entries? {
            if csv {
                out.extend(csv_row(cells(entry, &fields).iter().map(String::as_str)));
            } else {
                out.extend_from_slice(if first { b"\n" } else { b",\n" });
                first = false;
                out.extend(object(entry).map_err(|e| Error::Columns(e.to_string()))?);
            }
        }
        Ok(out)
    });
    let once = |bytes: Vec<u8>| futures::stream::once(std::future::ready(Ok(bytes)));
    once(begin).chain(chunks).chain(once(end))
}

fn entries_of(visible: &Visible, batches: Vec<RecordBatch>, now: NaiveDateTime) -> LedgerResult<Vec<Entry>> {
    let mut entries = Vec::new();
    for batch in batches {
        entries.extend(visible.entries(&batch, now)?);
    }
    Ok(entries)
}

fn received(entry: &Entry) -> String {
    let time = chrono::DateTime::from_timestamp_micros(entry.received).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// A value as it was delivered.
fn text(value: &Value) -> String {
    match value {
        Value::Text(text) => text.clone(),
        Value::Bytes { bytes, base64: true } => BASE64_STANDARD.encode(bytes),
        Value::Bytes { bytes, base64: false } => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A record in an export as JSON: what its page shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exported<'a> {
    log: &'a str,
    id: u64,
    received_at: String,
    record: Map<String, Json>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<&'a Remark>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    /// Fields that its kind does not have, and what stood around the record, as delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    other_fields: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withheld: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withheld_until: Option<String>,
}

fn object<'e>(entry: &'e Entry) -> serde_json::Result<Vec<u8>> {
    let raw = |text: &'e Option<String>| text.as_deref().map(serde_json::from_str).transpose();
    let record = entry.fields().map(|(name, value)| (name.to_owned(), text(value).into())).collect();
    serde_json::to_vec(&Exported {
        log: &entry.log,
        id: entry.id,
        received_at: received(entry),
        record,
        remarks: entry.remarks.iter().flatten().collect(),
        origin: entry.origin.as_deref(),
        other_fields: raw(&entry.extra)?,
        envelope: raw(&entry.envelope)?,
        withheld: entry.until.map(|_| &*entry.withheld),
        withheld_until: entry.until.map(|until| until.date().to_string()),
    })
}

fn cells(entry: &Entry, fields: &[&str]) -> Vec<String> {
    let occurred = entry.occurred.map(sporlog_record::time::format_local).unwrap_or_default();
    let until = entry.until.map(|until| until.date().to_string()).unwrap_or_default();
    let mut cells = vec![entry.log.clone(), entry.id.to_string(), received(entry), occurred, until];
    cells.extend(fields.iter().map(|field| entry.value(field).map(text).unwrap_or_default()));
    cells
}

/// A row of quoted cells. A cell that a spreadsheet would compute gets an apostrophe before it.
fn csv_row<'a>(cells: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let quoted = |cell: &str| {
        let computed = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        format!("\"{}{}\"", if computed { "'" } else { "" }, cell.replace('"', "\"\""))
    };
    let mut row = cells.map(quoted).collect::<Vec<_>>().join(",");
    row.push_str("\r\n");
    row.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::tests::log::Kept;

    #[tokio::test]
    async fn an_export_that_breaks_off_is_no_whole_answer_and_in_the_log() {
        let kept = Kept::default();
        // With a single subscriber, whichever test comes by first decides for all threads what is logged.
        let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
        let _guard = tracing::subscriber::set_default(kept.clone());
        let pieces = [Ok(b"[".to_vec()), Err(Error::Columns("gone".into()))];
        let body = body(futures::stream::iter(pieces));
        assert!(axum::body::to_bytes(body, usize::MAX).await.is_err());
        assert!(kept.lines().iter().any(|line| line.contains("an export broke off")), "{:?}", kept.lines());
    }

    #[test]
    fn cells_are_quoted_and_not_computed() {
        let row = csv_row(["a\"b", "=1+1", "x,y\nz", "", "@SUM(A1)", "12"].into_iter());
        assert_eq!(row, b"\"a\"\"b\",\"'=1+1\",\"x,y\nz\",\"\",\"'@SUM(A1)\",\"12\"\r\n");
    }
}
