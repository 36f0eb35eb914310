//! Demo people: signing in by choosing one of some people who do not exist. Only for a server on loopback, and
//! never beside a real provider.

use askama::Template;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use sporlog_record::identifier::{cpr, fodselsnummer};

use super::flow::signed_in;
use super::no_such_way;
use super::session::Identity;
use crate::pages::Visitor;
use crate::{App, Problem};

/// The id of the provider of demo people.
pub(super) const ID: &str = "demo";

/// Somebody who does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoPerson {
    /// What they are called.
    pub name: String,
    /// A number of a synthetic series: a fødselsnummer with a raised month, or a CPR number with a raised day.
    pub pid: String,
    /// `no` or `dk`.
    pub country: Country,
}

/// Where somebody lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Country {
    /// Norway.
    No,
    /// Denmark.
    Dk,
}

impl Country {
    /// The key of its name.
    fn text(self) -> &'static str {
        match self {
            Country::No => "demo.no",
            Country::Dk => "demo.dk",
        }
    }
}

/// What is wrong with a list of demo people.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is nobody in the list.
    #[error("there is nobody in the list; name one [[person]] or more, each with name, pid and country")]
    Nobody,
    /// Somebody has a number that somebody real may have.
    #[error(
        "person {0}: pid is not a number of a synthetic series of the person's country (month raised by 40, \
             65 or 80 in Norway, day raised by 60 in Denmark)"
    )]
    NotSynthetic(usize),
}

/// Says what is wrong with a list of demo people. Numbers are not quoted: they may be real.
pub(super) fn check(people: &[DemoPerson]) -> Result<(), DemoError> {
    if people.is_empty() {
        return Err(DemoError::Nobody);
    }
    let wrong = people.iter().position(|person| !is_synthetic(person));
    wrong.map_or(Ok(()), |at| Err(DemoError::NotSynthetic(at + 1)))
}

fn is_synthetic(person: &DemoPerson) -> bool {
    let pid = person.pid.as_str();
    match person.country {
        Country::No => fodselsnummer::is_valid(pid) && pid.as_bytes()[2] >= b'4',
        Country::Dk => cpr::is_date_plausible(pid) && pid.as_bytes()[0] >= b'6',
    }
}

/// The people to choose from.
pub(super) async fn choose(State(app): State<App>, visitor: Visitor) -> Result<Response, Problem> {
    let people = app.sign_in().and_then(|sign_in| sign_in.demo_people()).ok_or_else(no_such_way)?;
    Ok(visitor.page(StatusCode::OK, &Chooser { page: &visitor, people }))
}

#[derive(Template)]
#[template(path = "demo.html")]
struct Chooser<'a> {
    page: &'a Visitor,
    people: &'a [DemoPerson],
}

/// Signs the chosen person in.
pub(super) async fn sign_in(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let people = app.sign_in().and_then(|sign_in| sign_in.demo_people()).ok_or_else(no_such_way)?;
    let chosen = url::form_urlencoded::parse(&body).find(|(name, _)| name == "person");
    let person = chosen.and_then(|(_, at)| people.get(at.parse::<usize>().ok()?));
    let person = person.ok_or_else(|| Problem::bad_request("choose one of the demo people"))?;
    let who = Identity {
        pid: person.pid.clone(),
        provider: ID.into(),
        name: Some(person.name.clone()),
        ..Identity::default()
    };
    signed_in(&app, who, [])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_people_are_of_synthetic_series() {
        let person = |pid: &str, country| DemoPerson { name: "Test".into(), pid: pid.into(), country };
        assert!(matches!(check(&[]), Err(DemoError::Nobody)));
        assert!(check(&[person("25922947409", Country::No), person("6101010000", Country::Dk)]).is_ok());
        for (pid, country) in [
            ("01010180812", Country::No),
            ("25922947408", Country::No),
            ("25922947409", Country::Dk),
            ("2902040000", Country::Dk),
            ("6101010000", Country::No),
            ("", Country::No),
            ("", Country::Dk),
        ] {
            let error = check(&[person("25922947409", Country::No), person(pid, country)]).expect_err(pid);
            assert!(matches!(error, DemoError::NotSynthetic(2)), "{error}");
            assert!(pid.is_empty() || !error.to_string().contains(pid), "{error}");
        }
    }
}
