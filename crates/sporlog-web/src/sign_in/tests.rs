//! Signing in and out over the routes, with demo people; and what other tests need of a sign-in.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use axum::middleware::from_fn_with_state;
use chrono::Utc;
use futures::future::BoxFuture;
use sporlog_ledger::{Store, StoreOptions};
use tower::ServiceExt;

use super::failure::Failure;
use super::provider::Provider;
use super::session::Identity;
use super::*;
use crate::access::{AccessControl, KeyRegistry, KeyRing};
use crate::pages::Pages;
use crate::server::tests::log::Kept;
use crate::{AppState, Catalog};

/// Keys and ended sessions in memory.
#[derive(Default)]
pub(crate) struct InMemory {
    pub keys: Mutex<SessionKeys>,
    pub ended: Mutex<HashSet<String>>,
}

impl InMemory {
    pub(crate) fn new(now: i64) -> Arc<Self> {
        let registry = InMemory::default();
        registry.keys.lock().expect("a lock").rotate(now, 8 * 3600).expect("random");
        Arc::new(registry)
    }
}

impl SessionRegistry for InMemory {
    fn keys(&self) -> Arc<SessionKeys> {
        Arc::new(self.keys.lock().expect("a lock").clone())
    }

    fn has_ended(&self, id: &str) -> bool {
        self.ended.lock().expect("a lock").contains(id)
    }

    fn end(&self, id: String, _: i64, _: usize) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.ended.lock().expect("a lock").insert(id);
        })
    }
}

/// No API keys.
struct NoKeys;

impl KeyRegistry for NoKeys {
    fn current(&self) -> Arc<KeyRing> {
        Arc::default()
    }

    fn used(&self, _: &str) {}
}

const NORWEGIAN: &str = "25922947409";
const DANISH: &str = "6101010000";

/// What handlers work with, over a store in this folder, with two demo people and these pages.
pub(crate) fn demo_app(folder: &std::path::Path, pages: Pages) -> App {
    let address = folder.join("store").display().to_string();
    let store =
        Store::open(StoreOptions { address, create: true, ..StoreOptions::default() }).expect("a store");
    let access = AccessControl::new(&Default::default(), Arc::new(NoKeys)).expect("no issuers");
    let person = |name: &str, pid: &str, country| DemoPerson { name: name.into(), pid: pid.into(), country };
    let people = vec![person("Kari <Test>", NORWEGIAN, Country::No), person("Bo", DANISH, Country::Dk)];
    let registry = InMemory::new(Utc::now().timestamp());
    let sign_in = SignIn::demo(people, SessionSettings::default(), registry).expect("demo people");
    let mut state = AppState::new(Catalog::new(store, []), access, Default::default(), Default::default());
    (state.sign_in, state.pages) = (Some(sign_in), pages);
    state.into()
}

/// The header `Cookie` of this person's new session.
pub(crate) fn cookie_of(app: &App, pid: &str) -> String {
    let who = Identity { pid: pid.into(), provider: demo::ID.into(), ..Identity::default() };
    set_cookie(&flow::signed_in(app, who, []).expect("signed in")).expect("a cookie")
}

/// The pair that a browser would send next time.
fn set_cookie(response: &Response<Body>) -> Option<String> {
    let set = response.headers().get(header::SET_COOKIE)?.to_str().expect("text");
    set.split(';').next().map(ToOwned::to_owned)
}

/// The routes, and a page that says who has signed in and what their forms send.
fn router(app: &App) -> Router {
    let page = |session: SignedIn| async move { format!("{} {}", session.pid, session.csrf()) };
    let front = |session: Option<SignedIn>| async move { format!("{}", session.is_some()) };
    let router = routes().route("/my", get(page)).route("/", get(front));
    router.layer(from_fn_with_state(app.clone(), renew)).with_state(app.clone())
}

async fn ask(app: &App, method: &str, path: &str, cookie: &str, body: String) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).header(header::COOKIE, cookie);
    router(app).oneshot(request.body(Body::from(body)).expect("a request")).await.expect("answered")
}

async fn text(response: Response<Body>) -> String {
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    String::from_utf8(body.into()).expect("text")
}

fn is_sent_to(response: &Response<Body>, place: &str) {
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()[header::LOCATION], place);
}

#[tokio::test]
async fn a_demo_person_signs_in_is_known_and_signs_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = demo_app(folder.path(), Pages::default());
    assert_eq!(
        app.sign_in.as_ref().expect("a way").buttons(),
        [Button { id: "demo".into(), label: "Demo".into() }]
    );
    is_sent_to(&ask(&app, "GET", "/my", "", String::new()).await, "/");
    let chooser = text(ask(&app, "GET", "/sign-in/demo", "", String::new()).await).await;
    assert!(chooser.contains("Kari &#60;Test&#62; (Norge)") && !chooser.contains(NORWEGIAN), "{chooser}");

    let response = ask(&app, "POST", "/sign-in/demo", "", "person=1".into()).await;
    is_sent_to(&response, "/my");
    let set = response.headers()[header::SET_COOKIE].to_str().expect("text");
    assert!(!set.contains("Secure") && set.contains("HttpOnly"), "{set}");
    let cookie = set_cookie(&response).expect("a session");
    let response = ask(&app, "GET", "/my", &cookie, String::new()).await;
    let renewed = set_cookie(&response).expect("renewed");
    assert_ne!(renewed, cookie);
    let page = text(response).await;
    let (pid, csrf) = page.split_once(' ').expect("two words");
    assert_eq!(pid, DANISH);

    let refused = ask(&app, "POST", "/sign-out", &renewed, "csrf=guessed".into()).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    // A form of an earlier session's page: the answer has one that is this session's.
    let page = text(refused).await;
    assert!(page.contains("Du er fortsatt logget inn") && page.contains(csrf), "{page}");
    assert!(page.contains("href=\"/?lang=da\"") && !page.contains("/sign-out?"), "{page}");
    let response = ask(&app, "POST", "/sign-out", &renewed, format!("csrf={csrf}")).await;
    is_sent_to(&response, "/");
    assert_eq!(set_cookie(&response).expect("removed"), "sporlog-session=");
    for copy in [&cookie, &renewed] {
        is_sent_to(&ask(&app, "GET", "/my", copy, String::new()).await, "/");
        assert_eq!(text(ask(&app, "GET", "/", copy, String::new()).await).await, "false");
    }
    assert_eq!(text(ask(&app, "GET", "/", &cookie_of(&app, NORWEGIAN), String::new()).await).await, "true");
}

#[test]
fn what_comes_from_outside_makes_no_line_of_the_log() {
    let settings = serde_json::from_value(serde_json::json!({
        "id": "a", "label": "A", "issuer": "https://a.example", "client_id": "x", "acr_values": ["1"],
    }));
    let address = "https://innsyn.example.org".parse().expect("an address");
    let provider = Provider::new(settings.expect("settings"), None, &address, Default::default());
    let kept = Kept::default();
    // With a single subscriber, whichever test comes by first decides for all threads what is logged.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    tracing::subscriber::with_default(kept.clone(), || {
        provider.expect("a provider").failed(Failure::Refused, "error 'x\n2026-11-29 WARN forged'");
    });
    let lines = kept.lines();
    assert!(lines.len() == 1 && !lines[0].contains('\n'), "{lines:?}");
}

#[tokio::test]
async fn a_page_says_why_a_session_will_end_and_offers_to_stay_only_if_that_helps() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = demo_app(folder.path(), Pages::default());
    let (now, sessions) = (Utc::now().timestamp(), &app.sign_in.as_ref().expect("a way").sessions);
    for (left, stay) in [(8 * 3600, true), (5 * 60, false)] {
        let mut session = sessions.begin(Identity::default(), now).expect("begun");
        session.ends = now + left;
        let cookie = sessions.cookie(&session, now).expect("a cookie");
        let request = Request::get("/?lang=en").header(header::COOKIE, cookie);
        let page = crate::pages::served(app.clone()).oneshot(request.body(Body::empty()).expect("a request"));
        let page = text(page.await.expect("answered")).await;
        assert_eq!(page.contains("been inactive") && page.contains("Stay signed in"), stay, "{page}");
        assert_eq!(page.contains("lasts only so long"), !stay, "{page}");
    }
}

#[tokio::test]
async fn whoever_comes_back_once_more_from_a_provider_is_signed_in_all_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = demo_app(folder.path(), Pages::default());
    let back = "/sign-in/callback?code=a&state=b";
    let stranger = ask(&app, "GET", back, "", String::new()).await;
    assert_eq!(stranger.status(), StatusCode::BAD_REQUEST);
    assert!(text(stranger).await.contains("Du er ikke logget inn"));
    is_sent_to(&ask(&app, "GET", back, &cookie_of(&app, DANISH), String::new()).await, "/my");
}

#[tokio::test]
async fn nobody_else_can_be_chosen() {
    let folder = tempfile::tempdir().expect("a folder");
    let app = demo_app(folder.path(), Pages::default());
    for body in ["", "person=2", "person=-1", "person=Bo", "pid=25922947409"] {
        let response = ask(&app, "POST", "/sign-in/demo", "", body.into()).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
        assert!(set_cookie(&response).is_none());
    }
    assert_eq!(ask(&app, "GET", "/sign-in/other", "", String::new()).await.status(), StatusCode::NOT_FOUND);
}
