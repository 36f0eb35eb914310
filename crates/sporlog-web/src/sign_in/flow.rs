//! The steps of a sign-in with a provider, and of signing out.

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use chrono::Utc;
use serde::Deserialize;
use subtle::ConstantTimeEq;
use url::Url;

use super::cookies::{CookieName, SESSION};
use super::failure::Failure;
use super::page::{escape, page};
use super::provider::{Begun, Provider};
use super::session::{Identity, SignedIn, provider_session};
use super::{SignIn, no_such_way};
use crate::{App, Problem};

/// Where a person goes who has signed in.
const HOME: &str = "/my";
/// A sign-in that was begun.
const BEGUN: CookieName = CookieName { name: "sporlog-begun", path: "/" };
/// The ID token, which the provider wants back. Sent only where it is needed.
const ID_TOKEN: CookieName = CookieName { name: "sporlog-id-token", path: "/sign-out" };
/// So many seconds a person has to sign in.
const PATIENCE: i64 = 15 * 60;
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
pub(super) async fn begin(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Response> {
    let none = || no_such_way().into_response();
    let sign_in = app.sign_in().ok_or_else(none)?;
    let provider = sign_in.provider(&id).ok_or_else(none)?;
    let now = Utc::now().timestamp();
    let (url, begun) = provider.begin(now + PATIENCE).await.map_err(IntoResponse::into_response)?;
    let cookie = sign_in.sessions.cookies.seal(BEGUN, &begun, now, Some(PATIENCE));
    Ok(with_cookies(Redirect::to(url.as_str()), [cookie]))
}

/// Takes a person back.
pub(super) async fn callback(
    State(app): State<App>,
    headers: HeaderMap,
    Query(answer): Query<Answer>,
) -> Result<Response, Problem> {
    let sign_in = app.sign_in().ok_or_else(no_such_way)?;
    let cookies = &sign_in.sessions.cookies;
    match finish(sign_in, &headers, answer).await {
        Ok((provider, identity, id_token)) => {
            let now = Utc::now().timestamp();
            let hint = provider.end_session().and_then(|_| cookies.seal(ID_TOKEN, &id_token, now, None));
            let hint =
                hint.filter(|cookie| cookie.len() <= LONGEST_COOKIE).or_else(|| cookies.remove(ID_TOKEN));
            signed_in(&app, identity, [cookies.remove(BEGUN), hint])
        }
        // Whoever has to begin again begins with a cookie of its own; another tab may be under way.
        Err(Failure::Begun) => Ok(Failure::Begun.into_response()),
        Err(failure) => Ok(with_cookies(failure, [cookies.remove(BEGUN)])),
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

/// Begins a session.
pub(super) fn signed_in(
    app: &App,
    who: Identity,
    cookies: impl IntoIterator<Item = Option<HeaderValue>>,
) -> Result<Response, Problem> {
    let sign_in = app.sign_in().ok_or_else(no_such_way)?;
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
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    session.check_form(&body)?;
    let sign_in = app.sign_in().ok_or_else(no_such_way)?;
    let cookies = &sign_in.sessions.cookies;
    let removed = [cookies.remove(SESSION), cookies.remove(ID_TOKEN)];
    sign_in.sessions.end(&session).await;
    let provider = sign_in.provider(&session.provider);
    let Some((provider, url)) = provider.and_then(|provider| Some((provider, provider.end_session()?)))
    else {
        return Ok(with_cookies(Redirect::to("/"), removed));
    };
    let id_token: Option<String> = cookies.open(&headers, ID_TOKEN);
    Ok(with_cookies(leave(provider, &url, id_token.as_deref()), removed))
}

/// A page that goes on to the provider. By a form: the ID token says who the person is, so it has no place in an
/// address. The policy lets a form lead to the provider, which that of other pages does not.
fn leave(provider: &Provider, url: &Url, id_token: Option<&str>) -> Response {
    let front = provider.front_page();
    let label = escape(&provider.settings.label);
    let mut fields = String::new();
    let sent = [("id_token_hint", id_token), ("client_id", Some(&*provider.settings.client_id))];
    for (name, value) in sent.into_iter().chain([("post_logout_redirect_uri", Some(front.as_str()))]) {
        if let Some(value) = value {
            fields.push_str(&format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)));
        }
    }
    let body = format!(
        "<p>You are signed out here. You may still be signed in at {label}.</p>\
         <form method=\"post\" action=\"{action}\">{fields}<button>Sign out of {label}</button></form>\
         <p><a href=\"/\">Stay signed in there</a></p><script src=\"{SCRIPT}\"></script>",
        action = escape(url.as_str()),
    );
    let policy = format!(
        "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; base-uri 'none'; \
         form-action {}; frame-ancestors 'none'",
        url.origin().ascii_serialization()
    );
    ([(header::CONTENT_SECURITY_POLICY, policy)], page("Signed out", &body)).into_response()
}

/// Where the script is that spares the person the click.
pub(super) const SCRIPT: &str = "/sign-out/continue.js";

pub(super) async fn script() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/javascript")], "document.forms[0].submit();\n")
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
    let sign_in = app.sign_in().ok_or_else(no_such_way)?;
    if !sign_in.has_issuer(&ended.iss) {
        return Err(Problem::bad_request("iss is no provider of this server"));
    }
    let until = Utc::now().timestamp() + sign_in.sessions.settings.longest();
    sign_in.sessions.cookies.registry.end(provider_session(&ended.iss, &ended.sid), until).await;
    let policy = [(header::CONTENT_SECURITY_POLICY, "default-src 'none'")];
    Ok((StatusCode::OK, policy, page("Signed out", "")).into_response())
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
