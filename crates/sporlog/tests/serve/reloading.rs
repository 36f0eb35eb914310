//! A configuration that changes while the server runs.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::issuer::{Issuer, Signer, now};
use super::server::{PATIENCE, Site};

fn account(name: &str) -> String {
    format!("[[sftp.account]]\nname = '{name}'\nrole = 'supplier'\n")
}

/// Waits until this holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: that did not come");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_issuers_and_rates_are_taken_up_and_the_rest_is_named() {
    let sftp = "[sftp]\nlisten = '127.0.0.1:0'\n";
    let signer = Signer::new("first");
    let issuer = Issuer::start(&signer);
    let issued = format!(
        "[[access.issuer]]\nissuer = '{}'\naudience = ['sporlog']\n\
         [[access.issuer.role]]\nrole = 'read'\nmatch = {{ scope = 'sporlog:read' }}\n",
        issuer.name()
    );
    let claims = json!({ "iss": issuer.name(), "aud": "sporlog", "scope": "sporlog:read", "iat": now(0), "exp": now(600) });
    let token = signer.sign(&claims);
    let site = Site::configured(&format!("{sftp}{}", account("a")));
    let admin = site.key("admin", "admin", &[]);
    let server = site.serve();
    let client = server.client(&admin);
    let suppliers = async || -> Vec<Value> {
        let listed = client.json("/api/deliveries/suppliers").await;
        listed.as_array().expect("a list").iter().map(|one| one["account"].clone()).collect()
    };
    let change = |toml: &str| {
        std::fs::write(site.path("sporlog.toml"), toml).expect("written");
        server.hang_up();
    };
    let logs = async || server.bearer(&token).get("/api/logs").await.status;
    assert_eq!((suppliers().await.len(), logs().await), (1, 401));

    // A configuration with an error changes nothing.
    change(&format!("{sftp}{}{}", account("a"), account("A")));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(suppliers().await, ["a"]);

    let both = format!("{sftp}{}{}", account("a"), account("b"));
    change(&format!("origin = 'x.example'\n{both}{issued}"));
    until("the account", async || suppliers().await == ["a", "b"]).await;
    until("its inbox", async || site.path("store/exchange/accounts/b/ind").is_dir()).await;
    until("the issuer", async || logs().await == 200).await;

    change(&format!("{sftp}{}[server.rate.per_address]\nper_second = 1\n", account("b")));
    until("the rate", async || server.anyone().get("/api/openapi.json").await.status == 429).await;
    change(&format!("{sftp}{}", account("b")));
    until("no rate", async || server.anyone().get("/api/openapi.json").await.status == 200).await;
    assert_eq!((suppliers().await, logs().await), (vec!["b".into()], 401));

    let said = server.stop();
    for part in [
        "the configuration cannot be used, and all stays as it is",
        "sporlog.toml:6: error sftp.account.1: sftp.account: 'A' is there twice",
        r#"these settings are taken up settings="access.issuer, sftp.account""#,
        r#"these settings have changed and need a restart settings="origin""#,
        r#"these settings are taken up settings="access.issuer, server.rate.per_address.per_second, sftp.account""#,
    ] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert_eq!(said.matches("need a restart").count(), 1, "{said}");
    assert!(!said.contains("certificate"), "{said}");
}
