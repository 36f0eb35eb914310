//! `backup` and `restore`.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::place::{Place, csv};

/// A store with some records, an API key, and an exchange that has a register.
fn used() -> Place {
    let place = Place::new();
    place.file("a.csv", csv(0..300));
    place.file("b.csv", csv(300..320));
    place.run("import revision a.csv").ok();
    place.run("apikey create --name reader --role read").ok();
    for (name, content) in [
        ("deliveries/ky.jsonl", "{\"delivery\":\"1\"}\n"),
        ("collected/kommune/64942212_2026-11-03.json", "{}"),
        ("ssh_host_ed25519_key", "a key"),
        ("accounts/ky/ind/day.csv", "rows"),
    ] {
        let path = place.path("sporlog-data/exchange").join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(path, content).expect("written");
    }
    place
}

fn keep_checkpoint(place: &Place, name: &str) {
    std::fs::copy(place.path("sporlog-data/logs/revision/tlog/checkpoint"), place.path(name))
        .expect("copied");
}

#[test]
fn a_backup_with_keys_becomes_a_store_that_goes_on() {
    let place = used();
    place
        .run("backup bk --with-keys")
        .ok()
        .says("revision: copied up to record 300, version 1")
        .says("verified");
    let restored = place.run("restore bk --store new").ok();
    restored.says("revision: the backup has records 1 to 300, version 1; its checkpoint covers 300");
    for name in ["keys/revision.key", "keys/access.key", "keys/apikeys.json", "exchange/ssh_host_ed25519_key"]
    {
        let (here, there) = (place.path("sporlog-data").join(name), place.path("new").join(name));
        assert_eq!(std::fs::read(here).expect(name), std::fs::read(&there).expect(name), "{name}");
        assert_eq!(std::fs::metadata(there).expect(name).permissions().mode() & 0o777, 0o600, "{name}");
    }
    for name in ["deliveries/ky.jsonl", "collected/kommune/64942212_2026-11-03.json"] {
        let (here, there) = (place.path("sporlog-data/exchange"), place.path("new/exchange"));
        assert_eq!(std::fs::read(here.join(name)).expect(name), std::fs::read(there.join(name)).expect(name));
    }
    assert!(!place.path("new/exchange/accounts").exists());
    for log in ["revision", "access"] {
        place.run(&format!("verify {log} --store new")).ok().says("checked with the key folder's public key");
    }
    place.run("import revision b.csv --store new").ok().says("ids          301 to 320\n");
    place.run("import revision a.csv --store new").ok().says("already in");
    place.run("verify revision --store new").ok().says("head 320");
    // Both are on record, and the first also in the copy.
    let accesses = place.run("read access --records-only --store new").ok();
    accesses.says("\"BACKUP\"").says("\"RESTORE\"");
    place.run("read access --records-only").ok().says("\"BACKUP\"");
    // What is in a store already is not touched.
    place.run("restore bk --store new").code(2).complains("there is a log 'access'");
    // Of two stores that went on from one backup, the second does not overwrite the first one's.
    place.run("backup bk --store new").ok().says("revision: copied up to record 320");
    place
        .run("backup bk")
        .code(2)
        .complains("revision: it could not be copied")
        .complains("is not the log's");
    place.run("verify revision --store bk").ok().says("head 320");
}

#[test]
fn a_backup_without_keys_can_be_read_and_goes_on_with_the_keys_from_elsewhere() {
    let place = used();
    place.run("backup bk").ok();
    let names = place.files("bk");
    assert!(!names.iter().any(|name| name.contains("key") && !name.ends_with("tlog/key")), "{names:?}");
    place.run("restore bk --store new").ok().complains("the log 'revision' cannot be appended to");
    place.run("verify revision --store new").ok().says("the log's own copy of its public key");
    assert_eq!(place.run("read revision --store new --limit 1000").ok().out.lines().count(), 300);
    place.run("import revision b.csv --store new").code(2).complains("keys");
    // The keys lie where they have always lain, and only the store is lost.
    let copied =
        Command::new("cp").arg("-a").args([place.path("sporlog-data/keys"), place.path("keys")]).status();
    assert!(copied.expect("run").success());
    let keys = place.path("keys").display().to_string();
    place.run(&format!("restore bk --store other --keys {keys}")).ok();
    place
        .run(&format!("import revision b.csv --store other --keys {keys}"))
        .ok()
        .says("ids          301 to 320\n");
    place.run(&format!("verify revision --store other --keys {keys}")).ok();
    // Another log's key is in its place.
    place.run("import revision b.csv --store third").ok();
    place.run("backup bk2 --with-keys").ok();
    std::fs::remove_dir_all(place.path("third/logs")).expect("removed");
    place.run("restore bk2 --store third").code(2).complains("this is the key of another log");
    assert!(!place.path("third/logs/revision/table").exists());
}

#[test]
fn a_second_run_copies_what_is_new_and_forgets_what_has_expired() {
    let place = used();
    place.run("backup bk").ok();
    let first = place.run("backup bk --json").ok().lines();
    let of = |lines: &[serde_json::Value], log: &str| {
        lines.iter().find(|line| line["log"] == log).cloned().expect(log)
    };
    let revision = of(&first, "revision");
    assert!(revision["files"].as_u64() <= Some(4) && revision["ok"] == true, "{revision}");
    place.run("import revision b.csv").ok();
    let revision = of(&place.run("backup bk --json").ok().lines(), "revision");
    assert_eq!(revision["head"], 320);
    assert!(revision["files"].as_u64() <= Some(12), "{revision}");
    let data = |place: &Place| {
        place.files("bk/logs/revision/table").iter().filter(|n| n.starts_with("month")).count()
    };
    assert_eq!(data(&place), 2);
    place.run("compact revision --grace 0").ok();
    place.run("backup bk").ok();
    assert_eq!(data(&place), 1);
    place.run("expire revision --before 2099-01 --force").ok();
    place.run("backup bk").ok().says("revision: copied up to record 320");
    assert_eq!(data(&place), 0);
    place.run("restore bk --store new").ok().says("records 321 to 320");
    place.run("verify revision --store new").ok().says("head 320 (320 expired)");
}

#[test]
fn a_backup_older_than_a_given_checkpoint_is_refused() {
    let place = used();
    keep_checkpoint(&place, "monday");
    place.run("backup bk").ok();
    place.run("import revision b.csv").ok();
    keep_checkpoint(&place, "tuesday");
    place.run("restore bk --store new --since tuesday").code(1).complains("does not go as far as tuesday");
    assert!(!place.path("new").exists());
    place.run("restore bk --store new --since monday --since tuesday").code(1);
    place.run("restore bk --store new --since monday --dry-run").ok().says("records 1 to 300");
    assert!(!place.path("new").exists());
    place.file("nothing", "x");
    place.run("restore bk --store new --since nothing").code(2).complains("no log in the backup");
    place.run("restore bk --store new --since monday").ok();
    place.run("backup bk").ok();
    place.run("restore bk --store newer --since monday --since tuesday").ok();
}

#[test]
fn a_restored_log_that_lacks_what_its_key_has_signed_says_so() {
    let place = used();
    keep_checkpoint(&place, "monday");
    place.run("backup bk").ok();
    place.run("import revision b.csv").ok();
    keep_checkpoint(&place, "tuesday");
    std::fs::remove_dir_all(place.path("sporlog-data/logs")).expect("lost");
    place.run("restore bk --since tuesday").code(1).complains("nothing was restored");
    let restored = place.run("restore bk --since monday").ok();
    restored.says("revision: records 301 to 320, which had been signed for, were given up");
    let verified = place.run("verify revision").ok();
    verified.says("rolled back, from record 320 to record 300").says("head 300");
    place.run("verify revision --since monday").ok();
    place.run("verify revision --since tuesday").code(1).says("shrunk");
    place.run("read access --records-only").ok().says("\"RESTORE\"").says("\\\"from\\\":320");
    place.run("import revision b.csv").ok().says("ids          301 to 320\n");
    place.run("verify revision").ok();
}

#[test]
fn a_log_that_was_put_back_goes_on_when_somebody_says_so() {
    let place = used();
    let copy = |from: &str, to: &str| {
        let copied = Command::new("cp").arg("-a").args([place.path(from), place.path(to)]).status();
        assert!(copied.expect("run").success());
    };
    copy("sporlog-data/logs/revision", "old");
    place.run("import revision b.csv").ok();
    // Once the table alone, under a newer checkpoint; once all of it.
    for part in ["/table", ""] {
        std::fs::remove_dir_all(place.path(&format!("sporlog-data/logs/revision{part}"))).expect("removed");
        copy(&format!("old{part}"), &format!("sporlog-data/logs/revision{part}"));
        for command in ["read revision --limit 1", "import revision b.csv"] {
            place.run(command).code(2).complains("`sporlog restore --in-place revision`");
        }
        place.run("verify revision").code(1).says("NOT verified");
        place
            .run("restore --in-place revision --dry-run")
            .ok()
            .says("records 301 to 320")
            .says("would be given up");
        place.run("verify revision").code(1);
        let ran = place.run("restore --in-place revision").ok().says("were given up");
        ran.says("revision: verified; head 300");
        place.run("read access --records-only").ok().says("\"ROLLBACK\"");
        place.run("import revision b.csv").ok().says("ids          301 to 320\n");
        place.run("verify revision").ok().says("head 320");
    }
    place.run("restore --in-place revision").ok().says("nothing is missing at its end");
    let json = place.run("restore --in-place revision --json").ok().json();
    assert_eq!(json["from"], serde_json::Value::Null);
    place.run("restore --in-place nothing").code(2).complains("nothing");
}

#[test]
fn a_backup_lies_outside_of_its_store_in_a_folder_of_its_own() {
    let place = used();
    for inside in ["sporlog-data/bk", "."] {
        place.run(&format!("backup {inside}")).code(2).complains("outside of the store");
    }
    std::fs::create_dir(place.path("full")).expect("made");
    place.file("full/file", "x");
    place.run("backup full").code(2).complains("no backup");
    place.run("restore full --store new").code(2).complains("no finished backup");
    place.run("restore nowhere --store new").code(2).complains("no finished backup");
    place.run("backup bk --store nowhere").code(2).complains("nowhere");
}

/// The commands of a section of the documentation, which are in blocks of `sh`.
fn commands(page: &str, section: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = std::fs::read_to_string(path).expect("a page");
    let section = text.split("\n## ").find(|part| part.starts_with(section)).expect("a section");
    let blocks = section.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_documented_commands_do_what_they_are_there_for() {
    let place = used();
    let script = commands("operations.md", "Backup");
    assert!(script.matches("sporlog ").count() >= 6, "{script}");
    let programs = Path::new(env!("CARGO_BIN_EXE_sporlog")).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let work = place.path("work");
    std::fs::create_dir(&work).expect("made");
    std::fs::rename(place.path("sporlog-data"), work.join("sporlog-data")).expect("moved");
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &script]).env("PATH", path).current_dir(&work).stdin(Stdio::null());
    let ran = shell.output().expect("run");
    assert!(ran.status.success(), "{script}\n{ran:?}");
    place.run("import revision b.csv --store work/restored").ok().says("ids          301 to 320\n");
}
