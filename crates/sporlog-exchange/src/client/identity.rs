//! The keys that we sign in with: files as OpenSSH writes them, and those that an agent holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key};
use rustix::process::geteuid;

use super::address::Address;
use super::error::{Error, Result};
use super::handshake::Checker;

/// The environment variable with the passphrase of the key files.
pub const PASSPHRASE: &str = "SPORLOG_IDENTITY_PASSPHRASE";
/// The files that are tried if none is named, in `~/.ssh`.
const USUAL: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// Keys of an agent that are tried; servers hang up after some six.
const OF_AGENT: usize = 4;

/// Where our keys are.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// Key files that must be usable, and nothing else is tried; if there are none, the agent's keys
    /// and the usual files are.
    pub files: Vec<PathBuf>,
    /// The passphrase of those that are encrypted.
    pub passphrase: Option<String>,
    /// The socket of an agent.
    pub agent: Option<PathBuf>,
}

/// The keys, read.
pub(super) struct Keys {
    files: Vec<Arc<PrivateKey>>,
    agent: Option<PathBuf>,
    /// Why others cannot be used.
    unusable: Vec<String>,
}

impl Identities {
    /// Those of the environment: `SSH_AUTH_SOCK`, and the passphrase.
    pub fn of_environment(files: Vec<PathBuf>) -> Self {
        let passphrase = std::env::var(PASSPHRASE).ok().filter(|text| !text.is_empty());
        let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
        Identities { files, passphrase, agent }
    }

    /// Reads the files.
    pub(super) fn read(&self) -> Result<Keys> {
        let passphrase = self.passphrase.as_deref();
        if !self.files.is_empty() {
            let files = self.files.iter().map(|path| Ok(Arc::new(read(path, passphrase)?)));
            return Ok(Keys { files: files.collect::<Result<_>>()?, agent: None, unusable: Vec::new() });
        }
        let mut keys = Keys { files: Vec::new(), agent: self.agent.clone(), unusable: Vec::new() };
        let folder = std::env::home_dir().map(|home| home.join(".ssh"));
        for path in folder.iter().flat_map(|folder| USUAL.map(|name| folder.join(name))) {
            if !path.exists() {
                continue;
            }
            match read(&path, passphrase) {
                Ok(key) => keys.files.push(Arc::new(key)),
                Err(error) => keys.unusable.push(error.to_string()),
            }
        }
        if keys.files.is_empty() && keys.agent.is_none() {
            let hint = "no key to sign in with; --identity names the file of one".to_owned();
            return Err(Error::Identity(match keys.unusable.as_slice() {
                [] => hint,
                unusable => format!("{hint} ({})", unusable.join("; ")),
            }));
        }
        Ok(keys)
    }
}

/// A key file, which only its owner may read.
fn read(path: &Path, passphrase: Option<&str>) -> Result<PrivateKey> {
    let name = path.display();
    let wrong = |why: String| Error::Identity(format!("{name}: {why}"));
    let facts = fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    // As OpenSSH has it: who does not own the file was given it by somebody who knew.
    if facts.uid() == geteuid().as_raw() && facts.mode() & 0o077 != 0 {
        let mode = facts.mode() & 0o777;
        return Err(wrong(format!("others may read this private key (mode {mode:o}); chmod 600 '{name}'")));
    }
    let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    match decode_secret_key(&text, passphrase) {
        Ok(key) => Ok(key),
        Err(russh::keys::Error::KeyIsEncrypted) => {
            Err(wrong(format!("the key is encrypted; {PASSPHRASE} is to hold its passphrase")))
        }
        Err(_) if passphrase.is_some() && is_encrypted(&text) => {
            Err(wrong(format!("the passphrase in {PASSPHRASE} does not open it")))
        }
        Err(error) => Err(wrong(format!("not a private key that can be used: {error}"))),
    }
}

fn is_encrypted(text: &str) -> bool {
    text.contains("ENCRYPTED") || PrivateKey::from_openssh(text).is_ok_and(|key| key.is_encrypted())
}

/// What came of the keys that were tried.
struct Tried<'a> {
    session: &'a mut Handle<Checker>,
    address: &'a Address,
    rsa: Option<HashAlg>,
    shown: Vec<String>,
    wants: String,
}

impl Keys {
    /// Signs in with the first key that the server takes.
    pub(super) async fn sign_in(&self, session: &mut Handle<Checker>, address: &Address) -> Result<()> {
        let needs_hash = self.agent.is_some() || self.files.iter().any(|key| key.algorithm().is_rsa());
        let rsa = match needs_hash {
            // An old server that does not say takes SHA-2 all the same; SHA-1 we do not sign with.
            true => {
                session.best_supported_rsa_hash().await.map_err(lost)?.flatten().or(Some(HashAlg::Sha512))
            }
            false => None,
        };
        let mut tried = Tried { session, address, rsa, shown: Vec::new(), wants: String::new() };
        let mut notes = self.unusable.clone();
        if let Some(socket) = &self.agent {
            match tried.with_agent(socket).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error @ (Error::Lost(_) | Error::Denied(_))) => return Err(error),
                Err(error) => notes.push(error.to_string()),
            }
        }
        for key in &self.files {
            // The agent may hold it, too.
            if tried.shown.iter().any(|shown| shown.starts_with(&show(key.public_key()))) {
                continue;
            }
            if tried.with_key(key).await? {
                return Ok(());
            }
        }
        let Tried { shown, wants, .. } = tried;
        let mut text = format!("{} does not let '{}' in", address.server(), address.user.escape_debug());
        match shown.as_slice() {
            [] => text.push_str("; there was no key to try"),
            shown => text.push_str(&format!(" with {}", shown.join(", "))),
        }
        if !wants.is_empty() {
            text.push_str(&format!("; it wants: {}", wants.escape_debug()));
        }
        for note in notes {
            text.push_str(&format!("; {note}"));
        }
        Err(Error::Denied(text))
    }
}

impl Tried<'_> {
    async fn with_key(&mut self, key: &Arc<PrivateKey>) -> Result<bool> {
        self.shown.push(show(key.public_key()));
        let key = PrivateKeyWithHashAlg::new(key.clone(), self.rsa);
        let user = self.address.user.clone();
        match self.session.authenticate_publickey(user, key).await {
            Ok(result) if !self.session.is_closed() || result.success() => Ok(self.accepted(&result)),
            Ok(_) => Err(self.hung_up()),
            Err(error) => {
                tracing::debug!(%error, "signing in");
                Err(self.hung_up())
            }
        }
    }

    async fn with_agent(&mut self, socket: &Path) -> Result<bool> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Identity(format!("the agent at {} cannot be used: {error}", socket.display()))
        };
        let mut agent = AgentClient::connect_uds(socket).await.map_err(|e| failed(&e))?;
        let identities = agent.request_identities().await.map_err(|e| failed(&e))?;
        for identity in identities.into_iter().take(OF_AGENT) {
            let AgentIdentity::PublicKey { key, .. } = identity else { continue };
            self.shown.push(format!("{} (of the agent)", show(&key)));
            let hash = if key.algorithm().is_rsa() { self.rsa } else { None };
            let user = self.address.user.clone();
            match self.session.authenticate_publickey_with(user, key, hash, &mut agent).await {
                Ok(result) => {
                    if !result.success() && self.session.is_closed() {
                        return Err(self.hung_up());
                    }
                    if self.accepted(&result) {
                        return Ok(true);
                    }
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(false)
    }

    /// The server has hung up. After several keys, that is its answer.
    fn hung_up(&self) -> Error {
        let text = format!("{} hung up while signing in", self.address.server());
        match self.shown.as_slice() {
            [] | [_] => Error::Lost(text),
            shown => {
                Error::Denied(format!("{text} with {}; --identity names the right key", shown.join(", ")))
            }
        }
    }

    fn accepted(&mut self, result: &AuthResult) -> bool {
        if let AuthResult::Failure { remaining_methods, partial_success } = result {
            let methods: Vec<&str> = remaining_methods.iter().map(Into::into).collect();
            self.wants = methods.join(", ");
            if *partial_success {
                self.wants.push_str(" (as well as the key)");
            }
        }
        result.success()
    }
}

fn show(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

fn lost(error: russh::Error) -> Error {
    Error::Lost(format!("signing in: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use russh::keys::Algorithm;
    use russh::keys::key::safe_rng;
    use russh::keys::ssh_key::LineEnding;

    use super::*;

    fn file(folder: &Path, passphrase: Option<&str>, mode: u32) -> PathBuf {
        let mut key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key");
        if let Some(passphrase) = passphrase {
            key = key.encrypt(&mut safe_rng(), passphrase).expect("encrypted");
        }
        let path = folder.join("key");
        fs::write(&path, key.to_openssh(LineEnding::LF).expect("text").as_bytes()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(&file(folder.path(), None, 0o600), None).is_ok());
        let error = read(&file(folder.path(), None, 0o640), None).expect_err("refused").to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn an_encrypted_key_needs_its_passphrase() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(folder.path(), Some("sesam"), 0o600);
        assert!(read(&path, Some("sesam")).is_ok());
        for wrong in [None, Some("simsalabim")] {
            let error = read(&path, wrong).expect_err("refused").to_string();
            assert!(error.contains(PASSPHRASE) && !error.contains("simsalabim"), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        assert!(read(&path, None).is_err());
        fs::write(&path, "ssh-ed25519 AAAA").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        assert!(read(&path, None).is_err());
    }
}
