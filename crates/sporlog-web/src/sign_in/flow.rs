//! The steps of a sign-in with a provider or as a demo person, and of signing out.

use askama::Template;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::Utc;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use url::Url;

use super::cookies::{CookieName, SESSION};
use super::demo::{self, DemoPerson};
use super::failure::Failure;
use super::provider::{Begun, Provider};
use super::session::{Identity, SignedIn, provider_session};
use super::ways::SignIn;
use crate::pages::layout::Visitor;
use crate::server::{Class, RequestPermit};
use crate::{App, Problem};

/// Where a person goes who has signed in.
const HOME: &str = "/my";
/// A sign-in that was begun.
const BEGUN: CookieName = CookieName { name: "sporlog-begun", path: "/" };
/// The ID token, which the provider wants back. Sent only where it is needed.
const ID_TOKEN: CookieName = CookieName { name: "sporlog-id-token", path: "/sign-out" };
/// So many seconds a person has to sign in.
const PATIENCE: i64 = 15 * 60;
/// So many ended sessions are remembered at most on a provider's word: anybody may ask as a provider does.
const MOST_ENDED: usize = 200_000;
/// Browsers drop a cookie that is longer.
const LONGEST_COOKIE: usize = 4096;

/// What a provider sends a person back with.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// Sends a person to a provider.
pub(super) async fn begin(
    State(app): State<App>,
    visitor: Visitor,
    permit: RequestPermit,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let sign_in = app.sign_in.as_ref().ok_or_else(no_such_way)?;
    let provider = sign_in.provider(&id).ok_or_else(no_such_way)?;
    permit.move_to(Class::Issuer)?;
    let now = Utc::now().timestamp();
    match provider.begin(now + PATIENCE).await {
        Ok((url, begun)) => {
            let cookie = sign_in.sessions.cookies.seal(BEGUN, &begun, now, Some(PATIENCE));
            Ok(with_cookies(Redirect::to(url.as_str()), [cookie]))
        }
        Err(failure) => Ok(page(failure, &visitor)),
    }
}

/// Takes a person back.
pub(super) async fn callback(
    State(app): State<App>,
    visitor: Visitor,
    permit: RequestPermit,
    headers: HeaderMap,
    Query(answer): Query<Answer>,
) -> Result<Response, Problem> {
    let sign_in = app.sign_in.as_ref().ok_or_else(no_such_way)?;
    permit.move_to(Class::Issuer)?;
    let cookies = &sign_in.sessions.cookies;
    match finish(sign_in, &headers, answer).await {
        Ok((provider, identity, id_token)) => {
            let now = Utc::now().timestamp();
            let hint = provider.end_session().and_then(|_| cookies.seal(ID_TOKEN, &id_token, now, None));
            let hint =
                hint.filter(|cookie| cookie.len() <= LONGEST_COOKIE).or_else(|| cookies.remove(ID_TOKEN));
            signed_in(&app, identity, [cookies.remove(BEGUN), hint])
        }
        // A person who has signed in and comes this way once more, by a reload or the history, stays signed in.
        Err(Failure::Begun) if visitor.signed.is_some() => Ok(Redirect::to(HOME).into_response()),
        // Whoever has to begin again begins with a cookie of its own; another tab may be under way.
        Err(Failure::Begun) => Ok(page(Failure::Begun, &visitor)),
        Err(failure) => Ok(with_cookies(page(failure, &visitor), [cookies.remove(BEGUN)])),
    }
}

async fn finish<'a>(
    sign_in: &'a SignIn,
    headers: &HeaderMap,
    answer: Answer,
) -> Result<(&'a Provider, Identity, String), Failure> {
    let begun: Begun = sign_in.sessions.cookies.open(headers, BEGUN).ok_or(Failure::Begun)?;
    let state = answer.state.unwrap_or_default();
    let same: bool = state.as_bytes().ct_eq(begun.state.as_bytes()).into();
    if !same || Utc::now().timestamp() >= begun.until {
        return Err(Failure::Begun);
    }
    let provider = sign_in.provider(&begun.provider).ok_or(Failure::Begun)?;
    // Some other provider of ours that sends its own codes here must not get them taken for this one's (RFC 9207).
    if answer.iss.is_some_and(|issuer| issuer != provider.settings.issuer) {
        return Err(provider.failed(Failure::Token, "the answer comes from another issuer"));
    }
    match (answer.code, answer.error) {
        (Some(code), None) => {
            let proven = provider.finish(begun, code).await?;
            Ok((provider, proven.identity, proven.id_token))
        }
        (_, error) => {
            let error = error.unwrap_or_default();
            let failure = match error.as_str() {
                "server_error" | "temporarily_unavailable" => Failure::Unavailable,
                _ => Failure::Refused,
            };
            Err(provider.failed(failure, &format!("the provider answered with error '{error}'")))
        }
    }
}

/// The people to choose from.
pub(super) async fn choose(State(app): State<App>, visitor: Visitor) -> Result<Response, Problem> {
    let people = app.sign_in.as_ref().and_then(|sign_in| sign_in.demo_people()).ok_or_else(no_such_way)?;
    Ok(visitor.page(StatusCode::OK, &Chooser { page: &visitor, people }))
}

#[derive(Template)]
#[template(path = "demo.html")]
struct Chooser<'a> {
    page: &'a Visitor,
    people: &'a [DemoPerson],
}

/// Signs the chosen person in.
pub(super) async fn sign_in_as(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let people = app.sign_in.as_ref().and_then(|sign_in| sign_in.demo_people()).ok_or_else(no_such_way)?;
    let chosen = url::form_urlencoded::parse(&body).find(|(name, _)| name == "person");
    let person = chosen.and_then(|(_, at)| people.get(at.parse::<usize>().ok()?));
    let person = person.ok_or_else(|| Problem::bad_request("choose one of the demo people"))?;
    let who = Identity {
        pid: person.pid.clone(),
        provider: demo::ID.into(),
        name: Some(person.name.clone()),
        ..Identity::default()
    };
    signed_in(&app, who, [])
}

/// Begins a session.
pub(super) fn signed_in(
    app: &App,
    who: Identity,
    cookies: impl IntoIterator<Item = Option<HeaderValue>>,
) -> Result<Response, Problem> {
    let sign_in = app.sign_in.as_ref().ok_or_else(no_such_way)?;
    let now = Utc::now().timestamp();
    let session = sign_in.sessions.begin(who, now).map_err(|error| Problem::internal(&error))?;
    let cookie = sign_in.sessions.cookie(&session, now).filter(|cookie| cookie.len() <= LONGEST_COOKIE);
    let cookie = cookie.ok_or_else(|| Problem::unavailable("a session cannot be begun"))?;
    Ok(with_cookies(Redirect::to(HOME), cookies.into_iter().chain([Some(cookie)])))
}

/// Ends the session, and offers to end that of the provider.
pub(super) async fn sign_out(
    State(app): State<App>,
    session: SignedIn,
    mut visitor: Visitor,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    if !session.has_made(&body) {
        return Ok(visitor.message(StatusCode::FORBIDDEN, "sign-out.failed", "sign-out.failed-text"));
    }
    let sign_in = app.sign_in.as_ref().ok_or_else(no_such_way)?;
    let cookies = &sign_in.sessions.cookies;
    let removed = [cookies.remove(SESSION), cookies.remove(ID_TOKEN)];
    sign_in.sessions.end(&session).await;
    let provider = sign_in.provider(&session.provider);
    let Some((provider, url)) = provider.and_then(|provider| Some((provider, provider.end_session()?)))
    else {
        return Ok(with_cookies(Redirect::to("/"), removed));
    };
    let id_token: Option<String> = cookies.open(&headers, ID_TOKEN);
    visitor.signed = None;
    Ok(with_cookies(leave(&visitor, provider, &url, id_token), removed))
}

/// A page that goes on to the provider. By a form: the ID token says who the person is, so it has no place in an
/// address. The policy lets a form lead to the provider, which that of other pages does not, and from there to other
/// addresses of the provider's and back: browsers hold a form's redirects against the policy, too.
fn leave(visitor: &Visitor, provider: &Provider, url: &Url, id_token: Option<String>) -> Response {
    let mut fields = vec![
        ("client_id", provider.settings.client_id.clone()),
        ("post_logout_redirect_uri", provider.front_page().into()),
    ];
    fields.extend(id_token.map(|token| ("id_token_hint", token)));
    let label = &provider.settings.label;
    let method = if provider.settings.sign_out_by_get { "get" } else { "post" };
    let mut response =
        visitor.page(StatusCode::OK, &Leave { page: visitor, label, method, action: url.as_str(), fields });
    let policy = format!(
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action {} 'self' https:; \
         base-uri 'none'; frame-ancestors 'none'",
        url.origin().ascii_serialization()
    );
    let policy = HeaderValue::from_str(&policy).ok().map(|policy| (header::CONTENT_SECURITY_POLICY, policy));
    response.headers_mut().extend(policy);
    response
}

#[derive(Template)]
#[template(path = "leave.html")]
struct Leave<'a> {
    page: &'a Visitor,
    label: &'a str,
    method: &'static str,
    action: &'a str,
    fields: Vec<(&'static str, String)>,
}

/// What a provider says in a hidden frame when a person signs out there.
#[derive(Deserialize)]
pub(super) struct Ended {
    iss: String,
    sid: String,
}

/// Ends a session that a provider has ended (OpenID Connect Front-Channel Logout 1.0). Browsers send no cookie of
/// ours with a frame in another's page, so the provider's name of the session says which one is meant.
pub(super) async fn front_channel(
    State(app): State<App>,
    Query(ended): Query<Ended>,
) -> Result<Response, Problem> {
    let sign_in = app.sign_in.as_ref().ok_or_else(no_such_way)?;
    if !sign_in.has_issuer(&ended.iss) {
        return Err(Problem::bad_request("iss is no provider of this server"));
    }
    let until = Utc::now().timestamp() + sign_in.sessions.settings.longest();
    sign_in.sessions.cookies.registry.end(provider_session(&ended.iss, &ended.sid), until, MOST_ENDED).await;
    // Without the usual policy, by which a page is in no frame.
    Ok([(header::CONTENT_SECURITY_POLICY, "default-src 'none'")].into_response())
}

/// Says why the person could not sign in.
fn page(failure: Failure, visitor: &Visitor) -> Response {
    let (status, text) = failure.answer();
    visitor.message(status, "sign-in.failed", text)
}

fn no_such_way() -> Problem {
    Problem::not_found("there is no such way to sign in")
}

fn with_cookies(
    response: impl IntoResponse,
    cookies: impl IntoIterator<Item = Option<HeaderValue>>,
) -> Response {
    let mut response = response.into_response();
    for cookie in cookies.into_iter().flatten() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}
