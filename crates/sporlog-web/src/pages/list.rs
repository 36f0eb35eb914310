//! `/my`: the list of what was handed out about a person, newest first.
//!
//! A page is so many records in the order of their receipt; within it they stand in the order of their own
//! times. The next page begins where this one ended in each log, by ids: what comes in meanwhile has higher
//! ones, and moves nothing. Only the page's own rows are read, and of them only what the list shows; the
//! number of all comes from the key indexes.

use std::collections::{BTreeSet, HashMap, VecDeque};

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::{Datelike, NaiveDate, NaiveDateTime};
use futures::future::try_join_all;
use serde_json::json;
use sporlog_intake::access_event;
use sporlog_ledger::{Key, Located};

use super::accesses;
use super::entry::{Entry, Visible, now};
use super::filter::Filter;
use super::html::{Html, SHORT, data};
use super::layout::{Visitor, record_access};
use super::texts::calendar;
use super::words::{Named, Words};
use crate::api::reader::Trace;
use crate::sign_in::session::SignedIn;
use crate::{App, Problem};

/// Records of a page.
pub(super) const PAGE: usize = 50;
/// Records read at once while those that fit a filter are looked for.
const SEARCHED: usize = 200;
/// Records that belong to one visit come within this time: a quarter of an hour, in microseconds.
const VISIT: i64 = 15 * 60 * 1_000_000;

/// What has been handed out about me.
pub async fn list(State(app): State<App>, visitor: Visitor, trace: Trace) -> Response {
    let Some(person) = visitor.signed.clone() else { return Redirect::to("/").into_response() };
    let filter = Filter::of(&visitor);
    if filter.log.as_deref() == Some(access_event::LOG) {
        return visitor.answer(accesses::accesses(&app, &visitor, &trace, &person).await);
    }
    visitor.answer(answer(&app, &visitor, &trace, &person, filter).await)
}

async fn answer(
    app: &App,
    visitor: &Visitor,
    trace: &Trace,
    person: &SignedIn,
    filter: Filter,
) -> Result<Response, Problem> {
    let pages = &app.pages;
    let names = app.names();
    let words = Words { t: visitor.t, pages, names: &names };
    let all = pages.visible(&app.catalog).await?;
    let described = |visible: &Visible| (visible.log.name().to_owned(), visible.description());
    let names = all.iter().map(described).collect();
    let status = if filter.wrong { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let logs: Vec<_> = all
        .into_iter()
        .filter(|visible| {
            !filter.wrong && filter.log.as_deref().is_none_or(|wanted| wanted == visible.log.name())
        })
        .collect();
    let parameters = json!({"logs": logs.iter().map(|visible| visible.log.name()).collect::<Vec<_>>()});
    let recorded = record_access(app, trace, person, "MY_LIST", "a person read their own list", parameters);
    let (recorded, found) = futures::join!(recorded, find(logs, &person.pid, &filter, &words));
    recorded?;
    let found = found?;
    let heading = match (found.number, filter.is_narrow()) {
        (Some(number), false) => visitor.t.count("list.one", "list.many", number),
        (Some(number), true) => visitor.t.count("list.one-filtered", "list.many-filtered", number),
        (None, _) => visitor.t("list.some-filtered").to_owned(),
    };
    let options = |key: fn(&Entry) -> Option<&str>, name: &dyn Fn(&Entry) -> String| {
        let mut options: Vec<_> =
            found.entries.iter().filter_map(|entry| Some((key(entry)?.to_owned(), name(entry)))).collect();
        options.sort_by(|a, b| a.1.cmp(&b.1));
        options.dedup_by(|a, b| a.0 == b.0);
        options.retain(|(value, name)| value.len() <= SHORT && name.len() <= SHORT);
        options
    };
    let next =
        (!found.next.is_empty()).then(|| Filter { cursor: found.next.clone(), ..filter.clone() }.address());
    let page = List {
        page: visitor,
        heading,
        chips: filter.chips(&words),
        recipients: options(Entry::organisation, &|entry| words.whom(entry)),
        topics: options(Entry::topic, &|entry| words.topic(entry).unwrap_or_default()),
        logs: names,
        years: by_month(found.entries, &words),
        first: (!filter.cursor.is_empty()).then(|| Filter { cursor: Vec::new(), ..filter.clone() }.address()),
        next,
        filter,
    };
    Ok(visitor.page(status, &page))
}

/// A page of entries.
pub(super) struct Found {
    pub entries: Vec<Entry>,
    /// How many there are in all; with a filter, only if it is known.
    pub number: Option<usize>,
    /// Where the next page begins in each log; empty if there is none.
    pub next: Vec<(String, u64)>,
}

/// A log that is being read.
struct Source {
    visible: Visible,
    located: Located,
    /// Entries that were read and are next.
    ready: VecDeque<Entry>,
    /// Where reading goes on; `None` at the end.
    before: Option<u64>,
}

impl Source {
    async fn fill(&mut self, filter: &Filter, words: &Words<'_>, now: NaiveDateTime) -> Result<(), Problem> {
        let columns = self.visible.listed();
        let limit = if filter.is_narrow() { SEARCHED } else { PAGE + 1 };
        while self.ready.is_empty()
            && let Some(before) = self.before
        {
            let (batches, next) = self.located.read(before, limit, &columns).await?;
            self.before = next;
            for batch in batches {
                let entries = self.visible.entries(&batch, now)?;
                self.ready.extend(entries.into_iter().filter(|entry| filter.wants(entry, words)));
            }
        }
        Ok(())
    }
}

/// The entries of a page.
pub(super) async fn find(
    logs: Vec<Visible>,
    pid: &str,
    filter: &Filter,
    words: &Words<'_>,
) -> Result<Found, Problem> {
    let now = now();
    let locate = |visible: Visible| async move {
        let mut located = visible.log.locate(Key::Subject(pid.to_owned())).await?;
        let (from, to) = filter.times();
        located.narrow(from, to);
        let name = visible.log.name();
        let before = match filter.cursor.iter().find(|(log, _)| log == name) {
            Some((_, before)) => Some(*before),
            None if filter.cursor.is_empty() => Some(u64::MAX),
            None => None,
        };
        Ok::<_, Problem>(Source { located, before, visible, ready: VecDeque::new() })
    };
    let mut sources = try_join_all(logs.into_iter().map(locate)).await?;
    let all = sources.iter().map(|source| source.located.count()).sum();
    try_join_all(sources.iter_mut().map(|source| source.fill(filter, words, now))).await?;
    let mut entries = Vec::new();
    while entries.len() < PAGE {
        let received = |source: &Source| source.ready.front().map(|entry| entry.received);
        let newest = sources.iter_mut().filter(|source| !source.ready.is_empty()).max_by_key(|s| received(s));
        let Some(source) = newest else { break };
        entries.extend(source.ready.pop_front());
        source.fill(filter, words, now).await?;
    }
    let rest = |source: &Source| {
        let before = source.ready.front().map(|entry| entry.id + 1).or(source.before)?;
        Some((source.visible.log.name().to_owned(), before))
    };
    let next: Vec<_> = sources.iter().filter_map(rest).collect();
    let number = match filter.is_narrow() {
        false => Some(all),
        true => (filter.cursor.is_empty() && next.is_empty()).then_some(entries.len()),
    };
    Ok(Found { entries, number, next })
}

/// The page of a list.
#[derive(Template)]
#[template(path = "list.html")]
struct List<'a> {
    page: &'a Visitor,
    heading: String,
    filter: Filter,
    chips: Vec<(&'static str, String, String)>,
    /// Values to choose from, with their names: those on this page.
    recipients: Vec<(String, String)>,
    topics: Vec<(String, String)>,
    /// The logs' names, and the keys of the texts that say what is in them.
    logs: Vec<(String, &'static str)>,
    years: Vec<Year>,
    first: Option<String>,
    next: Option<String>,
}

pub(super) struct Year {
    pub year: i32,
    pub months: Vec<Month>,
}

pub(super) struct Month {
    pub caption: String,
    pub visits: Vec<Visit>,
}

/// Records that came about together: same organisation and unit, same kind of data, within a quarter of an hour.
pub(super) struct Visit {
    pub rows: Vec<Row>,
    pub whom: Named,
    pub unit: Option<Html>,
    pub topic: Option<Html>,
    pub code: Option<Html>,
    pub ground: Option<Html>,
    pub through: Option<Html>,
    /// Everything, or something, is withheld until then.
    pub until: Option<String>,
    pub is_withheld: bool,
    /// When, in words, and how many, if there are several.
    pub summary: String,
}

/// One record of a visit.
pub(super) struct Row {
    pub href: String,
    pub when: String,
    pub iso: String,
}

/// Entries by year, month and visit, the newest first.
pub(super) fn by_month(mut entries: Vec<Entry>, words: &Words<'_>) -> Vec<Year> {
    entries.sort_by_key(|entry| std::cmp::Reverse((entry.time(), entry.id)));
    let mut visits: Vec<Vec<Entry>> = Vec::new();
    let mut open: HashMap<[Option<String>; 4], usize> = HashMap::new();
    for entry in entries {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let same =
            [Some(entry.log.clone()), text(entry.organisation()), text(entry.unit()), text(entry.topic())];
        let month = |entry: &Entry| calendar(entry.time()).date().with_day(1);
        let visit = open.get(&same).and_then(|at| visits.get_mut(*at)).filter(|visit| {
            let newest = visit.first();
            newest.is_some_and(|n| n.time() - entry.time() <= VISIT && month(n) == month(&entry))
        });
        match visit {
            Some(visit) if !entry.is_withheld() => visit.push(entry),
            _ => {
                open.insert(same, visits.len());
                visits.push(vec![entry]);
            }
        }
    }
    let mut years: Vec<Year> = Vec::new();
    for (date, visit) in visits.iter().filter_map(|visit| visit_of(visit, words)) {
        if years.last().is_none_or(|last| last.year != date.year()) {
            years.push(Year { year: date.year(), months: Vec::new() });
        }
        let caption = format!("{} {}", words.t.month(date), date.year());
        let Some(year) = years.last_mut() else { continue };
        if year.months.last().is_none_or(|last| last.caption != caption) {
            year.months.push(Month { caption, visits: Vec::new() });
        }
        if let Some(month) = year.months.last_mut() {
            month.visits.push(visit);
        }
    }
    years
}

/// A visit in words, and the day of its newest record.
fn visit_of(entries: &[Entry], words: &Words<'_>) -> Option<(NaiveDate, Visit)> {
    let (newest, oldest) = (entries.first()?, entries.last()?);
    let time = |entry: &Entry| calendar(entry.time());
    let day = |entry: &Entry| {
        words.t.fill("list.day", &[&time(entry).day().to_string(), words.t.month(time(entry).date())])
    };
    let row = |entry: &Entry| Row {
        href: format!("/my/{}/{}", entry.log, entry.id),
        when: words.t.fill("time.moment", &[&day(entry), &words.t.clock(time(entry))]),
        iso: time(entry).format("%Y-%m-%dT%H:%M:%S").to_string(),
    };
    let short = |text: Option<String>| text.map(|text| data(&text, SHORT));
    // What the records may differ in.
    let each = |texts: &mut dyn Iterator<Item = String>| {
        let texts: Vec<_> = texts.collect::<BTreeSet<_>>().into_iter().collect();
        short((!texts.is_empty()).then(|| texts.join("; ")))
    };
    let (from, to) = (words.t.clock(time(oldest)), words.t.clock(time(newest)));
    let when = if from == to { from } else { format!("{from}–{to}") };
    let visit = Visit {
        summary: words.t.fill("list.visit", &[&day(newest), &when, &entries.len().to_string()]),
        rows: entries.iter().map(row).collect(),
        whom: words.whom_named(newest),
        unit: short(newest.unit().map(str::to_owned)),
        topic: short(words.topic(newest)),
        code: newest
            .topic()
            .filter(|code| words.topic(newest).as_deref() != Some(code))
            .map(|c| data(c, SHORT)),
        ground: each(&mut entries.iter().filter_map(|entry| entry.ground().map(str::to_owned))),
        through: each(&mut entries.iter().filter_map(|entry| words.through(entry))),
        until: words.until(newest),
        is_withheld: newest.is_withheld(),
    };
    Some((time(newest).date(), visit))
}
