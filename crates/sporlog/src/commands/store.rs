//! `sporlog store`: whether a place can be a store.

use std::io::Write;

use anyhow::Result;
use serde_json::json;
use sporlog_ledger::{Store, StoreOptions};

use crate::cli::StoreCommand;
use crate::output::{Outcome, Output};
use crate::session::Session;

pub async fn run(session: &Session, what: StoreCommand) -> Result<Outcome> {
    let StoreCommand::Check { url } = what;
    let address = url.unwrap_or_else(|| session.config().store());
    let store = Store::open(StoreOptions { address, ..StoreOptions::default() })?;
    let mut out = Output::new()?;
    let mut outcome = Outcome::Done;
    for ability in store.check_fitness().await {
        let problem = &ability.problem;
        if problem.is_some() {
            outcome = Outcome::Differs;
        }
        match problem {
            _ if session.json => {
                out.json(&json!({"what": ability.what, "ok": problem.is_none(), "problem": problem}))?;
            }
            Some(problem) => writeln!(out, "FAILED  {}: {problem}", ability.what)?,
            None => writeln!(out, "ok      {}", ability.what)?,
        }
    }
    out.flush()?;
    Ok(outcome)
}
