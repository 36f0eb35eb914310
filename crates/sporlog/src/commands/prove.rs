//! `sporlog prove`: a proof that a record is in a log.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::access::{Access, record_access};
use crate::cli::ProveArgs;
use crate::outfile::Sink;
use crate::output::Outcome;
use crate::session::Session;

pub async fn run(session: &Session, args: &ProveArgs) -> Result<Outcome> {
    let store = session.store()?;
    let log = store.log(&args.log.log).await?;
    let parameters = json!({"log": log.name(), "id": args.id});
    let access = Access::new("PROVE", format!("prove {} {}", log.name(), args.id), parameters);
    record_access(session, &store, access).await?;
    let proof = log.prove(args.id).await?;
    let mut out = Sink::open(&args.out)?;
    out.write_all(proof.as_bytes())?;
    out.finish()?;
    Ok(Outcome::Done)
}
