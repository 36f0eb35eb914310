//! What every request passes, in one place.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ::metrics::counter;
use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{Method, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use sporlog_record::identifier::network;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use super::answer::{as_problem, panicked, security_headers};
use super::client::client_address;
use super::connection::Peer;
use super::metrics;
use super::observe::{Observed, REQUEST_ID, RequestId, RequestedBy};
use super::permits::{Permits, RequestPermit};
use super::rate::Rates;
use super::request_body::{BodyLimits, RouteLimits};
use super::settings::ServerSettings;
use crate::Problem;

/// Puts everything around a router that every request passes. `exceptions` are routes, by
/// method and pattern, that have limits of their own; `rates` is how often a client may ask. Routes that are added afterwards are without all this.
pub fn layers(
    router: Router,
    settings: &ServerSettings,
    rates: Rates,
    exceptions: impl IntoIterator<Item = (Method, &'static str, RouteLimits)>,
) -> Router {
    let limits = &settings.limits;
    let exceptions =
        exceptions.into_iter().map(|(method, route, own)| (method, route, BodyLimits::new(limits, own)));
    let edge = Arc::new(Edge {
        permits: Arc::new(Permits::new(limits.requests)),
        rates,
        usual: BodyLimits::new(limits, RouteLimits::default()),
        exceptions: exceptions.collect(),
        settings: settings.clone(),
    });
    router.layer(
        ServiceBuilder::new()
            // All that is ours is one layer: each costs every request some microseconds.
            .layer(from_fn_with_state(edge, pass))
            // Innermost: a handler that panics answers like any other failure.
            .layer(CatchPanicLayer::custom(panicked)),
    )
}

struct Edge {
    settings: ServerSettings,
    permits: Arc<Permits>,
    rates: Rates,
    usual: BodyLimits,
    exceptions: Vec<(Method, &'static str, BodyLimits)>,
}

/// What happens to a request, from the outside in.
async fn pass(State(edge): State<Arc<Edge>>, mut request: Request, next: Next) -> Response {
    // Outermost, so that whatever is answered further in has an id, a log line, metrics and headers.
    let settings = &edge.settings;
    let peer = request.extensions_mut().remove::<Peer>();
    let unknown = std::net::Ipv4Addr::UNSPECIFIED.into();
    let client = client_address(
        peer.as_ref().map_or(unknown, |peer| peer.address.ip()),
        request.headers(),
        settings.forwarded_header,
        &settings.trusted_proxies,
    );
    let under_way = peer.map(|peer| peer.timers.request());
    let id = RequestId::of(request.headers());
    let (by, received) = (RequestedBy::default(), Arc::new(AtomicU64::new(0)));
    let observed = Observed::begin(&request, &id, client.0, by.clone(), Arc::clone(&received));
    let limits = edge.limits(&request);
    let extensions = request.extensions_mut();
    extensions.insert(client);
    extensions.insert(id.clone());
    extensions.insert(by);
    // Whoever asks too often, or comes when too many requests are under way, is sent away before anything is read.
    let (response, permit) = match edge.admit(&request, client.0, under_way.is_some()) {
        Ok(permit) => {
            request.extensions_mut().insert(permit.clone());
            // The limit of ours is the only one: axum's own of 2 MB knows nothing of it.
            DefaultBodyLimit::disable().apply(&mut request);
            (limits.answer(request, next, received).instrument(observed.span()).await, permit)
        }
        Err(problem) => (problem.into_response(), RequestPermit::default()),
    };
    let mut response = as_problem(response).await;
    security_headers(&mut response, settings.tls.is_some());
    if let Some(id) = id.value() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    observed.answered(response, (permit, under_way))
}

impl Edge {
    fn limits(&self, request: &Request) -> BodyLimits {
        let route = request.extensions().get().map_or("", MatchedPath::as_str);
        let own = self.exceptions.iter().find(|(of, path, _)| *path == route && of == request.method());
        own.map_or(self.usual, |(.., limits)| *limits)
    }

    /// Lets a request in, with a permit, which it holds until the answer is through. Probes need none: they get
    /// their answer above all when there is too much to do.
    fn admit(&self, request: &Request, address: IpAddr, by_socket: bool) -> Result<RequestPermit, Problem> {
        let hosts = request.headers().get_all(header::HOST).iter().count();
        if by_socket && request.version() == Version::HTTP_11 && hosts != 1 {
            counter!(metrics::HTTP_REFUSED, "reason" => "head").increment(1);
            return Err(Problem::bad_request("a request has one Host header"));
        }
        if request.extensions().get().is_some_and(is_for_operations) {
            return Ok(RequestPermit::default());
        }
        self.rates.count(address, request.headers())?;
        self.permits.acquire(network(address))
    }
}

fn is_for_operations(route: &MatchedPath) -> bool {
    route.as_str() == "/metrics" || route.as_str().starts_with("/health/")
}
