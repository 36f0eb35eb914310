//! Help, exit codes, configuration, pipes, and the commands without a store.

use std::io::Read;
use std::process::Stdio;

use crate::place::{Place, csv};

const COMMANDS: [&str; 18] = [
    "check",
    "import",
    "logs",
    "head",
    "read",
    "find",
    "export",
    "sql",
    "prove",
    "verify",
    "quarantine",
    "expire",
    "compact",
    "backup",
    "restore",
    "key",
    "sample",
    "completions",
];

#[test]
fn everything_has_a_help_text() {
    let place = Place::new();
    let top = place.run("--help").ok();
    for command in COMMANDS {
        assert!(top.out.contains(&format!("\n  {command} ")), "{command}");
        place.run(&format!("{command} --help")).ok().says("Usage: ").says("--store");
        place.run(&format!("help {command}")).ok();
    }
    place.run("export revision --help").ok().says("days are those of receipt");
    place.run("quarantine replay --help").ok();
    assert!(place.run("--version").ok().out.starts_with("sporlog 0."));
}

#[test]
fn what_cannot_run_ends_with_2() {
    let place = Place::new();
    place.run("").code(2).complains("Usage");
    for wrong in
        ["imports", "import", "import revisions x.csv", "read revision --limit x", "head revision --store"]
    {
        let ran = place.run(wrong).code(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
    }
    place.run("head revision --store ftp://example.org/x").code(2).complains("ftp");
    place.run("head revision --config nowhere.toml").code(2).complains("nowhere.toml");
    place.file("sporlog.toml", "stoor = 'x'\n");
    place.run("head revision").code(2).complains("stoor");
}

#[test]
fn the_store_is_found_in_flag_environment_and_file() {
    let place = Place::new();
    place.file("day.csv", csv(0..3));
    place.run("--store flag import revision day.csv").ok();
    assert_eq!(place.run("head revision -s flag").ok().out, "3\n");
    let url = format!("file://{}", place.path("flag").display());
    assert_eq!(place.run(&format!("head revision -s {url}")).ok().out, "3\n");
    let by_variable = place.command().args(["head", "revision"]).env("SPORLOG_STORE", "flag").output();
    assert_eq!(by_variable.expect("run").stdout, b"3\n");
    place.file("other.toml", "store = 'flag'\n");
    assert_eq!(place.run("head revision --config other.toml").ok().out, "3\n");
    place.run("head revision").code(2).complains("sporlog-data");
}

#[test]
fn keys_can_lie_elsewhere() {
    let place = Place::new();
    place.file("day.csv", csv(0..3));
    place.file("sporlog.toml", "keys = 'safe'\n");
    place.run("import revision day.csv").ok();
    assert!(place.path("safe/revision.key").exists() && !place.path("sporlog-data/keys").exists());
    let ran = place.run("read revision --limit 1").ok();
    assert_eq!(ran.err, "");
    assert_eq!(place.head("access"), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(place.path("safe/revision.key")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

/// Runs it, reads a little of its output, and closes the pipe.
fn cut_short(place: &Place, line: &str) {
    let mut command = place.command();
    command.args(line.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut out = child.stdout.take().expect("a pipe");
    out.read_exact(&mut [0; 10]).expect("some output");
    drop(out);
    let output = child.wait_with_output().expect("ended");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), err.as_ref()), (Some(0), ""), "{line}");
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let place = Place::new();
    cut_short(&place, "sample revision --records 1000000");
    place.file("day.csv", csv(0..5_000).replace("\"0101018081\"", "\"x\""));
    place.run("import revision day.csv").ok();
    cut_short(&place, "read revision");
    cut_short(&place, "check revision day.csv");
    cut_short(&place, "find revision --actor 4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8");
}

#[test]
fn samples_are_the_same_every_time_and_are_accepted() {
    let place = Place::new();
    for kind in ["disclosure", "revision", "auditlog"] {
        let sample = |more: &str| place.run(&format!("sample {kind} --records 200 {more}")).ok().out;
        let one = sample("--seed 7 --faulty 0");
        assert_eq!(one, sample("--seed 7 --faulty 0"));
        assert_ne!(one, sample("--seed 8 --faulty 0"));
        place.file("one", &one);
        place.run(&format!("check {kind} one")).ok().says("200 records accepted, 0 refused, 0 remarks");
        place.file("bad", sample("--faulty 1"));
        let ran = place.run(&format!("check {kind} bad --json")).code(1).lines();
        let summary = ran.last().expect("a summary");
        assert!(
            summary["refused"].as_u64() > Some(20) && summary["remarks"].as_u64() > Some(20),
            "{summary}"
        );
    }
    place.run("sample revision --records 10 --out one").code(2).complains("--force");
    place.run("sample revision --records 10 --out one --force").ok();
    place.run("sample revision --records 10 --faulty 2").code(2).complains("0 to 1");
    place.run("sample quarantine --records 10").code(2).complains("quarantine");
}

#[test]
fn completions_name_the_commands() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = place.run(&format!("completions {shell}")).ok().out;
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
    }
}

#[test]
fn logs_go_to_standard_error_and_hold_no_number_of_a_person() {
    let place = Place::new();
    place.file("day.csv", csv(0..3));
    place.run("import revision day.csv -vv").ok();
    let ran = place.run("find revision --subject 0101018081 -vv").ok();
    assert!(!ran.err.contains("0101018081"), "{}", ran.err);
    let ran = place.run("find nothing --subject 0101018081").code(2);
    assert!(!ran.err.contains("0101018081"), "{}", ran.err);
    let ran = place.run_args(&["sql", "SELECT '0101018081' FROM"]).code(2);
    assert!(!ran.err.contains("0101018081"), "{}", ran.err);
}

#[test]
fn standard_error_is_json_alone_where_that_is_asked_for() {
    let place = Place::new();
    place.file("day.csv", csv(0..3));
    place.run("import revision day.csv").ok();
    place.file("wrong.toml", "stoor = 'x'\n");
    for (line, level) in [
        ("head nothing --log-format json", "ERROR"),
        ("head --log-format=json", "ERROR"),
        ("head revision --config wrong.toml --log-format json", "ERROR"),
        ("find revision --subject x --log-format json", "WARN"),
        ("import revision nowhere.csv --log-format json", "ERROR"),
        ("verify revision --store copy --log-format json", "ERROR"),
    ] {
        let ran = place.run(line);
        assert!(!ran.err.is_empty(), "{line}");
        for said in ran.err.lines() {
            let said: serde_json::Value =
                serde_json::from_str(said).unwrap_or_else(|e| panic!("{e}: {said}"));
            assert_eq!(said["level"], level, "{said}");
            assert!(said["message"].is_string() && said["time"].is_string(), "{said}");
        }
    }
    let output = place.command().args(["imports"]).env("SPORLOG_LOG_FORMAT", "json").output().expect("run");
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stderr).is_ok(), "{output:?}");
}
