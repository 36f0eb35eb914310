//! The real clients: OpenSSH's `sftp` and `ssh`, and lftp.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use crate::site::Site;

/// One of the tools that `tests/sftp/fetch` has seen to.
pub fn tool(name: &str) -> Command {
    Command::new(tool_path(name))
}

pub fn tool_path(name: &str) -> PathBuf {
    let folder = std::env::var_os("SPORLOG_TEST_SFTP").expect("SPORLOG_TEST_SFTP: use tests/sftp/run");
    Path::new(&folder).join(name)
}

/// What a client has printed, and whether it was content.
#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.ok, "{self:?}");
        self
    }

    #[track_caller]
    pub fn fails(self) -> Self {
        assert!(!self.ok, "{self:?}");
        self
    }

    /// It has printed this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text) || self.err.contains(text), "{text:?}: {self:?}");
        self
    }

    #[track_caller]
    pub fn says_not(self, text: &str) -> Self {
        assert!(!self.out.contains(text) && !self.err.contains(text), "{text:?}: {self:?}");
        self
    }
}

/// Someone at a client's keyboard: where to, as whom, with which key.
#[derive(Clone)]
pub struct Client {
    pub port: u16,
    pub user: String,
    pub key: PathBuf,
    known_hosts: PathBuf,
    options: Vec<String>,
}

impl Site {
    /// An account, with its own key.
    pub fn client(&self, account: &str) -> Client {
        self.client_with(account, account)
    }

    /// An account with a key of another name.
    pub fn client_with(&self, account: &str, key: &str) -> Client {
        Client {
            port: self.port,
            user: account.to_owned(),
            key: self.key(key),
            known_hosts: self.path("known_hosts"),
            options: Vec::new(),
        }
    }
}

impl Client {
    /// Towards another port.
    pub fn at(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// With one more of `ssh`'s options; it goes before the others, and so counts.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// That a host's key is taken as it is when it is seen first, and no longer later on.
    fn arguments(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let known = format!("UserKnownHostsFile={}", path(&self.known_hosts));
        let others = [
            known.as_str(),
            "StrictHostKeyChecking=accept-new",
            "GlobalKnownHostsFile=none",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "LogLevel=ERROR",
            "ConnectTimeout=30",
        ];
        let options = self.options.iter().map(String::as_str).chain(others);
        let options = options.flat_map(|option| ["-o".to_owned(), option.to_owned()]);
        ["-F", "none", "-i"].map(str::to_owned).into_iter().chain([path(&self.key)]).chain(options).collect()
    }

    /// `sftp` with a batch of commands on its standard input, and further arguments.
    pub fn sftp_command(&self, args: &[&str]) -> Command {
        let mut command = tool("sftp");
        command.args(args).arg("-S").arg(tool_path("ssh")).args(self.arguments());
        command.args(["-P", &self.port.to_string(), "-b", "-"]).arg(format!("{}@127.0.0.1", self.user));
        command
    }

    /// Runs a batch to its end; it stops at the first command that fails and has no `-` before it.
    pub fn sftp(&self, batch: &str) -> Ran {
        finish(self.start_sftp(&[], batch))
    }

    /// Begins a batch.
    pub fn start_sftp(&self, args: &[&str], batch: &str) -> Child {
        let mut command = self.sftp_command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("sftp");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A client that has not got in does not read it.
        let _ = stdin.write_all(batch.as_bytes());
        child
    }

    /// Puts a file into the inbox.
    #[track_caller]
    pub fn put(&self, file: &Path) {
        self.sftp(&format!("put {} ind/", quoted(file))).ok();
    }

    /// What lies there, fetched.
    #[track_caller]
    pub fn get(&self, path: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().expect("a folder");
        let to = dir.path().join("fetched");
        self.sftp(&format!("get {} {}", quoted(path), quoted(&to))).ok();
        std::fs::read(to).expect("fetched")
    }

    /// The names in a folder.
    #[track_caller]
    pub fn list(&self, folder: &str) -> Vec<String> {
        let listed = self.sftp(&format!("@ls -1a {}", quoted(folder))).ok();
        let name = |line: &str| line.rsplit('/').next().unwrap_or_default().trim().to_owned();
        listed.out.lines().map(name).filter(|name| !matches!(name.as_str(), "" | "." | "..")).collect()
    }

    /// `ssh` with further arguments before and behind the host's name.
    pub fn ssh_command(&self, before: &[&str], behind: &[&str]) -> Command {
        let mut command = tool("ssh");
        command.args(self.arguments()).args(["-p", &self.port.to_string()]).args(before);
        command.arg(format!("{}@127.0.0.1", self.user)).args(behind).stdin(Stdio::null());
        command
    }

    pub fn ssh(&self, before: &[&str], behind: &[&str]) -> Ran {
        let mut command = self.ssh_command(before, behind);
        finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ssh"))
    }

    /// lftp with these commands.
    pub fn lftp(&self, commands: &str) -> Ran {
        let connect: Vec<_> = self.arguments().iter().map(|part| format!("'{part}'")).collect();
        let home = tempfile::tempdir().expect("a folder");
        let mut command = tool("lftp");
        command.env("HOME", home.path()).args(["--norc", "-c"]).arg(format!(
            "set sftp:connect-program \"{} -a -x {}\"; set sftp:auto-confirm yes; set net:max-retries 2; \
             set net:timeout 20; set cmd:fail-exit yes; open -u {},nothing -p {} sftp://127.0.0.1; {commands}",
            tool_path("ssh").display(),
            connect.join(" "),
            self.user,
            self.port
        ));
        finish(
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lftp"),
        )
    }
}

/// Waits for a client's end, but not for ever.
#[track_caller]
pub fn finish(child: Child) -> Ran {
    let id = rustix::process::Pid::from_child(&child);
    let (ended, ends) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::spawn(move || {
        if ends.recv_timeout(std::time::Duration::from_secs(90))
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
        }
    });
    let output = child.wait_with_output().expect("its output");
    drop(ended);
    let _ = watch.join();
    output.into()
}

/// A name as `sftp` takes it in a batch.
pub fn quoted(name: impl AsRef<OsStr>) -> String {
    let name = name.as_ref().to_str().expect("UTF-8");
    let special = |c: char| matches!(c, '"' | '\\' | '*' | '?' | '[' | '\'');
    let escaped: String =
        name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect();
    format!("\"{escaped}\"")
}
