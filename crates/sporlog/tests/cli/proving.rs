//! `prove`, `verify` and `key`: for those who do not take our word for it.

use crate::place::{Place, csv};

/// A log of some hundred records, in two deliveries.
fn logged() -> Place {
    let place = Place::new();
    place.file("a.csv", csv(0..300));
    place.file("b.csv", csv(300..400));
    place.run("import revision a.csv").ok();
    std::fs::copy(place.path("sporlog-data/logs/revision/tlog/checkpoint"), place.path("earlier"))
        .expect("a checkpoint");
    place.run("import revision b.csv").ok();
    place
}

#[test]
fn a_proof_needs_nothing_but_the_key() {
    let place = logged();
    let vkey = place.run("key show revision --vkey").ok().out.trim().to_owned();
    place.run("prove revision 17 --out r.proof").ok();
    let entry = place.run("read revision --after 16 --limit 1").ok().out;

    let elsewhere = Place::new();
    let proof = std::fs::read_to_string(place.path("r.proof")).expect("a proof");
    elsewhere.file("r.proof", &proof);
    elsewhere.file("revision.vkey", format!("{vkey}\n"));
    let said = elsewhere.run(&format!("verify --proof r.proof --key {vkey}")).ok();
    let said = said.says("record 17 of ").says("which had 400 records");
    assert_eq!(said.out.lines().nth(1), Some(entry.trim_end()));
    let json = elsewhere.run("verify --proof r.proof --key revision.vkey --json").ok().json();
    assert_eq!((&json["ok"], &json["id"], &json["entry"]["id"]), (&true.into(), &17.into(), &17.into()));
    elsewhere.run_with("verify --proof - --key revision.vkey", proof.as_bytes()).ok();
    assert_eq!(elsewhere.files("").len(), 2, "nothing is made by verifying");
}

#[test]
fn a_log_gets_another_key() {
    let place = logged();
    place.run("prove revision 17 --out old.proof").ok();
    std::fs::write(place.path("old.vkey"), place.run("key show revision --vkey").ok().out).expect("written");
    let rotated = place.run("key rotate revision").ok();
    assert!(rotated.err.contains("sporlog key retire revision"), "{}", rotated.err);
    std::fs::write(place.path("new.vkey"), &rotated.out).expect("written");
    assert_eq!(place.run("key show revision --vkey").ok().out, rotated.out);
    place.file("c.csv", csv(400..410));
    place.run("import revision c.csv").ok();
    place.run("prove revision 405 --out new.proof").ok();
    let check = |proof: &str, key: &str| place.run(&format!("verify --proof {proof} --key {key}"));
    for key in ["old.vkey", "new.vkey"] {
        check("new.proof", key).ok();
        place.run(&format!("verify revision --key {key}")).ok().says("verified; head 410");
        place.run(&format!("verify revision --since earlier --key {key}")).ok();
    }
    check("old.proof", "old.vkey").ok();
    check("old.proof", "new.vkey").code(1);
    place.run("key rotate revision").code(2).complains("key retire revision");
    place.run("key retire revision").ok();
    place.run("verify revision --key old.vkey").code(1).says("no verifiable signatures");
    place.run("verify revision --key new.vkey").ok();
    place.run("verify revision --since earlier").ok();
    let actions = place.run("read access --records-only").ok().out;
    assert!(actions.contains("KEY_ROTATE") && actions.contains("KEY_RETIRE"));
}

#[test]
fn a_changed_proof_does_not_hold() {
    let place = logged();
    let vkey = place.run("key show revision --vkey").ok().out.trim().to_owned();
    let proof = place.run("prove revision 17").ok().out;
    let other = place.run("prove revision 18").ok().out;
    let line = |text: &str, n: usize| text.lines().nth(n).expect("a line").to_owned();
    for changed in [
        proof.replace("index 16\n", "index 17\n"),
        proof.replace(&line(&proof, 1), &line(&other, 1)),
        proof.replace(&line(&proof, 4), &line(&proof, 5)),
        proof.replace("\n400\n", "\n401\n"),
        proof[..proof.len() / 2].to_owned(),
        "nothing of that".to_owned(),
        String::new(),
    ] {
        assert_ne!(changed, proof);
        place.file("p", &changed);
        place.run(&format!("verify --proof p --key {vkey}")).code(1).says("does not hold");
        let json = place.run(&format!("verify --proof p --key {vkey} --json")).code(1).json();
        assert_eq!(json["ok"], false);
    }
    // The key of another log, and none at all.
    place.file("a.csv", csv(0..3));
    place.run("import revision a.csv --log other").ok();
    let others = place.run("key show other --vkey").ok().out;
    place.file("p", &proof);
    place.run(&format!("verify --proof p --key {}", others.trim())).code(1).says("does not hold");
    place.run("verify --proof p --key nonsense").code(1).says("does not hold");
    place.run(&format!("verify --proof nowhere --key {vkey}")).code(2).complains("nowhere");
}

#[test]
fn what_is_not_there_cannot_be_proved() {
    let place = logged();
    place.run("prove revision 401").code(2).complains("401");
    place.run("prove revision 0").code(2);
    place.run("prove nothing 1").code(2).complains("there is no log");
    place.run("prove revision 1 --out a.csv").code(2).complains("--force");
}

#[test]
fn a_changed_byte_is_found_and_the_file_is_named() {
    let place = logged();
    place.run("verify revision").ok().says("revision: verified; head 400, 400 records in 2 data files");
    let json = place.run("verify revision --json").ok().json();
    assert_eq!(
        (&json["ok"], &json["records"], &json["problems"]),
        (&true.into(), &400.into(), &serde_json::json!([]))
    );
    let log = "sporlog-data/logs/revision";
    let files = place.files(log);
    for part in [
        ".parquet",
        "_delta_log/00000000000000000001.json",
        "tlog/checkpoint",
        "tlog/tile/0/000",
        "tile/entries/000",
    ] {
        let name =
            files.iter().find(|name| name.contains(part)).unwrap_or_else(|| panic!("{part}: {files:?}"));
        let path = place.path(log).join(name);
        let whole = std::fs::read(&path).expect("a file");
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&path, &changed).expect("written");
        let ran = place.run("verify revision").code(1);
        assert!(
            ran.out.lines().any(|line| line.starts_with(&format!("logs/revision/{name}: "))),
            "{name}: {ran:#?}"
        );
        let json = place.run("verify revision --json").code(1).json();
        assert!(json["problems"].as_array().is_some_and(|problems| !problems.is_empty()), "{json}");
        std::fs::remove_file(&path).expect("removed");
        let ran = place.run("verify revision").code(1);
        assert!(ran.out.contains(name.as_str()), "{name}: {ran:#?}");
        std::fs::write(&path, &whole).expect("restored");
        place.run("verify revision").ok();
    }
}

#[test]
fn a_log_continues_its_earlier_checkpoints_and_no_others() {
    let place = logged();
    let ran = place.run("verify revision --since earlier").ok();
    ran.says("the log of 400 records continues the checkpoint of 300");
    let json = place.run("verify revision --since earlier --json").ok().json();
    assert_eq!((&json["then"], &json["now"]), (&300.into(), &400.into()));
    place.run("import revision a.csv --log other").ok();
    place.run("verify other --since earlier").code(1).says("other: ");
    let forged =
        std::fs::read_to_string(place.path("earlier")).expect("a checkpoint").replace("\n300\n", "\n299\n");
    place.file("forged", forged);
    place.run("verify revision --since forged").code(1).says("signature");
    place.run("verify revision --since nowhere").code(2).complains("nowhere");
    place.run("verify nothing").code(2).complains("there is no log");
}

#[test]
fn a_log_that_was_rolled_back_is_found_out() {
    let place = logged();
    let later = place.path("later");
    std::fs::copy(place.path("sporlog-data/logs/revision/tlog/checkpoint"), &later).expect("copied");
    // The same keys over another history: only what was kept from earlier can tell.
    std::fs::remove_dir_all(place.path("sporlog-data/logs/revision")).expect("removed");
    place.run("import revision a.csv").code(2).complains("its key has signed 400 records");
    std::fs::remove_file(place.path("sporlog-data/keys/revision.signed")).expect("removed");
    place.run("import revision a.csv").ok();
    place.run("verify revision").ok();
    place.run("verify revision --since later").code(1).says("shrunk");
    place.run("import revision b.csv").ok();
    place.run("verify revision --since later").code(1).says("rewritten");
}

#[test]
fn the_key_has_the_logs_origin() {
    let place = Place::new();
    place.file("a.csv", csv(0..1));
    place.file("sporlog.toml", "origin = 'sporlog.example.org'\n");
    place.run("import revision a.csv").ok();
    let shown = place.run("key show revision").ok().says("origin  sporlog.example.org/revision\n");
    let shown = shown.says("vkey    sporlog.example.org/revision+");
    let json = place.run("key show revision --json").ok().json();
    assert_eq!(json["origin"], "sporlog.example.org/revision");
    assert!(shown.out.contains(json["vkey"].as_str().expect("a key")));
}

#[test]
fn the_key_that_is_given_is_the_one_that_counts() {
    let place = logged();
    place.run("import revision a.csv --log other").ok();
    let vkey = place.run("key show revision --vkey").ok().out.trim().to_owned();
    let others = place.run("key show other --vkey").ok().out.trim().to_owned();
    place.file("revision.vkey", format!("{vkey}\n"));

    place.run(&format!("verify revision --key {vkey}")).ok().says("checked with the given key");
    place.run("verify revision --key revision.vkey").ok().says("400 records in 2 data files");
    place.run("verify revision --since earlier --key revision.vkey").ok().says("checked with the given key");
    let ran = place.run(&format!("verify revision --key {others}")).code(1).says("revision: NOT verified");
    ran.says("logs/revision/tlog/key: it is another public key than the given one");
    let json = place.run(&format!("verify revision --key {others} --json")).code(1).json();
    assert_eq!((&json["ok"], &json["key"]), (&false.into(), &"given".into()));
    place.run(&format!("verify revision --since earlier --key {others}")).code(1).says("revision: ");
    for garbage in ["nonsense", "a+b+c", "earlier", &vkey[..vkey.len() - 4]] {
        place
            .run(&format!("verify revision --key {garbage}"))
            .code(2)
            .complains("neither a file nor a public key");
        place.run(&format!("verify revision --since earlier --key {garbage}")).code(2).complains("--key");
    }

    // Without it, the output says whose word was taken.
    place.run("verify revision").ok().says("checked with the key folder's public key");
    assert_eq!(place.run("verify revision --json").ok().json()["key"], "key folder");
    std::fs::rename(place.path("sporlog-data/keys"), place.path("keys")).expect("moved");
    let ran = place.run("verify revision").ok().says("checked with the log's own copy of its public key");
    ran.complains("whoever can change the log can change");
    place.run("verify revision --since earlier").ok().complains("whoever can change the log can change");
    place.run("verify revision --key revision.vkey").ok();

    // A log made anew by somebody with keys of their own is not that of the given key.
    std::fs::remove_dir_all(place.path("sporlog-data/logs/revision")).expect("removed");
    place.run("import revision a.csv").ok();
    place.run("verify revision").ok();
    place.run("verify revision --key revision.vkey").code(1).says("NOT verified");
}

/// Verifies the log by eight processes at once; what they say, and what the join of their results does.
fn verify_in_parts(place: &Place) -> (Vec<crate::place::Ran>, crate::place::Ran) {
    let part = |n: usize| {
        let last = if n < 7 { (50 * n + 50).to_string() } else { String::new() };
        place.run(&format!("verify revision --range {}..{last}", 50 * n + 1))
    };
    let parts: Vec<_> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..8).map(|n| scope.spawn(move || part(n))).collect();
        started.into_iter().map(|part| part.join().expect("no panic")).collect()
    });
    for (n, ran) in parts.iter().enumerate() {
        place.file(&format!("part-{n}"), &ran.out);
    }
    let files: Vec<_> = (0..8).map(|n| format!("part-{n}")).collect();
    let joined = place.run(&format!("verify revision --join {}", files.join(" ")));
    (parts, joined)
}

#[test]
fn a_log_is_verified_by_eight_processes() {
    let place = logged();
    let (parts, joined) = verify_in_parts(&place);
    for part in parts {
        assert!(part.ok().out.len() < 700);
    }
    joined.ok().says(
        "revision: verified; head 400, 400 records in 2 data files, 3 commits; checked with the key folder's",
    );
    let json = place.run("verify revision --range 1..400 --json").ok().json();
    place.file("all", json["result"].as_str().expect("a result"));
    let json = place.run("verify revision --join all --json").ok().json();
    assert_eq!((&json["ok"], &json["records"]), (&true.into(), &400.into()));
    place
        .run("verify revision --join part-0 part-2")
        .code(1)
        .says("revision: no result has the records 51 to 100");
    place.run("verify revision --join part-0 nowhere").code(2).complains("nowhere");
    place.run("verify revision --range 1..401").code(2).complains("covers the records 1 to 400");
    place
        .run(&format!("verify revision --range 1..{}", u64::MAX))
        .code(2)
        .complains("covers the records 1 to 400");
    place.run("verify revision --range 5..4").code(2).complains("such as 1..100000");
    place.run("verify revision --checkpoint earlier").code(2).complains("--range or --join");
    place.run("verify --range 1..4").code(2);
    // Up to an earlier checkpoint.
    std::fs::write(
        place.path("part"),
        place.run("verify revision --range 1.. --checkpoint earlier").ok().out,
    )
    .expect("written");
    let joined = place.run("verify revision --join part --checkpoint earlier").ok().says("300 records");
    joined.complains("the checkpoint covers the records 1 to 300; those after them were not verified");
    place.run("verify revision --join part").code(1).says("not of that of 400");
}

#[test]
fn a_byte_that_was_flipped_is_found_by_eight_processes_as_by_one() {
    let place = logged();
    let log = "sporlog-data/logs/revision";
    for part in [
        ".parquet",
        "_delta_log/00000000000000000001.json",
        "tlog/checkpoint",
        "tlog/table",
        "tlog/key",
        "tile/0/000",
        "tile/entries/000",
        "tile/entries/001",
    ] {
        let name = place.files(log).into_iter().find(|name| name.contains(part)).expect("a file");
        let path = place.path(log).join(&name);
        let whole = std::fs::read(&path).expect("a file");
        let mut changed = whole.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        std::fs::write(&path, changed).expect("written");
        place.run("verify revision").code(1).says(&name);
        let (parts, joined) = verify_in_parts(&place);
        let said: String = parts.iter().chain([&joined]).map(|ran| ran.out.as_str()).collect();
        assert!(said.contains(&format!("logs/revision/{name}: ")), "{name}: {said}");
        joined.code(1);
        std::fs::write(&path, whole).expect("written");
    }
}
