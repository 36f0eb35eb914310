//! Access control against a real issuer: a server on this machine that publishes keys and can be
//! told to fail, and tokens that are signed as issuers sign them.
//!
//! The keys in `keys/` were made for these tests and open nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use chrono::Utc;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::issuer::Pace;
use super::*;
use crate::server::RequestPermit;

mod issuers;
mod requests;
mod tokens;

/// A key to sign with.
pub struct Signer {
    pub key: EncodingKey,
    pub algorithm: Algorithm,
    pub id: &'static str,
}

pub fn rsa_a() -> Signer {
    let key = EncodingKey::from_rsa_pem(include_bytes!("keys/rsa-a.pem")).expect("a key");
    Signer { key, algorithm: Algorithm::RS256, id: "a" }
}

pub fn rsa_b() -> Signer {
    let key = EncodingKey::from_rsa_pem(include_bytes!("keys/rsa-b.pem")).expect("a key");
    Signer { key, algorithm: Algorithm::RS256, id: "b" }
}

pub fn ec() -> Signer {
    let key = EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")).expect("a key");
    Signer { key, algorithm: Algorithm::ES256, id: "ec" }
}

pub fn ed() -> Signer {
    let key = EncodingKey::from_ed_pem(include_bytes!("keys/ed.pem")).expect("a key");
    Signer { key, algorithm: Algorithm::EdDSA, id: "ed" }
}

impl Signer {
    pub fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["kid"] = self.id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    pub fn header(&self) -> Header {
        Header { kid: Some(self.id.to_owned()), ..Header::new(self.algorithm) }
    }

    pub fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&self.header(), claims, &self.key).expect("signed")
    }
}

/// What the issuer does when it is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    Down,
    Slow,
    Huge,
    Redirecting,
    Garbled,
    AnotherIssuer,
}

struct Behaviour {
    name: String,
    keys: Mutex<Value>,
    mood: Mutex<Mood>,
    fetches: AtomicUsize,
}

/// An issuer that is served on this machine.
pub struct TestIssuer {
    pub name: String,
    behaviour: Arc<Behaviour>,
    server: tokio::task::JoinHandle<()>,
}

impl TestIssuer {
    pub async fn start(keys: &[&Signer]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let name = format!("http://{address}/");
        let behaviour = Arc::new(Behaviour {
            name: name.clone(),
            keys: Mutex::default(),
            mood: Mutex::new(Mood::Well),
            fetches: AtomicUsize::new(0),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/jwks", get(jwks))
            .with_state(Arc::clone(&behaviour));
        let serve = async move { axum::serve(listener, router).await.expect("served") };
        let issuer = TestIssuer { name, behaviour, server: tokio::spawn(serve) };
        issuer.publish(keys);
        issuer
    }

    pub fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.publish_json(json!({"keys": keys}));
    }

    pub fn publish_json(&self, keys: Value) {
        *self.behaviour.keys.lock().expect("not poisoned") = keys;
    }

    pub fn be(&self, mood: Mood) {
        *self.behaviour.mood.lock().expect("not poisoned") = mood;
    }

    /// How often its keys were asked for.
    pub fn fetches(&self) -> usize {
        self.behaviour.fetches.load(Ordering::SeqCst)
    }

    /// The claims of a token of a machine that is good.
    pub fn machine(&self) -> Value {
        let now = Utc::now().timestamp();
        json!({
            "iss": self.name, "aud": "sporlog", "exp": now + 600, "nbf": now - 5, "iat": now - 5,
            "client_id": "fagsystem", "scope": "openid sporlog:write",
        })
    }

    /// The claims of a token of a person that is good.
    pub fn citizen(&self) -> Value {
        let now = Utc::now().timestamp();
        json!({
            "iss": self.name, "aud": ["other", "sporlog"], "exp": now + 600,
            "sub": "opaque", "pid": "12345678901", "acr": "idporten-loa-high",
        })
    }

    /// Settings that take its tokens.
    pub fn settings(&self) -> AccessSettings {
        let settings = json!({
            "issuer": [{
                "issuer": self.name,
                "audience": ["sporlog"],
                "person": {"claim": ["pid", "sub"], "acr": ["idporten-loa-high", "Level4"]},
                "role": [
                    {"role": "write", "logs": ["disclosure"], "match": {"scope": "sporlog:write"}},
                    {"role": "audit", "match": {"roles": "Auditor"}},
                ],
            }],
        });
        serde_json::from_value(settings).expect("settings")
    }

    pub fn control(&self) -> AccessControl {
        control(&self.settings(), QUICK)
    }
}

impl Drop for TestIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn metadata(State(issuer): State<Arc<Behaviour>>) -> Response {
    let mood = *issuer.mood.lock().expect("not poisoned");
    let name = if mood == Mood::AnotherIssuer { "https://example.org/" } else { &issuer.name };
    match mood {
        Mood::Redirecting => Redirect::temporary("/jwks").into_response(),
        Mood::Down => StatusCode::BAD_GATEWAY.into_response(),
        _ => axum::Json(json!({"issuer": name, "jwks_uri": format!("{}jwks", issuer.name)})).into_response(),
    }
}

async fn jwks(State(issuer): State<Arc<Behaviour>>) -> Response {
    issuer.fetches.fetch_add(1, Ordering::SeqCst);
    let mood = *issuer.mood.lock().expect("not poisoned");
    if mood == Mood::Slow {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let keys = issuer.keys.lock().expect("not poisoned").clone();
    match mood {
        Mood::Huge => format!("{keys}{}", " ".repeat(2 << 20)).into_response(),
        Mood::Garbled => r#"{"keys": [{"kty": "RSA""#.into_response(),
        _ => axum::Json(keys).into_response(),
    }
}

/// For tests: keys are fetched anew only when one is unknown, and then at once.
pub const QUICK: Pace =
    Pace { refresh: Duration::from_secs(600), pause: Duration::ZERO, timeout: Duration::from_secs(5) };

pub fn control(settings: &AccessSettings, pace: Pace) -> AccessControl {
    AccessControl::at_pace(settings, Arc::new(Keys::default()), pace).expect("settings")
}

/// Keys in memory.
#[derive(Default)]
pub struct Keys {
    pub ring: Mutex<Arc<KeyRing>>,
    pub used: Mutex<Vec<String>>,
}

impl KeyRegistry for Keys {
    fn current(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.lock().expect("not poisoned"))
    }

    fn used(&self, id: &str) {
        self.used.lock().expect("not poisoned").push(id.to_owned());
    }
}

pub fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
    }
    map
}

/// The permit of a request that needs none.
pub fn none() -> RequestPermit {
    RequestPermit::default()
}

pub fn bearer(token: &str) -> HeaderMap {
    headers(&[(header::AUTHORIZATION.as_str(), &format!("Bearer {token}"))])
}

/// The status with which a token is refused as that of a principal, and as that of a person; 200 if
/// it is not.
pub async fn statuses(control: &AccessControl, token: &str) -> (u16, u16) {
    let headers = bearer(token);
    let principal = control.principal(&headers, &none()).await.map_or_else(|problem| problem.status, |_| 200);
    let person = control.person(&headers, &none()).await.map_or_else(|problem| problem.status, |_| 200);
    (principal, person)
}

/// The claims with some of them set to something else; `null` removes one.
pub fn with(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().expect("an object").remove(name);
        }
    }
    claims
}
