//! `sporlog pull`: mirrors an OS2faktor Login's log, or compares the mirror with it.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sporlog_intake::pull::{Compared, Difference, Mode, Pull, PullConfig, Settings, Totals, compare};
use sporlog_intake::quarantine::Quarantine;
use sporlog_intake::writers::OwnWriters;

use crate::cli::PullLogArgs;
use crate::interrupt::{StopSignals, until_asked};
use crate::output::{Outcome, Output, refused_hint};
use crate::progress::{Progress, Results};
use crate::session::Session;

/// The pulls that are configured, in order.
pub fn configured(session: &Session) -> Result<&[Settings]> {
    let pulls = session.config().pulls.as_slice();
    Settings::check_all(pulls)?;
    for pull in pulls {
        session.check_import(&pull.log, pull.kind)?;
    }
    Ok(pulls)
}

pub async fn run(session: &Session, args: &PullLogArgs) -> Result<Outcome> {
    let pulls = configured(session)?;
    let Some(settings) = pulls.iter().find(|pull| pull.name == args.name) else {
        let names = pulls.iter().map(|pull| pull.name.as_str()).collect::<Vec<_>>().join(", ");
        bail!(
            "the configuration has no [[pull]] '{}'; it has: {}",
            args.name,
            if names.is_empty() { "none" } else { &names }
        );
    };
    if args.compare {
        return compared(session, settings).await;
    }
    let mode = match (args.once, args.until_head) {
        (true, _) => Mode::Once,
        (_, true) => Mode::UntilHead,
        _ => Mode::Forever,
    };
    let signals = StopSignals::listen()?;
    let store = session.store_or_new()?;
    let (writers, quarantine) = (OwnWriters::new(store.clone()), Quarantine::new(store));
    let progress = Progress::records("pull", 0, Results::After);
    let config = PullConfig {
        settings: settings.clone(),
        writers: Arc::new(writers.clone()),
        quarantine: quarantine.clone(),
        rules: session.rules()?,
        from: args.from,
        progress: Box::new(move |done, total| {
            progress.total(total);
            progress.at(done);
        }),
    };
    let pull = Pull::start(config, mode)?;
    let (totals, interrupted) = until_asked(pull, Pull::ended, Pull::stop, signals).await;
    // Also after a failure: what was stored before it is to be published.
    let closed = writers.close().await;
    quarantine.close().await?;
    let totals = totals.with_context(|| format!("pulling {} from {}", settings.name, settings.url))?;
    closed?;
    let Totals { accepted, late, refused } = totals;
    let hint = refused_hint(refused);
    let text = format!("accepted     {accepted}\nof them late {late}\nquarantined  {refused}{hint}");
    session.print(&totals, &text)?;
    Ok(match (mode, interrupted) {
        (Mode::Forever, _) => Outcome::Done,
        (_, true) => Outcome::Interrupted,
        (_, false) if totals.refused > 0 => Outcome::Differs,
        _ => Outcome::Done,
    })
}

async fn compared(session: &Session, settings: &Settings) -> Result<Outcome> {
    let mut out = Output::new()?;
    let mut print = |difference: &Difference| -> Result<()> {
        let (source_id, fields) = (difference.source_id, difference.fields.join(", "));
        match difference.id {
            _ if session.json => out.json(difference)?,
            None => writeln!(out, "sourceId {source_id}: missing here")?,
            Some(id) => writeln!(out, "sourceId {source_id}: id {id} differs in {fields}")?,
        }
        Ok(())
    };
    let mut printed = Ok(());
    let told = |difference: Difference| {
        if printed.is_ok() {
            printed = print(&difference);
        }
    };
    let progress = Progress::of_records("compare");
    let compared = compare(settings, &session.store()?, session.rules()?, told, progress).await;
    let compared = compared.with_context(|| format!("comparing {}", settings.name))?;
    printed?;
    let Compared { up_to, there, same, different, missing, quarantined, kept, kept_ids } = compared;
    if session.json {
        out.json(&json!({"compared": compared}))?;
    } else {
        writeln!(out, "up to id     {up_to}")?;
        writeln!(out, "there        {there}")?;
        writeln!(out, "same here    {same}")?;
        writeln!(out, "different    {different}")?;
        writeln!(out, "missing here {missing}")?;
        writeln!(out, "quarantined  {quarantined}")?;
        let ids = kept_ids.map(|(first, last)| format!("; sourceId {first} to {last}")).unwrap_or_default();
        writeln!(out, "gone there   {kept}, kept here{ids}")?;
    }
    out.flush()?;
    Ok(if different + missing > 0 { Outcome::Differs } else { Outcome::Done })
}
