//! A store with its exchange in a folder of its own, and the program serving both.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::client::tool;

/// Longer than anything here takes that is to happen at once.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The supplier of most tests.
pub const SUPPLIER: &str = "ky-leverandoer";
/// And the municipality.
pub const MUNICIPALITY: &str = "kommune-64942212";

/// What an account's section has besides its name and key.
pub const DELIVERS: &str = "role = \"supplier\"";
pub const FETCHES: &str = "role = \"municipality\"\ncvr = [\"64942212\"]";

/// A folder with a configuration, keys and a store.
pub struct Site {
    dir: tempfile::TempDir,
    /// Where the server listens for SFTP.
    pub port: u16,
    /// Where the accounts' folders are.
    pub homes: PathBuf,
    /// The program runs as a user of its own, as a service does.
    is_service: bool,
}

/// The program `$1` as a user of its own, who need not be able to see where it lies.
const AS_SERVICE: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
touch /mnt/sporlog
mount --bind "$1" /mnt/sporlog
shift
umask 0027
exec setpriv --reuid 61010 --regid 61010 --clear-groups /mnt/sporlog "$@"
"#;

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// In hexadecimal, as receipts have it.
pub fn sha256(content: impl AsRef<[u8]>) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until there is something.
#[track_caller]
pub fn wait<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    wait_for(PATIENCE, what, found)
}

#[track_caller]
pub fn wait_for<T>(patience: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < patience, "{what}: not within {patience:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Site {
    /// One supplier and one municipality; files settle within a second.
    pub fn new() -> Self {
        Self::configured("settle_seconds = 1\n")
    }

    /// The same two with this in the section `[sftp]` and in those that follow.
    pub fn configured(sftp: &str) -> Self {
        Self::with(sftp, &[(SUPPLIER, DELIVERS), (MUNICIPALITY, FETCHES)])
    }

    /// With these accounts: their names, and what else their sections have.
    pub fn with(sftp: &str, accounts: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let homes = dir.path().join("store/exchange/accounts");
        let site = Site { dir, port: free_port(), homes, is_service: false };
        fs::create_dir(site.path("keys")).expect("made");
        let mut text = format!("[sftp]\nlisten = \"127.0.0.1:{}\"\n{sftp}\n", site.port);
        for (name, more) in accounts {
            let key = site.new_key(name);
            text += &format!("[[sftp.account]]\nname = \"{name}\"\nkeys = [\"{key}\"]\n{more}\n");
        }
        fs::write(site.path("sporlog.toml"), text).expect("written");
        site
    }

    /// As it is beside OpenSSH's server: folders that others have made, and a user for the program, as far
    /// as we may do that.
    pub fn beside_openssh(settle_seconds: u32) -> Self {
        let home = |account: &str| format!("home = \"srv/{account}\"");
        let (delivers, fetches) =
            (format!("{DELIVERS}\n{}", home(SUPPLIER)), format!("{FETCHES}\n{}", home(MUNICIPALITY)));
        let settle = format!("settle_seconds = {settle_seconds}\n");
        let mut site = Self::with(&settle, &[(SUPPLIER, &delivers), (MUNICIPALITY, &fetches)]);
        site.homes = site.path("srv");
        fs::create_dir(&site.homes).expect("made");
        fs::create_dir(site.path("store")).expect("made");
        if rustix::process::getuid().is_root() {
            std::os::unix::fs::chown(site.path("store"), Some(61_010), Some(61_010)).expect("given");
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(site.path(""), open).expect("set");
            site.is_service = true;
        }
        site
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The private key that goes by this name.
    pub fn key(&self, name: &str) -> PathBuf {
        self.path("keys").join(name)
    }

    /// Makes a key, and gives its public half.
    pub fn new_key(&self, name: &str) -> String {
        let path = self.key(name);
        let mut command = tool("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&path);
        assert!(command.status().expect("ssh-keygen").success());
        fs::read_to_string(path.with_file_name(format!("{name}.pub")))
            .expect("its public half")
            .trim()
            .to_owned()
    }

    /// The folder of the exchange.
    pub fn exchange(&self) -> PathBuf {
        self.path("store/exchange")
    }

    /// An account's folder.
    pub fn home(&self, account: &str) -> PathBuf {
        self.homes.join(account)
    }

    /// A file with this content, to be put.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        self.command_in(self.program(), args)
    }

    fn program(&self) -> Command {
        if !self.is_service {
            return Command::new(env!("CARGO_BIN_EXE_sporlog"));
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", AS_SERVICE, "sh", env!("CARGO_BIN_EXE_sporlog")]);
        command
    }

    /// The program as `command` starts it.
    fn command_in(&self, mut command: Command, args: &[&str]) -> Command {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SPORLOG_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.dir.path()).args(["--store", "store"]).args(args).stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the program runs")
    }

    /// What it prints, where it has to succeed.
    #[track_caller]
    pub fn print(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).expect("text").trim_end().to_owned()
    }

    /// The records of a log, as entries; none while there is no log.
    pub fn entries(&self, log: &str) -> Vec<Value> {
        if !self.path("store/logs").join(log).exists() {
            return Vec::new();
        }
        let printed = self.print(&["read", log, "--limit", "1000000"]);
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Starts `sporlog serve`, and waits until it listens for SFTP.
    #[track_caller]
    pub fn serve(&self) -> Server {
        self.serve_in(self.program())
    }

    /// The same as `command` starts it, which is given the arguments.
    #[track_caller]
    pub fn serve_in(&self, command: Command) -> Server {
        let mut server = self.start_in(command, &["-v", "serve", "--listen", "127.0.0.1:0"]);
        let begun = Instant::now();
        while !speaks_ssh(self.port) {
            let ended = server.child.try_wait().expect("its status");
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{ended:?}: {}", server.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Starts a command that goes on.
    pub fn start(&self, args: &[&str]) -> Server {
        self.start_in(self.program(), args)
    }

    fn start_in(&self, command: Command, args: &[&str]) -> Server {
        let log = self.path("server.log");
        let said = fs::File::options().create(true).append(true).open(&log).expect("a file");
        let mut command = self.command_in(command, args);
        let child = command.stdout(Stdio::null()).stderr(said).spawn().expect("the program starts");
        Server { child, log }
    }

    /// What became of an account's deliveries, as the register has it, oldest first.
    pub fn deliveries(&self, account: &str) -> Vec<Value> {
        let path = self.exchange().join("deliveries").join(format!("{account}.jsonl"));
        let text = fs::read_to_string(path).unwrap_or_default();
        // A line that a kill has cut off is none, and one that it has doubled is one.
        let mut found: Vec<Value> = Vec::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            if found.iter().all(|earlier| earlier["delivery"] != line["delivery"]) {
                found.push(line);
            }
        }
        found
    }

    /// Waits for the first delivery of this name, and gives its receipt as it lies with the supplier.
    #[track_caller]
    pub fn receipt(&self, file: &str) -> Value {
        self.receipts_of(SUPPLIER, file, 1).remove(0)
    }

    /// Waits for so many deliveries of this name, oldest first.
    #[track_caller]
    pub fn receipts(&self, file: &str, count: usize) -> Vec<Value> {
        self.receipts_of(SUPPLIER, file, count)
    }

    /// The same of another account.
    #[track_caller]
    pub fn receipts_of(&self, account: &str, file: &str, count: usize) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let mut found = self.deliveries(account);
            found.retain(|delivery| delivery["file"] == file);
            if found.len() >= count {
                return found.iter().map(|delivery| self.with_rows(account, delivery)).collect();
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{} of {count} receipts of {file:?}: {found:?}; {}",
                found.len(),
                self.said()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The receipt in full: the register has it without its rows.
    #[track_caller]
    fn with_rows(&self, account: &str, delivery: &Value) -> Value {
        let folder = self.home(account).join("kvittering");
        let full = fs::read_dir(&folder).expect("its folder").find_map(|entry| {
            let path = entry.expect("an entry").path();
            let is_json = path.extension().is_some_and(|end| end == "json");
            let receipt: Value = serde_json::from_slice(&fs::read(path).ok().filter(|_| is_json)?).ok()?;
            (receipt["delivery"] == delivery["delivery"]).then_some(receipt)
        });
        full.unwrap_or_else(|| panic!("no receipt of {delivery} in {folder:?}"))
    }

    /// What the server has said, at last.
    pub fn said(&self) -> String {
        let said = fs::read_to_string(self.path("server.log")).unwrap_or_default();
        let from = said.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
        format!("the server said, at last:\n{}", &said[from..])
    }

    /// The names in a folder, in order; none if it is not there.
    pub fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
    }
}

fn speaks_ssh(port: u16) -> bool {
    use std::io::Read;
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    let mut begin = [0; 4];
    stream.read_exact(&mut begin).is_ok_and(|()| begin == *b"SSH-")
}

/// A process that is killed at the end, if it has not ended.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it and those before it have said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGHUP: the configuration is read again.
    pub fn hang_up(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("signalled");
    }

    /// SIGTERM, and its end, which has to be in order.
    #[track_caller]
    pub fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("signalled");
        let begun = Instant::now();
        loop {
            match self.child.try_wait().expect("its status") {
                Some(status) => return assert!(status.success(), "{status}: {}", self.said()),
                None => assert!(begun.elapsed() < PATIENCE, "it does not stop: {}", self.said()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The most memory that it has taken, in MB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("there");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") >> 10
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
