//! The settings as librdkafka takes them.

use std::collections::BTreeMap;
use std::path::Path;

use rdkafka::ClientConfig;

use super::settings::{Mechanism, Property, Sasl, Secret, Settings, Tls};
use crate::error::{Error, Result};

/// What librdkafka may keep fetched ahead, over all partitions, in KiB. A fetch that is under way
/// comes on top of it.
const QUEUED_KIB: usize = 16 << 10;
/// What one fetch may bring, in bytes, unless a single message is larger.
const FETCH_BYTES: usize = 8 << 20;

/// What the producer of dead letters may hold, in KiB. A copy of the largest record has to fit.
const DEAD_LETTER_KIB: usize = 96 << 10;

/// Properties that are not to be set, and why.
const OURS: [(&str, &str); 8] = [
    ("bootstrap.servers", "kafka.brokers says where the brokers are"),
    ("metadata.broker.list", "kafka.brokers says where the brokers are"),
    ("group.id", "kafka.group names the group"),
    ("enable.auto.commit", "offsets follow what is in the log"),
    ("auto.commit.enable", "offsets follow what is in the log"),
    ("enable.auto.offset.store", "offsets follow what is in the log"),
    ("auto.offset.reset", "partitions begin where the log says, or kafka.topic.start"),
    ("statistics.interval.ms", "Sporlog needs it as it is"),
];

/// The consumer's configuration.
pub(super) fn consumer(settings: &Settings, until_end: bool) -> Result<ClientConfig> {
    let mut config = common(settings)?;
    let properties = flat(&settings.properties);
    let default = |config: &mut ClientConfig, name: &str, value: &str| {
        if !properties.contains_key(name) {
            config.set(name, value);
        }
    };
    default(&mut config, "queued.max.messages.kbytes", &QUEUED_KIB.to_string());
    default(&mut config, "fetch.max.bytes", &FETCH_BYTES.to_string());
    // Its own default, a second, would leave a queue of this size empty for most of the time.
    default(&mut config, "fetch.queue.backoff.ms", "10");
    default(&mut config, "isolation.level", "read_committed");
    // Soon enough for a topic that is made later, and for partitions that are added.
    default(&mut config, "topic.metadata.refresh.interval.ms", "10000");
    if properties.get("group.protocol").is_none_or(|protocol| protocol != "consumer") {
        default(&mut config, "partition.assignment.strategy", "cooperative-sticky");
    }
    config
        .set("group.id", &settings.group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // A partition never begins where nobody has said.
        .set("auto.offset.reset", "error")
        .set("statistics.interval.ms", if until_end { "250" } else { "1000" });
    Ok(config)
}

/// The configuration of the producer of dead letters.
pub(super) fn producer(settings: &Settings) -> Result<ClientConfig> {
    // Limits on what is consumed mean nothing to a producer, and librdkafka would say so each time.
    const CONSUMING: [&str; 10] = [
        "queued.",
        "fetch.",
        "isolation.",
        "partition.",
        "group.",
        "session.",
        "heartbeat.",
        "max.poll.",
        "auto.",
        "check.crcs",
    ];
    let mut config = common(settings)?;
    let names: Vec<_> = config.config_map().keys().map(|name| (*name).to_owned()).collect();
    for name in names.iter().filter(|name| CONSUMING.iter().any(|prefix| name.starts_with(prefix))) {
        config.remove(name);
    }
    config.set("enable.idempotence", "true").set("queue.buffering.max.kbytes", DEAD_LETTER_KIB.to_string());
    if config.get("message.max.bytes").is_none() {
        // How large a copy may be is the topic's to say; librdkafka's own limit is 1 MB.
        config.set("message.max.bytes", (DEAD_LETTER_KIB << 10).to_string());
    }
    Ok(config)
}

/// What consumer and producer share: brokers, security, and the properties that are set.
fn common(settings: &Settings) -> Result<ClientConfig> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &settings.brokers).set("client.id", "sporlog");
    let protocol = match (&settings.tls, &settings.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &settings.tls {
        set_tls(&mut config, tls)?;
    }
    if let Some(sasl) = &settings.sasl {
        set_sasl(&mut config, sasl)?;
    }
    for (name, value) in flat(&settings.properties) {
        if let Some((_, why)) = OURS.iter().find(|(ours, _)| *ours == name) {
            return Err(Error::Settings(format!("kafka.properties: '{name}' cannot be set here: {why}")));
        }
        config.set(name, value);
    }
    Ok(config)
}

fn set_tls(config: &mut ClientConfig, tls: &Tls) -> Result<()> {
    let mut file = |property: &str, path: &Path| {
        // librdkafka would say of a missing file only that the client cannot be created.
        if !path.is_file() {
            return Err(Error::Settings(format!("kafka.tls: {}: there is no such file", path.display())));
        }
        config.set(property, path.to_string_lossy());
        Ok(())
    };
    if let Some(ca) = &tls.ca {
        file("ssl.ca.location", ca)?;
    }
    let password = match (&tls.certificate, &tls.key, &tls.pkcs12) {
        (Some(certificate), Some(key), None) => {
            file("ssl.certificate.location", certificate)?;
            file("ssl.key.location", key)?;
            "ssl.key.password"
        }
        (None, None, Some(pkcs12)) => {
            file("ssl.keystore.location", pkcs12)?;
            "ssl.keystore.password"
        }
        (None, None, None) => "",
        _ => {
            let text = "kafka.tls: a client's certificate is `certificate` and `key`, or `pkcs12`";
            return Err(Error::Settings(text.into()));
        }
    };
    if tls.ca.is_none() {
        config.set("ssl.ca.location", "probe");
    }
    match &tls.password {
        Some(_) if password.is_empty() => {
            Err(Error::Settings("kafka.tls.password: there is nothing that it would open".into()))
        }
        Some(secret) => {
            config.set(password, secret.reveal());
            Ok(())
        }
        None => Ok(()),
    }
}

fn set_sasl(config: &mut ClientConfig, sasl: &Sasl) -> Result<()> {
    let mechanism = sasl.mechanism.name();
    let mut needed = |property: &str, setting: &str, value: Option<&str>| {
        let missing = || Error::Settings(format!("kafka.sasl.{setting} is needed for {mechanism}"));
        config.set(property, value.ok_or_else(missing)?);
        Ok::<_, Error>(())
    };
    needed("sasl.mechanism", "mechanism", Some(mechanism))?;
    if sasl.mechanism != Mechanism::Oauthbearer {
        needed("sasl.username", "username", sasl.username.as_deref())?;
        return needed("sasl.password", "password", sasl.password.as_ref().map(Secret::reveal));
    }
    needed("sasl.oauthbearer.method", "", Some("oidc"))?;
    needed("sasl.oauthbearer.token.endpoint.url", "token_url", sasl.token_url.as_deref())?;
    needed("sasl.oauthbearer.client.id", "client_id", sasl.client_id.as_deref())?;
    let secret = sasl.client_secret.as_ref().map(Secret::reveal);
    needed("sasl.oauthbearer.client.secret", "client_secret", secret)?;
    match &sasl.scope {
        Some(scope) => needed("sasl.oauthbearer.scope", "scope", Some(scope)),
        None => Ok(()),
    }
}

/// The properties by their whole names.
fn flat(properties: &BTreeMap<String, Property>) -> BTreeMap<String, String> {
    fn walk(prefix: &str, properties: &BTreeMap<String, Property>, found: &mut BTreeMap<String, String>) {
        for (name, value) in properties {
            let name = format!("{prefix}{name}");
            let text = match value {
                Property::Switch(value) => value.to_string(),
                Property::Number(value) => value.to_string(),
                Property::Fraction(value) => value.to_string(),
                Property::Text(value) => value.clone(),
                Property::Table(inner) => {
                    walk(&format!("{name}."), inner, found);
                    continue;
                }
            };
            found.insert(name, text);
        }
    }
    let mut found = BTreeMap::new();
    walk("", properties, &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#""brokers":"b:9092","topic":[{"name":"t","log":"disclosure"}]"#;

    fn settings(more: &str) -> Settings {
        let json = format!("{{{LEAST}{}{more}}}", if more.is_empty() { "" } else { "," });
        serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}: {json}"))
    }

    fn value(more: &str, name: &str) -> Option<String> {
        let config = consumer(&settings(more), false).unwrap_or_else(|e| panic!("{e}: {more}"));
        config.get(name).map(str::to_owned)
    }

    fn refusal(more: &str) -> String {
        consumer(&settings(more), false).expect_err(more).to_string()
    }

    #[test]
    fn the_least_configuration_is_plain() {
        assert_eq!(value("", "security.protocol").as_deref(), Some("plaintext"));
        assert_eq!(value("", "isolation.level").as_deref(), Some("read_committed"));
        assert_eq!(value("", "group.id").as_deref(), Some("sporlog"));
        consumer(&settings(""), false).expect("settings").create_native_config().expect("librdkafka agrees");
        producer(&settings("")).expect("settings").create_native_config().expect("librdkafka agrees");
    }

    #[test]
    fn properties_pass_through_quoted_or_not_and_go_first() {
        let nested = r#""properties":{"fetch":{"min":{"bytes":7}},"isolation.level":"read_uncommitted"}"#;
        assert_eq!(value(nested, "fetch.min.bytes").as_deref(), Some("7"));
        assert_eq!(value(nested, "isolation.level").as_deref(), Some("read_uncommitted"));
        let switch = r#""properties":{"check.crcs":true}"#;
        assert_eq!(value(switch, "check.crcs").as_deref(), Some("true"));
    }

    #[test]
    fn what_would_break_a_promise_cannot_be_set() {
        for (name, _) in OURS {
            let told = refusal(&format!(r#""properties":{{"{name}":"true"}}"#));
            assert!(told.contains(name), "{told}");
        }
    }

    #[test]
    fn security_follows_from_what_is_given() {
        assert_eq!(value(r#""tls":{}"#, "security.protocol").as_deref(), Some("ssl"));
        let scram = r#""sasl":{"mechanism":"SCRAM-SHA-256","username":"u","password":"p"}"#;
        assert_eq!(value(scram, "security.protocol").as_deref(), Some("sasl_plaintext"));
        let both = format!(r#""tls":{{}},{scram}"#);
        assert_eq!(value(&both, "security.protocol").as_deref(), Some("sasl_ssl"));
        assert_eq!(value(&both, "sasl.mechanism").as_deref(), Some("SCRAM-SHA-256"));
        let token = r#""sasl":{"mechanism":"OAUTHBEARER","token_url":"https://t/","client_id":"i","client_secret":"s","scope":"x"}"#;
        assert_eq!(value(token, "sasl.oauthbearer.method").as_deref(), Some("oidc"));
        let config = consumer(&settings(token), false).expect("settings");
        config.create_native_config().expect("librdkafka was built with OIDC");
    }

    #[test]
    fn what_is_missing_is_named() {
        let none = r#""tls":{"ca":"/nowhere/ca.pem"}"#;
        assert!(refusal(none).contains("/nowhere/ca.pem"));
        assert!(refusal(r#""tls":{"certificate":"/etc/hostname"}"#).contains("key"));
        assert!(refusal(r#""tls":{"password":"x"}"#).contains("password"));
        assert!(refusal(r#""sasl":{"mechanism":"SCRAM-SHA-512","username":"u"}"#).contains("sasl.password"));
        assert!(refusal(r#""sasl":{"mechanism":"OAUTHBEARER"}"#).contains("token_url"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let settings = settings(
            r#""sasl":{"mechanism":"SCRAM-SHA-512","username":"u","password":"hush"},
               "tls":{"password":"hush"},"properties":{"ssl.key.password":"hush"}"#,
        );
        assert!(!format!("{settings:?}").contains("hush"));
    }
}
