//! What every request passes, in one place.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use super::answer::{as_problem, dress, panicked};
use super::body::{Intake, Pace};
use super::client::{ClientAddress, client_address};
use super::connection::Peer;
use super::crowd::Crowd;
use super::observe::{Observed, REQUEST_ID, RequestId, RequestedBy};
use super::rate::Rates;
use super::settings::{ServerSettings, seconds};
use super::unpack::unpack;

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
            // Outermost, so that whatever is answered further in has an id, a log line, metrics and headers.
            .layer(from_fn_with_state(Arc::clone(&stack), observe))
            // Whoever asks too often, or comes when it is crowded, is sent away before anything is read.
            .layer(from_fn_with_state(Arc::clone(&stack), admit))
            // The clock, the pace and the size of the body as it is sent.
            .layer(from_fn_with_state(stack, pace))
            // Inside of the limits, so that nothing is unpacked that has not been counted.
            .layer(from_fn(unpack))
            // The limit above is the only one: axum's own of 2 MB knows nothing of it.
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

/// A request's place in the crowd, which it keeps until its answer is through.
struct Place(#[expect(dead_code, reason = "held, not read")] tokio::sync::OwnedSemaphorePermit);

async fn observe(State(stack): State<Arc<Stack>>, mut request: Request, next: Next) -> Response {
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
    extensions.insert(intake);
    let response = next.run(request).instrument(observed.span()).await;
    let mut response = as_problem(response).await;
    dress(&mut response, settings.tls.is_some());
    if let Some(id) = id.value() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let place = response.extensions_mut().remove::<Arc<Place>>();
    observed.answered(response, place)
}

async fn admit(State(stack): State<Arc<Stack>>, request: Request, next: Next) -> Response {
    // Probes get their answer above all when there is too much to do.
    if request.extensions().get().is_some_and(is_for_operations) {
        return next.run(request).await;
    }
    let counted = match request.extensions().get() {
        Some(ClientAddress(address)) => stack.rates.count(*address, request.headers()),
        None => Ok(()),
    };
    let place = match counted.and_then(|()| stack.crowd.enter()) {
        Ok(place) => Arc::new(Place(place)),
        Err(problem) => return problem.into_response(),
    };
    let mut response = next.run(request).await;
    response.extensions_mut().insert(place);
    response
}

fn is_for_operations(route: &MatchedPath) -> bool {
    route.as_str() == "/metrics" || route.as_str().starts_with("/health/")
}

async fn pace(State(stack): State<Arc<Stack>>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Arc<Intake>>().cloned() {
        Some(intake) => stack.pace.sent(intake, request, next).await,
        None => next.run(request).await,
    }
}
