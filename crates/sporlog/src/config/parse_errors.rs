//! All settings that cannot be read, and not only the first.
//!
//! Reading ends at the first error. So the setting that the error is about is taken out, and the rest is read again,
//! until all of it can be read or nothing is left to take out.

use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Map, Value};
use figment::{Error, Figment, Profile, Provider};

use super::{Remark, Severity, about};
use crate::config::{Settings, removed};

/// Errors that are looked for at most.
const ENOUGH: usize = 100;

/// An error for each setting that cannot be read.
pub fn parse_errors(figment: &Figment) -> Vec<Remark> {
    let mut values = match values(figment) {
        Ok(values) => values,
        // The file itself cannot be read, or is no TOML.
        Err(error) => return vec![about(Severity::Error, "", &error.to_string())],
    };
    let mut remarks: Vec<Remark> = Vec::new();
    let mut removed = Vec::new();
    for _ in 0..ENOUGH {
        let read = Figment::from(Serialized::defaults(&values)).extract::<Settings>();
        let Some(error) = read.err() else { break };
        let missing = match &error.kind {
            Kind::MissingField(name) => Some(name.clone()),
            _ => None,
        };
        let (path, text) = explain(error);
        let given = as_given(&path, &removed);
        // What is missing because it was taken out has been remarked on.
        let taken = missing.map(|name| [&given[..], &[name.into_owned()]].concat().join("."));
        if taken.is_none_or(|taken| remarks.iter().all(|remark| remark.key != taken)) {
            remarks.push(about(Severity::Error, &given.join("."), &text));
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
        kind => kind.to_string(),
    };
    (path, text)
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
