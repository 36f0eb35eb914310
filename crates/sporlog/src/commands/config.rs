//! `sporlog config`: is the configuration in order, and what may stand in it?

use std::io::Write;

use anyhow::Result;
use figment::Figment;
use figment::value::Value;
use sporlog_record::identifier::mask_text;

use crate::cli::{self, Global};
use crate::config::parse_errors::{parse_errors, values};
use crate::config::remark::{Remark, Severity, located, variable};
use crate::config::{Config, sources};
use crate::output::{Outcome, Output};

mod lint;

/// The repository's example.
const EXAMPLE: &str = include_str!("../../../../sporlog.example.toml");

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
    let wrong = |remark: &Remark| remark.severity == Severity::Error;
    remarks(global).iter().filter(|remark| wrong(remark)).map(ToString::to_string).collect()
}

fn check(global: &Global, print: bool, out: &mut Output) -> Result<Outcome> {
    if print
        && let Ok((figment, _)) = sources(global)
        && let Ok(Value::Dict(_, settings)) = values(&figment)
    {
        for (key, value) in &settings {
            show(out, key, value, &figment)?;
        }
    }
    say(remarks(global), global, out)
}

/// All that is wrong or doubtful about the configuration.
fn remarks(global: &Global) -> Vec<Remark> {
    let (figment, file) = match sources(global) {
        Ok(sources) => sources,
        Err(error) => return vec![Remark::new(Severity::Error, "", &error.to_string())],
    };
    let mut remarks = parse_errors(&figment);
    // What the settings mean together is looked at once they can be read.
    if remarks.is_empty() {
        match Config::load(global) {
            Ok(config) => remarks = lint::lint(&config, file),
            Err(error) => remarks.push(Remark::new(Severity::Error, "", &format!("{error:#}"))),
        }
    }
    located(remarks, &figment, file)
}

/// The error of a command that uses all of the configuration, with what `config check` says of it: that may be the cause,
/// and has the setting's place.
pub fn with_errors(global: &Global, error: anyhow::Error) -> anyhow::Error {
    let mut found = remarks(global);
    found.retain(|remark| remark.severity == Severity::Error);
    let lines: Vec<_> = found.iter().map(ToString::to_string).collect();
    let text = format!("{error:#}");
    if lines.is_empty() || lines.iter().any(|line| text.contains(line)) {
        return error;
    }
    let same = found.iter().any(|remark| text.contains(&remark.text));
    let first = if same { "the configuration cannot be used:" } else { &text };
    anyhow::anyhow!("{first}\n{}", lines.join("\n"))
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
