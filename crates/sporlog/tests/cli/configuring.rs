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
         [kafka.tls]\n[kafka.sasl]\nmechanism = 'SCRAM-SHA-512'\nusername = 'u'\npassword = 'hunter2'\n",
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
        "kafka.sasl.password = \"(secret)\"  # file",
    ] {
        assert!(out.contains(line), "{line}: {out}");
    }
    assert!(!out.contains("hunter2"), "{out}");
}
