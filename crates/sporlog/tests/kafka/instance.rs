//! `sporlog consume` as a process, and what is in the store afterwards.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::Cluster;

/// The topic of the disclosures.
pub const TOPIC: &str = "aapen-sporingslogg-loggmeldingMottatt";

/// A store, and the configuration to fill it with.
pub struct Place {
    pub store: PathBuf,
    config: PathBuf,
    log: PathBuf,
    settings: String,
    /// Where those that go on reach a bucket; as the test itself does if not given.
    pub endpoint: Option<String>,
}

impl Place {
    /// `log` is the log's name as it is configured, `further` what else the section of the topic
    /// has, and after that whole sections.
    pub fn new(cluster: &Cluster, name: &str, log: &str, further: &str) -> Self {
        Place::with_settings(cluster, name, log, "", further)
    }

    /// The same, with these lines in the section `[kafka]`.
    pub fn with_settings(cluster: &Cluster, name: &str, log: &str, settings: &str, further: &str) -> Self {
        let place = Place {
            store: cluster.path(&format!("store-{name}")),
            config: cluster.path(&format!("{name}.toml")),
            log: cluster.path(&format!("{name}.log")),
            settings: settings.to_owned(),
            endpoint: None,
        };
        place.configure(cluster, log, further);
        place
    }

    pub fn configure(&self, cluster: &Cluster, log: &str, further: &str) {
        // In the bucket, where the folder of its objects is given (`tests/bucket/with`).
        let bucket = std::env::var("SPORLOG_TEST_BUCKET").ok();
        let address = match bucket.and_then(|bucket| self.store.strip_prefix(bucket).ok()) {
            Some(prefix) => format!("s3://sporlog/{}", prefix.display()),
            None => self.store.display().to_string(),
        };
        let text = format!(
            "store = {address:?}\nkeys = {:?}\n[kafka]\nbrokers = {:?}\nproperties.session.timeout.ms = 1500\n\
             properties.heartbeat.interval.ms = 300\nproperties.reconnect.backoff.max.ms = 500\n\
             properties.topic.metadata.refresh.interval.ms = 1000\n{}\n\
             [[kafka.topic]]\nname = {TOPIC:?}\nlog = {log:?}\n{further}\n",
            self.store.join("keys"),
            cluster.addresses(),
            self.settings
        );
        std::fs::write(&self.config, text).expect("written");
    }

    /// Leaves the session of the group's members as it is by default.
    pub fn use_default_session(&self) {
        let text = std::fs::read_to_string(&self.config).expect("read");
        let kept = text.lines().filter(|line| {
            !line.starts_with("properties.session") && !line.starts_with("properties.heartbeat")
        });
        std::fs::write(&self.config, kept.collect::<Vec<_>>().join("\n")).expect("written");
    }

    /// Has it go to another port of the broker.
    pub fn redirect(&self, cluster: &Cluster, port: u16) {
        let text = std::fs::read_to_string(&self.config).expect("read");
        std::fs::write(&self.config, text.replace(&cluster.addresses(), &format!("127.0.0.1:{port}")))
            .expect("written");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sporlog"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SPORLOG_") {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(&self.config).args(args).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("run")
    }

    /// Its results, which have to come.
    #[track_caller]
    pub fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.text(args);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// Takes in all that is there; what is printed.
    #[track_caller]
    pub fn drain(&self) -> Value {
        let output = self.run(&["consume", "--until-end", "--json", "-v"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {said}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {said}"))
    }

    /// Starts one that goes on.
    pub fn consume(&self) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).expect("a file");
        let mut command = self.command(&["consume", "-v"]);
        command.envs(self.endpoint.iter().map(|endpoint| ("AWS_ENDPOINT_URL", endpoint)));
        Running(command.stdout(Stdio::null()).stderr(log).spawn().expect("started"))
    }

    /// What those that went on have said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `done`; what was said is shown if that takes too long. A busy machine with two processors needs
    /// over a minute for the storm's messages in a debug build.
    #[track_caller]
    pub fn wait_for(&self, what: &str, done: impl Fn() -> bool) {
        let begun = Instant::now();
        while !done() {
            let said = self.said();
            assert!(begun.elapsed() < Duration::from_secs(150), "{what}:\n{said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The records of a log; 0 while there is none.
    pub fn head(&self, log: &str) -> u64 {
        let output = self.run(&["head", log]);
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(0)
    }

    /// The partition and offset of everything in these logs and in the quarantine, and how often
    /// it is there.
    pub fn offsets(&self, logs: &[String]) -> BTreeMap<(i32, i64), u32> {
        let mut found = BTreeMap::new();
        for log in logs {
            let query = format!("SELECT origin FROM \"{log}\"");
            for line in self.text(&["sql", &query, "--format", "csv"]).lines().skip(1) {
                let (_, place) = line.rsplit_once('/').expect(line);
                let (partition, offset) = place.split_once('@').expect(line);
                *found.entry((parse(partition) as i32, parse(offset))).or_default() += 1;
            }
        }
        let listed = self.text(&["quarantine", "list", "--json"]);
        for item in listed.lines().map(|line| serde_json::from_str::<Value>(line).expect(line)) {
            let (_, partition) = item["source"].as_str().and_then(|s| s.rsplit_once('/')).expect("a source");
            let offset = item["line"].as_i64().expect("an offset");
            *found.entry((parse(partition) as i32, offset)).or_default() += 1;
        }
        found
    }

    /// All of the store verifies.
    #[track_caller]
    pub fn verify(&self, logs: &[String]) {
        for log in logs.iter().map(String::as_str).chain(["quarantine"]) {
            let output = self.run(&["verify", log]);
            let told = String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() || told.contains("no log"), "{log}: {told}");
        }
    }
}

fn parse(text: &str) -> i64 {
    text.trim_matches('"').parse().unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A process that is killed at the end, if it has not ended.
pub struct Running(Child);

impl Running {
    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGTERM, and its end, which has to be in order.
    #[track_caller]
    pub fn stop(mut self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let begun = Instant::now();
        loop {
            match self.0.try_wait().expect("its status") {
                Some(status) => return assert!(status.success(), "{status}"),
                None => assert!(begun.elapsed() < Duration::from_secs(30), "it does not stop"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGSTOP, and SIGCONT after `pause`: it goes on as if nothing had happened.
    pub fn freeze(&self, pause: Duration) {
        let signal = |name: &str| {
            let pid = self.0.id().to_string();
            assert!(Command::new("kill").args([name, &pid]).status().expect("kill").success());
        };
        signal("-STOP");
        std::thread::sleep(pause);
        signal("-CONT");
    }

    #[track_caller]
    pub fn is_alive(&mut self) -> bool {
        self.0.try_wait().expect("its status").is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
