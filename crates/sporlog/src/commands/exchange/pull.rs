//! `sporlog exchange pull`: fetches files from another SFTP server.

use anyhow::Result;
use sporlog_exchange::client::{Pull, pull};

use super::transfer::{Teller, access, conclude, stop_on_signal};
use crate::cli::PullArgs;
use crate::output::Outcome;
use crate::session::Session;

pub async fn run(session: &Session, args: &PullArgs) -> Result<Outcome> {
    let access = access(&args.from, &args.connection)?;
    let wanted = Pull {
        into: args.into.clone(),
        patterns: args.patterns.clone(),
        recursive: args.recursive,
        delete: args.delete,
        rehearse: args.dry_run,
        again: args.again,
    };
    let stop = stop_on_signal()?;
    let teller = Teller::new(session, "fetched")?;
    let ended = pull(&access, &wanted, &teller, &stop).await;
    conclude(teller, ended)
}
