//! `sporlog key`: a log's public key, and another one for it.

use anyhow::Result;
use serde_json::json;

use crate::access::{Access, record_access};
use crate::output::{Outcome, print_error};
use crate::session::Session;

pub async fn show(session: &Session, name: &str, vkey_alone: bool) -> Result<Outcome> {
    let log = session.store()?.log(name).await?;
    let vkey = log.vkey();
    // A key's name is the origin of what it signs.
    let origin = vkey.split('+').next().unwrap_or_default();
    let text = if vkey_alone { vkey.to_owned() } else { format!("origin  {origin}\nvkey    {vkey}") };
    session.print(&json!({"log": name, "origin": origin, "vkey": vkey}), &text)?;
    Ok(Outcome::Done)
}

/// Gives a log another signing key.
pub async fn rotate(session: &Session, name: &str) -> Result<Outcome> {
    let store = session.store()?;
    record(session, name, "KEY_ROTATE", "gives the log another signing key").await?;
    let vkey = store.rotate_key(name).await?;
    session.print(&json!({"log": name, "vkey": vkey}), &vkey)?;
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
    record_access(session, &store, Access::new(action, format!("{does}: '{name}'"), parameters)).await
}
