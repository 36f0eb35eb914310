//! A store in a folder of its own, and the program serving it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::client::Client;

/// Longer than anything here takes that is to happen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with a store, and a configuration if need be.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let site = Site { dir: tempfile::tempdir().expect("a folder") };
        // The server of a bucket removes folders that have become empty.
        std::fs::write(site.path("site"), "").expect("written");
        site
    }

    /// With this in `sporlog.toml`.
    pub fn configured(toml: &str) -> Self {
        let site = Site::new();
        std::fs::write(site.path("sporlog.toml"), toml).expect("written");
        site
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sporlog"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SPORLOG_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        // Where the tests' folders are the files of a bucket (`tests/bucket/with`), the store is there.
        let bucket = std::env::var("SPORLOG_TEST_BUCKET").ok();
        match bucket.and_then(|bucket| Some(self.dir.path().strip_prefix(bucket).ok()?.display().to_string()))
        {
            Some(prefix) => {
                let store = format!("s3://sporlog/{prefix}/store");
                command.env("SPORLOG_KEYS", "keys").args(["--store", &store]).args(args)
            }
            None => command.args(["--store", "store"]).args(args),
        };
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// What it prints, where it has to succeed.
    pub fn print(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("text").trim_end().to_owned()
    }

    /// A new key: `args` say what of.
    pub fn key(&self, name: &str, role: &str, args: &[&str]) -> String {
        self.print(&[&["apikey", "create", "--name", name, "--role", role], args].concat())
    }

    /// Takes records in without a server.
    pub fn import(&self, kind: &str, content: &[u8]) {
        let file = self.path(format!("import-{kind}"));
        std::fs::write(&file, content).expect("written");
        self.print(&["import", kind, &file.to_string_lossy()]);
    }

    /// The records of a log, as entries, read without a server.
    pub fn entries(&self, log: &str) -> Vec<Value> {
        let printed = self.print(&["read", log, "--limit", "1000000"]);
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// The log verifies.
    pub fn verify(&self, log: &str) {
        self.print(&["verify", log]);
    }

    pub fn serve(&self) -> Server {
        self.serve_with(&["-v"], &[])
    }

    /// In a process that may have so many files open.
    pub fn serve_with_files(&self, files: u32) -> Server {
        let served = self.command(&["-v", "serve", "--listen", "127.0.0.1:0"]);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(served.get_program());
        command.args(served.get_args()).current_dir(self.dir.path());
        served.get_envs().for_each(|(removed, _)| _ = command.env_remove(removed));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let server = Server::start(command);
        server.until_ready();
        server
    }

    /// With more arguments before the command, and more in the environment.
    pub fn serve_with(&self, args: &[&str], environment: &[(&str, &str)]) -> Server {
        let server = self.start(args, environment);
        server.until_ready();
        server
    }

    /// With these keys, at this address.
    pub fn serve_at(&self, keys: &str, address: &str) -> Server {
        let mut command = self.command(&["-v", "--keys", keys, "serve", "--listen", address]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let server = Server::start(command);
        server.until_ready();
        server
    }

    /// A server that listens, and need not be ready.
    pub fn serve_unready(&self, args: &[&str]) -> Server {
        self.start(args, &[])
    }

    fn start(&self, args: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = self.command(&[args, &["serve", "--listen", "127.0.0.1:0"]].concat());
        command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(Stdio::piped());
        Server::start(command)
    }
}

/// A server that runs. Killed when dropped.
pub struct Server {
    child: Child,
    scheme: String,
    pub address: SocketAddr,
    said: Option<JoinHandle<String>>,
}

impl Server {
    fn start(mut command: Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let (found, finds) = mpsc::channel();
        // All that it says is read on: one that nobody listens to comes to a halt.
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            for line in lines.map_while(Result::ok) {
                if let Some((_, rest)) = line.split_once("listening on http")
                    && let Some((s, rest)) = rest.split_once("://")
                {
                    let address = rest.split(|c: char| c != '.' && c != ':' && !c.is_ascii_digit()).next();
                    let address = address.and_then(|address| address.parse().ok()).expect("an address");
                    let _ = found.send((format!("http{s}"), address));
                }
                said.push_str(&line);
                said.push('\n');
            }
            said
        });
        let Ok((scheme, address)) = finds.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the server does not start: {}", said.join().unwrap_or_default());
        };
        Server { child, scheme, address, said: Some(said) }
    }

    pub fn until_ready(&self) {
        let until = Instant::now() + PATIENCE;
        while self.scheme == "http"
            && super::raw::status(&super::raw::get(self.address, "/health/ready", "")) != 200
        {
            assert!(Instant::now() < until, "never ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// A client that is nobody.
    pub fn anyone(&self) -> Client {
        Client::new(self.url())
    }

    /// A client with a key.
    pub fn client(&self, key: &str) -> Client {
        self.anyone().with("ApiKey", key)
    }

    /// A client with a token.
    pub fn bearer(&self, token: &str) -> Client {
        self.anyone().with("Authorization", &format!("Bearer {token}"))
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to read its configuration again.
    pub fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("signalled");
    }

    /// Asks it to stop.
    pub fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signalled");
    }

    /// Waits for it to stop; says how it did, and all that it has said.
    pub fn stopped(mut self) -> (ExitStatus, String) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "it does not stop"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        (status, self.said.take().expect("not asked yet").join().expect("read"))
    }

    /// Asks it to stop, and sees that it does, in order; all that it has said.
    pub fn stop(self) -> String {
        self.terminate();
        let (status, said) = self.stopped();
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Ends it without a warning.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("a child");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(said) = self.said.take().filter(|_| std::thread::panicking()) {
            let said = said.join().unwrap_or_default();
            let from = said.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
            eprintln!("the server said, at last:\n{}", said.get(from..).unwrap_or_default());
        }
    }
}
