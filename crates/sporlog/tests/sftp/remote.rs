//! `sporlog exchange pull` and `push`, towards OpenSSH's server and our own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::rows::{csv, each, numbers};
use crate::site::{MUNICIPALITY, SUPPLIER, Site, sha256, wait};
use crate::sshd::Sshd;

/// Another server, and how it is reached.
struct There {
    url: String,
    user: String,
    known_hosts: String,
}

impl There {
    fn openssh(site: &Site, sshd: &Sshd, account: &str, folder: &str) -> Self {
        let url = format!("sftp://{}@127.0.0.1:{}{}", sshd.user(account), sshd.port, sshd.path(folder));
        let known_hosts = site.file("known-openssh", sshd.known_host());
        There { url, user: account.to_owned(), known_hosts: known_hosts.to_str().expect("UTF-8").to_owned() }
    }

    /// Our own, whose key OpenSSH's client has learned.
    #[track_caller]
    fn ours(site: &Site, account: &str, folder: &str) -> Self {
        site.client(account).sftp("ls").ok();
        let url = format!("sftp://{account}@127.0.0.1:{}/{folder}", site.port);
        let known_hosts = site.path("known_hosts").to_str().expect("UTF-8").to_owned();
        There { url, user: account.to_owned(), known_hosts }
    }

    fn knowing(&self, known_hosts: &Path) -> Self {
        let known_hosts = known_hosts.to_str().expect("UTF-8").to_owned();
        There { url: self.url.clone(), user: self.user.clone(), known_hosts }
    }

    /// The arguments of `pull` and `push`, with these files before the address and these options behind.
    fn arguments(&self, site: &Site, what: &str, files: &[&str], more: &[&str]) -> Vec<String> {
        let key = site.key(&self.user).to_str().expect("UTF-8").to_owned();
        let mut all = vec!["exchange".to_owned(), what.to_owned(), "--json".to_owned()];
        all.extend(files.iter().map(|file| (*file).to_owned()));
        all.extend([
            self.url.clone(),
            "--identity".into(),
            key,
            "--known-hosts".into(),
            self.known_hosts.clone(),
        ]);
        all.extend(more.iter().map(|more| (*more).to_owned()));
        all
    }

    fn run(&self, site: &Site, what: &str, files: &[&str], more: &[&str]) -> Output {
        let arguments = self.arguments(site, what, files, more);
        site.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// What became of each file, by its name.
    #[track_caller]
    fn items(&self, site: &Site, what: &str, files: &[&str], more: &[&str]) -> Vec<(String, Value)> {
        let ran = self.run(site, what, files, more);
        let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert_eq!(ran.status.code(), Some(0), "{out}{err}");
        let items = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let name = |item: &Value| {
            item["remote"].as_str().and_then(|path| path.rsplit('/').next()).map(str::to_owned)
        };
        let mut items: Vec<_> = items.filter_map(|item| name(&item).map(|name| (name, item))).collect();
        items.sort_by(|a, b| a.0.cmp(&b.0));
        items
    }

    /// The same, and nothing of them but what was done.
    #[track_caller]
    fn outcomes(&self, site: &Site, what: &str, files: &[&str], more: &[&str]) -> Vec<(String, String)> {
        let items = self.items(site, what, files, more);
        items
            .into_iter()
            .map(|(name, item)| (name, item["outcome"].as_str().unwrap_or("?").to_owned()))
            .collect()
    }

    /// Begins, is killed when `reached` has so many bytes, and does not go on.
    #[track_caller]
    fn cut_off(&self, site: &Site, what: &str, files: &[&str], more: &[&str], reached: &Path, bytes: u64) {
        let arguments = self.arguments(site, what, files, more);
        let mut running = site.start(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        wait("some of it has come", || (fs::metadata(reached).ok()?.len() >= bytes).then_some(()));
        running.kill();
    }
}

fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
    of.iter().map(|(name, outcome)| ((*name).to_owned(), (*outcome).to_owned())).collect()
}

/// Keys that do not hold: none at all, and another one for this port.
fn wrong_hosts(site: &Site, port: u16) -> [std::path::PathBuf; 2] {
    let public = site.new_key("somebody-else");
    [site.file("known-nobody", ""), site.file("known-wrongly", format!("[127.0.0.1]:{port} {public}\n"))]
}

#[test]
#[ignore = "needs OpenSSH's server: tests/sftp/run"]
fn files_are_fetched_once_from_openssh() {
    let site = Site::new();
    fs::create_dir_all(site.home(MUNICIPALITY).join("ud")).expect("made");
    let Some(sshd) = Sshd::start(&site, "sshd", &[MUNICIPALITY]) else { return };
    let there = There::openssh(&site, &sshd, MUNICIPALITY, "ud");
    let folder = site.home(MUNICIPALITY).join("ud/2026-01");
    fs::create_dir(&folder).expect("made");
    let contents = ["a.csv", "b.csv"].map(|name| (name, csv(name.len()..30_000)));
    for (name, content) in &contents {
        fs::write(folder.join(name), content).expect("written");
    }
    fs::write(folder.join("c.csv.part"), "not yet").expect("written");
    fs::write(folder.join(".hidden"), "not this").expect("written");
    symlink("a.csv", folder.join("link.csv")).expect("linked");
    let into = site.path("fetched");
    let options = ["--recursive", "--into", into.to_str().expect("UTF-8")];

    for known in wrong_hosts(&site, sshd.port) {
        let ran = there.knowing(&known).run(&site, "pull", &[], &options);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{said}");
        assert!(said.contains("key"), "{said}");
        assert!(Site::names(&into.join("2026-01")).is_empty());
    }
    site.new_key("stranger");
    let stranger = There { user: "stranger".to_owned(), ..there.knowing(Path::new(&there.known_hosts)) };
    assert_eq!(stranger.run(&site, "pull", &[], &options).status.code(), Some(2));

    let fetched = pairs(&[("a.csv", "fetched"), ("b.csv", "fetched")]);
    assert_eq!(there.outcomes(&site, "pull", &[], &options), fetched);
    for (name, content) in &contents {
        assert_eq!(&fs::read_to_string(into.join("2026-01").join(name)).expect("fetched"), content);
    }
    let known = pairs(&[("a.csv", "known"), ("b.csv", "known")]);
    assert_eq!(there.outcomes(&site, "pull", &[], &options), known);
    // A new one, and one that is another now: what was fetched stays.
    fs::rename(folder.join("c.csv.part"), folder.join("c.csv")).expect("renamed");
    fs::write(folder.join("a.csv"), "another").expect("written");
    let more = pairs(&[("a.csv", "fetched"), ("b.csv", "known"), ("c.csv", "fetched")]);
    assert_eq!(there.outcomes(&site, "pull", &[], &options), more);
    let here = Site::names(&into.join("2026-01"));
    let plain: Vec<_> = here.iter().filter(|name| !name.starts_with('.')).collect();
    assert_eq!(plain, ["a.2.csv", "a.csv", "b.csv", "c.csv"]);
    assert_eq!(fs::read_to_string(into.join("2026-01/a.2.csv")).expect("fetched"), "another");
    assert_eq!(fs::read_to_string(into.join("2026-01/a.csv")).expect("fetched"), contents[0].1);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_fetch_that_was_killed_goes_on_where_it_was() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nbytes_per_second = 16_000_000\n");
    let _server = site.serve();
    let there = There::ours(&site, MUNICIPALITY, "ud");
    let folder = site.home(MUNICIPALITY).join("ud/2026-01");
    fs::create_dir_all(&folder).expect("made");
    let content: Vec<u8> = (0_u64..6_000_000).flat_map(u64::to_le_bytes).collect();
    fs::write(folder.join("large.csv"), &content).expect("written");
    fs::write(folder.join("small.csv"), "small").expect("written");
    let into = site.path("fetched");
    let options = ["--recursive", "--into", into.to_str().expect("UTF-8")];
    // What is built upon is what was made durable: of 32 MiB each.
    there.cut_off(&site, "pull", &[], &options, &into.join("2026-01/.large.csv.part"), 36_000_000);
    assert!(!into.join("2026-01/large.csv").exists());
    let items = there.items(&site, "pull", &[], &options);
    let large = &items.iter().find(|(name, _)| name == "large.csv").expect("there").1;
    assert_eq!(
        (&large["outcome"], &large["sha256"]),
        (&"fetched".into(), &sha256(&content).into()),
        "{large}"
    );
    assert!(large["resumedAt"].as_u64() >= Some(32 << 20), "{large}");
    assert!(fs::read(into.join("2026-01/large.csv")).expect("fetched") == content);
    let known = pairs(&[("large.csv", "known"), ("small.csv", "known")]);
    assert_eq!(there.outcomes(&site, "pull", &[], &options), known);
    assert!(Site::names(&into.join("2026-01")).iter().all(|name| !name.ends_with(".part")));
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn deliveries_are_pushed_once_and_answered() {
    let site = Site::configured("settle_seconds = 1\n[sftp.limits]\nbytes_per_second = 6_000_000\n");
    let _server = site.serve();
    let there = There::ours(&site, SUPPLIER, "ind");
    let outgoing = site.path("outgoing");
    fs::create_dir(&outgoing).expect("made");
    fs::write(outgoing.join("a-large.csv"), csv(0..60_000)).expect("written");
    fs::write(outgoing.join("b.csv"), csv(60_000..60_100)).expect("written");
    fs::write(outgoing.join("c.csv.tmp"), "not yet").expect("written");
    let files = [outgoing.to_str().expect("UTF-8")];
    for known in wrong_hosts(&site, site.port) {
        assert_eq!(there.knowing(&known).run(&site, "push", &files, &[]).status.code(), Some(2));
    }
    assert!(site.client(SUPPLIER).list("ind").is_empty());

    let uploaded = site.home(SUPPLIER).join(".sporlog/uploads/a-large.csv.part");
    there.cut_off(&site, "push", &files, &[], &uploaded, 6_000_000);
    // The server takes what is under way from the one that was killed, as slowly as it has to.
    let arrived = || fs::metadata(&uploaded).map_or(0, |file| file.len());
    wait("no more comes", || {
        let before = arrived();
        std::thread::sleep(std::time::Duration::from_secs(1));
        (arrived() == before).then_some(())
    });
    let items = there.items(&site, "push", &files, &["--wait"]);
    let large = &items.iter().find(|(name, _)| name == "a-large.csv").expect("there").1;
    assert_eq!(large["outcome"], "sent", "{large}");
    assert!(large["resumedAt"].as_u64() >= Some(1_000_000), "{large}");
    for (name, item) in &items {
        assert_eq!(item["receipt"]["outcome"], "accepted", "{name}: {item}");
        assert_eq!(item["receipt"]["sha256"], sha256(fs::read(outgoing.join(name)).expect("read")), "{item}");
    }
    let known = pairs(&[("a-large.csv", "known"), ("b.csv", "known")]);
    assert_eq!(there.outcomes(&site, "push", &files, &[]), known);
    // A new one goes, and one whose rows are wrong is said so.
    fs::write(outgoing.join("d.csv"), csv(60_100..60_110).replacen("64942212", "6494221", 1))
        .expect("written");
    let ran = there.run(&site, "push", &files, &["--wait"]);
    assert_eq!(ran.status.code(), Some(1), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(site.receipt("d.csv")["quarantined"], 1);
    let expected = (0..60_110).filter(|n| *n != 60_100);
    assert_eq!(numbers(&site.entries("revision")), each(expected, 1));
    assert_eq!(site.deliveries(SUPPLIER).len(), 3);
}

#[test]
#[ignore = "needs OpenSSH's server: tests/sftp/run"]
fn deliveries_are_pushed_once_to_openssh() {
    let site = Site::new();
    let ind = site.home(SUPPLIER).join("ind");
    fs::create_dir_all(&ind).expect("made");
    let Some(sshd) = Sshd::start(&site, "sshd", &[SUPPLIER]) else { return };
    let there = There::openssh(&site, &sshd, SUPPLIER, "ind");
    let file = site.file("day.csv", csv(0..20_000));
    let files = [file.to_str().expect("UTF-8")];
    for known in wrong_hosts(&site, sshd.port) {
        assert_eq!(there.knowing(&known).run(&site, "push", &files, &[]).status.code(), Some(2));
        assert!(Site::names(&ind).is_empty());
    }
    assert_eq!(there.outcomes(&site, "push", &files, &[]), pairs(&[("day.csv", "sent")]));
    assert_eq!(Site::names(&ind), ["day.csv"]);
    assert_eq!(fs::read_to_string(ind.join("day.csv")).expect("there"), csv(0..20_000));
    // Taken there or not, it does not go again.
    fs::remove_file(ind.join("day.csv")).expect("removed");
    assert_eq!(there.outcomes(&site, "push", &files, &[]), pairs(&[("day.csv", "known")]));
    assert!(Site::names(&ind).is_empty());
    // What lies there under its name is never touched.
    let other = site.file("other.csv", csv(0..10));
    fs::write(ind.join("other.csv"), "theirs").expect("written");
    let ran = there.run(&site, "push", &[other.to_str().expect("UTF-8")], &[]);
    assert_ne!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stdout));
    assert_eq!(fs::read_to_string(ind.join("other.csv")).expect("there"), "theirs");
}
