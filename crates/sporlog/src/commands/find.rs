//! `sporlog find`: one person's or one user's records, newest first.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};
use futures::TryStreamExt;
use serde_json::json;
use sporlog_ledger::{Find, Key, Log, find_in_all};
use sporlog_record::time::format_local;

use crate::access::{Access, include_own_access, record_access};
use crate::cli::FindArgs;
use crate::output::{Outcome, Output, note};
use crate::rows::RowWriter;
use crate::session::Session;
use crate::timerange;

pub async fn run(session: &Session, args: &FindArgs) -> Result<Outcome> {
    timerange::check(args.from, args.to)?;
    let key = key(args)?;
    let store = session.store()?;
    let name = &args.log.log;
    let logs = session.logs_of(&store, name).await?;
    let Some(kind) = logs.first().map(Log::kind) else {
        note(&nothing_found(name));
        return Ok(Outcome::Done);
    };
    if kind.definition().roles.is_none() {
        bail!("{kind} records name nobody; the quarantine is listed by `sporlog quarantine list`");
    }
    let role = match &key {
        Key::Subject(_) if kind.subject_columns().is_empty() => {
            bail!("{kind} records name no person; --actor finds a user's")
        }
        Key::Actor(_) if kind.actor_columns().is_empty() => {
            bail!("{kind} records name no user; --subject finds a person's")
        }
        Key::Source(_) if kind.source_columns().is_empty() => {
            bail!("{kind} records have no id of where they came from; --subject finds a person's")
        }
        Key::Subject(_) => "subject",
        Key::Actor(_) => "actor",
        Key::Source(_) => "source-id",
    };
    let id = key.value();
    let access = Access {
        action: "FIND",
        subjects: if matches!(key, Key::Subject(_)) { vec![id.to_owned()] } else { Vec::new() },
        message: match &key {
            Key::Subject(_) => format!("find {name} --subject"),
            _ => format!("find {name} --{role} {id}"),
        },
        parameters: json!({
            "log": name,
            role: id,
            "from": args.from.map(format_local),
            "to": args.to.map(format_local),
            "limit": args.rows.limit,
        }),
    };
    record_access(session, &store, access).await?;
    for log in &logs {
        include_own_access(log).await?;
    }
    let limit = args.rows.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut found = find_in_all(logs, Find { key, from: args.from, to: args.to, limit });
    let mut out = Output::new()?;
    let mut rows = RowWriter::new(kind, args.rows.shape());
    while let Some((log, batch)) = found.try_next().await? {
        rows.write(&log, &batch, &mut out)?;
    }
    let records = rows.finish(&mut out)?;
    out.flush()?;
    if records == 0 && limit != Some(0) {
        note(&nothing_found(name));
    }
    Ok(Outcome::Done)
}

fn nothing_found(log: &str) -> String {
    format!("no record was found in '{log}'")
}

fn key(args: &FindArgs) -> Result<Key> {
    let given = |text: &str| -> Result<String> {
        let text = if text == "-" { from_standard_input()? } else { text.to_owned() };
        let text = text.trim();
        if text.is_empty() {
            bail!("nobody is named to be found");
        }
        Ok(text.to_owned())
    };
    match (&args.subject, &args.actor, args.source_id) {
        (Some(subject), ..) => Ok(Key::Subject(without_separators(given(subject)?))),
        (None, Some(actor), _) => Ok(Key::Actor(given(actor)?)),
        (None, None, Some(id)) => Ok(Key::Source(id.to_string())),
        (None, None, None) => bail!("--subject, --actor or --source-id says what is to be found"),
    }
}

fn from_standard_input() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().take(4_096).read_to_string(&mut text).context("standard input")?;
    Ok(text)
}

/// People write `010101-8081` and `123456 78901`; the records have the digits alone.
fn without_separators(subject: String) -> String {
    let digits: String = subject.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let number = matches!(digits.len(), 10 | 11) && digits.bytes().all(|b| b.is_ascii_digit());
    if number { digits } else { subject }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_however_they_are_written() {
        assert_eq!(without_separators("010101-8081".into()), "0101018081");
        assert_eq!(without_separators("123456 78901".into()), "12345678901");
        assert_eq!(without_separators("2302XX22XX".into()), "2302XX22XX");
        assert_eq!(without_separators("a-b".into()), "a-b");
    }
}
