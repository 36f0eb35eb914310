//! `sporlog verify`: a whole log, one proof, or that a log continues an earlier checkpoint.

use std::io::{Write, stdin};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sporlog_ledger::{Error, Store, Verified, verify_proof};

use crate::cli::VerifyArgs;
use crate::output::{Outcome, Output, complain, counted};
use crate::progress::{Progress, Results};
use crate::session::Session;

/// A proof is hardly larger than its record, and that is bounded, too.
const MAX_PROOF_BYTES: u64 = 256 << 20;

pub async fn run(session: &Session, args: &VerifyArgs) -> Result<Outcome> {
    match (&args.log, &args.since, &args.proof, &args.key) {
        (_, _, Some(proof), Some(key)) => check_proof(session, proof, key),
        (Some(log), Some(since), ..) => check_since(session, log, since).await,
        (Some(log), None, ..) => check_log(session, log).await,
        _ => anyhow::bail!("LOG or --proof says what is to be verified"),
    }
}

async fn check_log(session: &Session, name: &str) -> Result<Outcome> {
    let store = session.store()?;
    let verified = match verify(&store, name).await {
        Ok(verified) => verified,
        // A log that cannot even be opened differs, too.
        Err(error) => match error.downcast::<Error>() {
            Ok(error) => damage(error)?,
            Err(error) => return Err(error),
        },
    };
    let mut out = Output::new()?;
    let Verified { head, records, expired, files, commits, with_secret, problems } = verified;
    let place = |file: &str| if file == "-" { name.to_owned() } else { format!("logs/{name}/{file}") };
    if session.json {
        let problem = |p: &sporlog_ledger::Problem| json!({"file": place(&p.file), "problem": p.problem});
        out.json(&json!({
            "log": name, "ok": problems.is_empty(), "head": head, "records": records, "expired": expired,
            "files": files, "commits": commits, "withSecret": with_secret,
            "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        }))?;
    } else {
        for problem in &problems {
            writeln!(out, "{}: {}", place(&problem.file), problem.problem)?;
        }
        let (records, files) = (counted(records, "record"), counted(files as u64, "data file"));
        let commits = counted(commits, "commit");
        let expired = if expired > 0 { format!(" ({expired} expired)") } else { String::new() };
        let verdict = match problems.len() as u64 {
            0 => "verified".to_owned(),
            count => format!("NOT verified: {}", counted(count, "problem")),
        };
        writeln!(out, "{name}: {verdict}; head {head}{expired}, {records} in {files}, {commits}")?;
    }
    out.flush()?;
    if !with_secret {
        complain("note: without the log's keys, records are checked by their files' digests, not one by one");
    }
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::Differs })
}

async fn verify(store: &Store, name: &str) -> Result<Verified> {
    let log = store.log_to_verify(name).await?;
    let progress = Progress::records("verify", log.head(), Results::After);
    Ok(log.verify(|records| progress.at(records)).await?)
}

/// What keeps a log from being opened, as a problem; or as the error it is, if it is none of the log's.
fn damage(error: Error) -> Result<Verified, Error> {
    let found = |file: &str, problem: String| Verified {
        problems: vec![sporlog_ledger::Problem { file: file.to_owned(), problem }],
        with_secret: true,
        ..Verified::default()
    };
    match error {
        Error::Damaged { file, problem } => Ok(found(&file, problem)),
        Error::Parquet { file, source } => Ok(found(&file, format!("it cannot be read: {source}"))),
        error => Err(error),
    }
}

async fn check_since(session: &Session, name: &str, since: &Path) -> Result<Outcome> {
    let earlier = std::fs::read(since).with_context(|| since.display().to_string())?;
    let log = session.store()?.log(name).await?;
    let (then, now) = match log.verify_since(&earlier).await {
        Ok(sizes) => sizes,
        Err(error @ (Error::Proof(_) | Error::Damaged { .. })) => {
            return say(session, Outcome::Differs, &format!("{name}: {error}"), json!({"log": name}));
        }
        Err(error) => return Err(error.into()),
    };
    let text = format!("{name}: the log of {now} records continues the checkpoint of {then}");
    say(session, Outcome::Done, &text, json!({"log": name, "then": then, "now": now}))
}

fn check_proof(session: &Session, path: &Path, key: &str) -> Result<Outcome> {
    let proof = read_bounded(path)?;
    // A key's parts are joined by `+`; a file's name may have that, too, but then it is there.
    let vkey = match Path::new(key).is_file() {
        true => std::fs::read_to_string(key).with_context(|| key.to_owned())?,
        false => key.to_owned(),
    };
    let proven = match verify_proof(&proof, vkey.trim()) {
        Ok(proven) => proven,
        Err(error) => {
            return say(session, Outcome::Differs, &format!("the proof does not hold: {error}"), json!({}));
        }
    };
    let text = format!(
        "the proof holds: this is record {} of {}, which had {}\n{}",
        proven.id,
        proven.origin,
        counted(proven.size, "record"),
        proven.entry
    );
    let entry: Value = serde_json::from_str(&proven.entry).unwrap_or(Value::String(proven.entry));
    let facts = json!({"origin": proven.origin, "id": proven.id, "size": proven.size, "entry": entry});
    say(session, Outcome::Done, &text, facts)
}

fn read_bounded(path: &Path) -> Result<String> {
    use std::io::Read;
    let mut reader: Box<dyn Read> = if path == Path::new("-") {
        Box::new(stdin())
    } else {
        Box::new(std::fs::File::open(path).with_context(|| path.display().to_string())?)
    };
    let mut bytes = Vec::new();
    let read = reader.by_ref().take(MAX_PROOF_BYTES).read_to_end(&mut bytes);
    read.with_context(|| path.display().to_string())?;
    // What is not text is no proof; the check will say so.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One result, in a sentence or as an object.
fn say(session: &Session, outcome: Outcome, text: &str, mut facts: Value) -> Result<Outcome> {
    let mut out = Output::new()?;
    if session.json {
        if let Some(facts) = facts.as_object_mut() {
            facts.insert("ok".into(), (outcome == Outcome::Done).into());
            if outcome != Outcome::Done {
                facts.insert("problem".into(), text.into());
            }
        }
        out.json(&facts)?;
    } else {
        writeln!(out, "{text}")?;
    }
    out.flush()?;
    Ok(outcome)
}
