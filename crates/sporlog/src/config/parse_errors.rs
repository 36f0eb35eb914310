//! All settings that cannot be read, and not only the first.
//!
//! Reading ends at the first error. So the setting that the error is about is taken out, and the rest is read again,
//! until all of it can be read or nothing is left to take out.

use figment::error::{Actual, Kind};
use figment::providers::Serialized;
use figment::value::{Map, Value};
use figment::{Error, Figment, Profile, Provider};

use super::remark::{Remark, Severity};
use super::{Config, removed};

/// Errors that are looked for at most.
const ENOUGH: usize = 100;

/// An error for each setting that cannot be read.
pub fn parse_errors(figment: &Figment) -> Vec<Remark> {
    let mut values = match values(figment) {
        Ok(values) => values,
        // The file itself cannot be read, or is no TOML.
        Err(error) => return vec![Remark::new(Severity::Error, "", &error.to_string())],
    };
    let mut remarks: Vec<Remark> = Vec::new();
    let mut removed = Vec::new();
    for _ in 0..ENOUGH {
        let read = Figment::from(Serialized::defaults(&values)).extract::<Config>();
        let Some(error) = read.err() else { break };
        let error = words_expected(&values, &error).unwrap_or(error);
        let missing = match &error.kind {
            Kind::MissingField(name) => Some(name.clone()),
            _ => None,
        };
        let (path, text) = explain(error);
        let given = as_given(&path, &removed);
        // What is missing because it was taken out has been remarked on.
        let taken = missing.map(|name| [&given[..], &[name.into_owned()]].concat().join("."));
        if taken.is_none_or(|taken| remarks.iter().all(|remark| remark.key != taken)) {
            remarks.push(Remark::new(Severity::Error, &given.join("."), &text));
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        if !take_out(&mut values, &path) {
            break;
        }
        removed.push(given);
    }
    remarks
}

/// The path of a setting before list elements were taken out: those after them have moved up.
fn as_given(path: &[String], removed: &[Vec<String>]) -> Vec<String> {
    let mut given: Vec<String> = Vec::new();
    for part in path {
        let moved = part.parse::<usize>().ok().map(|mut at| {
            let of_list =
                removed.iter().filter_map(|gone| gone.split_last()).filter(|(_, list)| *list == given);
            let mut gone: Vec<usize> = of_list.filter_map(|(at, _)| at.parse().ok()).collect();
            gone.sort_unstable();
            for gone in gone {
                at += usize::from(gone <= at);
            }
            at.to_string()
        });
        given.push(moved.unwrap_or_else(|| part.clone()));
    }
    given
}

/// All that is set, as it stands.
pub fn values(figment: &Figment) -> Result<Value, Box<Error>> {
    let mut profiles: Map<Profile, _> = figment.data().map_err(Box::new)?;
    Ok(profiles.remove(&Profile::Default).unwrap_or_default().into())
}

/// Which setting it is about, and what is the matter with it.
fn explain(error: Error) -> (Vec<String>, String) {
    let removed = removed(&error);
    let mut path = error.path;
    // How figment marks a path that is relative to its file.
    path.retain(|part| !part.starts_with("___figment"));
    let text = match error.kind {
        Kind::UnknownField(name, known) => {
            if path.last() != Some(&name) {
                path.push(name);
            }
            match (removed, known) {
                (Some((_, instead)), _) => {
                    format!("there is no such setting any more; remove it ({instead})")
                }
                (None, []) => "there is no such setting".to_owned(),
                (None, _) => format!("there is no such setting; there are {}", known.join(", ")),
            }
        }
        Kind::MissingField(name) => format!("'{name}' is missing"),
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("{} is expected, and not {}", expected(&wanted), shown(&found))
        }
        Kind::UnknownVariant(found, known) => {
            let known: Vec<_> = known.iter().map(|word| format!("\"{word}\"")).collect();
            format!("one of {} is expected, and not \"{found}\"", known.join(", "))
        }
        // From the types of the standard library and of `url`, which give no example.
        Kind::Message(text) if text == "invalid socket address syntax" => {
            format!("{} is expected", expected("socket address"))
        }
        Kind::Message(text) if text.starts_with("relative URL") => {
            format!("{} is expected", expected("a URL"))
        }
        kind => kind.to_string(),
    };
    (path, text)
}

/// What is expected, in the terms of the file; `wanted` is in those of the type.
fn expected(wanted: &str) -> String {
    match wanted {
        "a string" | "path string" => "a text in quotes",
        "usize" | "u64" => "a whole number from 0 on",
        "u32" => "a whole number from 0 to some 4 billion",
        "u16" => "a whole number from 0 to 65535",
        "a nonzero u32" => "a whole number from 1 to some 4 billion",
        "a boolean" => "true or false",
        "a character" => "one character in quotes, such as \";\",",
        "a sequence" => "a list in square brackets",
        "socket address" => "an address and a port in quotes, such as \"127.0.0.1:8080\",",
        _ if wanted.contains("URL") => "an address in quotes, such as \"https://example.org\",",
        "a map" => "a section with settings",
        _ if wanted.starts_with("struct") => "a section with settings",
        _ => wanted,
    }
    .to_owned()
}

/// A value, as it stands in the file.
fn shown(found: &Actual) -> String {
    match found {
        Actual::Str(text) => format!("the text \"{text}\""),
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(number) => number.to_string(),
        Actual::Signed(number) => number.to_string(),
        Actual::Float(number) => number.to_string(),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a section".to_owned(),
        found => found.to_string(),
    }
}

/// Where one of some words is expected, the error says which only if there is some other word: so one is put there.
fn words_expected(values: &Value, error: &Error) -> Option<Error> {
    let Kind::InvalidType(found, wanted) = &error.kind else { return None };
    if !wanted.starts_with("enum") {
        return None;
    }
    let mut values = values.clone();
    let mut value = &mut values;
    for part in &error.path {
        value = match value {
            Value::Dict(_, members) => members.get_mut(part)?,
            Value::Array(_, members) => members.get_mut(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    *value = Value::from(shown(found));
    let other = Figment::from(Serialized::defaults(&values)).extract::<Config>().err()?;
    matches!(other.kind, Kind::UnknownVariant(..)).then_some(other)
}

/// Takes a setting out; false if it is not there.
fn take_out(values: &mut Value, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match (values, rest) {
        (Value::Dict(_, members), []) => members.remove(*first).is_some(),
        (Value::Dict(_, members), rest) => {
            let inner = members.get_mut(*first).is_some_and(|member| take_out(member, rest));
            // A member whose name has a dot in it.
            inner || members.remove(&path.join(".")).is_some()
        }
        (Value::Array(_, members), rest) => match first.parse::<usize>() {
            Ok(at) if at < members.len() && rest.is_empty() => {
                members.remove(at);
                true
            }
            Ok(at) => members.get_mut(at).is_some_and(|member| take_out(member, rest)),
            Err(_) => false,
        },
        _ => false,
    }
}
