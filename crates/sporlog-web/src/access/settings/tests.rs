//! Settings that are taken and settings that are not.

use serde_json::{Value, json};

use super::*;

fn check(changes: &Value) -> Result<(), String> {
    let mut issuer = json!({
        "issuer": "https://test.maskinporten.no/",
        "audience": ["sporlog"],
        "role": [{"role": "write", "match": {"scope": "sporlog:write"}}],
    });
    for (name, value) in changes.as_object().expect("an object") {
        issuer[name] = value.clone();
    }
    let settings: AccessSettings =
        serde_json::from_value(json!({"issuer": [issuer]})).map_err(|error| error.to_string())?;
    settings.check().map_err(|error| error.to_string())
}

#[test]
fn good_settings_are_taken() {
    for changes in [
        json!({}),
        json!({"discovery": "https://test.maskinporten.no/.well-known/oauth-authorization-server"}),
        json!({"issuer": "urn:example", "jwks_uri": "https://example.org/jwks"}),
        json!({"issuer": "http://localhost:8080"}),
        json!({"issuer": "http://127.0.0.1:8080/realms/x"}),
        json!({"issuer": "http://[::1]:8080/"}),
        json!({"issuer": "http://keycloak.internal/", "allow_http": true}),
        json!({"algorithms": ["RS256"]}),
        json!({"role": [], "person": {}}),
        json!({"person": {"claim": ["pid", "sub"], "acr": ["idporten-loa-high"]}}),
    ] {
        assert_eq!(check(&changes), Ok(()), "{changes}");
    }
    assert_eq!(AccessSettings::default().leeway_seconds, 60);
}

#[test]
fn bad_settings_are_refused_with_the_name_of_what_is_wrong() {
    for (changes, says) in [
        (json!({"issuer": ""}), "name"),
        (json!({"issuer": "maskinporten"}), "issuer"),
        (json!({"issuer": "http://example.org/"}), "allow_http"),
        (json!({"issuer": "http://127.0.0.1.example.org/"}), "allow_http"),
        (json!({"issuer": "http://localhost.example.org/"}), "allow_http"),
        (json!({"issuer": "file:///etc/passwd", "allow_http": true}), "https"),
        (json!({"jwks_uri": "http://example.org/jwks"}), "jwks_uri"),
        (json!({"jwks_uri": "https://a/", "discovery": "https://b/"}), "not both"),
        (json!({"discovery": "ftp://example.org/"}), "discovery"),
        (json!({"discovery": "https://a:b@example.org/"}), "password"),
        (json!({"audience": []}), "audience"),
        (json!({"audience": [""]}), "audience"),
        (json!({"algorithms": []}), "algorithms"),
        (json!({"algorithms": ["RS256", "HS256"]}), "HS256"),
        (json!({"algorithms": ["none"]}), "none"),
        (json!({"role": []}), "stand for nothing"),
        (json!({"role": [{"role": "write", "match": {}}]}), "match"),
        (json!({"role": [{"role": "write", "match": {"scope": ""}}]}), "match"),
        (json!({"role": [{"role": "write"}]}), "match"),
        (json!({"role": [{"role": "root", "match": {"a": "b"}}]}), "root"),
        (json!({"role": [{"role": "read", "logs": ["Re vision"], "match": {"a": "b"}}]}), "Re vision"),
        (json!({"role": [{"role": "read", "organisations": ["1"], "match": {"a": "b"}}]}), "CVR"),
        (json!({"role": [{"role": "read", "orgs": [], "match": {"a": "b"}}]}), "orgs"),
        (json!({"person": {"claim": []}}), "claim"),
        (json!({"person": {"level": "4"}}), "level"),
        (json!({"jwks": "x"}), "jwks"),
    ] {
        let error = check(&changes).expect_err(&changes.to_string());
        assert!(error.contains(says), "{changes}: {error}");
    }
    let twice = json!({"issuer": "https://a/", "audience": ["s"], "person": {}});
    let settings: AccessSettings = serde_json::from_value(json!({"issuer": [twice, twice]})).expect("read");
    assert!(settings.check().is_err_and(|error| error.to_string().contains("twice")));
    assert!(AccessSettings { leeway_seconds: 301, issuer: vec![] }.check().is_err());
}
