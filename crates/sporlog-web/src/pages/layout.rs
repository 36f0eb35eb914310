//! What all pages share: who looks, in which language, the head and foot, safe headers, and the page that says
//! that something is not there.

use askama::Template;
use axum::extract::{FromRequestParts, OptionalFromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::html::{Html, encode};
use super::texts::{Lang, Texts};
use crate::api::reader::Trace;
use crate::sign_in::session::{CSRF_FIELD, SignedIn};
use crate::sign_in::ways::SignIn;
use crate::{App, Problem};

/// What a page may do in a browser: show what comes from here, and run the two scripts of ours.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// The cookie and the parameter with the chosen language.
const LANG: &str = "lang";

/// Whoever looks at a page.
pub struct Visitor {
    pub t: &'static Texts,
    /// The page's address without what stands behind the question mark; the front page's if only a form leads to the page.
    path: String,
    /// What stands behind it, without the language.
    query: Vec<(String, String)>,
    /// The language was chosen just now.
    chosen: bool,
    pub service: String,
    pub logo: bool,
    pub demo: bool,
    pub signed: Option<SignedIn>,
}

impl FromRequestParts<App> for Visitor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let (langs, query): (Vec<_>, Vec<_>) = pairs.into_owned().partition(|(name, _)| name == LANG);
        let chosen = langs.first().and_then(|(_, code)| Lang::of_code(code));
        let lang = chosen.or_else(|| remembered(&parts.headers)).unwrap_or(Lang::Nb);
        let signed = <SignedIn as OptionalFromRequestParts<App>>::from_request_parts(parts, app).await?;
        let pages = &app.pages;
        Ok(Visitor {
            t: Texts::of(lang),
            path: if parts.method == Method::POST { "/" } else { parts.uri.path() }.to_owned(),
            query,
            chosen: chosen.is_some(),
            service: pages.settings.name.clone(),
            logo: pages.logo.is_some(),
            demo: app.sign_in.as_ref().is_some_and(SignIn::is_demo),
            signed,
        })
    }
}

/// The language of the cookie, or else of the browser.
fn remembered(headers: &HeaderMap) -> Option<Lang> {
    let texts = |name: HeaderName| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let mut cookies = texts(header::COOKIE).flat_map(|cookies| cookies.split(';'));
    let cookie = cookies.find_map(|cookie| Lang::of_code(cookie.trim().strip_prefix("lang=")?));
    cookie.or_else(|| texts(header::ACCEPT_LANGUAGE).find_map(Lang::accepted))
}

impl Visitor {
    pub fn t<'a>(&'a self, key: &'a str) -> &'a str {
        self.t.t(key)
    }

    pub fn csrf_field(&self) -> &'static str {
        CSRF_FIELD
    }

    pub fn is_here(&self, path: &str) -> bool {
        self.path == path
    }

    /// In how many seconds the session ends if nothing is asked for.
    pub fn seconds_left(&self, person: &SignedIn) -> i64 {
        (person.idle_until.min(person.ends) - chrono::Utc::now().timestamp()).max(0)
    }

    /// This page in another language.
    pub fn in_language(&self, lang: &Lang) -> String {
        let mut address = format!("{}?lang={}", self.path, lang.code());
        for (name, value) in &self.query {
            address.push_str(&format!("&{}={}", encode(name), encode(value)));
        }
        address
    }

    /// The parameters of the request; of one that is there twice, the first.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty())
    }

    /// The page as an answer.
    pub fn page(&self, status: StatusCode, page: &impl Template) -> Response {
        let html = match page.render() {
            Ok(html) => html,
            Err(error) => return Problem::internal(&error).into_response(),
        };
        let mut response = (status, axum::response::Html(html)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(self.t.lang.code()));
        if self.chosen {
            let cookie =
                format!("{LANG}={}; Path=/; Max-Age=31536000; SameSite=Lax; HttpOnly", self.t.lang.code());
            headers.extend(HeaderValue::from_str(&cookie).ok().map(|cookie| (header::SET_COOKIE, cookie)));
        }
        response
    }

    /// A page that only says something; both are keys of texts.
    pub fn message(&self, status: StatusCode, title: &str, text: &str) -> Response {
        self.page(status, &Message { page: self, title: self.t(title), text: self.t(text) })
    }

    /// The answer, or a page that says why there is none.
    pub fn answer(&self, answer: Result<Response, Problem>) -> Response {
        answer.unwrap_or_else(|problem| {
            let (title, text) = match problem.status {
                404 => ("error.missing", "error.missing-text"),
                403 => ("error.withheld", "error.withheld-text"),
                400 => ("error.address", "error.address-text"),
                503 => ("error.later", "error.later-text"),
                _ => ("error.failed", "error.failed-text"),
            };
            let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut response = self.message(status, title, text);
            let later = problem.retry_after.map(|seconds| (header::RETRY_AFTER, seconds.into()));
            response.headers_mut().extend(later);
            response
        })
    }
}

/// What is at no address: to a browser a page that says so, to a program a problem. The page's links do not repeat an
/// address that anybody may have made up.
pub(super) async fn missing(mut visitor: Visitor, headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    if !accepted.any(|accept| accept.contains("text/html")) {
        return StatusCode::NOT_FOUND.into_response();
    }
    (visitor.path, visitor.query) = ("/".to_owned(), Vec::new());
    visitor.message(StatusCode::NOT_FOUND, "error.missing", "error.no-page")
}

/// Records an access of a person to their own records. Nothing may be shown unless this succeeds.
pub(super) async fn record_access(
    app: &App,
    trace: &Trace,
    person: &SignedIn,
    action: &str,
    message: &str,
    mut parameters: serde_json::Value,
) -> Result<(), Problem> {
    if let Some(parameters) = parameters.as_object_mut() {
        parameters.insert("provider".into(), (*person.provider).into());
        parameters.insert("acr".into(), person.acr.clone().into());
    }
    trace.record(app, "the person", action, Some(&person.pid), message.to_owned(), parameters).await
}

/// A page that only says something.
#[derive(Template)]
#[template(path = "message.html")]
struct Message<'a> {
    page: &'a Visitor,
    title: &'a str,
    text: &'a str,
}

/// A line of a list of facts: what it is, and what it says.
pub struct Fact {
    pub name: String,
    pub value: Html,
}
