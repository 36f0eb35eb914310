//! Who has looked at a person's records through Sporlog itself: their accesses in the log `access`, by role and
//! organisation and never by an employee's name; and the systems that copy whole logs.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use sporlog_intake::access_event;
use sporlog_ledger::Key;

use super::html::{Html, SHORT, data};
use super::layout::{Visitor, record_access};
use super::tally::{By, Tally, Times, accesses_of};
use super::texts::{Texts, calendar};
use super::words::Words;
use crate::api::reader::Trace;
use crate::sign_in::session::SignedIn;
use crate::{App, Problem};

/// So many of a person's accesses are looked at, the newest.
const NEWEST: usize = 1_000;
const COLUMNS: [&str; 5] = ["occurred_at", "performerName", "logAction", "cpr", "detailContent"];
/// `/my?log=access`.
pub(super) async fn accesses(
    app: &App,
    visitor: &Visitor,
    trace: &Trace,
    person: &SignedIn,
) -> Result<Response, Problem> {
    let pages = &app.pages;
    let names = app.names();
    let words = Words { t: visitor.t, pages, names: &names };
    let recorded = record_access(app, trace, person, "MY_ACCESSES", "a person read who looked", json!({}));
    let found = async {
        let Some(log) = app.catalog.log(access_event::LOG).await? else {
            return Ok((Tally::new(), Some(Tally::new()), false));
        };
        let located = log.locate(Key::Subject(person.pid.clone())).await?;
        let (batches, next) = located.read(u64::MAX, NEWEST, &COLUMNS).await?;
        let mut own = Tally::new();
        for access in batches.iter().flat_map(accesses_of) {
            let times = Times { number: 1, last: access.at };
            own.entry((access.by(false), access.what())).or_default().add(times);
        }
        Ok::<_, Problem>((own, pages.copies.tally(&log).await, next.is_some()))
    };
    let (recorded, found) = futures::join!(recorded, found);
    recorded?;
    let (own, copies, more) = found?;
    let copies = copies.map(|copies| lines(copies, &words));
    let page = Accesses { page: visitor, own: lines(own, &words), copies, more };
    Ok(visitor.page(StatusCode::OK, &page))
}

#[derive(Template)]
#[template(path = "accesses.html")]
struct Accesses<'a> {
    page: &'a Visitor,
    own: Vec<Line>,
    /// None while they are being counted.
    copies: Option<Vec<Line>>,
    /// There are older accesses that are not counted.
    more: bool,
}

struct Line {
    who: Html,
    what: &'static str,
    times: String,
    last: String,
}

fn lines(tally: Tally, words: &Words<'_>) -> Vec<Line> {
    let mut tally: Vec<_> = tally.into_iter().collect();
    tally.sort_by_key(|(_, times)| std::cmp::Reverse(times.last));
    let line = |((by, what), times): ((By, &'static str), Times)| Line {
        who: who(&by, words),
        what: words.t.t(what),
        times: words.t.count("access.once", "access.times", times.number),
        last: words.t.moment(calendar(times.last)),
    };
    tally.into_iter().map(line).collect()
}

fn who(by: &By, words: &Words<'_>) -> Html {
    let t: &Texts = words.t;
    match by {
        By::Person => data(t.t("access.you"), SHORT),
        By::Operator => data(t.t("access.operator"), SHORT),
        By::System(name) => data(name, SHORT),
        By::Role { role, organisations } => {
            let role = t.t(match role.as_str() {
                "audit" => "role.audit",
                "admin" => "role.admin",
                _ => "role.read",
            });
            let name = |number: &String| words.organisation(number, None).unwrap_or(number).to_owned();
            let named: Vec<_> = organisations.iter().map(name).collect();
            match named.is_empty() {
                true => data(role, SHORT),
                false => data(&t.fill("access.role-of", &[role, &named.join(", ")]), SHORT),
            }
        }
    }
}
