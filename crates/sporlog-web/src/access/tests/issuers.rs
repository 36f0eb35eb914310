//! Issuers that change their keys, are down, slow, or not what they should be.

use std::time::Instant;

use super::*;

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let old = rsa_a().sign(&issuer.machine());
    let new = rsa_b().sign(&issuer.machine());
    assert_eq!(statuses(&control, &old).await.0, 200);
    issuer.publish(&[&rsa_a(), &rsa_b()]);
    assert_eq!(statuses(&control, &new).await.0, 200);
    assert_eq!(statuses(&control, &old).await.0, 200);
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn a_key_that_was_withdrawn_is_good_no_longer_even_for_tokens_seen_before() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let old = rsa_a().sign(&issuer.machine());
    assert_eq!(statuses(&control, &old).await.0, 200);
    issuer.publish(&[&rsa_b()]);
    assert_eq!(statuses(&control, &rsa_b().sign(&issuer.machine())).await.0, 200);
    assert_eq!(statuses(&control, &old).await.0, 401);
}

#[tokio::test]
async fn old_keys_are_fetched_again_without_anybody_waiting() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let pace = Pace { refresh: Duration::from_millis(200), ..QUICK };
    let control = control(&issuer.settings(), pace);
    let old = rsa_a().sign(&issuer.machine());
    assert_eq!(statuses(&control, &old).await.0, 200);
    issuer.publish(&[&rsa_b()]);
    tokio::time::sleep(Duration::from_millis(250)).await;
    // This one is still taken, and has the keys fetched.
    assert_eq!(
        control.principal(&bearer(&old), &none()).await.map(|found| found.role).ok(),
        Some(Role::Write)
    );
    let deadline = Instant::now() + Duration::from_secs(5);
    while statuses(&control, &old).await.0 != 401 {
        assert!(Instant::now() < deadline, "the withdrawn key is still taken");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn unknown_keys_do_not_make_us_ask_again_and_again() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = control(&issuer.settings(), Pace { pause: Duration::from_secs(60), ..QUICK });
    assert_eq!(statuses(&control, &rsa_a().sign(&issuer.machine())).await.0, 200);
    let forged = rsa_b().sign(&issuer.machine());
    let asks = (0..50).map(|_| statuses(&control, &forged));
    assert!(futures::future::join_all(asks).await.iter().all(|found| *found == (401, 401)));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn many_at_once_fetch_the_keys_once() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let token = rsa_a().sign(&issuer.machine());
    let asks = (0..100).map(|_| statuses(&control, &token));
    assert!(futures::future::join_all(asks).await.iter().all(|found| found.0 == 200));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn an_issuer_that_is_down_from_the_start_holds_up_its_own_tokens_only() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    issuer.be(Mood::Down);
    let control = issuer.control();
    let token = rsa_a().sign(&issuer.machine());
    let refused = control.principal(&bearer(&token), &none()).await.expect_err("no keys");
    assert_eq!((refused.status, refused.retry_after.is_some()), (503, true));
    assert!(control.fetch_keys().await[0].1.is_err());
    issuer.be(Mood::Well);
    assert_eq!(statuses(&control, &token).await.0, 200);
    assert_eq!(control.fetch_keys().await[0].1.as_ref().ok(), Some(&1));
}

#[tokio::test]
async fn the_keys_that_are_there_stay_in_use_while_the_issuer_is_down() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = control(&issuer.settings(), Pace { refresh: Duration::ZERO, ..QUICK });
    assert_eq!(statuses(&control, &rsa_a().sign(&issuer.machine())).await.0, 200);
    for mood in [Mood::Down, Mood::Garbled, Mood::Huge, Mood::Redirecting, Mood::AnotherIssuer] {
        issuer.be(mood);
        for n in 0..5 {
            let another = rsa_a().sign(&with(issuer.machine(), &json!({"jti": n})));
            assert_eq!(statuses(&control, &another).await.0, 200);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(statuses(&control, &rsa_b().sign(&issuer.machine())).await.0, 401);
    }
    issuer.be(Mood::Well);
    issuer.publish_json(json!({"keys": []}));
    assert_eq!(statuses(&control, &rsa_b().sign(&issuer.machine())).await.0, 401);
    assert_eq!(statuses(&control, &rsa_a().sign(&issuer.machine())).await.0, 200);
}

#[tokio::test]
async fn a_slow_issuer_is_given_up_on_and_holds_up_nobody_with_a_known_key() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let pace = Pace { timeout: Duration::from_millis(500), pause: Duration::from_secs(60), ..QUICK };
    let patient = control(&issuer.settings(), Pace { pause: Duration::ZERO, ..pace });
    let good = rsa_a().sign(&issuer.machine());
    let forged = rsa_b().sign(&issuer.machine());
    assert_eq!(statuses(&patient, &good).await.0, 200);
    issuer.be(Mood::Slow);
    let asking = tokio::spawn({
        let (control, headers) = (patient.clone(), bearer(&forged));
        async move { control.principal(&headers, &none()).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    let another = rsa_a().sign(&with(issuer.machine(), &json!({"jti": 1})));
    assert_eq!(statuses(&patient, &another).await.0, 200);
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(asking.await.expect("no panic").expect_err("unknown").status, 401);

    // Without any keys: one waits, and then nobody until the pause is over.
    let fresh = control(&issuer.settings(), pace);
    let begun = Instant::now();
    assert_eq!(statuses(&fresh, &good).await, (503, 503));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(statuses(&fresh, &good).await, (503, 503));
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_hangs_up_does_not_break_off_the_fetch() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = control(&issuer.settings(), Pace { pause: Duration::from_secs(60), ..QUICK });
    let token = rsa_a().sign(&issuer.machine());
    let headers = bearer(&token);
    let hung_up = tokio::time::timeout(Duration::from_nanos(1), control.principal(&headers, &none())).await;
    assert!(hung_up.is_err(), "it was too quick for this test");
    // The next one waits for the same fetch, and it comes to an end.
    assert_eq!(statuses(&control, &token).await.0, 200);
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn what_is_not_the_issuers_metadata_is_refused() {
    for mood in [Mood::Down, Mood::Garbled, Mood::Huge, Mood::Redirecting, Mood::AnotherIssuer] {
        let issuer = TestIssuer::start(&[&rsa_a()]).await;
        issuer.be(mood);
        let control = issuer.control();
        assert_eq!(statuses(&control, &rsa_a().sign(&issuer.machine())).await.0, 503);
    }
}

#[tokio::test]
async fn keys_are_taken_from_where_the_settings_say() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let mut settings = issuer.settings();
    settings.issuer[0].issuer = "https://example.org/".into();
    settings.issuer[0].jwks_uri = Some(format!("{}jwks", issuer.name));
    let control = control(&settings, QUICK);
    let token = rsa_a().sign(&with(issuer.machine(), &json!({"iss": "https://example.org/"})));
    assert_eq!(statuses(&control, &token).await.0, 200);
}

#[tokio::test]
async fn keys_of_other_sorts_are_passed_over() {
    let issuer = TestIssuer::start(&[]).await;
    let mut encrypting = rsa_b().jwk();
    encrypting["use"] = "enc".into();
    let mut for_another = rsa_a().jwk();
    (for_another["alg"], for_another["kid"]) = ("RS512".into(), "a512".into());
    let unknown = json!({"kty": "AKP", "alg": "ML-DSA-65", "kid": "pq", "pub": "AAAA"});
    issuer.publish_json(json!({"keys": [1, null, {}, unknown, encrypting, for_another, rsa_a().jwk()]}));
    let control = issuer.control();
    assert_eq!(statuses(&control, &rsa_a().sign(&issuer.machine())).await.0, 200);
    assert_eq!(statuses(&control, &rsa_b().sign(&issuer.machine())).await.0, 401);
    let named = Signer { id: "a512", ..rsa_a() };
    assert_eq!(statuses(&control, &named.sign(&issuer.machine())).await.0, 401);
}

#[tokio::test]
async fn no_more_tokens_are_kept_than_there_is_room_for() {
    let issuer = TestIssuer::start(&[&ed()]).await;
    let made = issuer::Issuer::new(
        &issuer.settings().issuer[0],
        QUICK,
        &issuer::client(QUICK.timeout).expect("made"),
    );
    let made = Arc::new(made.expect("settings"));
    made.fetch_now().await.expect("keys");
    let keys = made.current().expect("keys");
    let cache = cache::TokenCache::with_capacity(100);
    let grant = Arc::new(grant::Grant {
        principal: Err(refusal::Refusal::NO_ROLE),
        person: Err(refusal::Refusal::NO_PERSON),
    });
    for n in 0..1000_u32 {
        let good =
            cache::Good { grant: grant.clone(), issuer: made.clone(), keys: keys.clone(), until: 2e10 };
        let digest = cache::TokenCache::digest(&n.to_string());
        cache.insert(digest, good, 1e9);
        assert!(cache.len() <= 100);
        assert!(cache.get(&digest, 1e9).is_some());
        assert!(cache.get(&digest, 2e10).is_none());
    }
}
