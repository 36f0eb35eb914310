//! The session of a request, as handlers ask for it.

use std::sync::{Arc, OnceLock};

use axum::extract::{FromRequestParts, OptionalFromRequestParts, Request, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use chrono::Utc;

use super::session::SignedIn;
use super::ways::SignIn;
use crate::server::RequestPermit;
use crate::{App, Problem};

/// The session that a handler asked for, to be renewed with the answer.
#[derive(Clone, Default)]
struct Used(Arc<OnceLock<SignedIn>>);

/// Around the routes that know persons: renews the session that a handler asked for, unless the answer begins or
/// ends one.
pub async fn renew(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let used = Used::default();
    request.extensions_mut().insert(used.clone());
    let mut response = next.run(request).await;
    if let (Some(sign_in), Some(session)) = (app.sign_in.as_ref(), used.0.get())
        && !response.headers().get_all(header::SET_COOKIE).iter().any(|set| sign_in.sessions.is_session(set))
        && let Some(cookie) = sign_in.sessions.cookie(session, Utc::now().timestamp())
    {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

impl OptionalFromRequestParts<App> for SignedIn {
    type Rejection = Problem;

    /// The request's permit is the person's from then on.
    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Option<Self>, Problem> {
        let open = |sign_in: &SignIn| sign_in.sessions.open(&parts.headers, Utc::now().timestamp());
        let Some(session) = app.sign_in.as_ref().and_then(open) else { return Ok(None) };
        RequestPermit::of(&parts.extensions).held_by(&session.pid)?;
        if let Some(used) = parts.extensions.get::<Used>() {
            let _ = used.0.set(session.clone());
        }
        Ok(Some(session))
    }
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let session = <Self as OptionalFromRequestParts<App>>::from_request_parts(parts, app).await;
        let session = session.map_err(IntoResponse::into_response)?;
        session.ok_or_else(|| Redirect::to("/").into_response())
    }
}
