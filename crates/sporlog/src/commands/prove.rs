//! `sporlog prove`: a proof that a record is in a log.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::access::{Access, record_access};
use crate::cli::ProveArgs;
use crate::outfile::OutFile;
use crate::output::{Outcome, Output};
use crate::session::Session;

pub async fn run(session: &Session, args: &ProveArgs) -> Result<Outcome> {
    let store = session.store()?;
    let log = store.log(&args.log.log).await?;
    let access = Access {
        action: "PROVE",
        subjects: Vec::new(),
        message: format!("prove {} {}", log.name(), args.id),
        parameters: json!({"log": log.name(), "id": args.id}),
    };
    record_access(session, &store, access).await?;
    let proof = log.prove(args.id).await?;
    match &args.out.out {
        Some(path) => {
            let mut file = OutFile::create(path, args.out.force)?;
            file.write_all(proof.as_bytes())?;
            file.finish()?;
        }
        None => {
            let mut out = Output::new()?;
            out.write_all(proof.as_bytes())?;
            out.flush()?;
        }
    }
    Ok(Outcome::Done)
}
