//! What bounds somebody: the logs and the organisations that a key or a configured role names.

use sporlog_record::identifier::{is_organisation, mask_text};

/// Sporlog's own logs. Nobody has them by having "all logs".
const OWN: [&str; 2] = ["access", "quarantine"];

/// What cannot bound anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// No log can be meant by this.
    #[error("'{0}' is neither a log's name nor the beginning of one and '*'")]
    Log(String),
    /// No organisation can be meant by this.
    #[error("'{0}' is neither a CVR number (8 digits) nor an organisation number (9 digits)")]
    Organisation(String),
}

/// Whether logs and organisations can be meant by these texts.
pub(super) fn check(logs: &[String], organisations: &[String]) -> Result<(), BoundError> {
    if let Some(wrong) = logs.iter().find(|log| !is_pattern(log)) {
        return Err(BoundError::Log(mask_text(wrong).into_owned()));
    }
    match organisations.iter().find(|number| !is_organisation(number)) {
        Some(wrong) => Err(BoundError::Organisation(mask_text(wrong).into_owned())),
        None => Ok(()),
    }
}

/// Whether the log is Sporlog's own.
pub(super) fn is_own(log: &str) -> bool {
    OWN.contains(&log)
}

fn is_pattern(text: &str) -> bool {
    match text.strip_suffix('*') {
        Some(beginning) => beginning.is_empty() || sporlog_ledger::is_log_name(beginning),
        None => sporlog_ledger::is_log_name(text),
    }
}
