//! The routes, and what each of them answers.
//!
//! | module | idea |
//! |---|---|
//! | `auditlog` | OS2faktor Login's audit-log API |
//! | `mfa` | OS2faktor Login's MFA log |
//! | `logs` | any log by its ids: head, pages, entries, proofs |
//! | `les` | a person's own disclosures |
//! | `tlog` | checkpoints and tiles, for anyone |
//! | `post` | a disclosure, handed in |
//! | `entries` | records handed in, many at a time |
//! | `deliveries` | files handed in |
//! | `delivered` | what came over the exchange, and what is missing |
//! | `page` | records on their way out |
//! | `reader` | who reads, and that it is recorded |
//! | `sender` | who hands in |
//! | `content`, `file_name` | what a body is, and what a file is called |
//! | `judge`, `idempotency` | a request's records judged, and stored just once |
//! | `params` | what stands behind the question mark |
//! | `settings`, `openapi` | what is configured, and how the API describes itself |

mod auditlog;
mod content;
mod delivered;
mod deliveries;
mod entries;
mod file_name;
mod idempotency;
mod judge;
mod les;
mod logs;
mod mfa;
mod openapi;
mod page;
mod params;
mod post;
pub(crate) mod reader;
mod sender;
pub(crate) mod settings;
#[cfg(test)]
mod tests;
mod tlog;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::{Next, from_fn_with_state};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::access::Permission;
use crate::app::App;
use crate::problem::Problem;
use crate::server::{RequestPermit, RequestedBy, RouteLimits};

pub use settings::ApiSettings;

/// Where the API describes itself, and where it can be tried.
pub const DESCRIPTION: &str = "/api/openapi.json";
/// The page to try the API on.
pub const PAGE: &str = "/api/docs";

/// Routes that have limits of their own, by method and pattern.
pub fn limits(settings: &ApiSettings) -> [(Method, &'static str, RouteLimits); 4] {
    let body_bytes = Some(settings.max_delivery_bytes);
    // A head that is waited for comes when the log moves on, or when the client's own `wait` is over.
    let waits = RouteLimits { unhurried: true, ..RouteLimits::default() };
    [
        (Method::POST, "/api/deliveries", RouteLimits { body_bytes, unhurried: true, as_sent: true }),
        (Method::GET, "/api/auditlog/head", waits),
        (Method::GET, "/api/auditlog/mfa/head", waits),
        (Method::GET, "/api/logs/{log}/head", waits),
    ]
}

/// These routes, for whoever may read the metrics.
pub fn for_collectors(routes: Router, app: App) -> Router {
    let check = async |State(app): State<App>, request: Request, next: Next| {
        let principal =
            app.access.principal(request.headers(), &RequestPermit::of(request.extensions())).await?;
        principal.require(Permission::Metrics, "*")?;
        RequestedBy::note(request.extensions(), principal.name);
        Ok::<_, Problem>(next.run(request).await)
    };
    routes.route_layer(from_fn_with_state(app, check))
}

/// All routes.
pub fn routes(app: App) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(openapi::Description::openapi())
        .routes(routes!(auditlog::head))
        .routes(routes!(auditlog::read))
        .routes(routes!(mfa::head))
        .routes(routes!(mfa::read))
        .routes(routes!(les::les))
        .routes(routes!(logs::list))
        .routes(routes!(logs::head))
        .routes(routes!(logs::read))
        .routes(routes!(logs::entry))
        .routes(routes!(logs::proof))
        .routes(routes!(post::post))
        .routes(routes!(entries::entries))
        .routes(routes!(deliveries::deliver))
        .routes(routes!(delivered::list))
        .routes(routes!(delivered::suppliers))
        .routes(routes!(delivered::one))
        .routes(routes!(tlog::checkpoint))
        .routes(routes!(tlog::key))
        .routes(routes!(tlog::keys))
        .split_for_parts();
    // Older clients know the way in under this path.
    let router = router.route("/sporingslogg/post", axum::routing::post(post::post));
    // A tile's path has slashes in it, which OpenAPI has no way to say.
    let router = router.route("/tlog/{log}/tile/{*tile}", axum::routing::get(tlog::tile));
    router.merge(SwaggerUi::new(PAGE).url(DESCRIPTION, description)).with_state(app)
}
