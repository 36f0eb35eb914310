//! `/my/{log}/{id}`: one record, in words.
//!
//! Whether a record of this id belongs to somebody else or is not there at all is not told, not by the time it
//! takes either: the person's own records are located, and then it is not among them.

use std::borrow::Cow;
use std::io::Read;

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::read::DeflateDecoder;
use serde_json::json;
use sporlog_ledger::Key;
use sporlog_record::Kind;

use super::configured::Explanation;
use super::consent;
use super::entry::{Entry, Value, Visible, now};
use super::html::{Html, LONG, data};
use super::layout::{Fact, Visitor, record_access};
use super::settings::contact_link;
use super::texts::calendar;
use super::tree;
use super::words::{Words, field, remark};
use crate::api::reader::Trace;
use crate::sign_in::session::SignedIn;
use crate::{App, Problem};

/// Fields that are shown as contents of their own.
const CONTENTS: [&str; 6] =
    ["leverteData", "dataForespoersel", "Parametre", "SvarReaktion", "detailContent", "detailSupplement"];

/// The person's own record, with some of its columns.
pub(super) async fn own(
    app: &App,
    person: &SignedIn,
    log: &str,
    id: &str,
    columns: fn(&Visible) -> Vec<&'static str>,
) -> Result<(Visible, Entry), Problem> {
    let none = || Problem::not_found("there is no such entry for you");
    let visible = app.pages.visible_log(&app.catalog, log).await?.ok_or_else(none)?;
    let digits = (1..=19).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
    let id: u64 = digits.then(|| id.parse().ok()).flatten().ok_or_else(none)?;
    let located = visible.log.locate(Key::Subject(person.pid.clone())).await?;
    if !located.may_have(id) {
        return Err(none());
    }
    let (batches, _) = located.read(id + 1, 1, &columns(&visible)).await?;
    let batch = batches.first().ok_or_else(none)?;
    let entry = visible.entries(batch, now())?.into_iter().find(|entry| entry.id == id).ok_or_else(none)?;
    Ok((visible, entry))
}

/// One record; with `raw=FIELD`, that field alone, as text.
pub async fn record(
    State(app): State<App>,
    Path((log, id)): Path<(String, String)>,
    visitor: Visitor,
    trace: Trace,
) -> Response {
    let Some(person) = visitor.signed.clone() else { return Redirect::to("/").into_response() };
    visitor.answer(answer(&app, &visitor, &trace, &person, &log, &id).await)
}

async fn answer(
    app: &App,
    visitor: &Visitor,
    trace: &Trace,
    person: &SignedIn,
    log: &str,
    id: &str,
) -> Result<Response, Problem> {
    let (_, entry) = own(app, person, log, id, Visible::all).await?;
    let parameters = json!({"log": log, "id": entry.id});
    record_access(app, trace, person, "MY_RECORD", "a person read an own record", parameters).await?;
    match visitor.parameter("raw") {
        Some(raw) => raw_field(&entry, raw),
        None => Ok(visitor.page(StatusCode::OK, &page(app, visitor, person, &entry))),
    }
}

/// A field as it is, which no browser takes for anything but text.
fn raw_field(entry: &Entry, name: &str) -> Result<Response, Problem> {
    let value = entry.value(name).ok_or_else(|| Problem::not_found("there is no such field for you"))?;
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((headers, content(value).to_vec()).into_response())
}

/// The bytes that a field stands for: decoded from Base64 if that can be read, and otherwise as they were delivered.
/// Words that are no Base64, or are so by chance, decode to nonsense.
fn content(value: &Value) -> Cow<'_, [u8]> {
    match value {
        Value::Text(text) => text.as_bytes().into(),
        Value::Bytes { bytes, base64: true } if tree::is_markup(bytes) || tree::is_text(bytes) => {
            bytes.into()
        }
        Value::Bytes { bytes, base64: true } => BASE64_STANDARD.encode(bytes).into_bytes().into(),
        Value::Bytes { bytes, base64: false } => {
            let decoded = std::str::from_utf8(bytes).ok().and_then(tree::decode_liberally);
            decoded.filter(|decoded| tree::is_markup(decoded)).map_or(bytes.into(), Into::into)
        }
    }
}

/// The same, inflated where it says that it is Base64 of raw deflate. Of what is longer, a beginning is enough to show.
fn readable<'e>(entry: &'e Entry, name: &str, value: &'e Value) -> Cow<'e, [u8]> {
    const MOST: u64 = 1 << 20;
    let bytes = content(value);
    if name != "detailContent" || entry.text("detailType") != Some("XML_ZIP") {
        return bytes;
    }
    let deflated = std::str::from_utf8(&bytes).ok().and_then(tree::decode_liberally).unwrap_or_default();
    let mut inflated = Vec::new();
    match DeflateDecoder::new(deflated.as_slice()).take(MOST).read_to_end(&mut inflated) {
        Ok(_) if !inflated.is_empty() => inflated.into(),
        _ => bytes,
    }
}

#[derive(Template)]
#[template(path = "record.html")]
struct Record<'a> {
    page: &'a Visitor,
    sentences: Vec<Html>,
    until: Option<String>,
    why: Vec<&'a str>,
    contents: Vec<Content>,
    consent: Option<consent::Shown>,
    remarks: Vec<&'a str>,
    facts: Vec<Fact>,
    technical: Vec<Fact>,
    contact: Option<String>,
    reference: String,
    /// Since when it is provably unchanged.
    since: String,
    provable: bool,
    proof: String,
}

struct Content {
    label: &'static str,
    shown: tree::Shown,
    raw: String,
}

fn page<'a>(app: &'a App, visitor: &'a Visitor, person: &SignedIn, entry: &Entry) -> Record<'a> {
    let (t, pages) = (visitor.t, &app.pages);
    let names = app.names();
    let words = Words { t, pages, names: &names };
    let address = format!("/my/{}/{}", entry.log, entry.id);
    let contents = CONTENTS.into_iter().filter_map(|name| {
        Some(Content {
            label: t.t(field(name)?),
            shown: tree::show(&readable(entry, name, entry.value(name)?)),
            raw: format!("{address}?raw={name}"),
        })
    });
    let reference = format!("Sporlog {} {}", entry.log, entry.id);
    let settings = &pages.settings;
    let organisation = entry.organisation().and_then(|number| settings.organisation.get(number));
    let contact = organisation.and_then(|known| known.contact.as_ref()).or(settings.contact.as_ref());
    let mut remarks: Vec<_> = entry.remarks.iter().flatten().collect();
    remarks.retain(|found| found.field != "samtykkeToken");
    let mut remarks: Vec<_> =
        remarks.iter().map(|found| t.t(remark(&found.rule).unwrap_or("rule.other"))).collect();
    remarks.sort_unstable();
    remarks.dedup();
    Record {
        page: visitor,
        sentences: sentences(entry, &words),
        until: words.until(entry),
        why: pages.explanations.iter().filter_map(|why| explanation(why, entry, &words)).collect(),
        contents: contents.collect(),
        consent: consent::show(app, entry, &person.pid, &words),
        remarks,
        facts: facts(entry, &words),
        technical: technical(entry, &words),
        contact: contact.and_then(|contact| contact_link(contact, &reference)),
        reference,
        since: t.fill("record.utc", &[&t.moment(calendar(entry.received))]),
        provable: entry.is_provable(),
        proof: format!("{address}/proof"),
    }
}

/// What happened, in sentences.
fn sentences(entry: &Entry, words: &Words<'_>) -> Vec<Html> {
    let t = words.t;
    if entry.is_withheld() {
        return Vec::new();
    }
    let (whom, when) = (words.whom(entry), words.when(entry));
    let through = words.through(entry);
    let topic = words.topic(entry).or_else(|| through.clone().filter(|_| entry.kind == Kind::Revision));
    let topic = topic.unwrap_or_else(|| t.t("record.unnamed").to_owned());
    let giver = words.pages.settings.giver.as_deref();
    let mut sentences = vec![match (entry.kind, giver) {
        (Kind::Disclosure, Some(giver)) => t.html("record.given-by", &[giver, &whom, &topic, &when]),
        (Kind::Disclosure, None) => t.html("record.given", &[&whom, &topic, &when]),
        (Kind::Revision, _) => t.html("record.looked", &[&whom, &topic, &when]),
        (Kind::Auditlog | Kind::Mfa | Kind::Quarantine, _) => {
            t.html("record.logged", &[&whom, &topic, &when])
        }
    }];
    let mut say = |key: &str, value: Option<&str>| {
        sentences.extend(value.map(|value| t.html(key, &[value])));
    };
    say("record.employee", entry.employee());
    say("record.unit", entry.unit());
    let ground = if entry.kind == Kind::Disclosure { "record.because" } else { "record.purpose" };
    say(ground, entry.ground());
    say(if entry.supplier().is_some() { "record.supplier" } else { "record.system" }, through.as_deref());
    sentences
}

/// The explanation in the reader's language, if it fits.
fn explanation<'a>(why: &'a Explanation, entry: &Entry, words: &Words<'_>) -> Option<&'a str> {
    let fits = |wanted: &Option<String>, found: [Option<&str>; 2]| {
        wanted.as_deref().is_none_or(|wanted| found.contains(&Some(wanted)))
    };
    let grounded = |wanted: &String| {
        entry.ground().is_some_and(|ground| ground.to_lowercase().contains(&wanted.to_lowercase()))
    };
    let fits = fits(&why.topic, [entry.topic(), None])
        && fits(&why.system, [entry.system(), entry.system_name()])
        && why.ground.as_ref().is_none_or(grounded)
        && (why.topic.is_some() || why.system.is_some() || why.ground.is_some());
    fits.then(|| words.t.configured(&why.text)).flatten()
}

/// All other fields, each with its name in words.
fn facts(entry: &Entry, words: &Words<'_>) -> Vec<Fact> {
    let t = words.t;
    let named = |number: &str, name: Option<&str>| match name {
        Some(name) => data(&format!("{name} ({number})"), LONG),
        None => data(number, LONG),
    };
    let fact = |(name, value): (&str, &Value)| {
        let Value::Text(text) = value else { return None };
        let elsewhere = CONTENTS.contains(&name)
            || name == "samtykkeToken"
            || entry.kind.subject_columns().contains(&name);
        let value = match name {
            _ if elsewhere || text.is_empty() => return None,
            _ if entry.kind.definition().roles.as_ref().is_some_and(|roles| roles.time == name) => {
                data(&words.when(entry), LONG)
            }
            "mottaker" | "leverandoer" | "KalderOrganisation" => {
                named(text, words.organisation(text, entry.occurred))
            }
            "tema" => named(text, words.topic_name(text, entry.occurred)),
            "KalderItSystemInstans" => named(text, words.system_name(text, entry.occurred)),
            _ => data(text, LONG),
        };
        Some(Fact { name: field(name).map_or(name, |key| t.t(key)).to_owned(), value })
    };
    entry.fields().filter_map(fact).collect()
}

/// What there is besides the record's own fields.
fn technical(entry: &Entry, words: &Words<'_>) -> Vec<Fact> {
    let t = words.t;
    let fact = |key: &str, value: &str| Fact { name: t.t(key).to_owned(), value: data(value, LONG) };
    let received = t.fill("record.utc", &[&t.moment(calendar(entry.received))]);
    let mut facts = vec![
        fact("record.log", &entry.log),
        fact("record.id", &entry.id.to_string()),
        fact("record.received", &received),
    ];
    facts.extend(entry.origin.as_deref().map(|origin| fact("record.origin", origin)));
    facts.extend(entry.extra.as_deref().map(|extra| fact("record.extra", extra)));
    facts.extend(entry.envelope.as_deref().map(|envelope| fact("record.envelope", envelope)));
    facts
}
