//! One record: in words, hostile or cut; its consent; its proof; exports; who looked.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use super::*;

#[tokio::test]
async fn a_record_is_told_in_sentences() {
    let site = Site::new(|settings| {
        let known = |name: &str, contact: &str| Organisation {
            name: Some(name.into()),
            contact: Some(contact.into()),
        };
        settings.organisation.insert("974761076".into(), known("Banken AS", "personvern@banken.example"));
        settings.giver = Some("NAV".into());
    });
    let record = json!({"leverandoer": "310028142", "dataForespoersel": "<a><b>1</b></a>"});
    site.put("disclosure", &[disclosure_with("2018-10-19T12:24:21.675", record)]).await;
    let page = site.get(KARI, "/my/disclosure/1").await;
    let strong = |text: &str| format!("<strong><bdi>{text}</bdi></strong>");
    for part in [
        format!(
            "{} gave {} information about {} on {}.",
            strong("NAV"),
            strong("Banken AS"),
            strong("PEN"),
            strong("19 October 2018, 12:24")
        ),
        format!("Ground: {}.", strong("hjemmel")),
        format!("through the supplier {}.", strong("310028142")),
        "<span class=\"key\"><bdi>a</bdi></span> <span class=\"value\"><bdi>1</bdi></span>".into(),
        "&lt;a&gt;\n  &lt;b&gt;1&lt;/b&gt;\n&lt;/a&gt;".into(),
        "mailto:personvern@banken.example?subject=Sporlog%20disclosure%201".into(),
        "provably unchanged since".into(),
    ] {
        assert!(page.body.contains(&part), "{part} is not in {}", page.body);
    }
    assert!(!page.body.contains(KARI), "the person's number is on the page");
    let raw = site.get(KARI, "/my/disclosure/1?raw=leverteData").await;
    assert_eq!(
        (raw.body.as_str(), &raw.headers["content-type"]),
        ("{\"a\":1}", &"text/plain; charset=utf-8".parse().unwrap())
    );
    let proof = site.get(KARI, "/my/disclosure/1/proof").await;
    let vkey = site.app.catalog.log("disclosure").await.unwrap().unwrap().vkey().to_owned();
    let proven = sporlog_ledger::verify_proof(&proof.body, &vkey).expect("it holds");
    assert!(proven.id == 1 && proven.entry.contains(KARI));
    assert_eq!(site.accesses().await, ["MY_RECORD", "MY_RECORD", "MY_PROOF"]);
}

#[tokio::test]
async fn hostile_records_do_no_harm() {
    let script = "<script>alert(1)</script>\u{202e}evil\u{200b}";
    let word = "W".repeat(1 << 20);
    let json = json!({script: script, "w": word, "n": vec![script; 3_000]}).to_string();
    let fields = json!({
        "behandlingsGrunnlag": format!("\"'{script}"), "dataForespoersel": word,
        "leverteData": BASE64_STANDARD.encode(json), "tema": "<i>", "surprise": script,
    });
    let site = Site::new(|_| {});
    site.put("disclosure", &[disclosure_with("2018-10-19T12:00:00", fields)]).await;
    for path in ["/my", "/my/disclosure/1"] {
        let page = site.get(KARI, path).await;
        assert_eq!(page.status, 200);
        assert!(!page.body.contains("<script>") && !page.body.contains("<i>"), "{path}");
        assert!(!page.body.contains('\u{202e}') && !page.body.contains('\u{200b}'), "{path}");
        assert!(page.body.contains("U+202E"), "{path}");
        assert!(page.body.len() < 90 << 10, "{path}: {} bytes", page.body.len());
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers["cache-control"], "no-store");
        assert_eq!(page.headers["referrer-policy"], "no-referrer");
    }
}

#[tokio::test]
async fn a_cut_content_shows_what_is_whole() {
    let text = r#"{"ytelser":[{"navn":"alderspensjon","beloep":12000},{"navn":"uf"#;
    let data = BASE64_STANDARD.encode(text);
    let site = Site::new(|_| {});
    site.put("disclosure", &[disclosure_with("2018-10-19T12:00:00", json!({"leverteData": data}))]).await;
    let page = site.get(KARI, "/my/disclosure/1").await.body;
    assert!(
        page.contains("Whoever delivered this has cut it off") && page.contains("alderspensjon"),
        "{page}"
    );
    assert!(page.contains("not readable JSON"));
}

#[tokio::test]
async fn words_in_the_place_of_base64_are_shown_as_they_came() {
    let site = Site::new(|_| {});
    // The fourth is Base64 by chance; the last two are Base64 of JSON, without padding and cut.
    let delivered = ["Navn og adresse", "hallo", "Ja", "Adresser", "eyJhIjoxfQ", "eyJhIjoxf"];
    for (data, raw) in delivered.into_iter().zip(delivered[..4].iter().chain(&["{\"a\":1}", "{\"a\":1"])) {
        site.put("disclosure", &[disclosure_with("2018-10-19T12:00:00", json!({"leverteData": data}))]).await;
        let id = site.app.catalog.log("disclosure").await.unwrap().unwrap().head();
        assert_eq!(site.get(KARI, &format!("/my/disclosure/{id}?raw=leverteData")).await.body, *raw);
        let page = site.get(KARI, &format!("/my/disclosure/{id}")).await.body;
        let shown = if *raw == data { data } else { "class=\"tree\"" };
        assert!(page.contains(shown), "{shown} is not in {page}");
    }
}

#[tokio::test]
async fn a_consent_is_told_in_words() {
    let token = |until: &str| {
        let claims = json!({"authorization_details": [{
            "type": "urn:altinn:consent", "from": format!("urn:altinn:person:identifier-no:{KARI}"),
            "to": {"authority": "iso6523-actorid-upis", "ID": "0192:974761076"}, "consented": "2018-10-01T10:00:00+00:00",
            "validTo": until, "consentRights": [{"resource": [{"type": "urn:altinn:resource", "value": "nav-inntekt"}]}],
        }]});
        let part = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
        format!("{}.{}.AAAA", part(json!({"alg": "ES256"})), part(claims))
    };
    let embargo = |field: &str, topic: &str| Embargo {
        log: "disclosure".into(),
        topic: Some(topic.into()),
        organisation: None,
        fields: vec![field.into()],
        days: 100_000,
    };
    let site = Site::new(|settings| settings.embargo = vec![embargo("mottaker", "KON")]);
    for until in ["2019-01-01T00:00:00+00:00", "2018-10-02T00:00:00+00:00"] {
        let record = disclosure_with("2018-10-19T12:00:00", json!({"samtykkeToken": token(until)}));
        site.put("disclosure", &[record]).await;
    }
    let good = site.get(KARI, "/my/disclosure/1").await.body;
    for part in [
        "<bdi>you</bdi>",
        "974761076",
        "nav-inntekt",
        "1 October 2018, 12:00",
        "1 January 2019, 01:00",
        "The consent fits",
        "not checked here",
    ] {
        assert!(good.contains(part), "{part} is not in {good}");
    }
    let expired = site.get(KARI, "/my/disclosure/2").await.body;
    assert!(expired.contains("The consent had run out") && !expired.contains("The consent fits"));
    // The token names the recipient, and is withheld as the recipient is.
    let fields = json!({"tema": "KON", "samtykkeToken": token("2019-01-01T00:00:00+00:00")});
    site.put("disclosure", &[disclosure_with("2018-10-19T12:00:00", fields)]).await;
    let withheld = site.get(KARI, "/my/disclosure/3").await.body;
    assert!(withheld.contains("A part is withheld") && !withheld.contains("consent"), "{withheld}");
    assert!(withheld.contains("An organisation that is not shown</bdi></strong> was given"), "{withheld}");
    assert!(site.get(KARI, "/my").await.body.contains("An organisation that is not shown"));
    assert_eq!(site.get(KARI, "/my/disclosure/3?raw=samtykkeToken").await.status, 404);
    let export = site.get(KARI, "/my/export?format=json").await.body;
    assert_eq!(export.matches("\"samtykkeToken\":").count(), 2, "{export}");
}

#[tokio::test]
async fn everything_is_exported() {
    let site = Site::new(|_| {});
    let records: Vec<_> = (1..=250)
        .map(|n| {
            disclosure_with("2018-10-19T12:00:00", json!({"behandlingsGrunnlag": format!("=ground {n}")}))
        })
        .collect();
    site.put("disclosure", &records).await;
    let export = site.get(KARI, "/my/export?format=json").await;
    let all: Value = serde_json::from_str(&export.body).expect("JSON");
    assert_eq!(all.as_array().map(Vec::len), Some(250));
    assert_eq!(all[0]["id"], 250);
    assert_eq!(all[0]["record"], records[249]);
    assert!(all[0]["origin"].is_string() && all[0].get("otherFields").is_none(), "{}", all[0]);
    let csv = site.get(KARI, "/my/export?format=csv").await.body;
    assert_eq!(csv.lines().count(), 251);
    assert!(csv.starts_with("\u{feff}\"log\",\"id\",\"receivedAt\",") && csv.contains("\"'=ground 17\""));
    assert_eq!(site.get(KARI, "/my/export").await.status, 400);
    assert_eq!(site.get(BO, "/my/export?format=json").await.body.trim(), "[\n]");
    // What no column has, too.
    let unknown = disclosure_with("2018-10-19T12:00:00", json!({"noget": {"andet": 7}}));
    site.put("disclosure", &[unknown]).await;
    let export = site.get(KARI, "/my/export?format=json").await;
    let all: Value = serde_json::from_str(&export.body).expect("JSON");
    assert_eq!(all[0]["otherFields"], json!({"noget": {"andet": 7}}), "{}", all[0]);
}

#[tokio::test]
async fn a_zipped_detail_is_shown_inflated_and_given_as_it_came() {
    let site = Site::new(|settings| {
        let fields = ["tts", "logAction", "detailType", "detailContent"].map(str::to_owned).to_vec();
        settings.log = vec![ShownLog { name: "auditlog".into(), fields, employees: false }];
    });
    let zipped = "sylOzM2xciwuTi0qyczPs8vMS8tJLElNsdFHkwAA";
    let record = |form: &str, content: &str| json!({"tts": "2026-11-03T06:50:55", "logAction": "LOGIN", "cpr": BO, "detailType": form, "detailContent": content});
    let records = [record("XML_ZIP", zipped), record("XML_ZIP", "bm8gZGVmbGF0ZQ=="), record("TEXT", zipped)];
    site.put("auditlog", &records).await;
    let shown = async |id: u64| site.get(BO, &format!("/my/auditlog/{id}")).await.body;
    assert!(shown(1).await.contains("inflated"), "{}", shown(1).await);
    assert!(shown(2).await.contains("bm8gZGVmbGF0ZQ=="), "what cannot be inflated is shown as it came");
    assert!(!shown(3).await.contains("inflated"));
    assert_eq!(site.get(BO, "/my/auditlog/1?raw=detailContent").await.body, zipped);
}

#[tokio::test]
async fn who_looked_is_told_by_role() {
    let site = Site::new(|_| {});
    site.put("disclosure", &[disclosure("2018-10-19T12:00:00")]).await;
    let access = |name: &str, action: &str, cpr: Option<&str>, detail: Value| {
        json!({"tts": "2026-11-28T08:00:00", "performerName": name, "samaccountName": name, "logAction": action, "cpr": cpr,
            "detailType": "JSON", "detailContent": detail.to_string()})
    };
    site.put(
        "access",
        &[
            access("ola.nordmann", "FIND", Some(KARI), json!({"command": "FIND"})),
            access(
                "eva.auditor",
                "READ",
                Some(KARI),
                json!({"role": "audit", "organisations": ["974761076"], "id": 1}),
            ),
            access("copying-system", "READ", None, json!({"role": "read", "log": "disclosure", "after": 0})),
            access(
                "copying-system",
                "READ",
                None,
                json!({"role": "read", "log": "disclosure", "after": 100}),
            ),
            access("other-system", "READ", None, json!({"role": "read", "log": "disclosure", "id": 3})),
        ],
    )
    .await;
    site.get(KARI, "/my").await;
    let page = site.get(KARI, "/my?log=access").await.body;
    for part in [
        "The operators of this service",
        "An auditor for 974761076",
        "<bdi>You</bdi>",
        "copying-system",
        "2 times",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    for hidden in ["ola.nordmann", "eva.auditor", "other-system"] {
        assert!(!page.contains(hidden), "{hidden}");
    }
}
