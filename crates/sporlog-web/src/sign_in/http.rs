//! How providers are asked: over TLS, without redirects, and no further than a bounded answer.

use axum::http::Response;
use futures::future::BoxFuture;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};

use crate::access::{MOST_BYTES, is_allowed};

/// Asks a provider.
#[derive(Clone)]
pub(super) struct Http {
    pub client: reqwest::Client,
    /// Unencrypted HTTP to another machine is allowed.
    pub allow_http: bool,
}

/// Why the provider could not be asked. No address: it may have a code in it.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("an https address is expected (allow_http = true allows http)")]
    Address,
    #[error("the answer is longer than {MOST_BYTES} bytes")]
    Long,
    #[error(transparent)]
    Request(#[from] reqwest::Error),
    #[error(transparent)]
    Http(#[from] axum::http::Error),
}

impl Http {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        if !is_allowed(request.url(), self.allow_http) {
            return Err(HttpError::Address);
        }
        let mut response = self.client.execute(request).await.map_err(reqwest::Error::without_url)?;
        let mut answer = Response::builder().status(response.status());
        for (name, value) in response.headers() {
            answer = answer.header(name, value);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(HttpError::Long);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(answer.body(body)?)
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = BoxFuture<'c, Result<HttpResponse, HttpError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}
