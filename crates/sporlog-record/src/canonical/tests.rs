use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::{Field, Schema};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const RECEIVED: i64 = 1_795_248_000_123_456;

/// One row: the values given, null elsewhere, an origin always.
fn batch(kind: Kind, values: &[(&str, Value)]) -> RecordBatch {
    let schema = kind.row_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        let value = values.iter().find(|(name, _)| name == field.name()).map(|(_, value)| value);
        let text = value.and_then(Value::as_str);
        match field.data_type() {
            DataType::Utf8 if field.name() == "origin" => {
                Arc::new(StringArray::from(vec![text.unwrap_or("test:1")]))
            }
            DataType::Utf8 => Arc::new(StringArray::from(vec![text])),
            DataType::Int64 => Arc::new(Int64Array::from(vec![value.and_then(Value::as_i64)])),
            DataType::Binary => Arc::new(BinaryArray::from(vec![text.map(str::as_bytes)])),
            other => new_null_array(other, 1),
        }
    });
    RecordBatch::try_new(schema.clone(), columns.collect()).unwrap()
}

fn entry(kind: Kind, values: &[(&str, Value)]) -> String {
    let rows = batch(kind, values);
    let mut out = Vec::new();
    EntryWriter::new("log", kind, &rows).unwrap().write_entry(0, 7, RECEIVED, &mut out);
    String::from_utf8(out).unwrap()
}

fn record(kind: Kind, values: &[(&str, Value)]) -> String {
    let rows = batch(kind, values);
    let mut out = Vec::new();
    EntryWriter::new("log", kind, &rows).unwrap().write_record(0, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn an_entry_byte_for_byte() {
    let values = [
        ("TransaktionsId", json!("a\"b\\c\u{1}\n\u{7f}æ")),
        ("Note", json!("n")),
        ("remarks", json!(r#"[{"field":"BrugerId","rule":"uuid","text":"x"}]"#)),
        ("extra", json!(r#"{"Region":"1"}"#)),
        ("origin", json!("file:\"a\".csv:17")),
    ];
    let expected = concat!(
        r#"{"log":"log","id":7,"receivedAt":"2026-11-21T08:00:00.123456Z","#,
        r#""origin":"file:\"a\".csv:17","remarks":[{"field":"BrugerId","rule":"uuid","text":"x"}],"#,
        r#""record":{"TransaktionsId":"a\"b\\c\u0001\n"#,
        "\u{7f}",
        r#"æ","Note":"n","Region":"1"}}"#
    );
    assert_eq!(entry(Kind::Revision, &values), expected);
}

#[test]
fn what_a_message_carried_stands_behind_the_remarks() {
    let entry = entry(Kind::Revision, &[("Note", json!("n")), ("envelope", json!(r#"{"key":"k"}"#))]);
    assert!(entry.ends_with(r#","remarks":[],"envelope":{"key":"k"},"record":{"Note":"n"}}"#), "{entry}");
}

#[test]
fn nulls_and_empty_objects() {
    let expected = concat!(
        r#"{"log":"log","id":7,"receivedAt":"2026-11-21T08:00:00.123456Z","#,
        r#""origin":"test:1","remarks":[],"record":{}}"#
    );
    assert_eq!(entry(Kind::Revision, &[]), expected);
    assert_eq!(record(Kind::Revision, &[("extra", json!("{}"))]), "{}");
    assert_eq!(record(Kind::Revision, &[("extra", json!(r#"{"a":1}"#))]), r#"{"a":1}"#);
}

#[test]
fn delivered_data_is_given_out_as_it_came() {
    let stored = [("leverteData", json!("{}?")), ("leverteDataEncoding", json!("base64"))];
    assert_eq!(record(Kind::Disclosure, &stored), r#"{"leverteData":"e30/"}"#);
    let stored = [("person", json!("1")), ("leverteData", json!("not \"base64\""))];
    let expected = r#"{"person":"1","leverteData":"not \"base64\""}"#;
    assert_eq!(record(Kind::Disclosure, &stored), expected);
}

#[test]
fn audit_records_have_all_keys() {
    let values = [("tts", json!("2022-07-26T06:50:55")), ("personId", json!(-3))];
    let all = concat!(
        r#""tts":"2022-07-26T06:50:55","ipAddress":null,"correlationId":null,"personId":-3,"#,
        r#""personName":null,"cpr":null,"performerId":null,"performerName":null,"logAction":null,"#,
        r#""message":null,"personDomain":null,"samaccountName":null,"detailType":null,"#,
        r#""detailContent":null,"detailSupplement":null"#
    );
    assert_eq!(record(Kind::Auditlog, &values), format!("{{{all}}}"));
    let rows = batch(Kind::Auditlog, &[&values[..], &[("sourceId", json!(i64::MAX))]].concat());
    let mut writer = EntryWriter::new("log", Kind::Auditlog, &rows).unwrap();
    let mut out = Vec::new();
    writer.write_wire(0, 7192, &mut out);
    let expected = format!(r#"{{"id":7192,{all}}}"#);
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn only_audit_records_show_their_id() {
    let rows = batch(Kind::Revision, &[("Note", json!("n"))]);
    let mut out = b"before".to_vec();
    EntryWriter::new("log", Kind::Revision, &rows).unwrap().write_wire(0, 9, &mut out);
    assert_eq!(out, br#"before{"Note":"n"}"#);
}

#[test]
fn quarantined_bytes_are_base64() {
    let values = [
        ("action", json!("REFUSED")),
        ("line", json!(3)),
        ("reasons", json!(r#"[{"rule":"x"}]"#)),
        ("content", json!("\u{0}ÿ")),
    ];
    let expected = r#"{"action":"REFUSED","line":3,"reasons":[{"rule":"x"}],"content":"AMO/"}"#;
    assert_eq!(record(Kind::Quarantine, &values), expected);
}

#[test]
fn columns_are_found_by_name_and_checked() {
    let rows = batch(Kind::Revision, &[("Note", json!("n"))]);
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    let mut columns = rows.columns().to_vec();
    fields.reverse();
    columns.reverse();
    fields.push(Arc::new(Field::new("id", DataType::Int64, false)));
    columns.push(Arc::new(Int64Array::from(vec![1])));
    let shuffled = RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), columns.clone());
    let mut out = Vec::new();
    EntryWriter::new("l", Kind::Revision, &shuffled.unwrap()).unwrap().write_record(0, &mut out);
    assert_eq!(out, br#"{"Note":"n"}"#);

    let error = |rows: &RecordBatch| EntryWriter::new("l", Kind::Revision, rows).err().unwrap();
    let missing = rows.project(&(0..rows.num_columns() - 1).collect::<Vec<_>>()).unwrap();
    assert_eq!(error(&missing), ColumnError::Missing("extra"));
    let at = fields.iter().position(|field| field.name() == "Note").unwrap();
    fields[at] = Arc::new(Field::new(
        "Note",
        DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None),
        true,
    ));
    columns[at] = Arc::new(TimestampMicrosecondArray::from(vec![1]));
    let wrong = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    assert!(error(&wrong).to_string().starts_with("column 'Note' is Timestamp"));
}

#[test]
fn plain_and_special_texts_in_any_order() {
    let notes: Vec<String> = (0..300)
        .map(|n| match n {
            70 | 250 => "\"".to_owned(),
            130 => "x".repeat(100_000),
            _ => format!("n{n}"),
        })
        .collect();
    let schema = Kind::Revision.row_schema();
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "Note" | "origin" => Arc::new(StringArray::from(notes.clone())),
            _ => new_null_array(field.data_type(), notes.len()),
        }
    });
    let rows = RecordBatch::try_new(schema.clone(), columns.collect()).unwrap();
    let rows = rows.slice(10, 290);
    let mut writer = EntryWriter::new("l", Kind::Revision, &rows).unwrap();
    for row in (0..290).chain((0..290).rev()).chain((0..290).step_by(37)) {
        let mut out = Vec::new();
        writer.write_record(row, &mut out);
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), json!({"Note": notes[row + 10]}));
    }
}

#[test]
fn times_of_receipt() {
    let mut received_at = ReceivedAt::default();
    assert_eq!(received_at.text(0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(received_at.text(-1), "1969-12-31T23:59:59.999999Z");
    assert_eq!(received_at.text(RECEIVED), "2026-11-21T08:00:00.123456Z");
    received_at.text(i64::MAX);
    received_at.text(i64::MIN);
}

#[test]
fn numbers() {
    for number in [0, 9, 10, 99, 1_000, u64::MAX] {
        let mut out = Vec::new();
        push_number(number, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
    }
}

proptest! {
    #[test]
    fn strings_read_back_the_same(text in any::<String>(), plain in "[ -~æ\"\\\\\n]{0,70}") {
        for text in [text, plain] {
            let mut out = Vec::new();
            push_json_string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text.clone());
            // serde_json escapes as RFC 8785 does.
            prop_assert_eq!(out, serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn entries_read_back_the_same(
        values in proptest::collection::vec(proptest::option::of(any::<String>()), 23),
        id in any::<u64>(),
        received_at in any::<i64>(),
    ) {
        let fields: Vec<(&str, Value)> = crate::kind::REVISION_COLUMNS.into_iter().zip(values)
            .filter_map(|(name, value)| Some((name, Value::from(value?))))
            .collect();
        let rows = batch(Kind::Revision, &fields);
        let mut out = Vec::new();
        let mut writer = EntryWriter::new("log \"1\"", Kind::Revision, &rows).unwrap();
        writer.write_entry(0, id, received_at, &mut out);
        let entry: Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(&entry["log"], "log \"1\"");
        prop_assert_eq!(&entry["id"], &json!(id));
        let record: serde_json::Map<String, Value> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        prop_assert_eq!(&entry["record"], &Value::Object(record));
    }
}
