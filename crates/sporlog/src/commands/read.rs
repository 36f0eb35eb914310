//! `sporlog read`: records in the order of their ids.

use std::io::Write;

use anyhow::Result;
use futures::TryStreamExt;
use serde_json::json;

use crate::access::{Access, include_own_access, record_access};
use crate::cli::ReadArgs;
use crate::output::{Outcome, Output};
use crate::rows::RowWriter;
use crate::session::Session;

pub async fn run(session: &Session, args: &ReadArgs) -> Result<Outcome> {
    let store = session.store()?;
    let Some(log) = session.log_if_begun(&store, &args.log.log).await? else { return Ok(Outcome::Done) };
    let parameters = json!({"log": log.name(), "after": args.after, "limit": args.rows.limit});
    let access = Access::new("READ", format!("read {} after {}", log.name(), args.after), parameters);
    record_access(session, &store, access).await?;
    include_own_access(&log).await?;
    let mut out = Output::new()?;
    let mut rows = RowWriter::new(log.kind(), args.rows.shape());
    let mut batches = log.read(args.after, args.rows.limit);
    while let Some(batch) = batches.try_next().await? {
        rows.write(&log, &batch, &mut out)?;
    }
    rows.finish(&mut out)?;
    out.flush()?;
    Ok(Outcome::Done)
}
