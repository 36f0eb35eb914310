//! `sporlog consume`: takes messages from Kafka into their logs.

use std::io::Write;

use anyhow::{Context, Result, bail};
use sporlog_intake::kafka::{Consumer, Mode, Totals};

use crate::cli::ConsumeArgs;
use crate::interrupt::{StopSignals, until_asked};
use crate::output::{Outcome, Output};
use crate::session::Session;

pub async fn run(session: &Session, args: &ConsumeArgs) -> Result<Outcome> {
    let Some(settings) = session.config().kafka.clone() else {
        bail!("the configuration has no section [kafka]: it says from which topics, and into which logs");
    };
    // Before a store is made for them.
    settings.check()?;
    for topic in &settings.topics {
        session.check_import(&topic.log, topic.kind)?;
    }
    let mode = if args.until_end { Mode::UntilEnd } else { Mode::Forever };
    let signals = StopSignals::listen()?;
    let consumer = Consumer::start(settings, session.store_or_new()?, session.rules()?, mode)?;
    let (totals, interrupted) = until_asked(consumer, Consumer::ended, Consumer::stop, signals).await;
    let totals = totals.context("consuming")?;
    print(session, &totals)?;
    Ok(match (args.until_end, interrupted) {
        (true, true) => Outcome::Interrupted,
        (true, false) if totals.refused > 0 => Outcome::Differs,
        _ => Outcome::Done,
    })
}

fn print(session: &Session, totals: &Totals) -> Result<()> {
    let mut out = Output::new()?;
    if session.json {
        out.json(totals)?;
    } else {
        let Totals { accepted, refused, skipped } = totals;
        writeln!(out, "accepted     {accepted}")?;
        let hint = if *refused > 0 { "; `sporlog quarantine list` says why" } else { "" };
        writeln!(out, "quarantined  {refused}{hint}")?;
        writeln!(out, "empty        {skipped}")?;
    }
    out.flush()?;
    Ok(())
}
