//! Every access to the data is itself a record, of the kind `auditlog`.

use arrow::array::RecordBatch;
use serde_json::Value;
use sporlog_record::identifier::mask_text;
use sporlog_record::invisible::shown;
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::{Kind, Position, Rules};

use crate::error::{Error, Result};

/// The log in which every access to the data is recorded.
pub const LOG: &str = "access";

/// The source that access events are recorded under.
pub const ORIGIN: &str = concat!("sporlog/", env!("CARGO_PKG_VERSION"));

/// One access to the data: who reads what.
#[derive(Debug, Clone)]
pub struct AccessEvent<'a> {
    /// The reader: the name of a user or of an API key, or the subject of a token.
    pub performer: &'a str,
    /// The action, in the manner of the audit logs' `logAction`.
    pub action: &'a str,
    /// The person whose records are read, if it is one person.
    pub subject: Option<&'a str>,
    /// The address that the request came from.
    pub address: Option<String>,
    /// An identifier that other logs have, too, such as a request's id.
    pub correlation: Option<&'a str>,
    /// The action in a few words. Personal numbers in the message are masked.
    pub message: String,
    /// The parameters of the request, in full.
    pub parameters: Value,
}

impl AccessEvent<'_> {
    /// The event as one row of the log [`LOG`], dated now.
    pub fn row(&self) -> Result<RecordBatch> {
        let record = serde_json::json!({
            "tts": chrono::Local::now().format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
            "ipAddress": self.address,
            "correlationId": self.correlation,
            "cpr": self.subject.map(shown),
            "performerName": shown(self.performer),
            "samaccountName": shown(self.performer),
            "logAction": self.action,
            "message": mask_text(&self.message),
            "detailType": "JSON",
            "detailContent": self.parameters.to_string(),
        });
        let rules = Rules::default();
        let mut builder = RowsBuilder::for_few(Kind::Auditlog, &rules);
        match builder.push(record.to_string().as_bytes(), ORIGIN, Position { line: 1, column: 1 }) {
            Judged::Accepted(_) => Ok(builder.finish()),
            Judged::Refused(findings) => Err(Error::Refused { findings }),
        }
    }
}
