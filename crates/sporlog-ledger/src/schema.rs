//! The columns of a log's table: a number and a time of receipt before the record's own.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use sporlog_record::Kind;

/// What the Delta log and the Parquet files name as their maker.
pub(crate) const ENGINE: &str = concat!("sporlog/", env!("CARGO_PKG_VERSION"));

/// `id`, `received_at` (UTC, µs), and the columns of [`Kind::row_schema`].
pub fn table_schema(kind: Kind) -> SchemaRef {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let numbered = [Field::new("id", DataType::Int64, false), Field::new("received_at", utc, false)];
    let rows = kind.row_schema();
    let fields = numbered.into_iter().map(Arc::new).chain(rows.fields().iter().cloned());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The schema as the Delta protocol writes it, with the partition column.
pub(crate) fn delta_schema(kind: Kind) -> String {
    let field = |name: &str, data_type: &str, nullable: bool| serde_json::json!({"name": name, "type": data_type, "nullable": nullable, "metadata": {}});
    let schema = table_schema(kind);
    let fields = schema.fields().iter().map(|f| {
        let data_type = match f.data_type() {
            DataType::Int64 => "long",
            DataType::Binary => "binary",
            DataType::Timestamp(_, None) => "timestamp_ntz",
            DataType::Timestamp(_, Some(_)) => "timestamp",
            _ => "string",
        };
        field(f.name(), data_type, f.is_nullable())
    });
    let fields: Vec<_> = fields.chain([field("month", "string", false)]).collect();
    serde_json::json!({"type": "struct", "fields": fields}).to_string()
}
