//! The pages that show no records: the front page, `/about`, and `/check`, where a proof is checked in the browser.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::entry::Visible;
use super::layout::Visitor;
use super::settings::contact_link;
use super::texts::{Texts, calendar};
use crate::sign_in::ways::{Button, SignIn};
use crate::{App, Problem};

/// What this is, and the ways to sign in.
pub async fn home(State(app): State<App>, visitor: Visitor) -> Response {
    let sign_in = app.sign_in.as_ref().filter(|_| visitor.signed.is_none());
    let buttons = sign_in.map(SignIn::buttons).unwrap_or_default();
    visitor.page(StatusCode::OK, &Home { page: &visitor, buttons })
}

#[derive(Template)]
#[template(path = "home.html")]
struct Home<'a> {
    page: &'a Visitor,
    buttons: Vec<Button>,
}

/// What is covered and what is not, for how long, and who is responsible.
pub async fn about(State(app): State<App>, visitor: Visitor) -> Response {
    let sources = sources(&app, visitor.t).await;
    let settings = &app.pages.settings;
    let contact = settings.contact.as_deref();
    let page = |sources| About {
        page: &visitor,
        sources,
        retention: visitor.t.configured(&settings.retention),
        missing: visitor.t.configured(&settings.missing),
        complaints: visitor.t.configured(&settings.complaints),
        responsible: settings.responsible.as_deref(),
        contact: contact.and_then(|contact| Some((contact_link(contact, "Sporlog")?, contact.to_owned()))),
    };
    visitor.answer(sources.map(|sources| visitor.page(StatusCode::OK, &page(sources))))
}

#[derive(Template)]
#[template(path = "about.html")]
struct About<'a> {
    page: &'a Visitor,
    sources: Vec<Source>,
    retention: Option<&'a str>,
    missing: Option<&'a str>,
    complaints: Option<&'a str>,
    responsible: Option<&'a str>,
    contact: Option<(String, String)>,
}

/// A log that persons see.
struct Source {
    name: String,
    kind: &'static str,
    /// Since when it has records, and when the newest was received; none if there are none.
    received: Option<(String, String)>,
    /// All fields are shown.
    whole: bool,
}

async fn sources(app: &App, t: &'static Texts) -> Result<Vec<Source>, Problem> {
    let source = |visible: Visible| Source {
        name: visible.log.name().to_owned(),
        kind: t.t(visible.description()),
        received: visible.log.received().map(|(earliest, latest)| {
            let newest = t.fill("record.utc", &[&t.moment(calendar(latest))]);
            (t.date(calendar(earliest).date()), newest)
        }),
        whole: visible.is_whole(),
    };
    Ok(app.pages.visible(&app.catalog).await?.into_iter().map(source).collect())
}

/// Where anybody checks a proof, without sending it anywhere.
pub async fn check(State(app): State<App>, visitor: Visitor) -> Response {
    let keys = app.pages.visible(&app.catalog).await;
    let keys = keys.map(|logs| logs.iter().map(|visible| visible.log.vkey().to_owned()).collect());
    visitor.answer(keys.map(|keys| visitor.page(StatusCode::OK, &Check { page: &visitor, keys })))
}

#[derive(Template)]
#[template(path = "check.html")]
struct Check<'a> {
    page: &'a Visitor,
    /// The logs' public keys.
    keys: Vec<String>,
}
