//! Signing in, with keys in files as OpenSSH writes them, and keys that an agent holds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, Handler};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key};
use rustix::process::geteuid;

use super::address::Address;
use super::error::{Error, Result};

/// The environment variable with the passphrase of the key files.
pub const PASSPHRASE: &str = "SPORLOG_IDENTITY_PASSPHRASE";
/// The files that are tried if none is named, in `~/.ssh`.
const USUAL: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// Keys of an agent that are tried; servers hang up after some six.
const OF_AGENT: usize = 4;

/// Where the keys to sign in with are.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    /// Key files, all of which must be usable. If none is named, the agent's keys and the usual files are tried.
    pub files: Vec<PathBuf>,
    /// The passphrase of encrypted key files.
    pub passphrase: Option<String>,
    /// The socket of an agent.
    pub agent: Option<PathBuf>,
}

/// The keys to sign in with.
pub(super) struct Keys {
    files: Vec<Arc<PrivateKey>>,
    agent: Option<PathBuf>,
    /// Why some of the usual files cannot be used.
    unusable: Vec<String>,
}

/// A key that is offered to the server.
enum Offer {
    OfAgent(PublicKey),
    OfFile(Arc<PrivateKey>),
}

impl Identities {
    /// `files`, with the agent (`SSH_AUTH_SOCK`) and the passphrase that the environment names.
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
            return Err(Error::Settings(match keys.unusable.as_slice() {
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
    let wrong = |why: String| Error::Settings(format!("{name}: {why}"));
    let facts = fs::metadata(path).map_err(|e| wrong(e.to_string()))?;
    // The same rule as OpenSSH's: the mode is not judged if the file belongs to somebody else, who gave it to us.
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

impl Keys {
    /// Signs in with the first key that the server accepts.
    pub(super) async fn sign_in(&self, session: &mut Handle<impl Handler>, address: &Address) -> Result<()> {
        let needs_hash = self.agent.is_some() || self.files.iter().any(|key| key.algorithm().is_rsa());
        let mut rsa = None;
        if needs_hash {
            let lost = |error| Error::Lost(format!("signing in: {error}"));
            let supported = session.best_supported_rsa_hash().await.map_err(lost)?;
            // An old server that does not say accepts SHA-2 all the same. We do not sign with SHA-1.
            rsa = supported.flatten().or(Some(HashAlg::Sha512));
        }
        let (mut notes, mut offered, mut wants) = (self.unusable.clone(), Vec::new(), String::new());
        let (mut agent, mut offers) = (None, Vec::new());
        if let Some(socket) = &self.agent {
            match connect_agent(socket).await {
                Ok((client, keys)) => {
                    agent = Some(client);
                    offers.extend(keys.into_iter().map(Offer::OfAgent));
                }
                Err(error) => notes.push(unusable_agent(socket, &error)),
            }
        }
        offers.extend(self.files.iter().cloned().map(Offer::OfFile));
        for offer in offers {
            let public = match &offer {
                Offer::OfAgent(key) => key,
                Offer::OfFile(key) => key.public_key(),
            };
            let shown = format!("{} {}", public.algorithm(), public.fingerprint(HashAlg::Sha256));
            // The agent may hold the key of a file, too.
            if offered.contains(&shown) {
                continue;
            }
            let user = address.user.clone();
            let answer = match offer {
                Offer::OfFile(key) => {
                    let key = PrivateKeyWithHashAlg::new(key, rsa);
                    session.authenticate_publickey(user, key).await.map_err(|error| error.to_string())
                }
                Offer::OfAgent(key) => {
                    let Some(client) = &mut agent else { continue };
                    let hash = if key.algorithm().is_rsa() { rsa } else { None };
                    match session.authenticate_publickey_with(user, key, hash, client).await {
                        Err(error) if !session.is_closed() => {
                            notes.extend(self.agent.iter().map(|socket| unusable_agent(socket, &error)));
                            agent = None;
                            continue;
                        }
                        answer => answer.map_err(|error| error.to_string()),
                    }
                }
            };
            offered.push(shown);
            match answer {
                Ok(AuthResult::Success) => return Ok(()),
                Ok(AuthResult::Failure { remaining_methods, partial_success }) if !session.is_closed() => {
                    wants = remaining_methods.iter().map(<&str>::from).collect::<Vec<_>>().join(", ");
                    if partial_success {
                        wants.push_str(" (as well as the key)");
                    }
                }
                failed => {
                    tracing::debug!(?failed, "signing in");
                    let text = format!("{} hung up while signing in", address.server());
                    // After several keys, hanging up is the server's answer.
                    return Err(match offered.as_slice() {
                        [_] => Error::Lost(text),
                        keys => Error::Denied(format!(
                            "{text} with {}; --identity names the right key",
                            keys.join(", ")
                        )),
                    });
                }
            }
        }
        let keys = if offered.is_empty() {
            "; there was no key to try".to_owned()
        } else {
            format!(" with {}", offered.join(", "))
        };
        let mut text =
            format!("{} does not let '{}' in{keys}", address.server(), address.user.escape_debug());
        if !wants.is_empty() {
            notes.insert(0, format!("it wants: {}", wants.escape_debug()));
        }
        for note in notes {
            text.push_str("; ");
            text.push_str(&note);
        }
        Err(Error::Denied(text))
    }
}

async fn connect_agent(
    socket: &Path,
) -> Result<(AgentClient<tokio::net::UnixStream>, Vec<PublicKey>), russh::keys::Error> {
    let mut client = AgentClient::connect_uds(socket).await?;
    let keys = client.request_identities().await?.into_iter().take(OF_AGENT);
    let keys = keys.filter_map(|identity| match identity {
        AgentIdentity::PublicKey { key, .. } => Some(key),
        AgentIdentity::Certificate { .. } => None,
    });
    Ok((client, keys.collect()))
}

fn unusable_agent(socket: &Path, error: &dyn std::fmt::Display) -> String {
    format!("the agent at {} cannot be used: {error}", socket.display())
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
