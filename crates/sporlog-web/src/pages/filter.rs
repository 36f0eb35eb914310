//! What the list is narrowed to, and where it goes on: all of it in the address.

use chrono::NaiveDate;

use super::entry::{Entry, midnight};
use super::html::encode;
use super::layout::Visitor;
use super::words::Words;

/// What stands behind the question mark of `/my`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub from: Option<NaiveDate>,
    pub to: Option<NaiveDate>,
    pub recipient: Option<String>,
    pub topic: Option<String>,
    pub log: Option<String>,
    /// For each log, the id before which the page begins.
    pub cursor: Vec<(String, u64)>,
    /// A parameter cannot be understood.
    pub wrong: bool,
}

/// Longest text of a filter.
const LONGEST: usize = 100;

impl Filter {
    pub fn of(visitor: &Visitor) -> Filter {
        let mut wrong = false;
        let mut date = |name: &str| {
            let text = visitor.parameter(name)?;
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
            // Years of a calendar that people live by.
            let date = date.filter(|date| (1900..3000).contains(&chrono::Datelike::year(date)));
            wrong |= date.is_none();
            date
        };
        let (from, to) = (date("from"), date("to"));
        let text = |name: &str| visitor.parameter(name).map(|text| text.chars().take(LONGEST).collect());
        let cursor: Option<Vec<_>> = visitor.parameter("cursor").map_or(Some(Vec::new()), |cursor| {
            let place = |place: &str| {
                let (log, id) = place.split_once('.')?;
                Some((log.to_owned(), id.parse().ok()?))
            };
            cursor.split('~').map(place).collect()
        });
        wrong |= cursor.is_none();
        let cursor = cursor.unwrap_or_default();
        Filter {
            from,
            to,
            recipient: text("recipient"),
            topic: text("topic"),
            log: text("log"),
            cursor,
            wrong,
        }
    }

    /// The local times between which records are wanted.
    pub fn times(&self) -> (Option<i64>, Option<i64>) {
        let after = |day: NaiveDate| day.succ_opt().map(midnight);
        (self.from.map(midnight), self.to.and_then(after))
    }

    /// Whether anything but the logs' order and whole extent is wanted.
    pub fn is_narrow(&self) -> bool {
        self.from.is_some() || self.to.is_some() || self.recipient.is_some() || self.topic.is_some()
    }

    /// Whether the entry is wanted. A withheld one says nothing about itself, so no filter finds it.
    pub fn wants(&self, entry: &Entry, words: &Words<'_>) -> bool {
        let (from, to) = self.times();
        let time = entry.time();
        if !self.is_narrow() {
            return true;
        }
        let named = |wanted: &Option<String>, found: Option<&str>, name: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| {
                let alike = |text: &str| text.to_lowercase().contains(&wanted.to_lowercase());
                found.is_some_and(|found| found.eq_ignore_ascii_case(wanted)) || name.is_some_and(alike)
            })
        };
        let (organisation, topic) = (entry.organisation(), words.topic(entry));
        !entry.is_withheld()
            && from.is_none_or(|from| time >= from)
            && to.is_none_or(|to| time < to)
            && named(
                &self.recipient,
                organisation,
                organisation.and_then(|number| words.organisation(number, entry.occurred)),
            )
            && named(&self.topic, entry.topic(), topic.as_deref())
    }

    /// The address of the list with this filter.
    pub fn address(&self) -> String {
        let mut parameters = Vec::new();
        let mut put = |name: &str, value: Option<String>| {
            parameters.extend(value.map(|value| format!("{name}={}", encode(&value))));
        };
        put("from", self.from.map(|date| date.to_string()));
        put("to", self.to.map(|date| date.to_string()));
        put("recipient", self.recipient.clone());
        put("topic", self.topic.clone());
        put("log", self.log.clone());
        let cursor: Vec<_> = self.cursor.iter().map(|(log, id)| format!("{log}.{id}")).collect();
        put("cursor", (!cursor.is_empty()).then(|| cursor.join("~")));
        if parameters.is_empty() { "/my".to_owned() } else { format!("/my?{}", parameters.join("&")) }
    }

    /// What is set, one by one: its name's key, its value, and the address without it.
    pub fn chips(&self, words: &Words<'_>) -> Vec<(&'static str, String, String)> {
        let mut chips = Vec::new();
        let mut chip = |key, value: Option<String>, without: fn(&mut Filter)| {
            if let Some(value) = value {
                let mut rest = Filter { cursor: Vec::new(), ..self.clone() };
                without(&mut rest);
                chips.push((key, value, rest.address()));
            }
        };
        chip("list.from", self.from.map(|date| words.t.date(date)), |rest| rest.from = None);
        chip("list.to", self.to.map(|date| words.t.date(date)), |rest| rest.to = None);
        chip("list.recipient", self.recipient.clone(), |rest| rest.recipient = None);
        chip("list.topic", self.topic.clone(), |rest| rest.topic = None);
        chip("list.log", self.log.clone(), |rest| rest.log = None);
        chips
    }
}
