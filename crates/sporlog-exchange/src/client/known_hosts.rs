//! Whether a server is the one it should be: its key is one that was named, or stands in a file of
//! known hosts as OpenSSH writes them.
//!
//! Nothing is ever trusted because it is seen for the first time.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::Fingerprint;
use russh::keys::{Algorithm, HashAlg, PublicKey, known_hosts, parse_public_key_base64};

use super::address::Address;
use super::error::{Error, Result};

/// The file of the whole machine.
const OF_ALL: &str = "/etc/ssh/ssh_known_hosts";

/// Which keys a server may have.
#[derive(Debug, Clone)]
pub enum HostKeys {
    /// One of those with these fingerprints.
    Fingerprints(Vec<Fingerprint>),
    /// One that stands beside the server's name in one of these files.
    Files(Vec<PathBuf>),
}

/// What is thought of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the server's.
    Known,
    /// Nothing is known of this server.
    Unknown,
    /// The server should have another one.
    Other {
        /// The file that says so.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// It must not be trusted any more.
    Revoked {
        /// The file that says so.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

/// A line of such a file that is about our server.
struct Entry {
    revoked: bool,
    line: usize,
    key: PublicKey,
}

impl HostKeys {
    /// Reads fingerprints such as `SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU`.
    pub fn fingerprints(texts: &[String]) -> Result<Self> {
        let read = |text: &String| {
            let wrong = |why: &str| Error::Settings(format!("--host-key '{}': {why}", text.escape_debug()));
            match text.trim().trim_end_matches('=').parse::<Fingerprint>() {
                Ok(fingerprint @ (Fingerprint::Sha256(_) | Fingerprint::Sha512(_))) => Ok(fingerprint),
                _ => Err(wrong("expected SHA256: and 43 characters, as `ssh-keygen -l` prints them")),
            }
        };
        Ok(HostKeys::Fingerprints(texts.iter().map(read).collect::<Result<_>>()?))
    }

    /// The files that OpenSSH looks into.
    pub fn usual() -> Self {
        let own = std::env::home_dir().map(|home| home.join(".ssh").join("known_hosts"));
        HostKeys::Files(own.into_iter().chain([PathBuf::from(OF_ALL)]).filter(|path| path.exists()).collect())
    }

    /// What is thought of `key`, shown by the server of `address`.
    pub fn judge(&self, address: &Address, key: &PublicKey) -> Result<Verdict> {
        match self {
            HostKeys::Fingerprints(known) => {
                let is_its = |known: &Fingerprint| key.fingerprint(known.algorithm()) == *known;
                Ok(if known.iter().any(is_its) { Verdict::Known } else { Verdict::Unknown })
            }
            HostKeys::Files(files) => {
                let mut verdict = Verdict::Unknown;
                for file in files {
                    for Entry { revoked, line, key: listed } in entries(file, address)? {
                        let same = listed.key_data() == key.key_data();
                        let file = file.clone();
                        match (revoked, same) {
                            (true, true) => return Ok(Verdict::Revoked { file, line }),
                            (true, false) => {}
                            (false, true) => verdict = Verdict::Known,
                            (false, false) if verdict == Verdict::Unknown => {
                                verdict = Verdict::Other { file, line };
                            }
                            (false, false) => {}
                        }
                    }
                }
                Ok(verdict)
            }
        }
    }

    /// The kinds of keys that are known of the server: it is asked for one of these, if it has several.
    pub fn kinds(&self, address: &Address) -> Result<Vec<Algorithm>> {
        let HostKeys::Files(files) = self else { return Ok(Vec::new()) };
        let mut kinds = Vec::new();
        for file in files {
            let listed = entries(file, address)?.into_iter().filter(|entry| !entry.revoked);
            kinds.extend(listed.map(|entry| entry.key.algorithm()));
        }
        Ok(kinds)
    }

    /// Why a key is not accepted, and how it can be. `None` if it is.
    pub fn objection(&self, address: &Address, key: &PublicKey) -> Result<Option<String>> {
        let shown = format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256));
        let (server, port, host) = (address.server(), address.port, &address.host);
        Ok(Some(match self.judge(address, key)? {
            Verdict::Known => return Ok(None),
            Verdict::Unknown if matches!(self, HostKeys::Fingerprints(_)) => {
                format!(
                    "{server} shows the host key {shown}, which --host-key does not name; nothing was sent"
                )
            }
            Verdict::Unknown => format!(
                "{server} is not known; its host key is {shown}. Ask those who operate it whether that is \
                 right. Then accept it with --host-key '{}', or for good with: \
                 ssh-keyscan -p {port} {host} >> {}",
                key.fingerprint(HashAlg::Sha256),
                self.file_to_fill().display(),
            ),
            Verdict::Other { file, line } => format!(
                "THE HOST KEY OF {server} IS ANOTHER than in line {line} of {}: it is {shown}. Somebody may be \
                 listening in, or the server has a new key: ask those who operate it. If it is right, replace \
                 the line (ssh-keygen -R '{}' -f {}), or use --host-key '{}'",
                file.display(),
                name_in_file(address),
                file.display(),
                key.fingerprint(HashAlg::Sha256),
            ),
            Verdict::Revoked { file, line } => {
                format!("the host key of {server}, {shown}, is revoked in line {line} of {}", file.display())
            }
        }))
    }

    fn file_to_fill(&self) -> PathBuf {
        match self {
            HostKeys::Files(files) if !files.is_empty() => files.first().cloned().unwrap_or_default(),
            _ => PathBuf::from("~/.ssh/known_hosts"),
        }
    }
}

/// How the server is called in a file of known hosts.
fn name_in_file(address: &Address) -> String {
    match address.port {
        22 => address.host.clone(),
        port => format!("[{}]:{port}", address.host),
    }
}

/// The lines of `file` that are about the server.
fn entries(file: &Path, address: &Address) -> Result<Vec<Entry>> {
    let text = fs::read(file).map_err(|e| Error::local(file, e))?;
    let name = name_in_file(address);
    let (mut entries, mut hashed) = (Vec::new(), Vec::new());
    for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
        let mut words = line.split_ascii_whitespace().peekable();
        let revoked = match words.next_if(|word| word.starts_with('@')) {
            None => false,
            Some("@revoked") => true,
            // We ask for no certificates, so an authority's key never says who a server is.
            Some(_) => continue,
        };
        let Some(hosts) = words.next().filter(|word| !word.starts_with('#')) else { continue };
        let Some(encoded) = words.nth(1) else { continue };
        let Ok(key) = parse_public_key_base64(encoded) else {
            tracing::debug!(file = %file.display(), line = number + 1, "a host key that we cannot read is left out");
            continue;
        };
        let entry = Entry { revoked, line: number + 1, key };
        if hosts.starts_with("|1|") {
            hashed.push((format!("{hosts} x {encoded}"), entry));
        } else if names(hosts, &name) {
            entries.push(entry);
        }
    }
    entries.extend(matching_hashes(hashed, address).map_err(|e| Error::local(file, e))?);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// Whether a list such as `sftp.example.dk,10.0.0.*,!10.0.0.9` names the server.
fn names(hosts: &str, name: &str) -> bool {
    let mut named = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if is_like(&pattern.to_lowercase(), name) => return false,
            Some(_) => {}
            None => named |= is_like(&pattern.to_lowercase(), name),
        }
    }
    named
}

/// Whether `pattern` stands for `name`: `*` for any characters, `?` for any one.
pub(super) fn is_like(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while let Some(c) = name.get(n) {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(wanted) if *wanted == '?' || wanted == c => (p, n) = (p + 1, n + 1),
            // The last star takes one character more.
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|c| *c == '*')
}

/// Those lines whose name, of which only a digest is there, is the server's. The library that
/// knows the digest reads files only, so it is given one.
fn matching_hashes(hashed: Vec<(String, Entry)>, address: &Address) -> io::Result<Vec<Entry>> {
    if hashed.is_empty() {
        return Ok(Vec::new());
    }
    let mut file = tempfile::NamedTempFile::new()?;
    for (line, _) in &hashed {
        writeln!(file, "{line}")?;
    }
    file.flush()?;
    let found = known_hosts::known_host_keys_path(&address.host, address.port, file.path());
    let lines: Vec<usize> = found.map_err(io::Error::other)?.into_iter().map(|(line, _)| line).collect();
    let numbered = hashed.into_iter().enumerate();
    Ok(numbered.filter(|(index, _)| lines.contains(&(index + 1))).map(|(_, (_, entry))| entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const ANOTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";
    const OF_EXAMPLE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
    /// `example.com`
    const HASHED: &str = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak=";

    fn key(encoded: &str) -> PublicKey {
        parse_public_key_base64(encoded).expect("a key")
    }

    fn judge(text: &str, address: &str, encoded: &str) -> Verdict {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        let keys = HostKeys::Files(vec![file.path().to_owned()]);
        match keys.judge(&address.parse().expect("an address"), &key(encoded)).expect("judged") {
            Verdict::Other { line, .. } => Verdict::Other { file: PathBuf::new(), line },
            Verdict::Revoked { line, .. } => Verdict::Revoked { file: PathBuf::new(), line },
            verdict => verdict,
        }
    }

    fn other(line: usize) -> Verdict {
        Verdict::Other { file: PathBuf::new(), line }
    }

    #[test]
    fn a_plain_line_names_its_server_at_its_port() {
        let text = format!("# a comment\n\nh.dk,10.0.0.1\tssh-ed25519  {ED25519} who@where\n");
        assert_eq!(judge(&text, "sftp://u@h.dk/", ED25519), Verdict::Known);
        assert_eq!(judge(&text, "sftp://u@H.DK/", ED25519), Verdict::Known);
        assert_eq!(judge(&text, "sftp://u@10.0.0.1/", ED25519), Verdict::Known);
        assert_eq!(judge(&text, "sftp://u@h.dk/", ANOTHER), other(3));
        assert_eq!(judge(&text, "sftp://u@h.dk:2222/", ED25519), Verdict::Unknown);
        assert_eq!(judge(&text, "sftp://u@x.h.dk/", ED25519), Verdict::Unknown);
        let text = format!("[h.dk]:2222 ssh-ed25519 {ED25519}");
        assert_eq!(judge(&text, "sftp://u@h.dk:2222/", ED25519), Verdict::Known);
        assert_eq!(judge(&text, "sftp://u@h.dk/", ED25519), Verdict::Unknown);
    }

    #[test]
    fn names_that_are_digests_are_recognised() {
        let text = format!("other ssh-ed25519 {ED25519}\n{HASHED} ssh-ed25519 {OF_EXAMPLE}\n");
        assert_eq!(judge(&text, "sftp://u@example.com/", OF_EXAMPLE), Verdict::Known);
        assert_eq!(judge(&text, "sftp://u@example.com/", ED25519), other(2));
        assert_eq!(judge(&text, "sftp://u@example.org/", OF_EXAMPLE), Verdict::Unknown);
    }

    #[test]
    fn a_revoked_key_is_refused_even_if_it_is_known_too() {
        let text = format!("h ssh-ed25519 {ED25519}\n@revoked * ssh-ed25519 {ED25519}\n");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Verdict::Revoked { file: PathBuf::new(), line: 2 });
        assert_eq!(judge(&text, "sftp://u@h/", ANOTHER), other(1));
        let text = format!("@cert-authority * ssh-ed25519 {ED25519}\n");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Verdict::Unknown);
    }

    #[test]
    fn one_of_several_keys_is_enough() {
        let text = format!("h ssh-ed25519 {ANOTHER}\nh ssh-ed25519 {ED25519}\n");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Verdict::Known);
        assert_eq!(judge(&text, "sftp://u@h/", OF_EXAMPLE), other(1));
    }

    #[test]
    fn lines_that_are_torn_are_left_out() {
        let text = format!("h\nh ssh-ed25519\nh ssh-ed25519 AAAA\n|1| x y\nh ssh-ed25519 {ED25519}");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Verdict::Known);
    }

    #[test]
    fn patterns_may_have_wildcards_and_exceptions() {
        assert!(names("*.dk,!bad.dk", "good.dk") && !names("*.dk,!bad.dk", "bad.dk"));
        assert!(names("10.0.0.?", "10.0.0.7") && !names("10.0.0.?", "10.0.0.17"));
        for (pattern, name, like) in [
            ("*", "", true),
            ("", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-c-", false),
            ("*.csv", "day.csv", true),
            ("*.csv", "day.csv.gz", false),
            ("rev_??.csv", "rev_01.csv", true),
            ("æ*", "æøå", true),
        ] {
            assert_eq!(is_like(pattern, name), like, "{pattern} {name}");
        }
    }

    #[test]
    fn a_fingerprint_is_enough() {
        let address: Address = "sftp://u@h/".parse().expect("an address");
        let print = key(ED25519).fingerprint(HashAlg::Sha256).to_string();
        let keys = HostKeys::fingerprints(&[format!("{print}=")]).expect("read");
        assert_eq!(keys.objection(&address, &key(ED25519)).expect("judged"), None);
        let objection = keys.objection(&address, &key(ANOTHER)).expect("judged").expect("refused");
        assert!(objection.contains(&key(ANOTHER).fingerprint(HashAlg::Sha256).to_string()), "{objection}");
        for bad in ["", "SHA256:", "SHA256:abc", "MD5:00:11", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"] {
            assert!(HostKeys::fingerprints(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_unknown_server_is_refused_with_what_to_do() {
        let address: Address = "sftp://u@h:2222/".parse().expect("an address");
        let objection = HostKeys::Files(Vec::new()).objection(&address, &key(ED25519)).expect("judged");
        let objection = objection.expect("refused");
        for part in ["--host-key 'SHA256:", "ssh-keyscan -p 2222 h >> ~/.ssh/known_hosts"] {
            assert!(objection.contains(part), "{objection}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_stands_in_a_file_makes_a_key_known_that_is_not_in_it(text in "(?s)[ -~\\t\\n*!?,|@#]{0,200}") {
            assert_ne!(judge(&text, "sftp://ky@example.com/ind", ED25519), Verdict::Known);
        }

        #[test]
        fn a_pattern_matches_itself(name in "[a-z0-9.-]{1,40}", other in "[ -~]{0,40}") {
            assert!(is_like(&name, &name));
            let _ = is_like(&other, &name);
        }
    }
}
