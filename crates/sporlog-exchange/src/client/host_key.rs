//! Connecting to a server that shows the key it should have: a key that was named, or that stands beside the
//! server's name in a file of known hosts. Nothing is ever trusted because it is seen for the first time.
//!
//! Files of known hosts are read by `russh`: plain names and hashed ones. Lines with wildcards or for
//! certificate authorities name no server here.

use std::borrow::Cow;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{Config, Handle, Handler};
use russh::keys::known_hosts::known_host_keys_path;
use russh::keys::ssh_key::Fingerprint;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Preferred, cipher};

use super::address::Address;
use super::error::{Error, Result};

/// The file of known hosts of the whole machine.
const OF_MACHINE: &str = "/etc/ssh/ssh_known_hosts";
/// A server that sends nothing for so long is sent a keepalive, three times.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// The SSH window: bytes that the server may send before we have read them.
const WINDOW: u32 = 4 << 20;
/// The ciphers: first the one that processors accelerate and that needs no MAC besides.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

/// Which keys a server may have.
#[derive(Debug, Clone)]
pub enum HostKeys {
    /// One of those with these fingerprints.
    Fingerprints(Vec<Fingerprint>),
    /// One that stands beside the server's name in one of these files.
    Files(Vec<PathBuf>),
}

impl HostKeys {
    /// Parses fingerprints such as `SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU`.
    pub fn fingerprints(texts: &[String]) -> Result<Self> {
        let parse = |text: &String| match text.trim().trim_end_matches('=').parse::<Fingerprint>() {
            Ok(fingerprint @ (Fingerprint::Sha256(_) | Fingerprint::Sha512(_))) => Ok(fingerprint),
            _ => Err(Error::Settings(format!(
                "--host-key '{}': expected SHA256: and 43 characters, as `ssh-keygen -l` prints them",
                text.escape_debug()
            ))),
        };
        Ok(HostKeys::Fingerprints(texts.iter().map(parse).collect::<Result<_>>()?))
    }

    /// The files that OpenSSH reads.
    pub fn usual() -> Self {
        let own = std::env::home_dir().map(|home| home.join(".ssh").join("known_hosts"));
        let files = own.into_iter().chain([PathBuf::from(OF_MACHINE)]);
        HostKeys::Files(files.filter(|path| path.exists()).collect())
    }

    /// The keys that the files have for the server, each with its file.
    fn known<'a>(&'a self, address: &Address) -> Result<Vec<(&'a PathBuf, PublicKey)>> {
        let HostKeys::Files(files) = self else { return Ok(Vec::new()) };
        let mut known = Vec::new();
        for file in files {
            let keys = known_host_keys_path(&address.host, address.port, file)
                .map_err(|e| Error::Settings(format!("{}: {e}", file.display())))?;
            known.extend(keys.into_iter().map(|(_, key)| (file, key)));
        }
        Ok(known)
    }

    /// The file in which the key is marked as revoked, for whatever server. `russh` passes such lines over.
    fn revoked(&self, key: &PublicKey) -> Result<Option<&PathBuf>> {
        let HostKeys::Files(files) = self else { return Ok(None) };
        let openssh =
            key.to_openssh().map_err(|e| Error::Denied(format!("a host key that cannot be used: {e}")))?;
        let encoded = openssh.split(' ').nth(1).unwrap_or_default();
        for file in files {
            let text = fs::read(file).map_err(|e| Error::Settings(format!("{}: {e}", file.display())))?;
            let text = String::from_utf8_lossy(&text);
            let mut revoked = text.lines().filter(|line| line.trim_start().starts_with("@revoked"));
            if revoked.any(|line| line.split_ascii_whitespace().any(|word| word == encoded)) {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Why a key that the server shows is not accepted, and what to do about it. `None` if it is accepted.
    pub(super) fn objection(&self, address: &Address, key: &PublicKey) -> Result<Option<String>> {
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let shown = format!("{} {fingerprint}", key.algorithm());
        let (server, port, host) = (address.server(), address.port, &address.host);
        if let HostKeys::Fingerprints(accepted) = self {
            let is_accepted = accepted.iter().any(|print| key.fingerprint(print.algorithm()) == *print);
            return Ok((!is_accepted).then(|| {
                format!(
                    "{server} shows the host key {shown}, which --host-key does not name; nothing was sent"
                )
            }));
        }
        if let Some(file) = self.revoked(key)? {
            let file = file.display();
            return Ok(Some(format!(
                "the host key of {server}, {shown}, is revoked in {file}; nothing was sent"
            )));
        }
        let known = self.known(address)?;
        if known.iter().any(|(_, known)| known.key_data() == key.key_data()) {
            return Ok(None);
        }
        Ok(Some(match known.first() {
            Some((file, _)) => {
                let file = file.display();
                let name = if port == 22 { host.clone() } else { format!("[{host}]:{port}") };
                format!(
                    "THE HOST KEY OF {server} IS ANOTHER than in {file}: it is {shown}. Somebody may be listening in, \
                     or the server has a new key: ask those who operate it. If it is right, remove the old key \
                     (ssh-keygen -R '{name}' -f {file}) and add the new one, or use --host-key '{fingerprint}'"
                )
            }
            None => {
                let file = match self {
                    HostKeys::Files(files) => files.first().cloned(),
                    HostKeys::Fingerprints(_) => None,
                };
                let file = file.unwrap_or_else(|| PathBuf::from("~/.ssh/known_hosts"));
                format!(
                    "{server} is not known; its host key is {shown}. Ask those who operate it whether that is right. \
                     Then accept it with --host-key '{fingerprint}', or for good with: \
                     ssh-keyscan -p {port} {host} >> {}",
                    file.display()
                )
            }
        }))
    }
}

/// Judges the key that the server shows.
pub(super) struct Checker {
    address: Address,
    keys: HostKeys,
}

/// A failure of the key exchange.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The key is not accepted; a server with several keys may have another one that is.
    #[error("{0}")]
    HostKey(String, Algorithm),
    #[error(transparent)]
    Ours(#[from] Error),
    #[error(transparent)]
    Ssh(#[from] russh::Error),
}

impl Handler for Checker {
    type Error = Failed;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failed> {
        let key = shown.public_key();
        match self.keys.objection(&self.address, &key)? {
            None => Ok(true),
            Some(objection) => Err(Failed::HostKey(objection, key.algorithm())),
        }
    }
}

/// Connects. A server with several keys shows the kind that we ask for first, so with fingerprints all kinds are
/// tried; with files, the kinds that they have for the server are asked for first, and the first answer holds.
pub(super) async fn connect(address: &Address, keys: &HostKeys) -> Result<Handle<Checker>> {
    let known: Vec<_> = keys.known(address)?.iter().map(|(_, key)| key.algorithm()).collect();
    let mut refused: Vec<Algorithm> = Vec::new();
    let mut objection = None;
    loop {
        let config = Config {
            window_size: WINDOW,
            keepalive_interval: Some(KEEPALIVE),
            nodelay: true,
            preferred: Preferred {
                key: Cow::Owned(kinds(&known, &refused)),
                cipher: Cow::Borrowed(CIPHERS),
                ..Preferred::DEFAULT
            },
            ..Config::default()
        };
        let checker = Checker { address: address.clone(), keys: keys.clone() };
        let target = (address.host.as_str(), address.port);
        let error = match russh::client::connect(Arc::new(config), target, checker).await {
            Ok(session) => return Ok(session),
            Err(error) => error,
        };
        let server = address.server();
        match (error, objection.take()) {
            (Failed::HostKey(why, kind), first) => {
                refused.push(kind);
                objection = first.or(Some(why));
            }
            (Failed::Ours(error), _) => return Err(error),
            (Failed::Ssh(russh::Error::NoCommonAlgo { .. }), Some(why)) => return Err(Error::HostKey(why)),
            (Failed::Ssh(error @ russh::Error::NoCommonAlgo { .. }), None) => {
                return Err(Error::Denied(format!("{server}: {error}")));
            }
            (Failed::Ssh(error), _) => return Err(Error::Lost(format!("{server}: {error}"))),
        }
        let is_final = matches!(keys, HostKeys::Files(_)) || kinds(&known, &refused).is_empty();
        if is_final && let Some(why) = objection {
            return Err(Error::HostKey(why));
        }
    }
}

/// The kinds of host keys to ask for: those that are known first, none that was refused, and no signatures with
/// SHA-1.
fn kinds(known: &[Algorithm], refused: &[Algorithm]) -> Vec<Algorithm> {
    let family = |kind: &Algorithm| match kind {
        Algorithm::Rsa { .. } => Algorithm::Rsa { hash: None },
        other => other.clone(),
    };
    let is_in = |kind: &Algorithm, list: &[Algorithm]| list.iter().any(|other| family(other) == family(kind));
    let usual = Preferred::DEFAULT.key.iter().filter(|kind| **kind != Algorithm::Rsa { hash: None });
    let left = usual.filter(|kind| !is_in(kind, refused));
    let (first, then): (Vec<_>, Vec<_>) = left.cloned().partition(|kind| is_in(kind, known));
    first.into_iter().chain(then).collect()
}

#[cfg(test)]
mod tests {
    use russh::keys::{EcdsaCurve, parse_public_key_base64};

    use super::*;

    const ED25519: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const ANOTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";
    const OF_EXAMPLE: &str = "AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
    /// `example.com`
    const HASHED: &str = "|1|O33ESRMWPVkMYIwJ1Uw+n877jTo=|nuuC5vEqXlEZ/8BXQR7m619W6Ak=";

    /// What is thought of a key.
    #[derive(Debug, PartialEq, Eq)]
    enum Verdict {
        Known,
        Unknown,
        Other,
        Revoked,
        Unreadable,
    }
    use Verdict::{Known, Other, Revoked, Unknown, Unreadable};

    fn key(encoded: &str) -> PublicKey {
        parse_public_key_base64(encoded).expect("a key")
    }

    fn judge(text: &str, address: &str, encoded: &str) -> Verdict {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        let keys = HostKeys::Files(vec![file.path().to_owned()]);
        match keys.objection(&address.parse().expect("an address"), &key(encoded)) {
            Err(_) => Unreadable,
            Ok(None) => Known,
            Ok(Some(why)) if why.contains("is not known") => Unknown,
            Ok(Some(why)) if why.contains("IS ANOTHER") => Other,
            Ok(Some(why)) if why.contains("is revoked") => Revoked,
            Ok(Some(why)) => panic!("{why}"),
        }
    }

    #[test]
    fn a_plain_line_names_its_server_at_its_port() {
        let text = format!("# a comment\n\nh.dk,10.0.0.1 ssh-ed25519 {ED25519} who@where\n");
        assert_eq!(judge(&text, "sftp://u@h.dk/", ED25519), Known);
        assert_eq!(judge(&text, "sftp://u@H.DK/", ED25519), Known);
        assert_eq!(judge(&text, "sftp://u@10.0.0.1/", ED25519), Known);
        assert_eq!(judge(&text, "sftp://u@h.dk/", ANOTHER), Other);
        assert_eq!(judge(&text, "sftp://u@h.dk:2222/", ED25519), Unknown);
        assert_eq!(judge(&text, "sftp://u@x.h.dk/", ED25519), Unknown);
        let text = format!("[h.dk]:2222 ssh-ed25519 {ED25519}");
        assert_eq!(judge(&text, "sftp://u@h.dk:2222/", ED25519), Known);
        assert_eq!(judge(&text, "sftp://u@h.dk/", ED25519), Unknown);
    }

    #[test]
    fn hashed_names_are_recognised() {
        let text = format!("other ssh-ed25519 {ED25519}\n{HASHED} ssh-ed25519 {OF_EXAMPLE}\n");
        assert_eq!(judge(&text, "sftp://u@example.com/", OF_EXAMPLE), Known);
        assert_eq!(judge(&text, "sftp://u@example.com/", ED25519), Other);
        assert_eq!(judge(&text, "sftp://u@example.org/", OF_EXAMPLE), Unknown);
    }

    #[test]
    fn a_revoked_key_is_refused_even_if_it_is_known_too() {
        let text = format!("h ssh-ed25519 {ED25519}\n@revoked * ssh-ed25519 {ED25519}\n");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Revoked);
        assert_eq!(judge(&text, "sftp://u@h/", ANOTHER), Other);
        let text = format!("@cert-authority * ssh-ed25519 {ED25519}\n");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Unknown);
    }

    #[test]
    fn one_of_several_keys_is_enough() {
        let text = format!("h ssh-ed25519 {ANOTHER}\nh ssh-ed25519 {ED25519}\n");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Known);
        assert_eq!(judge(&text, "sftp://u@h/", OF_EXAMPLE), Other);
    }

    #[test]
    fn what_cannot_be_read_trusts_nobody() {
        let text = format!("h\nh ssh-ed25519\n|1| x y\nh ssh-ed25519 {ED25519}");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Known);
        let text = format!("h ssh-ed25519 AAAA\nh ssh-ed25519 {ED25519}");
        assert_eq!(judge(&text, "sftp://u@h/", ED25519), Unreadable);
        let missing = HostKeys::Files(vec!["/nowhere/known_hosts".into()]);
        assert!(missing.objection(&"sftp://u@h/".parse().expect("an address"), &key(ED25519)).is_err());
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

    #[test]
    fn the_kinds_of_keys_that_are_known_are_asked_for_first() {
        let rsa = |hash| Algorithm::Rsa { hash };
        let asked = kinds(&[rsa(None)], &[]);
        assert_eq!(asked.first(), Some(&rsa(Some(HashAlg::Sha512))));
        assert!(asked.contains(&Algorithm::Ed25519) && !asked.contains(&rsa(None)));
        let asked = kinds(&[], &[Algorithm::Ed25519]);
        assert_eq!(asked.first(), Some(&Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }));
        assert!(!kinds(&[], &[rsa(None)]).contains(&rsa(Some(HashAlg::Sha256))));
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_stands_in_a_file_makes_a_key_known_that_is_not_in_it(text in "(?s)[ -~\\t\\n*!?,|@#]{0,200}") {
            assert_ne!(judge(&text, "sftp://ky@example.com/ind", ED25519), Known);
        }
    }
}
