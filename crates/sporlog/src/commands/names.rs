//! `sporlog names`: what organisations, topics and systems are called.

use std::io::Write;

use anyhow::Result;
use sporlog_intake::names::{Imported, import};
use sporlog_intake::source::Source;

use super::delivery;
use crate::cli::{Names, NamesImportArgs};
use crate::interrupt::Interrupt;
use crate::output::{Outcome, Output, print_error};
use crate::progress::Results;
use crate::session::Session;

pub async fn run(session: &Session, what: &Names) -> Result<Outcome> {
    let Names::Import(args) = what;
    let interrupt = Interrupt::listen()?;
    let source = Source::open(&args.file)?.until(interrupt.flag());
    let store = if args.dry_run { session.store()? } else { session.store_or_new()? };
    let folder = session.names(&store)?;
    let progress = delivery::progress(&source, Results::After);
    let (kind, dry_run, today) = (args.kind, args.dry_run, chrono::Local::now().date_naive());
    let work = move || import(kind, source, &folder, today, dry_run, &|done| progress.at(done));
    let imported = tokio::task::spawn_blocking(work).await?;
    if interrupt.is_set() {
        print_error("interrupted; the names stay as they were");
        return Ok(Outcome::Interrupted);
    }
    let imported = imported?;
    let mut out = Output::new()?;
    if session.json {
        out.json(&imported)?;
    } else {
        print(&mut out, args, &imported)?;
    }
    out.flush()?;
    Ok(if imported.refused == 0 { Outcome::Done } else { Outcome::Differs })
}

fn print(out: &mut Output, args: &NamesImportArgs, imported: &Imported) -> Result<()> {
    let Imported { read, new, changed, known, refused, reasons } = imported;
    for reason in reasons {
        writeln!(out, "{}: {reason}", delivery::name(&args.file))?;
    }
    if *refused > reasons.len() {
        writeln!(out, "… and {} more", refused - reasons.len())?;
    }
    let dry = if args.dry_run { " (nothing was stored)" } else { "" };
    writeln!(
        out,
        "{}: {read} names read, {refused} refused; {new} new, {changed} changed, {known} known now{dry}",
        args.kind
    )?;
    Ok(())
}
