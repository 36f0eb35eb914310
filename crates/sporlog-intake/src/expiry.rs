//! Removal by retention, which is on record before it happens.

use serde_json::{Value, json};
use sporlog_ledger::{Error, Expired, Writer};

/// The action of the access event that records a removal.
pub const ACTION: &str = "EXPIRE";

/// Removes the records of the writer's log that were received before `month` (`2026-11`), after `record` has stored an
/// access event with this message and these parameters. If there are none, nothing is recorded. A crash in between leaves an
/// event about records that are still there.
pub async fn expire<E: From<Error>>(
    writer: &Writer,
    month: &str,
    record: impl AsyncFnOnce(String, Value) -> Result<(), E>,
) -> Result<Expired, E> {
    let log = writer.log();
    let due = log.expirable(month);
    if due.records == 0 {
        return Ok(due);
    }
    let (name, records) = (log.name(), due.records);
    let message = format!("removes {records} records of the log '{name}' that were received before {month}");
    record(message, json!({ "log": name, "before": month, "records": records })).await?;
    Ok(writer.expire(month, false).await?)
}
