//! What was found out about a record: errors, which refuse it, and remarks, which are stored with it.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

/// Whether a finding refuses the record or is only stored with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The record cannot be attributed or breaks the format: it is refused, whole.
    Error,
    /// The record is usable, and something about it is doubtful: it is accepted.
    Remark,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Remark => "remark",
        })
    }
}

/// Where in its source a record or a field begins. Both counts start at 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// The line of the file; for a message that is no file, 1.
    pub line: u64,
    /// The column in characters within the line for JSON, the number of the CSV column for CSV;
    /// 1 where the finding is about the whole record.
    pub column: u64,
}

/// One thing that is wrong or doubtful.
///
/// `text` is written for the person who has to mend it, and never holds a personal number in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Error or remark.
    pub severity: Severity,
    /// The field's name on the wire; empty when the finding is about the record or the file.
    pub field: Cow<'static, str>,
    /// A short, stable name of the rule, such as `required`, `check-digit`, `length`.
    pub rule: &'static str,
    /// What is wrong, and what was expected.
    pub text: Cow<'static, str>,
    /// The `TransaktionsId` of the row, if the finding is about a row of a revision file that has one: the name under
    /// which its supplier finds the row again.
    #[serde(rename = "TransaktionsId", skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
    /// Where it was found.
    #[serde(flatten)]
    pub position: Position,
}

impl Finding {
    /// An error about a record or a file as such.
    pub fn error(rule: &'static str, text: impl Into<Cow<'static, str>>, position: Position) -> Self {
        Finding {
            severity: Severity::Error,
            field: Cow::Borrowed(""),
            rule,
            text: text.into(),
            transaction_id: None,
            position,
        }
    }

    /// A remark on a record or a file as such.
    pub fn remark(rule: &'static str, text: impl Into<Cow<'static, str>>, position: Position) -> Self {
        Finding { severity: Severity::Remark, ..Finding::error(rule, text, position) }
    }

    /// The same about one field.
    pub fn in_field(self, field: impl Into<Cow<'static, str>>) -> Self {
        Finding { field: field.into(), ..self }
    }
}

impl fmt::Display for Finding {
    /// `line:column: error|remark FIELD: text`, to be put behind a file's name and a colon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column } = self.position;
        let field = if self.field.is_empty() { "-" } else { &self.field };
        write!(f, "{line}:{column}: {} {field}: {}", self.severity, self.text)
    }
}
