//! The example says what is so.

use figment::Figment;
use figment::providers::{Format, Toml};
use sporlog_exchange as exchange;
use sporlog_intake::pull;
use sporlog_web::pages::PagesSettings;
use sporlog_web::server::{Limits, ServerSettings};

use super::EXAMPLE;
use crate::config::{Config, LedgerSettings};

/// The example with all settings in force: `#name = value` is one, `# prose` is not.
fn in_force() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    EXAMPLE.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_example_can_be_read_as_it_is_and_with_all_settings_in_force() {
    for text in [EXAMPLE.to_owned(), in_force()] {
        let read = Figment::from(Toml::string(&text)).extract::<Config>();
        assert!(read.is_ok(), "{}", read.err().map(|e| e.to_string()).unwrap_or_default());
    }
}

#[test]
fn the_example_shows_the_defaults() {
    let example = Figment::from(Toml::string(&in_force()));
    let limits: Limits = example.extract_inner("server.limits").expect("limits");
    assert_eq!(limits, Limits::default());
    let listen: std::net::SocketAddr = example.extract_inner("server.listen").expect("an address");
    assert_eq!(listen, ServerSettings::default().listen);
    let rules: sporlog_record::Rules = example.extract_inner("rules").expect("rules");
    assert_eq!(
        format!("{:?}", rules.disclosure),
        format!("{:?}", sporlog_record::Rules::default().disclosure)
    );
    assert_eq!(format!("{:?}", rules.revision), format!("{:?}", sporlog_record::Rules::default().revision));
    let ledger: LedgerSettings = example.extract_inner("ledger").expect("the section");
    let defaults = LedgerSettings::default();
    assert_eq!(ledger.cache_bytes, defaults.cache_bytes);
    assert_eq!(ledger.cache_folder_bytes, defaults.cache_folder_bytes);
    let bare = Figment::from(Toml::string(EXAMPLE));
    let server: ServerSettings = bare.extract_inner("server").expect("the section");
    assert_eq!(server, ServerSettings::default());
}

#[test]
fn the_example_shows_the_defaults_of_a_pull() {
    let example = Figment::from(Toml::string(&in_force()));
    let shown: Vec<pull::Settings> = example.extract_inner("pull").expect("the section");
    pull::Settings::check_all(&shown).expect("it makes sense");
    let least = "name = 'odense'\nurl = 'https://login.odense.example'\nkey_file = 'odense.key'\nlog = 'os2faktor-odense'";
    let defaults: pull::Settings = Figment::from(Toml::string(least)).extract().expect("settings");
    assert_eq!(shown[0].proxy.as_deref(), Some("http://proxy.example:3128"));
    assert_eq!(format!("{:?}", pull::Settings { proxy: None, ..shown[0].clone() }), format!("{defaults:?}"));
}

#[test]
fn the_example_shows_the_exchange_s_defaults() {
    let example = Figment::from(Toml::string(&in_force()));
    let shown: exchange::Settings = example.extract_inner("sftp").expect("the section");
    shown.check().expect("it makes sense");
    let defaults = exchange::Settings::default();
    assert_eq!(shown.listen, defaults.listen);
    assert_eq!(shown.log, defaults.log);
    assert_eq!(shown.settle_seconds.map(u64::from), Some(defaults.settle(true).as_secs()));
    assert_eq!((shown.overlap, shown.overlap_days), (defaults.overlap, defaults.overlap_days));
    assert_eq!(shown.collect_at, defaults.collect_at);
    let limits = exchange::settings::Limits { bytes_per_second: None, ..shown.limits };
    assert_eq!(format!("{limits:?}"), format!("{:?}", defaults.limits));
    // As Debug writes them, each has a colon; the one without a default is there, too.
    let section = example.find_value("sftp.limits").expect("limits");
    let count = format!("{limits:?}").matches(": ").count();
    assert_eq!(section.as_dict().expect("a section").len(), count);
}

#[test]
fn the_example_shows_the_defaults_of_the_pages() {
    let example = Figment::from(Toml::string(&in_force()));
    let shown: PagesSettings = example.extract_inner("pages").expect("the section");
    shown.check().expect("it makes sense");
    let defaults = PagesSettings::default();
    assert_eq!((shown.session, shown.name), (defaults.session, defaults.name));
    assert_eq!((shown.accent, shown.accent_dark), (defaults.accent, defaults.accent_dark));
}

#[test]
fn every_limit_is_in_the_example() {
    let shown = Figment::from(Toml::string(&in_force())).find_value("server.limits").expect("limits");
    let shown = shown.as_dict().expect("a section").len();
    // As Debug writes it, each has a colon.
    assert_eq!(format!("{:?}", Limits::default()).matches(": ").count(), shown);
}

#[test]
fn secrets_are_not_shown() {
    for secret in [
        "kafka.properties.sasl.password",
        "kafka.properties.ssl.key.password",
        "kafka.properties.ssl.key.pem",
        "kafka.properties.sasl.oauthbearer.client.secret",
    ] {
        assert!(super::is_secret(secret), "{secret}");
    }
    for shown in
        ["kafka.properties.sasl.oauthbearer.token.endpoint.url", "server.listen", "store", "server.tls.key"]
    {
        assert!(!super::is_secret(shown), "{shown}");
    }
}
