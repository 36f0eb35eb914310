//! `sporlog key`: a log's public key, and another one for it.

use std::io::Write;

use anyhow::Result;
use serde_json::json;

use crate::access::{Access, record_access};
use crate::output::{Outcome, Output, print_error};
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

/// Gives a log another signing key.
pub async fn rotate(session: &Session, name: &str) -> Result<Outcome> {
    let store = session.store()?;
    record(session, name, "KEY_ROTATE", "gives the log another signing key").await?;
    let vkey = store.rotate_key(name).await?;
    let mut out = Output::new()?;
    if session.json {
        out.json(&json!({"log": name, "vkey": vkey}))?;
    } else {
        writeln!(out, "{vkey}")?;
    }
    out.flush()?;
    print_error(&format!(
        "note: this is the log's public key from now on. The old one signs checkpoints, too, until \
         `sporlog key retire {name}`. Copy the key file anew, and start the server again"
    ));
    Ok(Outcome::Done)
}

/// Has a log's old signing key sign nothing any more.
pub async fn retire(session: &Session, name: &str) -> Result<Outcome> {
    let store = session.store()?;
    record(session, name, "KEY_RETIRE", "has the log's old signing key sign nothing any more").await?;
    store.retire_key(name).await?;
    Ok(Outcome::Done)
}

async fn record(session: &Session, name: &str, action: &'static str, does: &str) -> Result<()> {
    let store = session.store()?;
    let parameters = json!({"log": name, "vkey": store.log(name).await?.vkey()});
    let access = Access { action, subjects: Vec::new(), message: format!("{does}: '{name}'"), parameters };
    record_access(session, &store, access).await
}
