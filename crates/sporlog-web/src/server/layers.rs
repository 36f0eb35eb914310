//! What every request passes, in one place.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::sync::OwnedSemaphorePermit;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use super::answer::{as_problem, dress, panicked};
use super::body::Pace;
use super::client::{ClientAddress, client_address};
use super::connection::Peer;
use super::crowd::Crowd;
use super::observe::{Observed, REQUEST_ID, RequestId, RequestedBy};
use super::rate::Rates;
use super::settings::{ServerSettings, seconds};
use crate::Problem;

/// Puts everything around a router that every request passes, from the outside in. Routes that are
/// added afterwards are without it.
pub fn layers(router: Router, settings: &ServerSettings) -> Router {
    let limits = &settings.limits;
    let stack = Arc::new(Stack {
        crowd: Crowd::new(limits.requests),
        rates: Rates::new(&settings.rate),
        pace: Pace {
            bytes: limits.body_bytes,
            stall: seconds(limits.stall_seconds),
            answer: seconds(limits.answer_seconds),
        },
        settings: settings.clone(),
    });
    router.layer(
        ServiceBuilder::new()
            // All that is ours is one layer: each costs every request some microseconds.
            .layer(from_fn_with_state(stack, pass))
            // The limit of ours is the only one: axum's own of 2 MB knows nothing of it.
            .layer(DefaultBodyLimit::disable())
            // Innermost: a handler that panics answers like any other failure.
            .layer(CatchPanicLayer::custom(panicked)),
    )
}

struct Stack {
    settings: ServerSettings,
    crowd: Crowd,
    rates: Rates,
    pace: Pace,
}

/// What happens to a request, from the outside in.
async fn pass(State(stack): State<Arc<Stack>>, mut request: Request, next: Next) -> Response {
    // Outermost, so that whatever is answered further in has an id, a log line, metrics and headers.
    let settings = &stack.settings;
    let peer = request.extensions().get().map(|Peer(peer)| peer.ip());
    let unknown = std::net::Ipv4Addr::UNSPECIFIED.into();
    let client = client_address(
        peer.unwrap_or(unknown),
        request.headers(),
        settings.forwarded_header,
        &settings.trusted_proxies,
    );
    let id = RequestId::of(request.headers());
    let (by, intake) = (RequestedBy::default(), stack.pace.intake());
    let observed = Observed::begin(&request, &id, client.0, by.clone(), Arc::clone(&intake));
    let extensions = request.extensions_mut();
    extensions.insert(client);
    extensions.insert(id.clone());
    extensions.insert(by);
    // Whoever asks too often, or comes when it is crowded, is sent away before anything is read.
    let (response, place) = match stack.admit(&request, client) {
        // The clock, the pace and the size of the body as it is sent; inside of that, the body is
        // unpacked, so that nothing is that has not been counted.
        Ok(place) => (stack.pace.sent(intake, request, next).instrument(observed.span()).await, place),
        Err(problem) => (problem.into_response(), None),
    };
    let mut response = as_problem(response).await;
    dress(&mut response, settings.tls.is_some());
    if let Some(id) = id.value() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    observed.answered(response, place)
}

impl Stack {
    /// A place in the crowd, which a request keeps until its answer is through. None for probes: they get
    /// their answer above all when there is too much to do.
    fn admit(
        &self,
        request: &Request,
        ClientAddress(address): ClientAddress,
    ) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        if request.extensions().get().is_some_and(is_for_operations) {
            return Ok(None);
        }
        self.rates.count(address, request.headers())?;
        self.crowd.enter().map(Some)
    }
}

fn is_for_operations(route: &MatchedPath) -> bool {
    route.as_str() == "/metrics" || route.as_str().starts_with("/health/")
}
