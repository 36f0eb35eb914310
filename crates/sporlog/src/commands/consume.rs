//! `sporlog consume`: takes messages from Kafka into their logs.

use anyhow::{Context, Result, bail};
use sporlog_intake::kafka::{Consumer, Mode, Totals};

use crate::cli::ConsumeArgs;
use crate::interrupt::{StopSignals, until_asked};
use crate::output::{Outcome, refused_hint};
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
    let Totals { accepted, refused, skipped } = totals;
    let hint = refused_hint(refused);
    let text = format!("accepted     {accepted}\nquarantined  {refused}{hint}\nempty        {skipped}");
    session.print(&totals, &text)?;
    Ok(match (args.until_end, interrupted) {
        (true, true) => Outcome::Interrupted,
        (true, false) if totals.refused > 0 => Outcome::Differs,
        _ => Outcome::Done,
    })
}
