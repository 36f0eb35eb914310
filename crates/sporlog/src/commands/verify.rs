//! `sporlog verify`: a whole log, at once or in parts, a served log, one proof, or that a log continues an earlier checkpoint.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sporlog_ledger::{
    Error, KeySource, Log, Problem, Served, Store, Verified, check_vkey, verify_proof, verify_served,
};

use crate::cli::VerifyArgs;
use crate::output::{Outcome, Output, counted, note};
use crate::progress::{Progress, Results};
use crate::served::ServedLog;
use crate::session::{Session, public_key, read_bounded};

/// A proof is hardly larger than its record, and that is bounded, too.
const MAX_PROOF_BYTES: u64 = 256 << 20;

pub async fn run(session: &Session, args: &VerifyArgs) -> Result<Outcome> {
    let key = args.key.as_deref().map(public_key).transpose()?;
    if let (Some(proof), Some(key)) = (&args.proof, &key) {
        return check_proof(session, proof, key);
    }
    if let Some(key) = &key
        && let Err(reason) = check_vkey(key)
    {
        bail!(
            "--key: neither a file nor a public key, which looks like ORIGIN+ID+BASE64, as `sporlog key show LOG \
             --vkey` prints it ({reason})"
        );
    }
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    let since = args.since.as_ref().map(read).transpose()?;
    let checkpoint = args.checkpoint.as_ref().map(read).transpose()?;
    match (&args.log, &args.url, &key) {
        (Some(log), ..) if args.range.is_some() => {
            check_range(session, log, key.as_deref(), args.range.unwrap_or_default(), checkpoint.as_deref())
                .await
        }
        (Some(log), ..) if !args.join.is_empty() => {
            let results = args.join.iter().map(|path| Ok((path.display().to_string(), read(path)?)));
            let results = results.collect::<Result<Vec<_>>>()?;
            join(session, log, key.as_deref(), &results, checkpoint.as_deref()).await
        }
        _ if checkpoint.is_some() => bail!("--checkpoint goes with --range or --join"),
        (Some(log), ..) if since.is_some() => {
            check_since(session, log, key.as_deref(), &since.unwrap_or_default()).await
        }
        (Some(log), ..) => check_log(session, log, key.as_deref()).await,
        (_, Some(url), Some(key)) => check_served(session, url, key, since.as_deref()).await,
        _ => bail!("LOG, --url or --proof says what is to be verified"),
    }
}

/// With whose public key signatures were checked, for people and for programs.
fn named(source: KeySource) -> (&'static str, &'static str) {
    match source {
        KeySource::Given => ("the given key", "given"),
        KeySource::KeyFolder => ("the key folder's public key", "key folder"),
        KeySource::LogFolder => ("the log's own copy of its public key", "log"),
    }
}

/// Whoever could change the log could change its copy of the key, too.
pub fn warn_of_own_copy(source: KeySource) {
    if source == KeySource::LogFolder {
        note(
            "signatures were checked with the log's own copy of its public key (tlog/key), which whoever can \
             change the log can change, too; --key takes the key from elsewhere",
        );
    }
}

/// What of a log is verified.
enum Wanted {
    /// All of it.
    Whole,
    Part,
}

/// Opens a log; signatures are checked with the given key, or else with the one that is at hand.
async fn open(store: &Store, name: &str, key: Option<&str>, wanted: Wanted) -> Result<Log, Error> {
    match (wanted, key) {
        (Wanted::Whole, Some(key)) => store.log_to_verify_with_key(name, key).await,
        (Wanted::Whole, None) => store.log_to_verify(name).await,
        (Wanted::Part, Some(key)) => store.log_with_key(name, key).await,
        (Wanted::Part, None) => store.log(name).await,
    }
}

pub async fn check_log(session: &Session, name: &str, key: Option<&str>) -> Result<Outcome> {
    let (verified, source) = match open(&session.store()?, name, key, Wanted::Whole).await {
        Ok(log) => {
            let progress =
                Progress::records("verify", log.covered().await.unwrap_or_default(), Results::After);
            (log.verify(|records| progress.at(records)).await, Some(log.key_source()))
        }
        Err(error) => (Err(error), key.map(|_| KeySource::Given)),
    };
    // A log that cannot even be opened differs, too.
    print_verified(session, name, verified.or_else(damage)?, source)
}

/// A part of a log, and the result for [`join`].
async fn check_range(
    session: &Session,
    name: &str,
    key: Option<&str>,
    (first, last): (u64, Option<u64>),
    checkpoint: Option<&[u8]>,
) -> Result<Outcome> {
    let (verified, source) = match open(&session.store()?, name, key, Wanted::Part).await {
        Ok(log) => {
            let covered = log.covered().await.unwrap_or_default();
            let progress = Progress::records(
                "verify",
                last.unwrap_or(covered).saturating_add(1).saturating_sub(first),
                Results::After,
            );
            let verified = log.verify_range(first, last, checkpoint, |records| progress.at(records)).await;
            (verified, Some(log.key_source()))
        }
        Err(error) => (Err(error), None),
    };
    let (verified, result) = match verified {
        Ok(found) => found,
        Err(error) => (damage(error)?, None),
    };
    let Some(result) = result else { return print_verified(session, name, verified, source) };
    let result = String::from_utf8_lossy(&result);
    let mut out = Output::new()?;
    if session.json {
        out.json(&json!({"log": name, "ok": true, "records": verified.records, "expired": verified.expired, "result": result}))?;
    } else {
        write!(out, "{result}")?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

/// A log by the results of its parts.
async fn join(
    session: &Session,
    name: &str,
    key: Option<&str>,
    results: &[(String, Vec<u8>)],
    checkpoint: Option<&[u8]>,
) -> Result<Outcome> {
    let (verified, source) = match open(&session.store()?, name, key, Wanted::Whole).await {
        Ok(log) => (log.verify_join(results, checkpoint).await, Some(log.key_source())),
        Err(error) => (Err(error), None),
    };
    let verified = verified.or_else(damage)?;
    let (head, covered) = (verified.head, verified.covered);
    let outcome = print_verified(session, name, verified, source)?;
    if head > covered && outcome == Outcome::Done {
        note(&format!(
            "the checkpoint covers the records 1 to {covered}; those after them were not verified"
        ));
    }
    Ok(outcome)
}

fn print_verified(
    session: &Session,
    name: &str,
    verified: Verified,
    source: Option<KeySource>,
) -> Result<Outcome> {
    let mut out = Output::new()?;
    let Verified {
        head, records, expired, files, commits, with_secret, problems, rolled_back, signed, ..
    } = verified;
    let place = |file: &str| if file == "-" { name.to_owned() } else { format!("logs/{name}/{file}") };
    let by = source.map(named);
    if session.json {
        let problem = |p: &Problem| json!({"file": place(&p.file), "problem": p.problem});
        out.json(&json!({
            "log": name, "ok": problems.is_empty(), "head": head, "records": records, "expired": expired,
            "files": files, "commits": commits, "signed": signed, "withSecret": with_secret, "key": by.map(|(_, json)| json),
            "rolledBack": rolled_back.iter().map(|r| json!({"from": r.from, "to": r.to})).collect::<Vec<_>>(),
            "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        }))?;
    } else {
        for problem in &problems {
            writeln!(out, "{}: {}", place(&problem.file), problem.problem)?;
        }
        let files = counted(files as u64, "data file");
        let read = if with_secret { format!("{} in {files}", counted(records, "record")) } else { files };
        let commits = counted(commits, "commit");
        let expired = if expired > 0 { format!(" ({expired} expired)") } else { String::new() };
        for sporlog_ledger::RolledBack { from, to } in &rolled_back {
            writeln!(
                out,
                "{name}: it was rolled back, from record {from} to record {to}; a signed commit says so"
            )?;
        }
        let by = by.map(|(text, _)| format!("; checked with {text}")).unwrap_or_default();
        let verdict = verdict(&problems);
        writeln!(out, "{name}: {verdict}; head {head}{expired}, {read}, {commits}{by}")?;
    }
    out.flush()?;
    if !with_secret {
        note("without the log's keys, records are checked by their files' digests, not one by one");
    }
    if !signed && problems.is_empty() {
        note(
            "an earlier version made this log, and its commits are not signed one by one; the next command that \
             writes to the log verifies and signs them",
        );
    }
    source.into_iter().for_each(warn_of_own_copy);
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::Differs })
}

fn verdict(problems: &[Problem]) -> String {
    match problems.len() as u64 {
        0 => "verified".to_owned(),
        count => format!("NOT verified: {}", counted(count, "problem")),
    }
}

/// A log as a server shows it to everybody.
async fn check_served(session: &Session, url: &str, key: &str, since: Option<&[u8]>) -> Result<Outcome> {
    let served = ServedLog::new(url)?;
    // How many entries there are turns out when the checkpoint is there.
    let found = match verify_served(&served, key, since, Progress::of_records("verify")).await {
        Err(Error::Damaged { file, problem }) => {
            Served { problems: vec![Problem { file, problem }], ..Served::default() }
        }
        found => found?,
    };
    let Served { size, since, problems } = found;
    let mut out = Output::new()?;
    if session.json {
        let problem = |p: &Problem| json!({"file": p.file, "problem": p.problem});
        out.json(&json!({
            "url": url, "ok": problems.is_empty(), "size": size, "then": since, "key": "given",
            "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        }))?;
    } else {
        for problem in &problems {
            writeln!(out, "{}: {}", problem.file, problem.problem)?;
        }
        let verdict = verdict(&problems);
        let since = match since {
            Some(since) if problems.is_empty() => format!(", which continue the checkpoint of {since}"),
            _ => String::new(),
        };
        writeln!(out, "{url}: {verdict}; {}{since}; checked with the given key", counted(size, "record"))?;
    }
    out.flush()?;
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::Differs })
}

/// What keeps a log from being opened, as a problem; or as the error it is, if it is none of the log's.
fn damage(error: Error) -> Result<Verified, Error> {
    let found = |file: &str, problem: String| Verified {
        problems: vec![Problem { file: file.to_owned(), problem }],
        with_secret: true,
        ..Verified::default()
    };
    match error {
        Error::Damaged { file, problem } => Ok(found(&file, problem)),
        Error::Parquet { file, source } => Ok(found(&file, format!("it cannot be read: {source}"))),
        error => Err(error),
    }
}

async fn check_since(session: &Session, name: &str, key: Option<&str>, earlier: &[u8]) -> Result<Outcome> {
    let checked = async {
        let log = open(&session.store()?, name, key, Wanted::Part).await?;
        let sizes = log.verify_since(earlier).await?;
        anyhow::Ok((sizes, log.key_source()))
    };
    let ((then, now), source) = match checked.await {
        Ok(checked) => checked,
        Err(error) => match error.downcast::<Error>()? {
            error @ (Error::Proof(_) | Error::Damaged { .. }) => {
                return say(session, Outcome::Differs, &format!("{name}: {error}"), json!({"log": name}));
            }
            error => return Err(error.into()),
        },
    };
    let (by, json) = named(source);
    let text =
        format!("{name}: the log of {now} records continues the checkpoint of {then}; checked with {by}");
    let outcome =
        say(session, Outcome::Done, &text, json!({"log": name, "then": then, "now": now, "key": json}))?;
    warn_of_own_copy(source);
    Ok(outcome)
}

fn check_proof(session: &Session, path: &Path, vkey: &str) -> Result<Outcome> {
    let proof = read_bounded(path, MAX_PROOF_BYTES)?;
    // What is not text is no proof, and the check says so.
    let proven = match verify_proof(&String::from_utf8_lossy(&proof), vkey) {
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

/// One result, in a sentence or as an object.
fn say(session: &Session, outcome: Outcome, text: &str, mut facts: Value) -> Result<Outcome> {
    facts["ok"] = (outcome == Outcome::Done).into();
    if outcome != Outcome::Done {
        facts["problem"] = text.into();
    }
    session.print(&facts, text)?;
    Ok(outcome)
}
