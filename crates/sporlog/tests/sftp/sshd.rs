//! OpenSSH's server on a free port, with accounts of its own that the machine does not know: it runs
//! with mounts of its own, which go when it goes.

use std::io::Read;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::{Client, tool, tool_path};
use crate::site::{Site, free_port, wait};

/// What makes the accounts and their folders, before the server begins: `$1` is the folder with the files
/// for it, `$2` the program, `$3` the folder of all homes, and after it stand names. Users and groups
/// are for this server alone; the folders are made as the manual has it.
const PREPARE: &str = r#"
set -e
files=$1 sshd=$2 homes=$3
shift 3
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/.sshd
grep -v '^sshd:' /etc/passwd >/mnt/.sshd/passwd
cp /etc/group /mnt/.sshd/group
echo 'sshd:*:61000:65534::/run/sshd:/bin/false' >>/mnt/.sshd/passwd
echo 'sporlog:*:61010:61010::/:/bin/false' >>/mnt/.sshd/passwd
echo 'sporlog:*:61010:' >>/mnt/.sshd/group
id=61020 all=
for name in "$@"; do
    echo "$name:*:$id:$id::/:/bin/sh" >>/mnt/.sshd/passwd
    echo "$name:*:$id:" >>/mnt/.sshd/group
    install -m 644 "$files/$name.pub" "/mnt/.sshd/$name"
    id=$((id + 1)) all=$all,$name
done
echo "sftp-exchange:*:61011:${all#,}" >>/mnt/.sshd/group
mount --bind /mnt/.sshd/passwd /etc/passwd
mount --bind /mnt/.sshd/group /etc/group
. "$files/folders"
for name in "$@"; do
    case $name in kommune-*) municipality "$name" ;; *) supplier "$name" ;; esac
    mkdir "/mnt/$name"
    mount --bind "$homes/$name" "/mnt/$name"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
exec "$sshd" -D -e -f "$files/config"
"#;
const MANUAL: &str = include_str!("../../../../docs/exchange.md");

/// What the manual shows from a line that begins so to one that is so.
#[track_caller]
fn shown(from: &str, to: &str) -> String {
    let begun = MANUAL.lines().skip_while(|line| !line.starts_with(from));
    let mut shown: String = begun.take_while(|line| *line != to).map(|line| format!("{line}\n")).collect();
    assert!(shown.lines().count() > 2, "the manual does not show {from:?} any more");
    if to != "```" {
        shown += to;
    }
    shown
}

/// The server. Killed when dropped.
pub struct Sshd {
    child: Child,
    pub port: u16,
    folder: PathBuf,
    /// Without the right to make accounts, everyone is who runs the test, and nobody is locked in.
    alone: Option<(String, PathBuf)>,
}

impl Sshd {
    /// Serves these accounts' homes, each opened by the site's key of that name. They are made as the manual
    /// shows it, unless we are not root. `None` if it cannot be served here.
    #[track_caller]
    pub fn start(site: &Site, name: &str, accounts: &[&str]) -> Option<Self> {
        let folder = site.path(name);
        std::fs::create_dir(&folder).expect("made");
        for account in accounts {
            let public = format!("{account}.pub");
            std::fs::copy(site.path("keys").join(&public), folder.join(&public)).expect("copied");
        }
        let mut keygen = tool("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(folder.join("host"));
        assert!(keygen.status().expect("ssh-keygen").success());
        let port = free_port();
        let mut config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxStartups 100\nLogLevel VERBOSE\n\
             AllowTcpForwarding no\nX11Forwarding no\nSubsystem sftp internal-sftp\n",
            folder.join("host").display()
        );
        let (mut command, alone) = if rustix::process::getuid().is_root() {
            let shown_config = shown("Match Group", "```");
            config += &shown_config
                .replace("/srv/sftp/", "/mnt/")
                .replace("/etc/ssh/exchange_keys/", "/mnt/.sshd/");
            let folders = shown("supplier()", "}") + "\n" + &shown("municipality()", "}") + "\n";
            let homes = site.homes.to_str().expect("UTF-8");
            std::fs::write(folder.join("folders"), folders.replace("/srv/sftp", homes)).expect("written");
            let allowed = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
            if !allowed.is_ok_and(|status| status.success()) {
                eprintln!("OpenSSH's server needs mounts of its own (unshare --mount): not tried");
                return None;
            }
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", PREPARE, "sh"]).arg(&folder).arg(tool_path("sshd"));
            command.arg(&site.homes).args(accounts);
            (command, None)
        } else {
            // Others would be in the same home.
            let (account, home) = (accounts[0], site.home(accounts[0]));
            let user = String::from_utf8(Command::new("id").arg("-un").output().expect("id").stdout);
            let user = user.expect("UTF-8").trim().to_owned();
            config += &format!(
                "AuthorizedKeysFile {}\nForceCommand internal-sftp -d {}\n",
                folder.join(format!("{account}.pub")).display(),
                home.display()
            );
            let mut command = Command::new(tool_path("sshd"));
            command.args(["-D", "-e", "-f"]).arg(folder.join("config"));
            (command, Some((user, home)))
        };
        std::fs::write(folder.join("config"), config).expect("written");
        let log = std::fs::File::create(folder.join("log")).expect("a file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("started");
        let mut server = Sshd { child, port, folder, alone };
        wait("OpenSSH's server listens", || {
            let ended = server.child.try_wait().expect("its status");
            assert!(ended.is_none(), "{ended:?}: {}", server.said());
            let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
            stream.read_exact(&mut [0; 4]).ok()
        });
        Some(server)
    }

    /// Someone of these accounts.
    pub fn client(&self, site: &Site, account: &str) -> Client {
        let mut client = site.client(account).at(self.port);
        if let Some((user, _)) = &self.alone {
            client.user.clone_from(user);
        }
        client
    }

    /// Who an account signs in as.
    pub fn user<'a>(&'a self, account: &'a str) -> &'a str {
        self.alone.as_ref().map_or(account, |(user, _)| user)
    }

    /// The path of a file in an account's home, as clients name it.
    pub fn path(&self, path: &str) -> String {
        match &self.alone {
            Some((_, home)) => home.join(path).to_str().expect("UTF-8").to_owned(),
            None => format!("/{path}"),
        }
    }

    /// The line of its host key in `known_hosts`.
    pub fn known_host(&self) -> String {
        let public = std::fs::read_to_string(self.folder.join("host.pub")).expect("read");
        format!("[127.0.0.1]:{} {public}", self.port)
    }

    /// What it has said.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("OpenSSH's server said:\n{}", self.said());
        }
    }
}
