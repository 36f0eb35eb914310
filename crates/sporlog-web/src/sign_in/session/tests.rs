//! Sessions and their cookies, without a router.

use axum::http::header;

use super::*;
use crate::sign_in::SessionRegistry;
use crate::sign_in::tests::InMemory;

const NOW: i64 = 1_800_000_000;
const PID: &str = "25922947409";

fn sessions(registry: &Arc<InMemory>) -> Sessions {
    let cookies = Cookies { registry: Arc::clone(registry) as _, secure: true };
    Sessions { cookies, settings: SessionSettings::default() }
}

fn somebody() -> Identity {
    let session = Some(provider_session("https://provider.example", "s1"));
    Identity { pid: PID.into(), provider: "idporten".into(), acr: Some("high".into()), name: None, session }
}

/// What a browser sends after it was told this.
fn sent(set: &HeaderValue) -> HeaderMap {
    let text = set.to_str().expect("text");
    let pair = text.split(';').next().expect("a pair");
    HeaderMap::from_iter([(header::COOKIE, format!("lang=nb; {pair}").parse().expect("a header"))])
}

#[test]
fn a_session_is_sealed_in_a_cookie_of_this_host_alone() {
    let sessions = sessions(&InMemory::new(NOW));
    let session = sessions.begin(somebody(), NOW).expect("begun");
    let set = sessions.cookie(&session, NOW).expect("sealed");
    let text = set.to_str().expect("text");
    assert!(text.starts_with("__Host-sporlog-session="), "{text}");
    for attribute in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
        assert!(text.split("; ").any(|one| one == attribute), "{attribute}: {text}");
    }
    assert!(!text.contains("Domain") && !text.contains(PID), "{text}");
    let opened = sessions.open(&sent(&set), NOW + 60).expect("open");
    assert_eq!(opened, SignedIn { idle_until: NOW + 60 + 900, ..session });
    assert!(!format!("{opened:?}").contains(PID));
}

#[test]
fn a_session_ends_when_idle_and_at_its_latest_hour() {
    let sessions = sessions(&InMemory::new(NOW));
    let mut session = sessions.begin(somebody(), NOW).expect("begun");
    let mut now = NOW;
    let cookie = sent(&sessions.cookie(&session, now).expect("sealed"));
    assert!(sessions.open(&cookie, NOW + 899).is_some());
    assert!(sessions.open(&cookie, NOW + 900).is_none());
    while now < NOW + 8 * 3600 - 600 {
        now += 600;
        let cookie = sent(&sessions.cookie(&session, now).expect("sealed"));
        session = sessions.open(&cookie, now).expect("renewed in time");
    }
    assert_eq!((session.idle_until, session.ends), (NOW + 8 * 3600, NOW + 8 * 3600));
    let cookie = sent(&sessions.cookie(&session, now).expect("sealed"));
    assert!(sessions.open(&cookie, NOW + 8 * 3600 - 1).is_some());
    assert!(sessions.open(&cookie, NOW + 8 * 3600).is_none());
}

#[test]
fn a_changed_cookie_and_one_of_another_server_are_none() {
    let (registry, other) = (InMemory::new(NOW), InMemory::new(NOW));
    let sessions = sessions(&registry);
    let session = sessions.begin(somebody(), NOW).expect("begun");
    let set = sessions.cookie(&session, NOW).expect("sealed");
    assert!(super::tests::sessions(&other).open(&sent(&set), NOW).is_none());
    let text = set.to_str().expect("text").split(';').next().expect("a pair").to_owned();
    let value = text.split_once('=').expect("a value").1.len();
    for at in (text.len() - value)..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let header = HeaderValue::from_bytes(&changed).expect("a header");
        let opened = sessions.open(&HeaderMap::from_iter([(header::COOKIE, header)]), NOW);
        assert!(opened.is_none(), "byte {at} was changed");
    }
    // Another cookie of the same server is no session either.
    let (_, value) = text.split_once('=').expect("a pair");
    let renamed = format!("__Host-sporlog-start={value}; sporlog-session={value}");
    let headers = HeaderMap::from_iter([(header::COOKIE, renamed.parse().expect("a header"))]);
    assert!(sessions.open(&headers, NOW).is_none());
}

#[tokio::test]
async fn an_ended_session_is_none_on_any_instance() {
    let registry = InMemory::new(NOW);
    let (here, there) = (sessions(&registry), sessions(&registry));
    let session = here.begin(somebody(), NOW).expect("begun");
    let cookie = sent(&here.cookie(&session, NOW).expect("sealed"));
    here.end(&session).await;
    assert!(there.open(&cookie, NOW).is_none());
    let cookie = sent(&here.cookie(&here.begin(somebody(), NOW).expect("begun"), NOW).expect("sealed"));
    assert!(there.open(&cookie, NOW).is_some());
    registry.end(provider_session("https://provider.example", "s2"), NOW, 9).await;
    assert!(there.open(&cookie, NOW).is_some());
    registry.end(provider_session("https://provider.example", "s1"), NOW, 9).await;
    assert!(there.open(&cookie, NOW).is_none());
}

#[test]
fn a_form_belongs_to_one_session() {
    let sessions = sessions(&InMemory::new(NOW));
    let [one, other] = [(); 2].map(|()| sessions.begin(somebody(), NOW).expect("begun"));
    let form = |token: &str| format!("a=b&{CSRF_FIELD}={token}").into_bytes();
    assert!(one.has_made(&form(&one.csrf())));
    let cookie = sent(&sessions.cookie(&one, NOW).expect("sealed"));
    assert_eq!(sessions.open(&cookie, NOW).expect("open").csrf(), one.csrf());
    for wrong in [form(&other.csrf()), form(""), form(&one.csrf()[1..]), Vec::new()] {
        assert!(!one.has_made(&wrong));
    }
}
