//! Settings that are taken and settings that are not.

use serde_json::{Value, json};

use super::*;

fn check(changes: &Value, address: Option<&str>) -> Result<(), String> {
    let mut provider = json!({
        "id": "idporten", "label": "ID-porten", "issuer": "https://idporten.no", "client_id": "x",
        "acr_values": ["idporten-loa-high"],
    });
    for (name, value) in changes.as_object().expect("an object") {
        provider[name] = value.clone();
    }
    let provider: ProviderSettings = serde_json::from_value(provider).map_err(|error| error.to_string())?;
    let address = address.map(|address| Url::parse(address).expect("an address"));
    check_providers(&[provider], address.as_ref()).map_err(|error| error.to_string())
}

const ADDRESS: Option<&str> = Some("https://innsyn.example.org");

#[test]
fn good_settings_are_taken() {
    for changes in [
        json!({}),
        json!({"issuer": "http://127.0.0.1:3000", "client_secret_env": "SECRET"}),
        json!({"issuer": "http://keycloak.internal/realms/x", "allow_http": true}),
        json!({"claim": ["dk.cpr", "pid"], "scopes": ["ssn"], "parameters": {"idp_values": "mitid"}}),
    ] {
        assert_eq!(check(&changes, ADDRESS), Ok(()), "{changes}");
    }
    assert_eq!(check(&json!({}), Some("http://localhost:8080")), Ok(()));
    assert!(check_providers(&[], None).is_ok());
    assert!(SessionSettings::default().check().is_ok());
}

#[test]
fn bad_settings_are_refused_with_the_name_of_what_is_wrong() {
    for (changes, says) in [
        (json!({"id": ""}), "id:"),
        (json!({"id": "ID-porten"}), "id:"),
        (json!({"id": "callback"}), "id:"),
        (json!({"id": "demo"}), "id:"),
        (json!({"label": ""}), "label"),
        (json!({"issuer": "idporten"}), "issuer"),
        (json!({"issuer": "http://idporten.no"}), "allow_http"),
        (json!({"client_secret_file": "a", "client_secret_env": "B"}), "not both"),
        (json!({"acr_values": []}), "acr_values"),
        (json!({"claim": []}), "claim"),
        (json!({"parameters": {"nonce": "x"}}), "parameters"),
        (json!({"secret": "x"}), "secret"),
    ] {
        let error = check(&changes, ADDRESS).expect_err("refused");
        assert!(error.contains(says), "{changes}: {error}");
    }
    for address in
        [None, Some("http://innsyn.example.org"), Some("https://example.org/innsyn"), Some("https://a@b/")]
    {
        let error = check(&json!({}), address).expect_err("refused");
        assert!(error.contains("pages.address"), "{address:?}: {error}");
    }
    let twice = serde_json::from_value::<ProviderSettings>(json!({
        "id": "a", "label": "A", "issuer": "https://a", "client_id": "x", "acr_values": ["1"],
    }));
    let twice = twice.expect("settings");
    let address = Url::parse("https://innsyn.example.org").ok();
    let error = check_providers(&[twice.clone(), twice], address.as_ref()).expect_err("refused").to_string();
    assert!(error.contains("twice"), "{error}");
    for (idle_minutes, hours) in [(0, 8), (15, 0), (61, 1), (15, 25)] {
        assert!(SessionSettings { idle_minutes, hours }.check().is_err());
    }
}
