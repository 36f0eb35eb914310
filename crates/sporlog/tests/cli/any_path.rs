//! A store lies in a folder of any name, and what is in it is for its owner alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::place::{Place, csv, disclosure};

/// What URLs, globs, shells and SQL each read in their own way.
const NAME: &str = "Å #%[~?\"|]*'%20";

const CONFIG: &str = "
store = '''NAME'''
[kafka]
brokers = '127.0.0.1:1'
[[kafka.topic]]
name = 'disclosures'
log = 'disclosure'
[sftp]
listen = '127.0.0.1:0'
[[sftp.account]]
name = 'supplier'
role = 'supplier'
keys = ['ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBb9z6uN3MqV5jRJV3rGVBgMzYCn2U8bFvTbqdHmeDsB']
[[sftp.account]]
name = 'municipality'
role = 'municipality'
cvr = ['64942212']
[[pull]]
name = 'upstream'
url = 'http://127.0.0.1:1'
key_file = 'upstream.key'
log = 'mirror'
";

fn configured() -> Place {
    let place = Place::new();
    place.file("sporlog.toml", CONFIG.replace("NAME", NAME));
    place.file("upstream.key", "secret");
    place.file("day.csv", csv(0..10));
    place.run("import revision day.csv").ok();
    place
}

/// Starts a command that runs until it is stopped, and gives the first line on standard error with `text`.
fn start(place: &Place, args: &[&str], text: &str) -> (Child, String) {
    let mut child = place.command().args(args).stderr(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let line = lines.by_ref().map_while(Result::ok).find(|line| line.contains(text)).expect("the line");
    // Nothing that is written later may block it.
    std::thread::spawn(move || lines.for_each(drop));
    (child, line)
}

/// Ends a command in order.
fn stop(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(0));
}

fn served(place: &Place) {
    let (server, line) = start(place, &["-v", "serve", "--listen", "127.0.0.1:0"], "listening on http://");
    let address = line.split("http://").nth(1).expect("an address");
    let address = address.split(|c: char| c == ';' || c.is_whitespace()).next().expect("an address");
    let mut connection = TcpStream::connect(address).expect("connected");
    let request =
        format!("GET /tlog/revision/checkpoint HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("/revision\n"), "{answer}");
    stop(server);
}

/// Every command, each once at the least, on a store whose path has all those characters in it.
#[test]
fn every_command_works_in_a_folder_of_any_name() {
    let place = configured();
    let store = place.path(NAME).display().to_string();
    assert!(place.path(NAME).join("logs/revision/table").is_dir());
    // Small files to be merged, and records that are refused.
    for n in 1..4 {
        place.file("day.csv", csv(n * 10..n * 10 + 10));
        place.run("import revision day.csv").ok();
    }
    place.file(
        "bad.ndjson",
        disclosure("person", "\"1\"") + &disclosure("mottaker", "\"2\"") + &disclosure("", ""),
    );
    place.run("import disclosure bad.ndjson").code(1);
    place.file("good.ndjson", disclosure("tema", "\"DEF\""));

    place.run("check revision day.csv").ok();
    place.run("logs").ok().says("revision");
    place.run("head revision").ok().says("40");
    assert_eq!(place.run("read revision").ok().lines().len(), 40);
    assert_eq!(place.run("find revision --subject 0101018081").ok().lines().len(), 40);
    place.run("export revision -O 64942212 --from 2020-01-01 --to 2099-12-31 --out exported").ok();
    place.run_args(&["sql", "SELECT count(*) AS n FROM revision", "--format", "csv"]).ok().says("n\n40\n");
    place
        .run_args(&["sql", "SELECT count(*) AS n FROM events WHERE log = 'revision'", "--format", "csv"])
        .ok()
        .says("n\n40\n");
    let listed = place.run("files revision --json").ok().lines();
    assert_eq!(listed.len(), 4);
    for file in &listed {
        let path = file["path"].as_str().expect("a path");
        assert!(path.starts_with(&store), "{path}");
        assert_eq!(Path::new(path).metadata().expect("there").len(), file["bytes"]);
    }
    assert_eq!(listed.iter().map(|file| file["rows"].as_u64()).sum::<Option<u64>>(), Some(40));
    assert_eq!(place.run("files revision --paths").ok().out.lines().count(), 4);
    place.run("files revision").ok().says("ROWS").says(&store);
    let vkey = place.run("key show revision --vkey").ok().out;
    place.run("prove revision 7 --out proof").ok();
    place.run_args(&["verify", "--proof", "proof", "--key", vkey.trim()]).ok();
    place.run("verify revision").ok();
    std::fs::copy(place.path(NAME).join("logs/revision/tlog/checkpoint"), place.path("earlier"))
        .expect("kept");
    let (backup, restored) = (format!("exported/{NAME}"), format!("exported/restored {NAME}"));
    place.run_args(&["backup", &backup, "--with-keys"]).ok();
    place.run_args(&["restore", &backup, "--store", &restored, "--since", "earlier"]).ok();
    place.run_args(&["verify", "revision", "--store", &restored]).ok();
    place.run("restore --in-place revision").ok().says("nothing is missing");
    place.file("systems.csv", "system,name\nKY,Fagsystemet\n");
    place.run("names import systems systems.csv").ok();
    place.run("quarantine list").ok().says("disclosure");
    place.run("quarantine show 1").ok();
    place.run("quarantine replay 1 --file good.ndjson").ok();
    place.run("quarantine discard 2 --reason test").ok();
    place.run("apikey create --name someone --role read").ok();
    place.run("apikey list").ok().says("someone");
    place.run("apikey revoke someone").ok();
    place.run("config check").ok();
    place.run("config example").ok();
    place.run("sample revision -n 1").ok();
    place.run("completions bash").ok();
    place.run("exchange --once").ok();
    place.run("deliveries").ok().says("supplier");
    place.run("collect").ok().says("40 rows");
    served(&place);
    let (consumer, _) = start(&place, &["-v", "consume"], "Connect to");
    stop(consumer);
    // Nobody listens there.
    place.run("pull upstream --once").code(2).complains("127.0.0.1");

    place.run("compact revision --grace 0").ok().says("4 files merged into 1");
    let checkpoints = place.files(&format!("{NAME}/logs/revision/table/_delta_log"));
    assert!(checkpoints.iter().any(|name| name.ends_with(".checkpoint.parquet")), "{checkpoints:?}");
    place.run("verify revision --since earlier").ok();
    place.run("expire revision --before 2099-01 --force").ok().says("40 records in 1 file");
    place.run("verify revision").ok().says("head 40 (40 expired)");
    assert_eq!(place.run("files revision --paths").ok().out, "");
    place.file("last.csv", csv(50..51));
    // The same store, however it is named.
    let url = url::Url::from_directory_path(place.path(NAME)).expect("an absolute path");
    place.run_args(&["import", "revision", "last.csv", "--store", url.as_str()]).ok().says("41 to 41");
    place.run_args(&["verify", "revision", "--store", NAME]).ok();
    let mut by_environment = place.command();
    by_environment.args(["verify", "revision"]).env("SPORLOG_STORE", &store);
    assert!(by_environment.status().expect("run").success());
    // No command is left out above.
    let help = place.run("--help").ok().out;
    let commands =
        help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list");
    for line in commands.lines().filter(|line| !line.starts_with("    ")) {
        let command = line.split_whitespace().next().expect("a name");
        let used = include_str!("any_path.rs").contains(&format!("\"{command}"));
        assert!(used || command == "help", "{command}");
    }
    // Nothing was made under another spelling of the name.
    let beside = std::fs::read_dir(place.dir.path()).expect("read").flatten().filter(|e| e.path().is_dir());
    let mut folders: Vec<_> = beside.map(|entry| entry.file_name()).collect();
    folders.sort();
    assert_eq!(folders, ["exported", NAME]);
}

/// Whatever the umask is. Only what other programs have to read is for a group as well.
#[test]
fn what_is_in_a_store_is_for_its_owner_alone() {
    let place = Place::new();
    place.file("sporlog.toml", CONFIG.replace("NAME", "store"));
    let run = |line: &str| {
        let program = env!("CARGO_BIN_EXE_sporlog");
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask 0; exec {program} {line}")]).current_dir(place.dir.path());
        assert!(command.output().expect("run").status.success(), "{line}");
    };
    // Of more rows than go into one part of a file, and with tiles that are full.
    place.run("sample revision -n 40000 --faulty 0 --out large.csv").ok();
    place.file("day.csv", csv(0..10));
    run("import revision large.csv day.csv");
    run("find revision --subject 0101018081");
    run("compact revision");
    run("apikey create --name someone --role read");
    run("exchange --once");
    std::fs::copy(place.path("day.csv"), place.path("store/exchange/accounts/supplier/ind/day.csv"))
        .expect("put");
    let settled = std::time::SystemTime::now() - std::time::Duration::from_mins(10);
    std::fs::File::options()
        .append(true)
        .open(place.path("store/exchange/accounts/supplier/ind/day.csv"))
        .and_then(|file| file.set_modified(settled))
        .expect("set");
    run("exchange --once");
    run("collect");
    let shared = |name: &str| {
        let parts: Vec<_> = name.split('/').collect();
        parts.starts_with(&["exchange", "accounts"]) && parts.get(3) != Some(&".sporlog")
    };
    let mut seen = 0;
    walk(&place.path("store"), &mut |path| {
        let name = path.strip_prefix(place.path("store")).expect("below").display().to_string();
        let mode = path.metadata().expect("there").mode() & 0o777;
        seen += 1;
        // In folders that nobody else can look into, a receipt is as it will be shown.
        let is_public = name.ends_with(".pub");
        let allowed = if is_public || shared(&name) {
            0o775
        } else if name.starts_with("exchange/") {
            0o740
        } else {
            0o700
        };
        assert_eq!(mode & !allowed, 0, "{name}: {mode:o}");
        if path.is_dir() && !shared(&name) {
            assert_eq!(mode, 0o700, "{name}");
        }
    });
    assert!(seen > 100, "{seen}");
}

fn walk(folder: &Path, look: &mut impl FnMut(&Path)) {
    look(folder);
    for entry in std::fs::read_dir(folder).expect("read").flatten() {
        if entry.path().is_dir() { walk(&entry.path(), look) } else { look(&entry.path()) }
    }
}

#[test]
fn a_key_that_others_may_read_is_not_used() {
    let place = Place::new();
    place.file("day.csv", csv(0..10));
    place.run("import revision day.csv").ok();
    let key = place.path("sporlog-data/keys/revision.key");
    let allow = |mode: u32| std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).expect("set");
    place.file("more.csv", csv(10..20));
    for mode in [0o604, 0o640, 0o660] {
        allow(mode);
        for command in ["verify revision", "read revision", "import revision more.csv"] {
            let ran = place.run(command).code(2);
            assert_eq!(ran.out, "", "{command}");
            ran.complains("revision.key").complains(&format!("mode {mode:o}")).complains("chmod 600");
        }
    }
    // A key that is there is never replaced by a new one.
    assert!(std::fs::read_to_string(&key).expect("read").starts_with("sporlog-keys/1"));
    allow(0o400);
    place.run("import revision more.csv").ok().says("11 to 20");
    // Nothing is shown if the access cannot be recorded, as with a key of the log `access` that is not used.
    let access = place.path("sporlog-data/keys/access.key");
    place.run("read revision").ok();
    std::fs::set_permissions(&access, PermissionsExt::from_mode(0o644)).expect("set");
    assert_eq!(place.run("read revision").code(2).complains("access.key").out, "");
}

/// As a Kubernetes Secret or a systemd credential: another user's file, which a group may read.
#[test]
fn a_key_that_was_handed_over_may_be_readable_by_a_group() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file to another user");
        return;
    }
    let place = Place::new();
    place.file("day.csv", csv(0..10));
    place.run("import revision day.csv").ok();
    let key = place.path("sporlog-data/keys/revision.key");
    std::os::unix::fs::chown(&key, Some(65_534), None).expect("given away");
    let allow = |mode: u32| std::fs::set_permissions(&key, PermissionsExt::from_mode(mode)).expect("set");
    for mode in [0o400, 0o440, 0o640] {
        allow(mode);
        place.run("verify revision").ok();
    }
    for mode in [0o444, 0o460, 0o644] {
        allow(mode);
        place.run("verify revision").code(2).complains("chmod 440");
    }
}
