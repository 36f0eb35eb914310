//! Axum's extractors: a handler that takes a [`Principal`] or a [`Person`] is only reached by one.

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use super::{AccessControl, Person, Principal};
use crate::Problem;
use crate::server::RequestPermit;

impl<S> FromRequestParts<S> for Principal
where
    AccessControl: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        AccessControl::from_ref(state).principal(&parts.headers, &RequestPermit::of(&parts.extensions)).await
    }
}

impl<S> FromRequestParts<S> for Person
where
    AccessControl: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        AccessControl::from_ref(state).person(&parts.headers, &RequestPermit::of(&parts.extensions)).await
    }
}
