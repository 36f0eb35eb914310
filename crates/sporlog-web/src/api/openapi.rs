//! The description of the API, and a page to try it.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// What the routes add themselves to.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Sporlog",
        description = "Who saw or was given whose data, when, why and through which system. Records go in \
                       once and never change; every log is covered by a signed Merkle tree, which anyone may check.",
        license(name = "EUPL-1.2", identifier = "EUPL-1.2"),
    ),
    paths(super::tlog::tile), // its route cannot be made from its description
    modifiers(&Security),
)]
pub struct Description;

struct Security;

impl Modify for Security {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let key = ApiKeyValue::with_description("ApiKey", "A key made by `sporlog apikey create`");
        components.add_security_scheme("key", SecurityScheme::ApiKey(ApiKey::Header(key)));
        let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        components.add_security_scheme("token", SecurityScheme::Http(token));
    }
}
