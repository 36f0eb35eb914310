//! `sporlog apikey`: the keys that programs send to the server.

use std::io::Write;

use anyhow::{Context, Result, anyhow};
use chrono::{DateTime, Local, NaiveDate, SecondsFormat, TimeDelta, TimeZone, Utc};
use serde_json::{Value, json};
use sporlog_ledger::Store;
use sporlog_web::access::{Key, NewKey};

use crate::access::{self, Access};
use crate::cli::{Apikey, CreateArgs};
use crate::keyfile::{KeyFile, LastUse};
use crate::output::{Outcome, Output, note};
use crate::session::Session;

pub async fn run(session: &Session, what: Apikey) -> Result<Outcome> {
    match what {
        Apikey::Create(args) => create(session, args).await,
        Apikey::List => list(session),
        Apikey::Rotate { name, overlap } => rotate(session, &name, overlap).await,
        Apikey::Revoke { name } => revoke(session, &name).await,
    }
}

async fn create(session: &Session, args: CreateArgs) -> Result<Outcome> {
    let store = session.store_or_new()?;
    let files = files(session, &store)?;
    let locked = files.lock()?;
    let mut ring = files.ring()?;
    let new = NewKey {
        name: args.name,
        role: args.role,
        logs: args.logs,
        organisations: args.organisations,
        expires: args.expires.map(end_of),
    };
    let (key, secret) = ring.create(new, Utc::now())?;
    let message = format!("made the API key '{}' with the role {}", key.name, key.role);
    record(session, &store, "APIKEY_CREATE", message, &key).await?;
    locked.save(&ring)?;
    print(session, &key, &secret).map_err(|error| {
        // Not as a cause: a pipe that was closed is no success here.
        anyhow!("the key '{}' was made, but could not be printed ({error}): revoke it", key.name)
    })?;
    if !session.json {
        note(&format!(
            "this is the key '{}', role {}, id {}; keep it safe, it is not shown again",
            key.name, key.role, key.id
        ));
    }
    Ok(Outcome::Done)
}

async fn rotate(session: &Session, name: &str, overlap: u16) -> Result<Outcome> {
    let store = session.store()?;
    let files = files(session, &store)?;
    let locked = files.lock()?;
    let mut ring = files.ring()?;
    let until = Utc::now() + TimeDelta::days(overlap.into());
    let (key, secret) = ring.rotate(name, until)?;
    let until = rfc3339(until);
    let message =
        format!("gave the API key '{}' another secret; the old one is taken until {until}", key.name);
    record(session, &store, "APIKEY_ROTATE", message, &key).await?;
    locked.save(&ring)?;
    print(session, &key, &secret).map_err(|error| {
        anyhow!("the key '{name}' has a new secret, but it could not be printed ({error}): rotate it again")
    })?;
    if !session.json {
        note(&format!(
            "this is the key '{name}' with its new secret, which is not shown again; the old one is taken until {until}"
        ));
    }
    Ok(Outcome::Done)
}

fn print(session: &Session, key: &Key, secret: &str) -> std::io::Result<()> {
    let mut facts = as_json(key, &LastUse::new());
    facts["key"] = secret.into();
    session.print(&facts, secret)
}

fn list(session: &Session) -> Result<Outcome> {
    let store = session.store()?;
    let files = files(session, &store)?;
    let (ring, last_use) = (files.ring()?, files.last_use()?);
    let mut out = Output::new()?;
    if !session.json {
        writeln!(
            out,
            "{:<24} {:<12} {:<5} {:<8} {:<10} {:<10} {:<20} BOUNDS",
            "NAME", "ID", "ROLE", "STATE", "CREATED", "EXPIRES", "LAST USED"
        )?;
    }
    for key in ring.keys() {
        if session.json {
            out.json(&as_json(key, &last_use))?;
            continue;
        }
        let day = |time: DateTime<Utc>| time.with_timezone(&Local).format("%Y-%m-%d").to_string();
        // The last day on which it is taken, as it was given.
        let expires = key.expires.map_or_else(|| "-".into(), |end| day(end - chrono::TimeDelta::seconds(1)));
        let used = last_use.get(&*key.id).map_or_else(|| "-".into(), |time| rfc3339(*time));
        let bounds = [key.logs.join(" "), key.organisations.join(" ")].join(" ");
        let (name, id, role, state, created) = (&key.name, &key.id, key.role, state(key), day(key.created));
        writeln!(
            out,
            "{name:<24} {id:<12} {role:<5} {state:<8} {created:<10} {expires:<10} {used:<20} {}",
            if bounds.trim().is_empty() { "-" } else { bounds.trim() }
        )?;
    }
    out.flush()?;
    Ok(Outcome::Done)
}

async fn revoke(session: &Session, name: &str) -> Result<Outcome> {
    let store = session.store()?;
    let files = files(session, &store)?;
    let locked = files.lock()?;
    let mut ring = files.ring()?;
    let key = ring.revoke(name, Utc::now())?;
    // First of all the key must be dead. Unlike an access, this is not to wait for its record.
    locked.save(&ring)?;
    drop(locked);
    let facts = as_json(&key, &files.last_use().unwrap_or_default());
    session.print(&facts, &format!("revoked {} ({})", key.name, key.id))?;
    let message = format!("revoked the API key '{}'", key.name);
    let recorded = record(session, &store, "APIKEY_REVOKE", message, &key).await;
    recorded.with_context(|| format!("the key '{}' is revoked, but that is not on record", key.name))?;
    Ok(Outcome::Done)
}

fn files(session: &Session, store: &Store) -> Result<KeyFile> {
    let folder =
        session.keys(store).context("the store is not on this machine: --keys says where keys lie")?;
    Ok(KeyFile::new(folder))
}

async fn record(
    session: &Session,
    store: &Store,
    action: &'static str,
    message: String,
    key: &Key,
) -> Result<()> {
    let parameters = json!({
        "id": key.id, "name": key.name, "role": key.role, "logs": key.logs,
        "organisations": key.organisations, "expires": key.expires.map(rfc3339),
    });
    access::record_access(session, store, Access::new(action, message, parameters)).await
}

fn as_json(key: &Key, last_use: &LastUse) -> Value {
    json!({
        "id": key.id, "name": key.name, "role": key.role, "logs": key.logs,
        "organisations": key.organisations, "state": state(key), "created": rfc3339(key.created),
        "expires": key.expires.map(rfc3339), "revoked": key.revoked.map(rfc3339),
        "oldSecretUntil": key.old.as_ref().map(|old| rfc3339(old.until)),
        "lastUsed": last_use.get(&*key.id).copied().map(rfc3339),
    })
}

fn state(key: &Key) -> &'static str {
    match key {
        Key { revoked: Some(_), .. } => "revoked",
        Key { expires: Some(expires), .. } if *expires <= Utc::now() => "expired",
        _ => "active",
    }
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// The end of a day here: the beginning of the next.
fn end_of(day: NaiveDate) -> DateTime<Utc> {
    let next = day.succ_opt().unwrap_or(NaiveDate::MAX).and_time(chrono::NaiveTime::MIN);
    // A midnight that the clocks skip is taken for UTC's.
    Local
        .from_local_datetime(&next)
        .earliest()
        .map_or_else(|| next.and_utc(), |time| time.with_timezone(&Utc))
}
