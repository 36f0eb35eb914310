//! `sporlog backup`: all logs of the store, copied while they are written to.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sporlog_exchange::{HOST_KEY_FILES, LASTING};
use sporlog_ledger::{Backup, Copied, Error, Store, copy_path};

use crate::access::{Access, record_access};
use crate::cli::BackupArgs;
use crate::output::{Outcome, Output, counted, print_error};
use crate::progress::{Progress, Results};
use crate::session::Session;

pub async fn run(session: &Session, args: &BackupArgs) -> Result<Outcome> {
    let store = session.store()?;
    let dest = std::path::absolute(&args.dest).with_context(|| args.dest.display().to_string())?;
    if store.directory().is_some_and(|store| dest.starts_with(&store) || store.starts_with(&dest)) {
        bail!("{}: the backup has to lie outside of the store", dest.display());
    }
    let backup = Backup::create(&dest)?;
    // All records leave the store with it.
    let parameters = json!({"destination": dest.display().to_string(), "withKeys": args.with_keys});
    let access = Access::new("BACKUP", format!("backup of all logs to {}", dest.display()), parameters);
    record_access(session, &store, access).await?;
    // The register first: of what it says is in a log, the copy of that log may have more, and not less.
    let mut out = Output::new()?;
    let (mut files, mut bytes) = (0, 0);
    let mut add = |(more_files, more_bytes)| (files, bytes) = (files + more_files, bytes + more_bytes);
    if let Some(root) = exchange_root(session, &store) {
        let host_key = HOST_KEY_FILES.iter().filter(|_| args.with_keys);
        for name in LASTING.iter().chain(host_key) {
            add(copy_path(&root.join(name), &backup.exchange().join(name), true)?);
        }
    }
    if args.with_keys {
        let keys = session.keys(&store).context("the folder of the keys is not known")?;
        add(backup.add_keys(&keys)?);
    }
    if !session.json {
        writeln!(out, "keys and exchange: {}, {bytes} bytes copied", counted(files, "file"))?;
    }
    let mut outcome = Outcome::Done;
    let mut without_copy = Vec::new();
    for name in store.names().await? {
        match copy(&store, &name, backup.store()).await {
            Ok(copied) => outcome = outcome.max(print(session, &mut out, &name, &copied)?),
            // Being made at this moment.
            Err(Error::NoSuchLog(_)) => {}
            Err(error) => {
                print_error(&format!("{name}: it could not be copied: {error}"));
                outcome = outcome.max(Outcome::Failed);
                if backup.store().log(&name).await.is_err() {
                    without_copy.push(name);
                }
            }
        }
        out.flush()?;
    }
    if without_copy.is_empty() {
        backup.finish()?;
    } else {
        print_error(&format!(
            "the backup is not finished, and cannot be restored: it has no copy of {}; mend what is wrong there, and \
             run this again",
            without_copy.join(", ")
        ));
    }
    Ok(outcome)
}

async fn copy(store: &Store, name: &str, to: &Store) -> Result<Copied, Error> {
    let log = store.log(name).await?;
    let progress = Progress::bytes(&format!("copy {name}"), None, Results::Meanwhile);
    log.copy_to(to, |bytes| progress.at(bytes)).await
}

/// Prints what was copied of a log, and what is wrong with the copy.
pub fn print(session: &Session, out: &mut Output, name: &str, copied: &Copied) -> Result<Outcome> {
    let Copied { version, first, head, covered, files, bytes, problems, .. } = copied;
    if session.json {
        let problem = |p: &sporlog_ledger::Problem| json!({"file": p.file, "problem": p.problem});
        out.json(&json!({
            "log": name, "ok": problems.is_empty(), "version": version, "first": first, "head": head,
            "covered": covered, "files": files, "bytes": bytes,
            "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        }))?;
    } else {
        for problem in problems {
            writeln!(out, "logs/{name}/{}: {}", problem.file, problem.problem)?;
        }
        let verdict = match problems.len() as u64 {
            0 => "verified".to_owned(),
            count => format!("NOT verified: {}", counted(count, "problem")),
        };
        let files = counted(*files, "file");
        writeln!(
            out,
            "{name}: copied up to record {head}, version {version}; {files}, {bytes} bytes; {verdict}"
        )?;
    }
    Ok(if problems.is_empty() { Outcome::Done } else { Outcome::Differs })
}

/// Where the exchange keeps its files, if that is known.
pub fn exchange_root(session: &Session, store: &Store) -> Option<PathBuf> {
    let settings = session.config().sftp.clone().unwrap_or_default();
    settings.root(store.directory().as_deref()).ok()
}
