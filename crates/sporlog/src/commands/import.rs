//! `sporlog import`: takes files into a log, each exactly once, with a receipt.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{DateTime, SecondsFormat, Utc};
use sporlog_intake::delivery::Options;
use sporlog_intake::import::{Earlier, Receipt, import};
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::source::Source;
use sporlog_ledger::{Writer, WriterOptions};
use sporlog_record::Rules;

use super::delivery;
use crate::cli::ImportArgs;
use crate::interrupt::Interrupt;
use crate::output::{Outcome, Output, print_error};
use crate::progress::Results;
use crate::session::Session;

/// Where an import's records go, and how they are taken.
struct Target {
    writer: Writer,
    quarantine: Quarantine,
    options: Options,
}

pub async fn run(session: &Session, args: &ImportArgs) -> Result<Outcome> {
    let kind = args.delivery.kind;
    let log = args.log.as_deref().unwrap_or(kind.name());
    session.check_import(log, kind)?;
    let rules = session.rules()?;
    let interrupt = Interrupt::listen()?;
    let mut target = None;
    let imported = import_all(session, args, log, &rules, &interrupt, &mut target).await;
    if let Some(Target { writer, quarantine, .. }) = target {
        // Also after a failure: what was stored before it is to be published.
        let closed = writer.close().await;
        quarantine.close().await?;
        closed?;
    }
    let outcome = imported?;
    Ok(if interrupt.is_set() { Outcome::Interrupted } else { outcome })
}

async fn import_all(
    session: &Session,
    args: &ImportArgs,
    log: &str,
    rules: &Rules,
    interrupt: &Interrupt,
    target: &mut Option<Target>,
) -> Result<Outcome> {
    let mut outcome = Outcome::Done;
    let mut out = Output::new()?;
    let mut printed = false;
    for path in &args.delivery.files {
        if interrupt.is_set() {
            break;
        }
        let source = match Source::open(path) {
            Ok(source) => source.until(interrupt.flag()),
            Err(error) => {
                print_error(&error.to_string());
                outcome = outcome.max(Outcome::Failed);
                continue;
            }
        };
        // Only now: a mistyped file name must not leave an empty store behind.
        let target = match &mut *target {
            Some(target) => target,
            none => none.insert(open(session, log, args, rules).await?),
        };
        let file = delivery::name(path);
        let Some(receipt) = take_in(target, source, path, args, interrupt).await? else { break };
        if !receipt.is_clean() {
            outcome = outcome.max(Outcome::Differs);
        }
        if session.json {
            out.json(&receipt)?;
        } else {
            if printed {
                writeln!(out)?;
            }
            print(&mut out, &file, &receipt)?;
        }
        printed = true;
        out.flush()?;
    }
    Ok(outcome)
}

async fn open(session: &Session, log: &str, args: &ImportArgs, rules: &Rules) -> Result<Target> {
    let store = session.store_or_new()?;
    let writer = store.writer(log, args.delivery.kind, WriterOptions { take_turns: true }).await?;
    let mut options = Options::new(args.delivery.kind, rules.clone());
    options.overlap = session.overlap_policy(args.take_overlapping);
    Ok(Target { writer, quarantine: Quarantine::new(store), options })
}

/// One file. `None` if it was interrupted.
async fn take_in(
    target: &Target,
    source: Source,
    path: &Path,
    args: &ImportArgs,
    interrupt: &Interrupt,
) -> Result<Option<Receipt>> {
    let kind = args.delivery.kind;
    let refused_as = Receipt::begun(&source, kind, target.writer.log().name());
    let started = std::time::Instant::now();
    let progress = delivery::progress(&source, Results::After);
    let options = target.options.clone();
    let imported =
        import(&target.writer, &target.quarantine, source, options, move |done| progress.at(done)).await;
    let stored = imported.as_ref().is_ok_and(|receipt| receipt.refused.is_empty());
    if interrupt.is_set() && !stored {
        print_error(&format!("{}: interrupted; nothing of it was stored", delivery::name(path)));
        return Ok(None);
    }
    match imported {
        Ok(receipt) => Ok(Some(receipt)),
        Err(error) => {
            let refused = delivery::refusal(error).with_context(|| delivery::name(path))?;
            Ok(Some(Receipt { refused, seconds: started.elapsed().as_secs_f64(), ..refused_as }))
        }
    }
}

fn print(out: &mut Output, file: &str, receipt: &Receipt) -> Result<()> {
    let mut line = |name: &str, value: &dyn std::fmt::Display| writeln!(out, "{name:<12} {value}");
    line("file", &file)?;
    line("bytes", &receipt.bytes)?;
    if !receipt.sha256.is_empty() {
        line("sha256", &receipt.sha256)?;
    }
    line("log", &format_args!("{} ({})", receipt.log, receipt.kind))?;
    line("accepted", &receipt.accepted)?;
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    if let Some(since) = receipt.already_since {
        line("already in", &format_args!("since {}; nothing was stored now", time(since)))?;
    }
    if receipt.quarantined > 0 {
        let hint = "`sporlog quarantine list` says why";
        line("quarantined", &format_args!("{}; {hint}", receipt.quarantined))?;
    } else {
        line("quarantined", &0)?;
    }
    if receipt.remarks > 0 {
        line("remarks", &format_args!("{}; with --json, the receipt lists them", receipt.remarks))?;
    } else {
        line("remarks", &0)?;
    }
    match (receipt.overlapping, receipt.skipped) {
        (0, _) => {}
        (rows, 0) => line("overlapping", &format_args!("{rows} rows that came before, taken again"))?,
        (rows, _) => line("overlapping", &format_args!("{rows} rows that came before, skipped"))?,
    }
    for Earlier { received_at, rows, .. } in &receipt.overlaps {
        let (rows, at) = (rows.unwrap_or_default(), time(*received_at));
        line("", &format_args!("{rows} of them in what was received at {at}"))?;
    }
    if let Some((first, last)) = receipt.first_id.zip(receipt.last_id) {
        line("ids", &format_args!("{first} to {last}"))?;
    }
    if let Some(received) = receipt.received_at {
        line("received at", &time(received))?;
    }
    line("seconds", &format_args!("{:.2}", receipt.seconds))?;
    if !receipt.refused.is_empty() {
        line("refused", &"the whole file; nothing of it was stored")?;
    }
    for finding in receipt.file_remarks.iter().chain(&receipt.refused) {
        writeln!(out, "{file}:{finding}")?;
    }
    Ok(())
}
