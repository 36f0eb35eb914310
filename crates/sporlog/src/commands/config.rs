//! `sporlog config`: is the configuration in order, and what may stand in it?

use std::fmt;
use std::io::Write;
use std::path::Path;

use anyhow::Result;
use figment::Figment;
use figment::value::Value;
use serde::Serialize;
use sporlog_record::identifier::mask_text;

use crate::cli::{self, Global};
use crate::config::{Config, sources};
use crate::output::{Outcome, Output};

#[path = "../config/line_of.rs"]
mod line_of;
mod lint;
#[path = "../config/parse_errors.rs"]
mod parse_errors;

/// The repository's example.
const EXAMPLE: &str = include_str!("../../../../sporlog.example.toml");

/// Something about the configuration.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Remark {
    severity: Severity,
    /// The file, or the variable.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    /// The setting, with dots between sections; empty if it is about all of it.
    key: String,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Error,
    Warning,
}

/// Does what was asked for.
pub fn run(global: &Global, what: &cli::Config) -> Result<Outcome> {
    let mut out = Output::new()?;
    let outcome = match what {
        cli::Config::Example => {
            out.write_all(EXAMPLE.as_bytes())?;
            Outcome::Done
        }
        cli::Config::Check { print } => check(global, *print, &mut out)?,
    };
    out.flush()?;
    Ok(outcome)
}

/// The errors in the configuration, as they are printed. Blocks.
pub fn errors(global: &Global) -> Vec<String> {
    let (remarks, _) = remarks(global);
    remarks.iter().filter(|remark| remark.severity == Severity::Error).map(ToString::to_string).collect()
}

fn check(global: &Global, print: bool, out: &mut Output) -> Result<Outcome> {
    let (remarks, figment) = remarks(global);
    if let Some(figment) = figment.filter(|_| print)
        && let Ok(Value::Dict(_, settings)) = parse_errors::values(&figment)
    {
        for (key, value) in &settings {
            show(out, key, value, &figment)?;
        }
    }
    say(remarks, global, out)
}

/// All that is remarked on the configuration, in its order, and the configuration, if there is any.
fn remarks(global: &Global) -> (Vec<Remark>, Option<Figment>) {
    let (figment, file) = match sources(global) {
        Ok(sources) => sources,
        Err(error) => return (vec![about(Severity::Error, "", &error.to_string())], None),
    };
    let text = file.map(std::fs::read_to_string).and_then(Result::ok).unwrap_or_default();
    let mut remarks = parse_errors::parse_errors(&figment);
    // What the settings mean together is looked at once they can be read.
    if remarks.is_empty() {
        match Config::load(global) {
            Ok(config) => remarks = lint::lint(&config, file),
            Err(error) => remarks.push(about(Severity::Error, "", &format!("{error:#}"))),
        }
    }
    for remark in &mut remarks {
        find(remark, &figment, file, &text);
    }
    remarks.sort_by(|a, b| (&a.source, a.line).cmp(&(&b.source, b.line)));
    (remarks, Some(figment))
}

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

fn about(severity: Severity, key: &str, text: &str) -> Remark {
    let text = mask_text(text).into_owned();
    Remark { severity, source: None, line: None, key: key.to_owned(), text }
}

/// Where the setting stands that is remarked on.
fn find(remark: &mut Remark, figment: &Figment, file: Option<&Path>, text: &str) {
    if remark.source.is_some() {
        return;
    }
    let path: Vec<&str> = remark.key.split('.').filter(|part| !part.is_empty()).collect();
    // A setting that is not there has the place of the section that it is missing from.
    let set_by = (0..path.len()).rev().find_map(|last| figment.find_metadata(&path.get(..=last)?.join(".")));
    match set_by {
        Some(by) if by.source.is_none() => remark.source = Some(variable(&remark.key)),
        None if !path.is_empty() => {}
        _ => {
            remark.source = file.map(|file| file.display().to_string());
            remark.line = line_of::line_of(text, &path);
        }
    }
}

/// The variable that a setting is set by.
fn variable(key: &str) -> String {
    format!("{}{}", crate::config::PREFIX, key.replace('.', "__").to_uppercase())
}

fn say(remarks: Vec<Remark>, global: &Global, out: &mut Output) -> Result<Outcome> {
    for remark in &remarks {
        if global.json {
            out.json(remark)?;
        } else {
            writeln!(out, "{remark}")?;
        }
    }
    if remarks.iter().any(|remark| remark.severity == Severity::Error) {
        return Ok(Outcome::Differs);
    }
    if !global.json {
        writeln!(out, "the configuration can be used")?;
    }
    Ok(Outcome::Done)
}

/// Prints a setting and all that are in it, and by what each is set.
fn show(out: &mut Output, key: &str, value: &Value, figment: &Figment) -> Result<()> {
    match value {
        Value::Dict(_, members) => {
            for (name, value) in members {
                show(out, &format!("{key}.{name}"), value, figment)?;
            }
        }
        Value::Array(_, members) if members.iter().any(|member| member.as_dict().is_some()) => {
            for (at, value) in members.iter().enumerate() {
                show(out, &format!("{key}.{at}"), value, figment)?;
            }
        }
        _ => {
            let from_file = figment.get_metadata(value.tag()).is_some_and(|by| by.source.is_some());
            let by = if from_file { "file".to_owned() } else { variable(key) };
            let shown =
                if is_secret(key) { "\"(secret)\"".to_owned() } else { serde_json::to_string(value)? };
            writeln!(out, "{key} = {}  # {by}", mask_text(&shown))?;
        }
    }
    Ok(())
}

/// Whether a setting's value is not to be shown. Properties of librdkafka have names of their own.
fn is_secret(key: &str) -> bool {
    let name = key.to_lowercase();
    ["password", "secret", "token", "private", "pem", "jaas", "oauthbearer.config"]
        .iter()
        .any(|part| name.contains(part) && !name.ends_with("url"))
}

#[cfg(test)]
mod tests;
