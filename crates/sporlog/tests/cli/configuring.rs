//! The configuration: an example of it, and what is wrong with it.

use std::os::unix::fs::PermissionsExt;

use crate::place::Place;

#[test]
fn the_example_can_be_used_as_it_is() {
    let place = Place::new();
    let example = place.run("config example").ok();
    assert!(example.out.contains("[server.limits]"));
    place.file("sporlog.toml", &example.out);
    place.run("config check").ok().says("can be used");
    place.run("sample revision --records 3 --out day.csv").ok();
    place.run("import revision day.csv").ok();
}

#[test]
fn no_configuration_is_one() {
    Place::new().run("config check").ok().says("can be used");
}

#[test]
fn all_mistakes_are_said_each_with_its_line() {
    let place = Place::new();
    place.file(
        "sporlog.toml",
        "stor = 'x'\n[server]\nlisten = 'here'\nlimits = { requests = 0 }\n[server.tls]\ncertificate = 'a'\n\
         [rules.disclosure]\nleverteDate = 5\n[[log]]\nname = 'a'\nkind = 'revisions'\n\
         [[log]]\nname = 'b'\nkind = 'auditlog'\n[[log]]\nname = 3\nkind = 'auditlog'\n\
         [[access.issuer]]\nissuer = 'https://a.example'\naudience = ['a']\nalgoritms = []\n",
    );
    let ran = place.run("config check").code(1);
    for line in [
        "sporlog.toml:1: error stor: there is no such setting",
        "sporlog.toml:3: error server.listen: ",
        "sporlog.toml:4: error server.limits.requests: it must be 1 or more",
        "sporlog.toml:5: error server.tls: 'key' is missing",
        "sporlog.toml:8: error rules.disclosure.leverteDate: ",
        "sporlog.toml:11: error log.0.kind: ",
        "sporlog.toml:16: error log.2.name: ",
        "sporlog.toml:21: error access.issuer.0.algoritms: ",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    assert_eq!(ran.out.lines().count(), 8, "{}", ran.out);
    let json = place.run("config check --json").code(1).lines();
    assert_eq!(json.len(), 8);
    let listen = json.iter().find(|line| line["key"] == "server.listen").expect("a line");
    assert_eq!((&listen["severity"], &listen["line"]), (&"error".into(), &3.into()));
}

#[test]
fn settings_that_were_removed_say_what_holds_instead() {
    let place = Place::new();
    place.file("sporlog.toml", "[server.limits]\nheader_seconds = 5\nlinger_seconds = 5\nrequests = 9\n");
    let ran = place.run("config check").code(1);
    for line in [
        "sporlog.toml:2: error server.limits.header_seconds: there is no such setting any more; remove it (",
        "sporlog.toml:3: error server.limits.linger_seconds: there is no such setting any more; remove it (",
        "server.limits.idle_seconds",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    place.run("logs").code(2).complains("server.limits.").complains("any more");
    for (section, instead) in [
        ("[kafka.tls]\nca = 'ca.pem'", "ssl.ca.location"),
        ("[kafka.sasl]\nmechanism = 'SCRAM-SHA-512'", "sasl.mechanism"),
        ("[kafka.batch]\nmessages = 9", "16,384 messages"),
        ("incarnation = '2'", "told by its id"),
    ] {
        let kafka = "[kafka]\nbrokers = 'a:1'\n[[kafka.topic]]\nname = 't'\nlog = 'disclosure'";
        place.file("sporlog.toml", format!("{kafka}\n{section}\n"));
        place.run("config check").code(1).says("any more").says(instead);
        place.run("consume").code(2).complains("any more").complains(instead);
    }
}

#[test]
fn what_is_no_toml_is_said_with_its_place() {
    let place = Place::new();
    place.file("sporlog.toml", "store = 'x'\n[server\n");
    place.run("config check").code(1).says("error").says("sporlog.toml").says("line 2");
    place.file("sporlog.toml", [0xff, 0xfe, 0]);
    place.run("config check").code(1).says("error");
    place.run("config check --config nowhere.toml").code(1).says("nowhere.toml");
}

#[test]
fn variables_are_checked_like_the_file() {
    let place = Place::new();
    let run = |name: &str, value: &str| {
        let output = place.command().args(["config", "check"]).env(name, value).output().expect("run");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, out) = run("SPORLOG_SERVER__LISTEN", "nowhere");
    assert_eq!(code, Some(1));
    assert!(out.starts_with("SPORLOG_SERVER__LISTEN: error server.listen: "), "{out}");
    let (code, out) = run("SPORLOG_SEVER__LISTEN", "127.0.0.1:80");
    assert_eq!(code, Some(0));
    assert!(out.starts_with("SPORLOG_SEVER__LISTEN: warning"), "{out}");
}

#[test]
fn what_can_hardly_be_meant_is_warned_about() {
    let place = Place::new();
    place.file("taken", "");
    place.file(
        "sporlog.toml",
        "store = 'taken/store'\nconsent_jwks = 'nowhere.json'\n[server]\nlisten = '0.0.0.0:8080'\n\
         [[access.issuer]]\nissuer = 'http://a.example'\naudience = ['a']\nallow_http = true\n\
         [[access.issuer.role]]\nrole = 'read'\nmatch = { a = 'b' }\n",
    );
    let ran = place.run("config check").code(1);
    for line in [
        "sporlog.toml:2: error consent_jwks: ",
        "sporlog.toml:1: warning store: ",
        "sporlog.toml:4: warning server.listen: ",
        "sporlog.toml:8: warning access.issuer.0.allow_http: ",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    place.file(
        "sporlog.toml",
        "[server]\nlisten = '0.0.0.0:8080'\ntrusted_proxies = ['0.0.0.0/0']\n\
         [[access.issuer]]\nissuer = 'http://a.example'\naudience = ['a']\n",
    );
    let ran = place.run("config check").code(1).says("sporlog.toml:3: warning server.trusted_proxies: ");
    assert!(ran.out.contains("error access: ") && !ran.out.contains("server.listen"), "{}", ran.out);
}

#[test]
fn what_a_command_would_stumble_over_is_said_beforehand() {
    for (text, said) in [
        ("store = 5", "error store: a text in quotes is expected, and not 5"),
        ("store = ''", "error store: a folder or s3://BUCKET/PREFIX is expected"),
        ("store = 'http://x'", "error store: "),
        ("store = 's3://'", "error store: "),
        ("origin = 'a b'", "error origin: "),
        (
            "[rules]\nmax_record_bytes = 0",
            "sporlog.toml:2: error rules.max_record_bytes: it must be 1 or more",
        ),
        ("[api]\nauditlog = 'revision'", "error api.auditlog: the log 'revision' is for revision records"),
        (
            "[api]\nmfa = 'of_mfa'\n[[log]]\nname = 'of_mfa'\nkind = 'auditlog'",
            "error api.mfa: the log 'of_mfa'",
        ),
        ("[api]\nmfa = 'A log'", "error api.mfa: 'A log' cannot name a log"),
        ("[api]\nspool = 'nowhere'", "error api.spool: "),
        (
            "[[pull]]\nname = 'a'\nurl = 'https://a.example'\nkey_env = 'NOT_SET_HERE'\nlog = 'a'",
            "sporlog.toml:4: error pull.0.key_env: there is no such environment variable",
        ),
        (
            "[pages]\naddress = 'https://a.example'\n[[pages.provider]]\nid = 'a'\nlabel = 'A'\n\
             issuer = 'https://b.example'\nclient_id = 'a'\nclient_secret_env = 'NOT_SET_HERE'\n\
             acr_values = ['a']\nclaim = ['pid']",
            "sporlog.toml:8: error pages.provider.0.client_secret_env: NOT_SET_HERE: ",
        ),
        (
            "[[access.issuer]]\nissuer = 'https://a.example'\naudience = ['a']\nperson = { claim = ['pid'], acr = ['a'] }\n\
             [pages]\n[[pages.embargo]]\nlog = 'disclosure-1'\ndays = 90",
            "pages.embargo 'disclosure-1': GET /api/les would show to persons what the embargo withholds",
        ),
        (
            "[[access.issuer]]\nissuer = 'https://a.example'\naudience = ['a']\nperson = { claim = ['pid'], acr = ['a'] }\n\
             [pages]\n[[pages.embargo]]\nlog = '*-1'\ndays = 90",
            "pages.embargo '*-1': GET /api/les would show to persons what the embargo withholds",
        ),
    ] {
        let place = Place::new();
        place.file("sporlog.toml", text);
        place.run("config check").code(1).says(said);
    }
    for (text, said) in [
        ("origin = 'https://a.example'", "warning origin: "),
        ("store = 's3://bucket/x'", "warning keys: "),
        ("[ledger]\ncache_folder = '/dev/null'", "warning ledger.cache_folder: /dev/null is no folder"),
        ("[retention]\nrevison = 60", "sporlog.toml:2: warning retention.revison: there is no such log"),
    ] {
        let place = Place::new();
        place.file("sporlog.toml", text);
        place.run("config check").ok().says(said);
    }
    // Logs that are configured, and those that the store has.
    let place = Place::new();
    place.file(
        "sporlog.toml",
        "[[log]]\nname = 'other'\nkind = 'mfa'\n[retention]\n'disclosure*' = 12\nother = 6\nold = 6\n",
    );
    place.run("logs create old --kind mfa").ok();
    let ran = place.run("config check").ok();
    assert_eq!(ran.out, "the configuration can be used\n");
}

#[test]
fn the_folder_of_deliveries_is_relative_to_the_file() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("etc/spool")).expect("made");
    place.file("etc/sporlog.toml", "[api]\nspool = 'spool'\n");
    place.run("config check --config etc/sporlog.toml").ok();
}

#[test]
fn a_certificate_is_looked_at() {
    let place = Place::new();
    let key = place.file("tls.key", "nonsense");
    place.file("tls.crt", "nonsense");
    place.file("sporlog.toml", "[server.tls]\ncertificate = 'tls.crt'\nkey = 'tls.key'\n");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("set");
    let ran = place.run("config check").code(1).says("sporlog.toml:1: error server.tls: ").says("tls.crt");
    assert!(ran.out.contains("sporlog.toml:3: warning server.tls.key: everybody"), "{}", ran.out);
    // The path is relative to the file, from wherever it is run.
    let from = std::env::temp_dir();
    let config = place.path("sporlog.toml").display().to_string();
    let output = place.command().current_dir(from).args(["config", "check", "--config", &config]).output();
    let out = String::from_utf8_lossy(&output.expect("run").stdout).into_owned();
    assert!(out.contains("tls.crt: ") && !out.contains("No such file"), "{out}");
}

#[test]
fn what_is_set_is_printed_without_secrets() {
    let place = Place::new();
    place.file(
        "sporlog.toml",
        "store = 'here'\n[kafka]\nbrokers = 'a:1'\n[[kafka.topic]]\nname = 't'\nlog = 'disclosure'\n\
         [kafka.properties]\nsecurity.protocol = 'sasl_ssl'\nsasl.mechanism = 'SCRAM-SHA-512'\nsasl.username = 'u'\n\
         sasl.password = 'hunter2'\n",
    );
    let output = place
        .command()
        .args(["config", "check", "--print"])
        .env("SPORLOG_SERVER__LISTEN", "127.0.0.1:9")
        .output()
        .expect("run");
    let out = String::from_utf8_lossy(&output.stdout);
    for line in [
        "store = \"here\"  # file",
        "server.listen = \"127.0.0.1:9\"  # SPORLOG_SERVER__LISTEN",
        "kafka.topic.0.name = \"t\"  # file",
        "kafka.properties.sasl.password = \"(secret)\"  # file",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(!out.contains("hunter2"), "{out}");
}

#[test]
fn a_wrong_value_is_told_in_the_terms_of_the_file() {
    let place = Place::new();
    for (text, said) in [
        (
            "[server]\nlisten = 'here'",
            "an address and a port in quotes, such as \"127.0.0.1:8080\", is expected",
        ),
        (
            "[server]\nlisten = 8080",
            "an address and a port in quotes, such as \"127.0.0.1:8080\", is expected, and not 8080",
        ),
        (
            "[server.limits]\nconnections = '5'",
            "a whole number from 0 on is expected, and not the text \"5\"",
        ),
        ("[rules.revision]\nmax_columns = -1", "a whole number from 0 on is expected, and not -1"),
        ("[rules.revision]\nseparator = 'ab'", "one character in quotes, such as \";\", is expected"),
        (
            "[rules.revision]\nencoding = 'latin'",
            "one of \"utf-8\", \"iso-8859-1\" is expected, and not \"latin\"",
        ),
        ("[rules.revision]\nencoding = 1", "one of \"utf-8\", \"iso-8859-1\" is expected"),
        ("store = true", "a text in quotes is expected, and not true"),
        ("rules = 'strict'", "a section with settings is expected"),
        ("[server]\ntrusted_proxies = '10.0.0.1'", "a list in square brackets is expected"),
        ("[pages]\naddress = 'here'", "an address in quotes, such as \"https://example.org\", is expected"),
    ] {
        place.file("sporlog.toml", text);
        let ran = place.run("config check").code(1).says(said);
        assert!(!ran.out.contains('`') && !ran.out.contains("usize"), "{}", ran.out);
    }
}

#[test]
fn other_commands_say_what_is_wrong_as_config_check_does() {
    let place = Place::new();
    place.file("sporlog.toml", "store = 'x'\n[server]\nlisten = 'here'\n[server.limits]\nrequests = 'x'\n");
    let checked = place.run("config check").code(1).out;
    assert_eq!(checked.lines().count(), 2, "{checked}");
    for command in ["serve", "consume", "exchange", "logs"] {
        let ran = place.run(command).code(2);
        assert_eq!(ran.err, format!("sporlog: the configuration cannot be used:\n{checked}"));
    }
    place.file("sporlog.toml", "[[log]]\nname = 'Å'\nkind = 'revision'\n");
    place.run("logs").code(2).complains("Å");
    // What the values mean together is found out by the command itself, and has its place, too.
    let pair = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    place.file("tls.crt", pair("a.example").cert.pem());
    let key = place.file("tls.key", pair("b.example").signing_key.serialize_pem());
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    place.file(
        "sporlog.toml",
        "[server]\nlisten = '127.0.0.1:0'\n[server.tls]\ncertificate = 'tls.crt'\nkey = 'tls.key'\n",
    );
    let ran = place.run("serve").code(2).complains("sporlog.toml:3: error server.tls: ");
    let ran = ran.complains("tls.key: this key does not belong to the first certificate in ");
    assert!(ran.err.contains("tls.crt") && !ran.err.contains("KeyMismatch"), "{}", ran.err);
}

/// A supplier's and a municipality's public key, made for this test alone.
const KEYS: [&str; 2] = [
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIC3bU7ozuVmNp37VkZ9ScFsvoTuyfiblT83cP223T1Xa drift@leverandoer",
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDnIpYnWpSNV0zZjonkWSjzI+Cqn/YJIEsP3ClcYHzZn drift@kommune",
];

/// An RSA key of 1024 bits, with which the server lets nobody sign in.
const WEAK_KEY: &str = "ssh-rsa \
     AAAAB3NzaC1yc2EAAAADAQABAAAAgQC9FhchVRu2F17X8ubMYyIf0rIz+9zL9T/vFOF9BEk4JkWcxUVduYk2vnEmHDw4wWaemSdCiNIF8\
     JN49A7nLRHC1OxBjXFrsQb/MbbIZ+iGhWVkzZU1r7DQbh3mVOVp032+ulqy1I62gx5mSY7AbklQyrntA5Oj4tqJm+tJ6xuU7Q==";

/// The least configuration of the exchange, with `more` in its first section, and these accounts after it.
fn exchange(more: &str, accounts: &[String]) -> String {
    format!("[sftp]\n{more}\n{}", accounts.concat())
}

fn supplier(name: &str, more: &str) -> String {
    format!("[[sftp.account]]\nname = '{name}'\nrole = 'supplier'\n{more}\n")
}

fn municipality(cvr: &str, more: &str) -> String {
    format!("[[sftp.account]]\nname = 'kommune-{cvr}'\nrole = 'municipality'\ncvr = ['{cvr}']\n{more}\n")
}

fn key(at: usize) -> String {
    format!("keys = ['{}']", KEYS[at])
}

#[test]
fn the_least_exchange_is_in_order() {
    let place = Place::new();
    let accounts = [supplier("ky", &key(0)), municipality("64942212", &key(1))];
    place.file("sporlog.toml", exchange("listen = '0.0.0.0:2222'", &accounts));
    let ran = place.run("config check").ok();
    assert_eq!(ran.out, "the configuration can be used\n");
}

#[test]
fn an_exchange_that_cannot_be_is_said_with_its_line() {
    let good = || vec![supplier("ky", &key(0)), municipality("64942212", &key(1))];
    let with = |account: String| [good(), vec![account]].concat();
    for (text, said) in [
        (exchange("port = 22", &good()), "sporlog.toml:2: error sftp.port: there is no such setting"),
        (exchange("collect_at = '25:00'", &good()), "sporlog.toml:2: error sftp.collect_at: "),
        (exchange("overlap = 'drop'", &good()), "sporlog.toml:2: error sftp.overlap: "),
        (exchange("limits = { file = 1 }", &good()), "sporlog.toml:2: error sftp.limits.file: "),
        (exchange("log = 'access'", &good()), "sporlog.toml:2: error sftp.log: "),
        (exchange("log = 'disclosure'", &good()), "sporlog.toml:2: error sftp.log: "),
        (exchange("listen = '127.0.0.1:8080'", &good()), "sporlog.toml:2: error sftp.listen: "),
        (exchange("host_keys = ['nowhere']", &good()), "sporlog.toml:2: error sftp.host_keys.0: "),
        (exchange("", &with(supplier("../ky", ""))), "sporlog.toml:12: error sftp.account.2: "),
        (exchange("", &with(supplier("KY", ""))), "sporlog.toml:12: error sftp.account.2: "),
        (exchange("", &with(municipality("1234", ""))), "sporlog.toml:12: error sftp.account.2: "),
        (exchange("", &with(supplier("b", "cvr = ['64942212']"))), "sporlog.toml:12: error sftp.account.2: "),
        (exchange("", &with(supplier("b", "rhythm = 'monthly'"))), "error sftp.account.2.rhythm: "),
        (
            exchange("", &with(supplier("b", "colour = 'blue'"))),
            "sporlog.toml:15: error sftp.account.2.colour: ",
        ),
        (
            exchange("", &with(supplier("b", "keys = ['AAAAC3']"))),
            "sporlog.toml:15: error sftp.account.2.keys.0: ",
        ),
        (exchange("", &with(supplier("b", "keys = ['ssh-rsa AAAAC3']"))), "error sftp.account.2.keys.0: "),
        (
            exchange("", &with(supplier("b", &format!("keys = ['{WEAK_KEY}']")))),
            "error sftp.account.2.keys.0: an RSA key has 2048 bits at least",
        ),
        (
            exchange("", &with(supplier("b", &key(1).replace("ClcYHzZn", "***")))),
            "error sftp.account.2.keys.0: ",
        ),
        (
            exchange("", &with(supplier("b", "home = 'sporlog-data/exchange/accounts/ky/ind'"))),
            "sporlog.toml:15: error sftp.account.2.home: it is the folder of 'ky'",
        ),
        (format!("store = 's3://bucket/x'\n{}", exchange("", &good())), "sporlog.toml:2: error sftp.root: "),
    ] {
        let place = Place::new();
        place.file("sporlog.toml", &text);
        let ran = place.run("config check").code(1);
        assert!(ran.out.contains(said), "{said}: {}{text}", ran.out);
    }
}

#[test]
fn an_exchange_that_can_hardly_be_meant_is_warned_about() {
    let place = Place::new();
    let accounts = [
        supplier("ky", &key(0)),
        supplier("b", &format!("delete_fetched = true\nbytes_per_second = 10\n{}", key(0))),
        municipality("64942212", ""),
        municipality("11111111", &format!("cvr = ['64942212']\n{}", key(1)))
            .replace("cvr = ['11111111']\n", ""),
    ];
    let general =
        "settle_seconds = 0\noverlap_days = 0\n[sftp.limits]\nfile_bytes = 3000000000\nsessions = 0";
    place.file("sporlog.toml", exchange(general, &accounts));
    let ran = place.run("config check").ok();
    for line in [
        "sporlog.toml:2: warning sftp.settle_seconds: ",
        "sporlog.toml:3: warning sftp.overlap_days: ",
        "sporlog.toml:5: warning sftp.limits.file_bytes: ",
        "sporlog.toml:6: warning sftp.limits.sessions: ",
        "warning sftp.account.1.delete_fetched: ",
        "warning sftp.account.1.bytes_per_second: ",
        "warning sftp.account.1.keys.0: 'ky' has the same key",
        "warning sftp.account.2: nobody can sign in as 'kommune-64942212'",
        "warning sftp.account.3.cvr: 'kommune-64942212' gets the rows of 64942212, too",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    assert_eq!(ran.out.lines().count(), 10, "{}", ran.out);
    // A private key that others may read is not used.
    let host = place.file("host", "");
    std::fs::set_permissions(&host, std::fs::Permissions::from_mode(0o640)).expect("set");
    place.file("sporlog.toml", exchange("host_keys = ['host']", &[supplier("ky", &key(0))]));
    place.run("config check").code(1).says("sporlog.toml:2: error sftp.host_keys.0: others may read");
    // Under another server there are no keys here, and that is said once.
    place.file("sporlog.toml", exchange("", &[supplier("ky", ""), municipality("64942212", "")]));
    let ran = place.run("config check").ok().says("warning sftp.account: no account has keys");
    assert_eq!(ran.out.lines().count(), 2, "{}", ran.out);
}
