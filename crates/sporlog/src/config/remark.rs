//! Something that is wrong or doubtful about a configuration, and where the setting stands.

use std::fmt;
use std::path::Path;

use figment::Figment;
use serde::Serialize;
use sporlog_record::identifier::mask_text;

use super::PREFIX;
use super::line_of::line_of;

/// Something about the configuration.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Remark {
    pub severity: Severity,
    /// The file, or the variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The setting, with dots between sections; empty if it is about all of it.
    pub key: String,
    pub text: String,
}

/// Whether a configuration can be used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

impl Remark {
    /// A remark whose setting has not been looked for yet.
    pub fn new(severity: Severity, key: &str, text: &str) -> Self {
        let text = mask_text(text).into_owned();
        Remark { severity, source: None, line: None, key: key.to_owned(), text }
    }

    /// Looks where the setting stands.
    fn locate(&mut self, figment: &Figment, file: Option<&Path>, text: &str) {
        if self.source.is_some() {
            return;
        }
        let path: Vec<&str> = self.key.split('.').filter(|part| !part.is_empty()).collect();
        // A setting that is not there has the place of the section that it is missing from.
        let set_by =
            (0..path.len()).rev().find_map(|last| figment.find_metadata(&path.get(..=last)?.join(".")));
        match set_by {
            Some(by) if by.source.is_none() => self.source = Some(variable(&self.key)),
            None if !path.is_empty() => {}
            _ => {
                self.source = file.map(|file| file.display().to_string());
                self.line = line_of(text, &path);
            }
        }
    }
}

/// `FILE:LINE: error KEY: text`.
impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.source, self.line) {
            (Some(source), Some(line)) => write!(f, "{source}:{line}: ")?,
            (Some(source), None) => write!(f, "{source}: ")?,
            (None, _) => {}
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let gap = if self.key.is_empty() { "" } else { " " };
        write!(f, "{severity}{gap}{}: {}", self.key, self.text)
    }
}

/// The remarks with their places, in the order of the file.
pub fn located(mut remarks: Vec<Remark>, figment: &Figment, file: Option<&Path>) -> Vec<Remark> {
    let text = file.map(std::fs::read_to_string).and_then(Result::ok).unwrap_or_default();
    remarks.iter_mut().for_each(|remark| remark.locate(figment, file, &text));
    remarks.sort_by(|a, b| (&a.source, a.line).cmp(&(&b.source, b.line)));
    remarks
}

/// The variable that a setting is set by.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}
