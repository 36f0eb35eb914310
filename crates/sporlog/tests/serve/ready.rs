//! Ready means able to do its work; and commands that are run as the service runs.

use std::process::Command;

use super::raw::{get, status};
use super::server::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_keys_are_elsewhere_is_not_ready() {
    let site = Site::new();
    site.key("reader", "read", &[]);
    // The log `access` was made with other keys than these.
    std::fs::create_dir(site.path("elsewhere")).expect("made");
    let server = site.serve_unready(&["--keys", "elsewhere"]);
    let ready = get(server.address, "/health/ready", "");
    assert_eq!(status(&ready), 503);
    assert!(ready.contains("accesses cannot be recorded"), "{ready}");
    assert_eq!(status(&get(server.address, "/health/live", "")), 200);
    // As soon as they are there, it is.
    for entry in std::fs::read_dir(site.path("store/keys")).expect("read") {
        let entry = entry.expect("read");
        std::fs::copy(entry.path(), site.path("elsewhere").join(entry.file_name())).expect("copied");
    }
    server.until_ready();
    let said = server.stop();
    assert!(
        said.contains("the log of accesses cannot be opened") && said.contains("elsewhere/access.key"),
        "{said}"
    );
}

/// The script takes the program, the user, the configuration and the secrets from the unit.
#[test]
fn a_command_is_run_as_the_service_runs() {
    let site = Site::configured("origin = 'log.example.org'\nkeys = 'elsewhere'\n");
    let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd");
    let unit = std::fs::read_to_string(format!("{packaging}/sporlog.service")).expect("read");
    let user = Command::new("id").arg("-un").output().expect("id").stdout;
    let here = site.path("").display().to_string();
    let unit = unit
        .replace("User=sporlog", &format!("User={}", String::from_utf8_lossy(&user).trim()))
        .replace("/usr/local/bin/sporlog", env!("CARGO_BIN_EXE_sporlog"))
        .replace("/etc/sporlog/", &here)
        .replace("SPORLOG_STORE=/var/lib/sporlog", &format!("SPORLOG_STORE={here}store"));
    std::fs::write(site.path("unit"), unit).expect("written");
    std::fs::write(site.path("secrets.env"), "# a comment\nSPORLOG_ACCESS__LEEWAY_SECONDS=\"17\"\n")
        .expect("written");
    let run = |args: &[&str]| {
        let mut command = Command::new(format!("{packaging}/as-sporlog"));
        let ran =
            command.env("SPORLOG_UNIT", site.path("unit")).args(args).current_dir("/").output().expect("run");
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    run(&["apikey", "create", "--name", "intake", "--role", "write"]);
    assert!(run(&["apikey", "list"]).contains("intake"));
    assert!(run(&["key", "show", "access"]).contains("origin  log.example.org/access"));
    assert!(run(&["config", "check", "--print"]).contains("17"));
    assert!(site.path("elsewhere/apikeys.json").is_file() && !site.path("store/keys").exists());
}
