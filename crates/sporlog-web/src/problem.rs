//! What a client is told when a request fails: RFC 9457, `application/problem+json`.
//!
//! A problem says what is wrong and what to do about it, and never holds a personal number, a key
//! or a token. What went wrong inside goes to the log under the request's id; the client learns
//! only that it did.

use std::borrow::Cow;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sporlog_record::Finding;
use sporlog_record::identifier::mask_text;

/// A request's failure.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What sort of problem it is, in a few words; the same for all of its sort.
    pub title: Cow<'static, str>,
    /// What is wrong in this case, and what to do.
    pub detail: Cow<'static, str>,
    /// What is wrong with the record, if the request held one: as `sporlog check` says it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub errors: Vec<Finding>,
    /// After how many seconds it is worth another try; sent as `Retry-After`.
    #[serde(skip)]
    pub retry_after: Option<u64>,
    /// What was wrong with the key or token, as RFC 6750 calls it; sent in `WWW-Authenticate`.
    #[serde(skip)]
    pub challenge: Option<&'static str>,
}

impl Problem {
    /// A problem with this status, titled as the status is. Personal numbers in `detail` are masked: it
    /// may quote what the client has sent.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let detail = detail.into();
        let masked = match mask_text(&detail) {
            Cow::Borrowed(_) => None,
            Cow::Owned(masked) => Some(masked),
        };
        Problem {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("failed").into(),
            detail: masked.map_or(detail, Cow::Owned),
            errors: Vec::new(),
            retry_after: None,
            challenge: None,
        }
    }

    /// 400: the request is not as it should be.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: nobody knows who asks.
    pub fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 403: it is known who asks, and they may not.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { challenge: Some("insufficient_scope"), ..Self::new(StatusCode::FORBIDDEN, detail) }
    }

    /// 404: it is not there, or not there for whoever asks.
    pub fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 503: it may work later.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { retry_after: Some(5), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// 500, for a failure of ours; `error` goes to the log and not to the client.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = &*mask_text(&error.to_string()), "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the server's log says more, under this request's id")
    }

    /// With what is wrong with the record.
    #[must_use]
    pub fn with_errors(self, errors: Vec<Finding>) -> Self {
        Self { errors, ..self }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED || self.challenge.is_some() {
            let error = self.challenge.map(|error| format!(", error=\"{error}\"")).unwrap_or_default();
            if let Ok(bearer) = HeaderValue::try_from(format!("Bearer realm=\"sporlog\"{error}")) {
                headers.append(header::WWW_AUTHENTICATE, bearer);
            }
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey realm=\"sporlog\""));
        }
        response
    }
}

impl From<sporlog_ledger::Error> for Problem {
    fn from(error: sporlog_ledger::Error) -> Self {
        use sporlog_ledger::Error as E;
        match &error {
            E::NoSuchLog(name) => Self::not_found(format!("there is no log '{name}'")),
            E::NoSuchRecord { .. } => Self::not_found(error.to_string()),
            E::NotCovered { .. } => Self::unavailable(error.to_string()),
            E::Fenced { .. } | E::Stopped { .. } | E::Failed { .. } => {
                tracing::error!(%error, "an append failed");
                Self::unavailable("nothing was stored; try again")
            }
            _ if error.is_not_found() => {
                tracing::warn!(%error, "files were removed while they were read");
                Self::unavailable("the records were being moved or removed by retention; try again")
            }
            _ if error.is_outage() => {
                tracing::error!(%error, "the store failed");
                Self::unavailable("the store cannot be read or written at this moment; try again")
            }
            _ => Self::internal(&error),
        }
    }
}
