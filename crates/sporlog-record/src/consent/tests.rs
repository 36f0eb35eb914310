use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::jose::KeySetError;
use crate::time::parse_iso;

const PERSON: &str = "25922947409";
const MOTTAKER: &str = "991825827";
const LEVERANDOER: &str = "310149942";

fn altinn2() -> Value {
    json!({
        "OfferedBy": PERSON, "CoveredBy": MOTTAKER, "HandledBy": LEVERANDOER,
        "DelegatedDate": "11.06.2018 16:40:52", "ValidToDate": "18.06.2019 16:40:52",
        "Services": ["4629_2"], "exp": 1_528_735_282,
    })
}

fn maskinporten() -> Value {
    json!({
        "authorization_details": [{
            "type": "urn:altinn:consent", "id": "93413201-b7e8-4ec3-a899-580fc02c6aeb",
            "from": format!("urn:altinn:person:identifier-no:{PERSON}"),
            "to": {"authority": "iso6523-actorid-upis", "ID": format!("0192:{MOTTAKER}")},
            "consented": "2018-06-11T14:40:52+00:00", "validTo": "2019-06-18T14:40:52+00:00",
            "consentRights": [],
        }],
        "supplier": {"authority": "iso6523-actorid-upis", "ID": format!("0192:{LEVERANDOER}")},
        "exp": 1_528_735_282,
    })
}

fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({"alg": "RS256", "kid": "k"})), part(claims))
}

fn disclosure(time: &str) -> Disclosure<'static> {
    let time = Some(parse_iso(time).unwrap());
    Disclosure { person: PERSON, mottaker: MOTTAKER, leverandoer: None, uthentings_tidspunkt: time }
}

fn rules(token: &str, disclosure: &Disclosure, keys: Option<&KeySet>) -> Vec<&'static str> {
    judge(token, disclosure, keys).iter().map(|remark| remark.rule).collect()
}

#[test]
fn both_shapes_fit_their_disclosure() {
    let intime = disclosure("2019-06-18T16:40:52");
    let late = disclosure("2019-06-18T16:40:53");
    for claims in [altinn2(), maskinporten()] {
        let token = unsigned(&claims);
        assert_eq!(judge(&token, &intime, None), []);
        assert_eq!(rules(&token, &late, None), ["consent-expired"]);
        let other = Disclosure { person: "21818297804", ..intime };
        let remarks = judge(&token, &other, None);
        assert_eq!(remarks[0].rule, "consent-person");
        assert_eq!(remarks[0].text, "the consent was given by another: 25*********");
        let other = Disclosure { mottaker: "889640782", ..intime };
        assert_eq!(rules(&token, &other, None), ["consent-recipient"]);
    }
}

#[test]
fn a_delegated_disclosure_names_two() {
    for claims in [altinn2(), maskinporten()] {
        let token = unsigned(&claims);
        let plain = disclosure("2018-10-19T12:24:21");
        for (mottaker, leverandoer, expected) in [
            (MOTTAKER, LEVERANDOER, &[] as &[&str]),
            (LEVERANDOER, MOTTAKER, &[]),
            (MOTTAKER, MOTTAKER, &["consent-recipient"]),
            (MOTTAKER, "889640782", &["consent-recipient"]),
            ("889640782", LEVERANDOER, &["consent-recipient"]),
        ] {
            let delegated = Disclosure { mottaker, leverandoer: Some(leverandoer), ..plain };
            assert_eq!(rules(&token, &delegated, None), expected, "{mottaker} {leverandoer}");
        }
    }
}

#[test]
fn other_ways_of_writing_are_understood() {
    let time = disclosure("2018-10-19T12:24:21");
    let mut claims = maskinporten();
    claims["authorization_details"][0]["to"] =
        json!(format!("urn:altinn:organization:identifier-no:{MOTTAKER}"));
    let other = json!({"type": "urn:altinn:consent", "from": "x:1", "to": "y:2"});
    claims["authorization_details"].as_array_mut().unwrap().insert(0, other);
    assert_eq!(judge(&unsigned(&claims), &time, None), []);

    let mut claims = altinn2();
    claims["HandledBy"] = json!("");
    claims["CoveredBy"] = json!(991_825_827);
    let delegated = Disclosure { leverandoer: Some(LEVERANDOER), ..time };
    assert_eq!(judge(&unsigned(&claims), &delegated, None), []);
}

#[test]
fn a_validity_that_cannot_be_told() {
    let time = disclosure("2018-10-19T12:24:21");
    let mut claims = altinn2();
    claims["ValidToDate"] = json!("til jul");
    assert_eq!(rules(&unsigned(&claims), &time, None), ["consent-validity"]);
    claims["ValidToDate"] = json!(null);
    assert_eq!(rules(&unsigned(&claims), &time, None), ["consent-expired"], "the token's own");
    claims.as_object_mut().unwrap().remove("exp");
    assert_eq!(rules(&unsigned(&claims), &time, None), ["consent-validity"]);
}

#[test]
fn what_is_no_consent_token() {
    let time = disclosure("2018-10-19T12:24:21");
    for token in ["", "<JSON Web Token, encodet form>", "..", "a.b.c", "a.b", "a.b.c.d", "e30.e30.e30"] {
        assert_eq!(rules(token, &time, None), ["jwt"], "{token}");
    }
    assert_eq!(rules(&unsigned(&json!({"sub": "x"})), &time, None), ["consent-claims"]);
    let broken = unsigned(&altinn2()).replace("c2ln", "c2l*");
    assert_eq!(rules(&broken, &time, None), ["jwt"]);
}

/// An Ed25519 key pair that is made for tests: PKCS #8, with a seed of the same byte throughout.
fn signing_key(seed: u8) -> EncodingKey {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend([seed; 32]);
    EncodingKey::from_ed_der(&der)
}

fn key_set(seed: u8, kid: Option<&str>) -> KeySet {
    let mut jwk = Jwk::from_encoding_key(&signing_key(seed), Algorithm::EdDSA).unwrap();
    jwk.common.key_id = kid.map(str::to_owned);
    KeySet::from_jwks(&serde_json::to_vec(&JwkSet { keys: vec![jwk] }).unwrap()).unwrap()
}

fn signed(seed: u8, kid: Option<&str>) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
    encode(&header, &altinn2(), &signing_key(seed)).unwrap()
}

#[test]
fn signatures() {
    let time = disclosure("2018-10-19T12:24:21");
    let token = signed(1, Some("k"));
    assert_eq!(judge(&token, &time, Some(&key_set(1, Some("k")))), []);
    assert_eq!(judge(&token, &time, Some(&key_set(1, None))), []);
    assert_eq!(judge(&signed(1, None), &time, Some(&key_set(1, Some("k")))), []);
    let wrong = ["consent-signature"];
    assert_eq!(rules(&token, &time, Some(&key_set(2, Some("k")))), wrong);
    assert_eq!(rules(&token, &time, Some(&key_set(1, Some("other")))), wrong);

    // The same signature under other claims.
    let (signed_part, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed_part.split_once('.').unwrap();
    let mut claims = altinn2();
    claims["ValidToDate"] = json!("18.06.2029 16:40:52");
    let forged = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    assert_eq!(rules(&forged, &time, Some(&key_set(1, Some("k")))), wrong);
}

#[test]
fn unsigned_and_symmetric_tokens_never_verify() {
    let time = disclosure("2018-10-19T12:24:21");
    let public = key_set(1, None);
    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(altinn2().to_string()),
    );
    assert_eq!(rules(&none, &time, Some(&public)), ["consent-signature"]);
    let secret = EncodingKey::from_secret(b"secret");
    let hmac = encode(&Header::new(Algorithm::HS256), &altinn2(), &secret).unwrap();
    assert_eq!(rules(&hmac, &time, Some(&public)), ["consent-signature"]);
}

#[test]
fn key_sets() {
    assert!(matches!(KeySet::from_jwks(b"{}"), Err(KeySetError::Format(_))));
    assert!(matches!(KeySet::from_jwks(br#"{"keys":[]}"#), Err(KeySetError::NoKeys)));
    let secret = br#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}"#;
    assert!(matches!(KeySet::from_jwks(secret), Err(KeySetError::NoKeys)));
    let for_encryption = br#"{"keys":[{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}]}"#;
    assert!(matches!(KeySet::from_jwks(for_encryption), Err(KeySetError::NoKeys)));
    let mixed = br#"{"keys":[{"kty":"XYZ"},{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}]}"#;
    assert!(KeySet::from_jwks(mixed).is_ok());
}

proptest! {
    #[test]
    fn any_token_is_judged(token in "[A-Za-z0-9_=.-]{0,60}", claims in "\\{\"(exp|OfferedBy)\":[0-9]{1,20}\\}") {
        let keys = key_set(1, None);
        let disclosure = disclosure("2018-10-19T12:24:21");
        judge(&token, &disclosure, Some(&keys));
        let token = format!("eyJhbGciOiJFZERTQSJ9.{}.", URL_SAFE_NO_PAD.encode(claims));
        judge(&token, &disclosure, Some(&keys));
    }
}
