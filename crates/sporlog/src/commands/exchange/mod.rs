//! `sporlog exchange`: folders that another SFTP server serves, and other servers.

use anyhow::Result;

use crate::cli::{Exchange, ExchangeArgs};
use crate::output::Outcome;
use crate::session::Session;

mod pull;
mod push;
mod transfer;
mod watch;

pub async fn run(session: &Session, args: &ExchangeArgs) -> Result<Outcome> {
    match &args.what {
        None => watch::run(session, args).await,
        Some(Exchange::Pull(args)) => pull::run(session, args).await,
        Some(Exchange::Push(args)) => push::run(session, args).await,
    }
}
