//! `sporlog exchange push`: delivers files to another SFTP server.

use std::time::Duration;

use anyhow::{Result, bail};
use sporlog_exchange::client::{Push, Wait, push};

use super::transfer::{Teller, access, conclude, stop_on_signal};
use crate::cli::PushArgs;
use crate::output::Outcome;
use crate::session::Session;

pub async fn run(session: &Session, args: &PushArgs) -> Result<Outcome> {
    let access = access(&args.to, &args.connection)?;
    let suffix = (!args.as_is).then(|| args.temporary_suffix.clone());
    if suffix.as_ref().is_some_and(|suffix| suffix.is_empty() || suffix.contains('/')) {
        bail!("--temporary-suffix: expected something such as .part; --as-is sends without");
    }
    let wait = Wait { folder: args.receipts.clone(), at_most: Duration::from_secs(args.wait_at_most) };
    let wanted = Push {
        files: args.files.clone(),
        patterns: args.patterns.clone(),
        suffix,
        journal: args.journal.clone(),
        rehearse: args.dry_run,
        again: args.again,
        wait: args.wait.then_some(wait),
    };
    let stop = stop_on_signal()?;
    let teller = Teller::new(session, "sent")?;
    let ended = push(&access, &wanted, &teller, &stop).await;
    conclude(teller, ended)
}
