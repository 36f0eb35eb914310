//! Reading a log for somebody: what they may, and that they did.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde_json::Value;
use sporlog_intake::access_event::AccessEvent;
use sporlog_intake::writers;
use sporlog_ledger::Log;

use crate::access::{Permission, Principal};
use crate::app::App;
use crate::problem::Problem;
use crate::server::{ClientAddress, RequestId, RequestPermit, RequestedBy};

/// Whose request this is, for the access log.
#[derive(Debug, Clone)]
pub struct Trace {
    address: Option<String>,
    request: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Trace {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let address = parts.extensions.get::<ClientAddress>().map(|address| address.0.to_string());
        let request = parts.extensions.get::<RequestId>().map(|id| id.0.to_string());
        Ok(Trace { address, request })
    }
}

impl Trace {
    /// Records an access; nothing may be shown unless this succeeds.
    pub async fn record(
        &self,
        app: &App,
        performer: &str,
        action: &str,
        subject: Option<&str>,
        message: String,
        parameters: Value,
    ) -> Result<(), Problem> {
        let access = AccessEvent {
            performer,
            action,
            subject,
            address: self.address.clone(),
            correlation: self.request.as_deref(),
            message,
            parameters,
        };
        writers::record_access(&app.catalog, &access).await.map_err(|error| {
            tracing::error!(%error, "an access could not be recorded");
            Problem::unavailable("the access log cannot be written to, so nothing is shown; try again")
        })
    }
}

/// Somebody who reads, and where they stand.
pub struct Reader {
    /// Who.
    pub principal: Principal,
    /// Whose request it is.
    pub trace: Trace,
    /// Their request's permit.
    pub permit: RequestPermit,
}

impl FromRequestParts<App> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let principal = Principal::from_request_parts(parts, app).await?;
        RequestedBy::note(&parts.extensions, principal.name.clone());
        let Ok(trace) = Trace::from_request_parts(parts, app).await;
        Ok(Reader { principal, trace, permit: RequestPermit::of(&parts.extensions) })
    }
}

impl Reader {
    /// The log, if they may read it; `None` if nothing is in it yet.
    pub async fn log(&self, app: &App, name: &str) -> Result<Option<Log>, Problem> {
        self.principal.require(Permission::Read, name)?;
        Ok(app.catalog.log(name).await?)
    }

    /// Records that they are shown something.
    pub async fn record(
        &self,
        app: &App,
        action: &str,
        message: String,
        mut parameters: Value,
    ) -> Result<(), Problem> {
        // By these the person concerned is told who looked; the name may be an employee's, and stands for whoever
        // has a key of that name at the time.
        if let Some(parameters) = parameters.as_object_mut() {
            parameters.insert("principal".into(), self.principal.id().into());
            parameters.insert("role".into(), self.principal.role.name().into());
            parameters.insert("organisations".into(), self.principal.organisations.clone().into());
        }
        self.trace.record(app, &self.principal.name, action, None, message, parameters).await
    }
}
