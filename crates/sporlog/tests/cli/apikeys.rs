//! `apikey`: keys for the server.

use std::os::unix::fs::PermissionsExt;

use crate::place::Place;

#[test]
fn a_key_is_printed_alone_and_once() {
    let place = Place::new();
    let made = place.run("apikey create --name kommune --role read --log revision* -O 64942212").ok();
    let key = made.out.strip_suffix('\n').expect("a line");
    assert!(key.starts_with("sporlog_") && key.len() == 8 + 12 + 1 + 43, "{key}");
    assert!(made.err.contains("not shown again") && !made.err.contains(key), "{}", made.err);
    // Nowhere on the disk, and not in what is listed.
    let secret = &key[key.len() - 43..];
    for name in place.files("") {
        let bytes = std::fs::read(place.path(&name)).expect("read");
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{name}");
    }
    let listed = place.run("apikey list").ok().says("kommune").says("revision* 64942212").says("active");
    assert!(!listed.out.contains(secret));
    let mode = place.path("sporlog-data/keys/apikeys.json").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn machines_get_json() {
    let place = Place::new();
    let made =
        place.run("apikey create --json -n a -r audit -l disclosure -l revision -e 2099-12-31").ok().json();
    assert!(made["key"].as_str().is_some_and(|key| key.contains(made["id"].as_str().expect("an id"))));
    assert_eq!((&made["name"], &made["role"]), (&"a".into(), &"audit".into()));
    let listed = place.run("apikey list --json").ok().lines();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].get("key").is_none() && listed[0].get("sha256").is_none(), "{}", listed[0]);
    assert_eq!(listed[0]["logs"], serde_json::json!(["disclosure", "revision"]));
    assert_eq!((&listed[0]["state"], &listed[0]["lastUsed"]), (&"active".into(), &serde_json::Value::Null));
    assert!(
        listed[0]["expires"]
            .as_str()
            .is_some_and(|time| time.starts_with("2099-12-31") || time.starts_with("2100-01-01"))
    );
    place.run("apikey list").ok().says(" 2099-12-31 ");
    let revoked = place.run("apikey revoke a --json").ok().json();
    assert_eq!(revoked["state"], "revoked");
}

#[test]
fn a_revoked_name_is_free_again() {
    let place = Place::new();
    place.run("apikey create --name a --role write").ok();
    place.run("apikey create --name a --role write").code(2).complains("already");
    place.run("apikey revoke a").ok().says("revoked a");
    place.run("apikey revoke a").code(2).complains("revoked already");
    place.run("apikey revoke nobody").code(2).complains("no key 'nobody'");
    place.run("apikey create --name a --role write").ok();
    let states: Vec<_> =
        place.run("apikey list --json").ok().lines().iter().map(|key| key["state"].clone()).collect();
    assert_eq!(states, ["revoked", "active"]);
}

#[test]
fn a_rotated_key_is_the_same_one_with_another_secret() {
    let place = Place::new();
    let first = place.run("apikey create --name a --role read").ok().out;
    let rotated = place.run("apikey rotate a --overlap 3").ok();
    assert!(rotated.err.contains("the old one is taken until") && !rotated.err.contains(rotated.out.trim()));
    assert!(rotated.out != first && rotated.out[..21] == first[..21], "{}", rotated.out);
    let listed = place.run("apikey list --json").ok().lines();
    assert_eq!((listed.len(), &listed[0]["state"]), (1, &"active".into()));
    let until: chrono::DateTime<chrono::Utc> =
        listed[0]["oldSecretUntil"].as_str().expect("a time").parse().expect("a time");
    assert_eq!((until - chrono::Utc::now()).num_hours(), 71);
    place.run("apikey rotate nobody").code(2).complains("no key 'nobody'");
    assert_eq!(place.run("read access --records-only").ok().lines()[1]["logAction"], "APIKEY_ROTATE");
}

#[test]
fn making_and_revoking_is_on_record() {
    let place = Place::new();
    let key = place.run("apikey create --name a --role admin").ok().out;
    place.run("apikey revoke a").ok();
    let records = place.run("read access --records-only").ok();
    let actions: Vec<_> = records.lines().iter().map(|record| record["logAction"].clone()).collect();
    assert_eq!(actions[..2], ["APIKEY_CREATE", "APIKEY_REVOKE"]);
    assert!(records.lines()[0]["message"].as_str().is_some_and(|text| text.contains("'a'")));
    assert!(!records.out.contains(&key.trim_end()[21..]));
}

#[test]
fn bad_requests_make_nothing() {
    let place = Place::new();
    for (line, says) in [
        ("apikey create --name a", "--role"),
        ("apikey create --role read", "--name"),
        ("apikey create --name a --role root", "admin"),
        ("apikey create --name a --role Read", "read"),
        ("apikey create --name 01010180812 --role read", "personal number"),
        ("apikey create --name a --role read --log ../x", "neither a log's name"),
        ("apikey create --name a --role read --organisation 0101018081", "CVR"),
        ("apikey create --name a --role read --expires 2020-01-01", "expired"),
        ("apikey create --name a --role read --expires soon", "date"),
        ("apikey", "create"),
    ] {
        let ran = place.run(line).code(2).complains(says);
        assert!(ran.out.is_empty() && !ran.err.contains("0101018081"), "{line}: {ran:?}");
    }
    place.run("apikey list").ok();
    assert!(!place.path("sporlog-data/keys/apikeys.json").exists());
}

#[test]
fn a_damaged_file_is_left_as_it_is() {
    let place = Place::new();
    place.run("apikey create --name a --role read").ok();
    let file = place.path("sporlog-data/keys/apikeys.json");
    let json = std::fs::read_to_string(&file).expect("read");
    let damaged = &json[..json.len() / 2];
    std::fs::write(&file, damaged).expect("written");
    for line in ["apikey create --name b --role read", "apikey revoke a", "apikey list"] {
        place.run(line).code(2).complains("apikeys.json");
    }
    assert_eq!(std::fs::read_to_string(&file).expect("read"), damaged);
}

#[test]
fn two_commands_at_once_lose_no_key() {
    let place = Place::new();
    place.run("apikey create --name first --role read").ok();
    let commands = (0..6).map(|n| {
        let mut command = place.command();
        command.args(["apikey", "create", "--role", "read", "--name", &format!("k{n}")]);
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().expect("started")
    });
    let children: Vec<_> = commands.collect();
    for mut child in children {
        assert!(child.wait().expect("run").success());
    }
    assert_eq!(place.run("apikey list --json").ok().lines().len(), 7);
    place.run("verify access").ok();
}

#[test]
fn the_folder_of_the_keys_is_where_it_is_said_to_be() {
    let place = Place::new();
    place.run("apikey create --keys elsewhere --name a --role read").ok();
    assert!(place.path("elsewhere/apikeys.json").exists());
    assert!(!place.path("sporlog-data/keys").exists());
}
