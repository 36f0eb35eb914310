//! An OpenID provider: sends a person there to sign in, and finds out who came back.
//!
//! The authorization code flow with PKCE, state and nonce. The provider's metadata and keys are fetched when they
//! are first needed, anew every ten minutes of use, and at once if a token's signature does not match them. If
//! the provider cannot be asked, what is known of it stays in use.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClientAuthMethod, CoreErrorResponseType, CoreGenderClaim,
    CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthType, AuthenticationContextClass, AuthenticationFlow, AuthorizationCode,
    ClaimsVerificationError, Client, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, IdTokenFields, IssuerUrl, Nonce, OAuth2TokenResponse,
    PkceCodeChallenge, PkceCodeVerifier, ProviderMetadataWithLogout, RedirectUrl, RequestTokenError, Scope,
    StandardErrorResponse, StandardTokenResponse, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sporlog_record::identifier::{cpr, fodselsnummer, mask_text};
use sporlog_record::jose::Claims;
use tokio::sync::Mutex;
use url::Url;

use super::failure::Failure;
use super::http::Http;
use super::session::{Identity, provider_session};
use super::settings::ProviderSettings;
use crate::access::{claim, client, is_allowed, with_causes};

/// Metadata and keys older than this are fetched again when they are next used.
const REFRESH: Duration = Duration::from_secs(600);
/// So long at least lies between two attempts to fetch them.
const PAUSE: Duration = Duration::from_secs(5);
/// So long a request to the provider takes at most.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An ID token comes straight from the provider, so it was issued within so many minutes.
const FRESH: TimeDelta = TimeDelta::minutes(10);

/// A longer name is cut: a cookie has little room.
const LONGEST_NAME: usize = 100;

/// All claims, so that any of them can be named in the settings.
#[derive(Debug, Serialize, Deserialize)]
struct AnyClaims(Claims);

impl AdditionalClaims for AnyClaims {}

type Fields = IdTokenFields<
    AnyClaims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;
type Tokens = StandardTokenResponse<Fields, CoreTokenType>;
type OpenIdClient = Client<
    AnyClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// A provider.
pub(super) struct Provider {
    pub settings: ProviderSettings,
    secret: Option<ClientSecret>,
    callback: RedirectUrl,
    /// By how much its clock may differ from ours.
    leeway: TimeDelta,
    http: Http,
    known: RwLock<Option<Known>>,
    /// When its metadata were last asked for. Whoever holds it is fetching.
    last_attempt: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Known {
    metadata: Arc<ProviderMetadataWithLogout>,
    fetched: Instant,
}

/// A sign-in that was begun: what has to match when the person comes back.
#[derive(Serialize, Deserialize)]
pub(super) struct Begun {
    pub provider: String,
    pub state: String,
    /// Seconds since 1970.
    pub until: i64,
    nonce: String,
    verifier: String,
}

/// Somebody who has signed in.
pub(super) struct Proven {
    pub identity: Identity,
    /// The ID token, which the provider wants back when they sign out.
    pub id_token: String,
}

impl Provider {
    /// By settings that were checked. `address` is where this server is reached.
    pub(super) fn new(
        settings: ProviderSettings,
        secret: Option<String>,
        address: &Url,
        leeway: TimeDelta,
    ) -> Result<Self, reqwest::Error> {
        let mut callback = address.clone();
        callback.set_path("/sign-in/callback");
        Ok(Provider {
            http: Http { client: client(TIMEOUT)?, allow_http: settings.allow_http },
            settings,
            secret: secret.map(ClientSecret::new),
            callback: RedirectUrl::from_url(callback),
            leeway,
            known: RwLock::new(None),
            last_attempt: Mutex::new(None),
        })
    }

    /// Where to send a person to sign in, and what has to match when they come back.
    pub(super) async fn begin(&self, until: i64) -> Result<(Url, Begun), Failure> {
        let client = self.client(&self.metadata(None).await?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let settings = &self.settings;
        let mut request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                CsrfToken::new_random,
                Nonce::new_random,
            )
            .add_scopes(settings.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge);
        for acr in &settings.acr_values {
            request = request.add_auth_context_value(AuthenticationContextClass::new(acr.clone()));
        }
        for (name, value) in &settings.parameters {
            request = request.add_extra_param(name.clone(), value.clone());
        }
        let (url, state, nonce) = request.url();
        if !is_allowed(&url, settings.allow_http) {
            return Err(
                self.failed(Failure::Unavailable, "the provider's address for signing in is not https")
            );
        }
        let begun = Begun {
            provider: settings.id.clone(),
            state: state.into_secret(),
            until,
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        };
        Ok((url, begun))
    }

    /// Who came back with this code.
    pub(super) async fn finish(&self, begun: Begun, code: String) -> Result<Proven, Failure> {
        let metadata = self.metadata(None).await?;
        let client = self.client(&metadata);
        let request = client.exchange_code(AuthorizationCode::new(code));
        let request = request.map_err(|error| self.failed(Failure::Unavailable, &error.to_string()))?;
        let verifier = PkceCodeVerifier::new(begun.verifier);
        let tokens =
            request.set_pkce_verifier(verifier).request_async(&self.http).await.map_err(|error| {
                let failure = match &error {
                    RequestTokenError::ServerResponse(said)
                        if *said.error() == CoreErrorResponseType::InvalidGrant =>
                    {
                        Failure::Code
                    }
                    _ => Failure::Unavailable,
                };
                self.failed(failure, &with_causes(&error))
            })?;
        let id_token = tokens.extra_fields().id_token();
        let id_token = id_token.ok_or_else(|| self.failed(Failure::Token, "there is no ID token"))?;
        let nonce = Nonce::new(begun.nonce);
        let mut verified = self.verify(&client, id_token, &nonce);
        if matches!(verified, Err(ClaimsVerificationError::SignatureVerification(_))) {
            // The provider may have new keys.
            let newer = self.client(&self.metadata(Some(&metadata)).await?);
            verified = self.verify(&newer, id_token, &nonce);
        }
        let mut claims = verified.map_err(|error| self.failed(Failure::Token, &with_causes(&error)))?;
        if self.pid(&claims).is_none() && client.user_info_url().is_some() {
            self.add_user_info(&client, &tokens, &mut claims).await?;
        }
        Ok(Proven { identity: self.identity(&claims)?, id_token: id_token.to_string() })
    }

    /// Where to send somebody who signs out here, to sign out there as well.
    pub(super) fn end_session(&self) -> Option<Url> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let url = known.as_ref()?.metadata.additional_metadata().end_session_endpoint.as_ref()?.url().clone();
        is_allowed(&url, self.settings.allow_http).then_some(url)
    }

    /// Where this server begins: a person who has signed out comes back to it.
    pub(super) fn front_page(&self) -> Url {
        let mut front = self.callback.url().clone();
        front.set_path("/");
        front
    }

    /// The ID token's claims, if all that the protocol demands of it holds.
    fn verify(
        &self,
        client: &OpenIdClient,
        id_token: &openidconnect::IdToken<
            AnyClaims,
            CoreGenderClaim,
            CoreJweContentEncryptionAlgorithm,
            CoreJwsSigningAlgorithm,
        >,
        nonce: &Nonce,
    ) -> Result<Claims, ClaimsVerificationError> {
        let (now, leeway) = (Utc::now(), self.leeway);
        let issued = move |at: DateTime<Utc>| {
            let fresh = (now - FRESH - leeway..=now + leeway).contains(&at);
            fresh
                .then_some(())
                .ok_or_else(|| format!("issued at {at}, and here it is {now}: is a clock wrong?"))
        };
        let verifier = client.id_token_verifier();
        let verifier = verifier.set_time_fn(move || now - leeway).set_issue_time_verifier_fn(issued);
        let claims = id_token.claims(&verifier, nonce)?;
        // What the library knows by name is no longer among the others.
        let Ok(Value::Object(claims)) = serde_json::to_value(claims) else {
            return Err(ClaimsVerificationError::Other("the claims cannot be read".into()));
        };
        Ok(claims)
    }

    /// Some providers have the personal number in their user info alone.
    async fn add_user_info(
        &self,
        client: &OpenIdClient,
        tokens: &Tokens,
        claims: &mut Claims,
    ) -> Result<(), Failure> {
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        let subject = openidconnect::SubjectIdentifier::new(subject);
        let request = client.user_info(tokens.access_token().clone(), Some(subject));
        let request = request.map_err(|error| self.failed(Failure::Unavailable, &error.to_string()))?;
        let info: UserInfoClaims<AnyClaims, CoreGenderClaim> = request
            .request_async(&self.http)
            .await
            .map_err(|error| self.failed(Failure::Unavailable, &with_causes(&error)))?;
        for (name, value) in &info.additional_claims().0 {
            claims.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Ok(())
    }

    /// The person, if they signed in at a level that is enough.
    fn identity(&self, claims: &Claims) -> Result<Identity, Failure> {
        let level = claim(claims, &self.settings.acr_claim);
        let levels = match level {
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        };
        let enough =
            levels.into_iter().find(|level| self.settings.acr_values.iter().any(|wanted| wanted == level));
        let acr = enough
            .ok_or_else(|| self.failed(Failure::Level, "the level of sign-in is none of acr_values"))?;
        let pid = self.pid(claims).ok_or_else(|| {
            self.failed(Failure::Person, "no claim that is configured holds a fødselsnummer or CPR number")
        })?;
        let text = |name| claims.get(name).and_then(Value::as_str);
        Ok(Identity {
            pid: pid.to_owned(),
            provider: self.settings.id.as_str().into(),
            acr: Some(acr.to_owned()),
            name: text("name").map(|name| name.chars().take(LONGEST_NAME).collect()),
            session: text("sid").map(|sid| provider_session(&self.settings.issuer, sid)),
        })
    }

    fn pid<'a>(&self, claims: &'a Claims) -> Option<&'a str> {
        let found = self.settings.claim.iter().find_map(|path| claim(claims, path))?.as_str()?;
        (fodselsnummer::is_valid(found) || cpr::is_date_plausible(found)).then_some(found)
    }

    fn client(&self, metadata: &Arc<ProviderMetadataWithLogout>) -> OpenIdClient {
        let methods = metadata.token_endpoint_auth_methods_supported();
        let takes = |method| methods.is_some_and(|methods| methods.contains(&method));
        let by_post =
            takes(CoreClientAuthMethod::ClientSecretPost) && !takes(CoreClientAuthMethod::ClientSecretBasic);
        let id = ClientId::new(self.settings.client_id.clone());
        let client = OpenIdClient::from_provider_metadata(
            ProviderMetadataWithLogout::clone(metadata),
            id,
            self.secret.clone(),
        );
        client.set_redirect_uri(self.callback.clone()).set_auth_type(if by_post {
            AuthType::RequestBody
        } else {
            AuthType::BasicAuth
        })
    }

    /// The provider's metadata and keys, other than those `seen` if there are others.
    async fn metadata(
        &self,
        seen: Option<&Arc<ProviderMetadataWithLogout>>,
    ) -> Result<Arc<ProviderMetadataWithLogout>, Failure> {
        let usable = |known: &Known| match seen {
            Some(seen) => !Arc::ptr_eq(seen, &known.metadata),
            None => known.fetched.elapsed() < REFRESH,
        };
        if let Some(known) = self.known().filter(usable) {
            return Ok(known.metadata);
        }
        // Only one fetches at a time; the others wait for what comes of it.
        let mut last_attempt = self.last_attempt.lock().await;
        let just_now = last_attempt.is_some_and(|then| then.elapsed() < PAUSE);
        if !just_now && !self.known().is_some_and(|known| usable(&known)) {
            let fetched = self.fetch().await;
            *last_attempt = Some(Instant::now());
            if let Ok(metadata) = fetched {
                let known = Known { metadata: Arc::new(metadata), fetched: Instant::now() };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
            }
        }
        self.known().map(|known| known.metadata).ok_or(Failure::Unavailable)
    }

    fn known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetch(&self) -> Result<ProviderMetadataWithLogout, Failure> {
        let unavailable =
            |error: &dyn std::error::Error| self.failed(Failure::Unavailable, &with_causes(error));
        let issuer = IssuerUrl::new(self.settings.issuer.clone()).map_err(|error| unavailable(&error))?;
        let mut metadata = ProviderMetadataWithLogout::discover_async(issuer, &self.http)
            .await
            .map_err(|error| unavailable(&error))?;
        // Tokens that are signed with the client's secret, or not at all, are not taken.
        let symmetric = |algorithm: &CoreJwsSigningAlgorithm| {
            use CoreJwsSigningAlgorithm as A;
            matches!(algorithm, A::HmacSha256 | A::HmacSha384 | A::HmacSha512 | A::None)
        };
        let mut algorithms = metadata.id_token_signing_alg_values_supported().clone();
        algorithms.retain(|algorithm| !symmetric(algorithm));
        metadata = metadata.set_id_token_signing_alg_values_supported(algorithms);
        Ok(metadata)
    }

    /// Says in the log why something failed, without personal numbers.
    pub(super) fn failed(&self, failure: Failure, reason: &str) -> Failure {
        let reason = mask_text(reason);
        // A text in quotes is one line, whatever there is in it.
        tracing::warn!(provider = %self.settings.id, reason = &*reason, "a person could not sign in");
        failure
    }
}
