//! `sporlog key show`: a log's public key.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::output::{Outcome, Output};
use crate::session::Session;

pub async fn show(session: &Session, name: &str, vkey_alone: bool) -> Result<Outcome> {
    let log = session.store()?.log(name).await?;
    let vkey = log.vkey();
    // A key's name is the origin of what it signs.
    let origin = vkey.split('+').next().unwrap_or_default();
    let mut out = Output::new()?;
    if session.json {
        out.json(&json!({"log": name, "origin": origin, "vkey": vkey}))?;
    } else if vkey_alone {
        writeln!(out, "{vkey}")?;
    } else {
        writeln!(out, "origin  {origin}\nvkey    {vkey}")?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}
