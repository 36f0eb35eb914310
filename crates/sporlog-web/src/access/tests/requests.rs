//! What requests carry: keys, tokens, both, neither.

use axum::body::Body;
use axum::extract::FromRef;
use axum::http::Request;
use tower::ServiceExt;

use super::*;

fn keyed() -> (Arc<Keys>, AccessControl, Key, String) {
    let keys = Arc::new(Keys::default());
    let new = NewKey {
        name: "kommune".into(),
        role: Role::Read,
        logs: vec!["revision*".into()],
        organisations: vec!["64942212".into()],
        expires: None,
    };
    let mut ring = KeyRing::default();
    let (key, secret) = ring.create(new, Utc::now()).expect("made");
    *keys.ring.lock().expect("not poisoned") = Arc::new(ring);
    let control = AccessControl::new(&AccessSettings::default(), keys.clone()).expect("settings");
    (keys, control, key, secret)
}

#[tokio::test]
async fn a_key_is_taken_in_either_header() {
    let (keys, control, key, secret) = keyed();
    for carried in [
        headers(&[("apikey", &secret)]),
        bearer(&secret),
        headers(&[("authorization", &format!("bearer   {secret}"))]),
        headers(&[("authorization", &format!("BEARER {secret}"))]),
    ] {
        let principal = control.principal(&carried, &none()).await.expect("known");
        assert_eq!(principal.via, Via::ApiKey { id: key.id.clone() });
        assert_eq!((&*principal.name, principal.role), ("kommune", Role::Read));
        assert_eq!((principal.logs, principal.organisations), (key.logs.clone(), key.organisations.clone()));
    }
    assert_eq!(*keys.used.lock().expect("not poisoned"), vec![key.id.to_string(); 4]);
    assert_eq!(control.person(&bearer(&secret), &none()).await.map_err(|problem| problem.status), Err(401));
}

#[tokio::test]
async fn a_key_that_is_made_or_revoked_counts_at_once() {
    let (keys, control, _, secret) = keyed();
    let carried = headers(&[("apikey", &secret)]);
    assert!(control.principal(&carried, &none()).await.is_ok());
    let mut ring = KeyRing::clone(&keys.current());
    ring.revoke("kommune", Utc::now()).expect("revoked");
    *keys.ring.lock().expect("not poisoned") = Arc::new(ring);
    let refused = control.principal(&carried, &none()).await.expect_err("revoked");
    assert_eq!(refused.status, 401);
    assert!(refused.detail.contains("revoked"));
    assert_eq!(keys.used.lock().expect("not poisoned").len(), 1);
}

#[tokio::test]
async fn what_is_said_twice_is_refused() {
    let (_, control, _, secret) = keyed();
    let authorization = format!("Bearer {secret}");
    for carried in [
        headers(&[("apikey", &secret), ("apikey", &secret)]),
        headers(&[("apikey", &secret), ("apikey", "")]),
        headers(&[("apikey", &secret), ("authorization", &authorization)]),
        headers(&[("apikey", "x"), ("authorization", "Basic x")]),
        headers(&[("authorization", &authorization), ("authorization", &authorization)]),
    ] {
        assert_eq!(control.principal(&carried, &none()).await.map_err(|problem| problem.status), Err(400));
        assert_eq!(control.person(&carried, &none()).await.map_err(|problem| problem.status), Err(400));
    }
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_refused() {
    let (keys, control, _, secret) = keyed();
    let basic = format!("Basic {secret}");
    let both = format!("{secret}, {secret}");
    for carried in [
        headers(&[]),
        headers(&[("apikey", "")]),
        headers(&[("apikey", "æøå")]),
        headers(&[("apikey", &both)]),
        headers(&[("apikey", &"x".repeat(100_000))]),
        headers(&[("apikey", &format!("Bearer {secret}"))]),
        headers(&[("authorization", "")]),
        headers(&[("authorization", "Bearer")]),
        headers(&[("authorization", "Bearer ")]),
        headers(&[("authorization", "Bearer æ.ø.å")]),
        headers(&[("authorization", &basic)]),
        headers(&[("authorization", &secret)]),
        headers(&[("x-api-key", &secret)]),
        headers(&[("cookie", &format!("ApiKey={secret}"))]),
    ] {
        let refused = control.principal(&carried, &none()).await.expect_err("refused");
        assert_eq!(refused.status, 401, "{carried:?}");
        assert!(!refused.detail.contains(secret.get(8..).expect("ASCII")));
    }
    assert!(keys.used.lock().expect("not poisoned").is_empty());
}

#[derive(Clone)]
struct App(AccessControl);

impl FromRef<App> for AccessControl {
    fn from_ref(app: &App) -> Self {
        app.0.clone()
    }
}

#[tokio::test]
async fn a_handler_is_reached_only_by_those_who_are_known() {
    let (_, control, _, secret) = keyed();
    let router = Router::new()
        .route("/log", get(|principal: Principal| async move { principal.name.to_string() }))
        .route("/les", get(|person: Person| async move { person.pid }))
        .with_state(App(control));
    let ask = |path: &str, key: Option<&str>| {
        let mut request = Request::get(path);
        if let Some(key) = key {
            request = request.header("ApiKey", key);
        }
        router.clone().oneshot(request.body(Body::empty()).expect("a request"))
    };
    assert_eq!(ask("/log", Some(&secret)).await.expect("answered").status(), 200);
    assert_eq!(ask("/les", Some(&secret)).await.expect("answered").status(), 401);
    let refused = ask("/log", None).await.expect("answered");
    assert_eq!(refused.status(), 401);
    assert!(refused.headers().contains_key("www-authenticate"));
    assert_eq!(refused.headers()["content-type"], "application/problem+json");
}
