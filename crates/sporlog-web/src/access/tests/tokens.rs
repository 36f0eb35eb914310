//! Good tokens, and all sorts of bad ones.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;

fn part(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

/// Signs claims under a header of any sort.
fn sign_with(signer: &Signer, header: &Value, claims: &Value) -> String {
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &signer.key, signer.algorithm);
    format!("{signed}.{}", signature.expect("signed"))
}

#[tokio::test]
async fn a_machine_has_the_role_that_is_configured() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let token = rsa_a().sign(&issuer.machine());
    let principal = control.principal(&bearer(&token), &none()).await.expect("known");
    assert_eq!((&*principal.name, principal.role), ("fagsystem", Role::Write));
    assert_eq!(principal.logs, ["disclosure"]);
    assert_eq!(principal.via, Via::Token { issuer: issuer.name.as_str().into(), client: "fagsystem".into() });
    assert_eq!(principal.id(), format!("token:{}#fagsystem", issuer.name));
    assert!(principal.require(Permission::Write, "disclosure").is_ok());
    // It is no person, and the second time it comes out of the cache.
    assert_eq!(statuses(&control, &token).await, (200, 403));
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn a_person_is_known_by_their_number() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let token = rsa_a().sign(&issuer.citizen());
    let person = control.person(&bearer(&token), &none()).await.expect("known");
    assert_eq!((person.pid.as_str(), person.acr.as_deref()), ("12345678901", Some("idporten-loa-high")));
    assert_eq!(statuses(&control, &token).await, (403, 200));
    for changes in [
        json!({"acr": "idporten-loa-substantial"}),
        json!({"acr": null}),
        json!({"acr": ["idporten-loa-high"]}),
        json!({"pid": null}),
        json!({"pid": "1234567890a"}),
        json!({"pid": "123456789012"}),
        json!({"pid": ""}),
        json!({"pid": 12345678901_i64}),
        json!({"pid": {"x": 1}}),
        json!({"pid": "１２３４５６７８９０１"}),
    ] {
        let token = rsa_a().sign(&with(issuer.citizen(), &changes));
        assert_eq!(statuses(&control, &token).await, (403, 403), "{changes}");
    }
    let danish = rsa_a().sign(&with(issuer.citizen(), &json!({"pid": null, "sub": "0101018081"})));
    assert_eq!(control.person(&bearer(&danish), &none()).await.expect("known").pid, "0101018081");
}

#[tokio::test]
async fn every_family_of_algorithms_is_taken() {
    let signers = [rsa_a(), ec(), ed(), Signer { algorithm: Algorithm::PS256, id: "ps", ..rsa_b() }];
    let issuer = TestIssuer::start(&signers.each_ref()).await;
    let control = issuer.control();
    for signer in &signers {
        assert_eq!(statuses(&control, &signer.sign(&issuer.machine())).await.0, 200, "{}", signer.id);
    }
    assert_eq!(issuer.fetches(), 1);
}

#[tokio::test]
async fn only_the_algorithms_that_are_configured_are_taken() {
    let issuer = TestIssuer::start(&[&rsa_a(), &ec()]).await;
    let mut settings = issuer.settings();
    settings.issuer[0].algorithms = vec!["ES256".into()];
    let control = control(&settings, QUICK);
    assert_eq!(statuses(&control, &ec().sign(&issuer.machine())).await.0, 200);
    assert_eq!(statuses(&control, &rsa_a().sign(&issuer.machine())).await.0, 401);
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let now = Utc::now().timestamp();
    for changes in [
        json!({"exp": now - 61}),
        json!({"exp": null}),
        json!({"exp": "never"}),
        json!({"exp": -1}),
        json!({"exp": 0}),
        json!({"exp": [now + 600]}),
        json!({"nbf": now + 120}),
        json!({"nbf": "soon"}),
        json!({"nbf": 1e300}),
        json!({"aud": "another"}),
        json!({"aud": ["another", "sporlog2"]}),
        json!({"aud": "sporlog "}),
        json!({"aud": []}),
        json!({"aud": null}),
        json!({"aud": {"sporlog": "sporlog"}}),
        json!({"aud": [["sporlog"]]}),
        json!({"iss": "https://example.org/"}),
        json!({"iss": issuer.name.trim_end_matches('/')}),
        json!({"iss": issuer.name.to_uppercase()}),
        json!({"iss": [issuer.name]}),
        json!({"iss": null}),
    ] {
        let token = rsa_a().sign(&with(issuer.machine(), &changes));
        assert_eq!(statuses(&control, &token).await, (401, 401), "{changes}");
    }
}

#[tokio::test]
async fn clocks_may_differ_a_little() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let now = Utc::now().timestamp();
    let late = rsa_a().sign(&with(issuer.machine(), &json!({"exp": now - 30})));
    let early = rsa_a().sign(&with(issuer.machine(), &json!({"nbf": now + 30})));
    let lenient = issuer.control();
    let strict = control(&AccessSettings { leeway_seconds: 0, ..issuer.settings() }, QUICK);
    for token in [&late, &early] {
        assert_eq!(statuses(&lenient, token).await.0, 200);
        assert_eq!(statuses(&strict, token).await.0, 401);
    }
}

#[tokio::test]
async fn a_token_that_was_good_is_refused_once_it_has_run_out() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = control(&AccessSettings { leeway_seconds: 0, ..issuer.settings() }, QUICK);
    let end = Utc::now().timestamp() + 2;
    let token = rsa_a().sign(&with(issuer.machine(), &json!({"exp": end})));
    assert_eq!(statuses(&control, &token).await.0, 200);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(statuses(&control, &token).await.0, 401);
}

#[tokio::test]
async fn a_shared_secret_is_never_made_of_a_public_key() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let claims = issuer.machine();
    let public_pem = include_bytes!("keys/rsa-a.pub.pem");
    let modulus = rsa_a().jwk()["n"].as_str().map(str::to_owned).expect("a modulus");
    let secrets: [&[u8]; 4] = [public_pem, public_pem.trim_ascii_end(), modulus.as_bytes(), b""];
    for secret in secrets {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let signer = Signer { key: EncodingKey::from_secret(secret), algorithm, id: "a" };
            assert_eq!(statuses(&control, &signer.sign(&claims)).await, (401, 401));
        }
    }
    // Not even if the issuer publishes a shared secret among its keys.
    let shared = json!({"kty": "oct", "kid": "shared", "k": "c2VjcmV0", "alg": "HS256"});
    issuer.publish_json(json!({"keys": [shared, rsa_a().jwk()]}));
    let key = EncodingKey::from_secret(b"secret");
    let signer = Signer { key, algorithm: Algorithm::HS256, id: "shared" };
    assert_eq!(statuses(&control, &signer.sign(&claims)).await, (401, 401));
    assert_eq!(statuses(&control, &rsa_a().sign(&claims)).await.0, 200);
}

#[tokio::test]
async fn headers_that_ask_for_trust_get_none() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let claims = issuer.machine();
    for alg in ["none", "None", "NONE", "", "RS256 ", "rs256", "HS256", "RSA1_5", "ES256", "PS256"] {
        let header = json!({"alg": alg, "kid": "a"});
        let unsigned = format!("{}.{}.", part(&header), part(&claims));
        assert_eq!(statuses(&control, &unsigned).await, (401, 401), "{alg}");
        let signed = sign_with(&rsa_a(), &header, &claims);
        assert_eq!(statuses(&control, &signed).await, (401, 401), "{alg}");
    }
    for header in [
        json!({"kid": "a"}),
        json!({"alg": ["RS256"], "kid": "a"}),
        json!({"alg": "RS256", "kid": 1}),
        json!({"alg": "RS256", "kid": "a", "crit": ["exp"]}),
        json!({"alg": "RS256", "kid": "a", "crit": []}),
        json!({"alg": "RS256", "kid": "a", "crit": null}),
        json!({"alg": "RS256", "kid": "a", "crit": ["b64"], "b64": false}),
        json!({"alg": "RS256", "kid": "a", "typ": "logout+jwt"}),
        json!({"alg": "RS256", "kid": "a", "typ": 1}),
    ] {
        let token = sign_with(&rsa_a(), &header, &claims);
        assert_eq!(statuses(&control, &token).await, (401, 401), "{header}");
    }
    // A key that the token brings along, or says where to fetch.
    let own = rsa_b();
    let brought = json!({"alg": "RS256", "jwk": own.jwk(), "jku": format!("{}jwks", issuer.name)});
    assert_eq!(statuses(&control, &sign_with(&own, &brought, &claims)).await, (401, 401));
    for typ in ["JWT", "at+jwt", "application/at+JWT"] {
        let token = sign_with(&rsa_a(), &json!({"alg": "RS256", "kid": "a", "typ": typ}), &claims);
        assert_eq!(statuses(&control, &token).await.0, 200, "{typ}");
    }
    // Without the name of its key, it is tried with all of them.
    let nameless = sign_with(&rsa_a(), &json!({"alg": "RS256"}), &claims);
    assert_eq!(statuses(&control, &nameless).await.0, 200);
}

#[tokio::test]
async fn a_token_by_another_key_is_refused_whatever_key_it_names() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    for id in ["a", "b", "", "../../etc/passwd"] {
        let forger = Signer { id, ..rsa_b() };
        assert_eq!(statuses(&control, &forger.sign(&issuer.machine())).await, (401, 401), "{id}");
    }
}

#[tokio::test]
async fn one_issuer_does_not_speak_for_another() {
    let one = TestIssuer::start(&[&rsa_a()]).await;
    let other = TestIssuer::start(&[&rsa_b()]).await;
    let mut settings = one.settings();
    settings.issuer.extend(other.settings().issuer);
    let control = control(&settings, QUICK);
    assert_eq!(statuses(&control, &rsa_a().sign(&one.machine())).await.0, 200);
    assert_eq!(statuses(&control, &rsa_b().sign(&other.machine())).await.0, 200);
    assert_eq!(statuses(&control, &rsa_a().sign(&other.machine())).await.0, 401);
    assert_eq!(statuses(&control, &rsa_b().sign(&one.machine())).await.0, 401);
}

#[tokio::test]
async fn what_is_no_token_is_refused_before_anything_is_fetched() {
    let issuer = TestIssuer::start(&[&rsa_a()]).await;
    let control = issuer.control();
    let good = rsa_a().sign(&issuer.machine());
    let (signed, signature) = good.rsplit_once('.').expect("three parts");
    let (head, claims) = signed.split_once('.').expect("three parts");
    let deep = BASE64_URL_SAFE_NO_PAD.encode(format!("{}1{}", "{\"a\":".repeat(5000), "}".repeat(5000)));
    for bad in [
        "",
        ".",
        "..",
        "...",
        head,
        signed,
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}.{signature}"),
        &format!("{head}=.{claims}.{signature}"),
        &format!("{head}..{signature}"),
        &format!("{head}.{}.{signature}", part(&json!([1]))),
        &format!("{head}.{}.{signature}", part(&json!("x"))),
        &format!("{}.{claims}.{signature}", part(&json!(null))),
        &format!("{head}.{deep}.{signature}"),
        &format!("{head}.{claims}.{}", "A".repeat(20_000)),
        &"A".repeat(1 << 20),
        &".".repeat(10_000),
    ] {
        assert_eq!(
            statuses(&control, bad).await,
            (401, 401),
            "{}",
            bad.get(..60.min(bad.len())).unwrap_or("")
        );
    }
    assert_eq!(issuer.fetches(), 0);
    assert_eq!(statuses(&control, &good).await.0, 200);
    for end in 0..good.len() {
        assert_eq!(statuses(&control, &good[..end]).await.0, 401, "{end}");
    }
    for bad in [
        format!("{signed}."),
        format!("{good}A"),
        format!("{good}="),
        format!("{signed}.{signature}{signature}"),
    ] {
        assert_eq!(statuses(&control, &bad).await.0, 401);
    }
}

#[tokio::test]
async fn a_token_with_any_byte_changed_is_refused() {
    let issuer = TestIssuer::start(&[&ed()]).await;
    // Keys are not fetched anew for each kid that a changed header names.
    let control = control(&issuer.settings(), Pace { pause: Duration::from_secs(60), ..QUICK });
    let good = ed().sign(&issuer.machine());
    assert_eq!(statuses(&control, &good).await.0, 200);
    for at in 0..good.len() {
        let mut changed = good.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).expect("ASCII");
        assert_eq!(statuses(&control, &changed).await.0, 401, "{at}");
    }
}

#[tokio::test]
async fn the_first_rule_that_fits_decides() {
    let issuer = TestIssuer::start(&[&ed()]).await;
    let mut settings = issuer.settings();
    settings.issuer[0].role = serde_json::from_value(json!([
        {"role": "admin", "match": {"scope": "sporlog:admin", "sub": "operator"}},
        {"role": "read", "organisation_claim": "consumer.ID", "match": {"scope": "sporlog:read"}},
        {"role": "read", "organisations": ["64942212"], "match": {"azp": "kommune"}},
        {"role": "audit", "match": {"groups": "7c0e", "https://example.org/plan": "gold"}},
        {"role": "write", "match": {"level": "3", "internal": "true"}},
    ]))
    .expect("rules");
    let control = control(&settings, QUICK);
    let plain = with(issuer.machine(), &json!({"scope": null, "client_id": "c"}));
    let consumer = |id: &str| json!({"authority": "iso6523-actorid-upis", "ID": id});
    let read = Some((Role::Read, vec!["974760673".to_owned()]));
    for (changes, expected) in [
        (json!({"scope": "sporlog:admin", "sub": "operator"}), Some((Role::Admin, vec![]))),
        (json!({"scope": "sporlog:admin"}), None),
        (json!({"scope": "sporlog:admin", "sub": "other"}), None),
        (json!({"scope": "sporlog:administrator", "sub": "operator"}), None),
        (json!({"scope": "a sporlog:read b", "consumer": consumer("0192:974760673")}), read.clone()),
        (json!({"scope": ["sporlog:read"], "consumer": consumer("974760673")}), read),
        (json!({"scope": "sporlog:read", "consumer": consumer("0192:")}), None),
        (json!({"scope": "sporlog:read", "consumer": "0192:974760673"}), None),
        (json!({"scope": "sporlog:read"}), None),
        (json!({"azp": "kommune"}), Some((Role::Read, vec!["64942212".to_owned()]))),
        // Only scopes are lists in a text.
        (json!({"azp": "a kommune"}), None),
        (json!({"groups": ["x", "7c0e"], "https://example.org/plan": "gold"}), Some((Role::Audit, vec![]))),
        (json!({"groups": ["x", "7c0e"]}), None),
        (json!({"groups": [["7c0e"]], "https://example.org/plan": "gold"}), None),
        (json!({"level": 3, "internal": true}), Some((Role::Write, vec![]))),
        (json!({"level": 3, "internal": null}), None),
        (json!({}), None),
    ] {
        let token = ed().sign(&with(plain.clone(), &changes));
        let found = control.principal(&bearer(&token), &none()).await;
        let found = found.map(|found| (found.role, found.organisations)).map_err(|problem| problem.status);
        assert_eq!(found, expected.ok_or(403), "{changes}");
    }
}

#[tokio::test]
async fn a_claims_organisation_has_to_be_among_those_that_are_configured() {
    let issuer = TestIssuer::start(&[&ed()]).await;
    let mut settings = issuer.settings();
    settings.issuer[0].role = serde_json::from_value(json!([
        {"role": "read", "organisation_claim": "org", "organisations": ["64942212"], "match": {"aud": "sporlog"}},
    ]))
    .expect("rules");
    let control = control(&settings, QUICK);
    let token = |org: &str| ed().sign(&with(issuer.machine(), &json!({"org": org})));
    let principal = control.principal(&bearer(&token("0184:64942212")), &none()).await.expect("known");
    assert_eq!(principal.organisations, ["64942212"]);
    assert_eq!(statuses(&control, &token("0184:64942213")).await.0, 403);
}

#[tokio::test]
async fn names_that_tokens_give_are_fit_for_a_log() {
    let issuer = TestIssuer::start(&[&ed()]).await;
    let control = issuer.control();
    let long = "x".repeat(500);
    for (changes, expected) in [
        (json!({"client_id": "a\nb\u{1b}[31m"}), "ab[31m"),
        (json!({"client_id": null, "sub": "01010180812"}), "01*********"),
        (json!({"client_id": null}), "unnamed"),
        (json!({"client_id": 7, "azp": "z"}), "z"),
        (json!({"client_id": long}), long.get(..64).expect("ASCII")),
    ] {
        let token = ed().sign(&with(issuer.machine(), &changes));
        let principal = control.principal(&bearer(&token), &none()).await.expect("known");
        assert_eq!(&*principal.name, expected);
    }
}

proptest! {
    #[test]
    fn any_text_is_judged(text in "\\PC*|[A-Za-z0-9_.-]{0,80}") {
        let _ = token::parse(&text);
    }

    #[test]
    fn any_claims_are_judged(exp in "null|-?[0-9]{1,400}|[0-9]e[0-9]{1,3}|\"x\"|true", path in "[a.]{0,12}") {
        let claims = format!("{{\"exp\":{exp},\"nbf\":{exp},\"a\":{{\"a\":[]}},\"a.a\":1}}");
        let text = [r#"{"alg":"RS256"}"#, &claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part)).join(".");
        if let Ok(token) = token::parse(&format!("{text}.")) {
            let _ = token::valid_until(&token.claims, 1e9, 60.0);
            let _ = token::claim(&token.claims, &path);
        }
    }
}
