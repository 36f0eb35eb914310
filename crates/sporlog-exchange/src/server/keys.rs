//! The server's host keys, and the public keys that accounts sign in with.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PublicKey};

use crate::settings::{Account, Settings};
use sporlog_intake::{Error, Result};
use sporlog_ledger::local_files::{make_folder, replace};

/// The file name of the host key that is made if none is configured.
const HOST_KEY: &str = "ssh_host_ed25519_key";
/// The mode bits that a private key's file must not have.
const OTHERS: u32 = 0o077;
/// The least bits of an RSA key.
const RSA_BITS: usize = 2048;

/// The server's keys: the configured ones, or one that is made at the first start.
pub(super) fn host_keys(settings: &Settings, root: &Path) -> Result<Vec<PrivateKey>> {
    if settings.host_keys.is_empty() {
        let path = root.join(HOST_KEY);
        if !path.exists() {
            make(root, &path).map_err(|source| Error::Read { name: path.display().to_string(), source })?;
        }
        return Ok(vec![load(&path)?]);
    }
    settings.host_keys.iter().map(|path| load(path)).collect()
}

fn load(path: &Path) -> Result<PrivateKey> {
    let read_error = |source| Error::Read { name: path.display().to_string(), source };
    let mode = fs::metadata(path).map_err(read_error)?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(Error::Settings(format!(
            "sftp.host_keys: {}: others may read this private key (mode {:03o}): run 'chmod 600' on it, or, \
             if somebody may have seen it, remove it and let a new one be made",
            path.display(),
            mode & 0o777
        )));
    }
    let text = fs::read_to_string(path).map_err(read_error)?;
    let key = russh::keys::decode_secret_key(&text, None);
    key.map_err(|error| Error::Settings(format!("sftp.host_keys: {}: {error}", path.display())))
}

/// Makes a key. Its file is written under another name and renamed, so that a crash leaves no partial key.
fn make(root: &Path, path: &Path) -> io::Result<()> {
    let failed = |error: russh::keys::ssh_key::Error| io::Error::other(error.to_string());
    make_folder(root)?;
    let mut key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(failed)?;
    key.set_comment("sporlog");
    // Another process may make a key at the same time.
    let beside = || PathBuf::from(format!("{}.new-{}", path.display(), uuid::Uuid::new_v4()));
    let public = format!("{}\n", key.public_key().to_openssh().map_err(failed)?);
    replace(&beside(), &path.with_extension("pub"), public.as_bytes(), 0o644)?;
    replace(&beside(), path, key.to_openssh(LineEnding::LF).map_err(failed)?.as_bytes(), 0o600)
}

/// The fingerprint of a key, as `SHA256:…`.
pub(super) fn fingerprint(key: &PublicKey) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

/// The public keys of an account.
pub(super) fn account_keys(account: &Account) -> Result<Vec<KeyData>> {
    let fail = |at: usize, why: String| {
        Error::Settings(format!("sftp.account: '{}': key {at} cannot be used: {why}", account.name))
    };
    (1..).zip(&account.keys).map(|(at, line)| public_key(line).map_err(|why| fail(at, why))).collect()
}

/// A public key that an account may sign in with, from a line of OpenSSH's `authorized_keys`; why not, if it cannot.
pub fn public_key(line: &str) -> Result<KeyData, String> {
    if line.contains("PRIVATE KEY") {
        return Err("this is a private key: it belongs to its owner alone".to_owned());
    }
    let key = PublicKey::from_openssh(line.trim()).map_err(|error| {
        format!("{error}; a public key is written as 'ssh-ed25519 AAAA… name', without options before it")
    })?;
    match key.key_data() {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) => Ok(key.key_data().clone()),
        KeyData::Rsa(rsa) if usize::try_from(rsa.key_size()).is_ok_and(|bits| bits >= RSA_BITS) => {
            Ok(key.key_data().clone())
        }
        KeyData::Rsa(_) => Err(format!("an RSA key has {RSA_BITS} bits at least")),
        _ => Err("keys of this kind are not supported; ed25519, ecdsa and rsa are".to_owned()),
    }
}

/// Whether a signature algorithm is accepted: all but those with SHA-1.
pub(super) fn is_safe(algorithm: &Algorithm) -> bool {
    match algorithm {
        Algorithm::Rsa { hash } => hash.is_some(),
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIHUMwTdD0/pBNvEM2plj+GcSkLPEmS7zeg3AghLQf1j me";

    fn account(keys: &[&str]) -> Result<Account> {
        let json = serde_json::json!({ "name": "a", "role": "supplier", "keys": keys });
        serde_json::from_value(json).map_err(|error| Error::Internal(error.to_string()))
    }

    #[test]
    fn a_host_key_is_made_once_and_kept() -> Result<()> {
        let root = tempfile::tempdir().map_err(|e| Error::Internal(e.to_string()))?;
        let settings = Settings::default();
        let fingerprints = || {
            let keys = host_keys(&settings, root.path())?;
            Ok::<_, Error>(keys.iter().map(|key| fingerprint(key.public_key())).collect::<Vec<_>>())
        };
        let first = fingerprints()?;
        assert_eq!(first, fingerprints()?);
        assert!(first[0].starts_with("SHA256:"), "{first:?}");
        let path = root.path().join(HOST_KEY);
        assert_eq!(fs::metadata(&path).map(|m| m.permissions().mode() & 0o777).ok(), Some(0o600));
        let public = fs::read_to_string(path.with_extension("pub")).unwrap_or_default();
        assert!(public.starts_with("ssh-ed25519 AAAA"), "{public}");
        let names = fs::read_dir(root.path()).map(Iterator::count);
        assert_eq!(names.ok(), Some(2), "nothing is left beside them");
        Ok(())
    }

    #[test]
    fn a_host_key_that_others_may_read_is_refused() -> Result<()> {
        let root = tempfile::tempdir().map_err(|e| Error::Internal(e.to_string()))?;
        host_keys(&Settings::default(), root.path())?;
        let path = root.path().join(HOST_KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))
            .map_err(|e| Error::Internal(e.to_string()))?;
        let text =
            host_keys(&Settings::default(), root.path()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("640") && text.contains("chmod 600"), "{text}");
        Ok(())
    }

    #[test]
    fn a_bad_key_is_an_error_that_names_the_account() -> Result<()> {
        assert_eq!(account_keys(&account(&[KEY, KEY])?)?.len(), 2);
        let with_options = format!("command=\"x\" {KEY}");
        for bad in
            ["", "ssh-ed25519", "ssh-ed25519 AAAA", "# note", "ssh-dss AAAAB3NzaC1kc3M=", &with_options]
        {
            let text = account_keys(&account(&[KEY, bad])?).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(text.contains("'a': key 2"), "{bad}: {text}");
        }
        Ok(())
    }

    #[test]
    fn signatures_with_sha_1_are_not_accepted() {
        assert!(!is_safe(&Algorithm::Rsa { hash: None }));
        assert!(is_safe(&Algorithm::Rsa { hash: Some(HashAlg::Sha512) }));
        assert!(!is_safe(&Algorithm::Dsa));
    }
}
