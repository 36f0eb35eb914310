//! A log's two secrets: the key that signs its checkpoints, and the secret that salts its commitments.
//!
//! They lie outside the log's folder, in a file of their own that only its owner may read, so that
//! the folder can be handed to someone without them. The signing key may be replaced ([`crate::rotation`]):
//!
//! ```text
//! sporlog-keys/1
//! PRIVATE+KEY+…                    the key that signs
//! <Base64>                         the secret of the salts, which stays
//! old <vkey> until <version>       an earlier key, and the last commit that it has signed; the newest of these first
//! cosign PRIVATE+KEY+…             the newest of those, while it signs notes, too
//! ```

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use signed_note::{Note, Signature, Signer, StandardSigner, StandardVerifier, Verifier, VerifierList};

use crate::delta::Sha;
use crate::error::{Error, Result};
use crate::local_files::{exposed, replace, write_new};
use sporlog_record::hex;

/// The 32 bytes that the transparency log has as its entry for a record.
pub type Commitment = [u8; 32];

/// The 16 bytes that keep a commitment from being guessed.
pub type Salt = [u8; 16];

/// The secrets of one log.
#[derive(Clone)]
pub struct LogKeys {
    signer: StandardSigner,
    /// The key before, while it signs notes, too.
    cosigner: Option<StandardSigner>,
    vkey: String,
    /// Earlier keys, each as `<vkey> until <version>`, the newest first.
    old: Vec<String>,
    origin: String,
    salter: Hmac<Sha256>,
}

impl std::fmt::Debug for LogKeys {
    /// Without the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogKeys").field("vkey", &self.vkey).finish_non_exhaustive()
    }
}

const HEADER: &str = "sporlog-keys/1";

impl LogKeys {
    /// Reads the keys of `log` from `dir`. A file that others may read is not used.
    pub fn load(dir: &Path, log: &str) -> Result<Self> {
        let place = key_file(dir, log);
        let fail =
            |reason: String| Error::Keys { log: log.into(), place: place.display().to_string(), reason };
        let mut text = String::new();
        let mut file = File::open(&place).map_err(|e| fail(e.to_string()))?;
        if let Some(reason) = file.metadata().ok().as_ref().and_then(exposed) {
            return Err(Error::ExposedKey { file: place.display().to_string(), reason });
        }
        file.read_to_string(&mut text).map_err(|e| fail(e.to_string()))?;
        let mut lines = text.lines();
        let (header, signing, secret) = (lines.next(), lines.next(), lines.next());
        let (Some(HEADER), Some(skey), Some(secret)) = (header, signing, secret) else {
            return Err(fail(format!("it is no key file: three lines are expected, the first '{HEADER}'")));
        };
        let secret = BASE64_STANDARD.decode(secret).map_err(|e| fail(format!("line 3: {e}")))?;
        let mut keys = Self::new(skey, &secret).map_err(fail)?;
        for line in lines {
            match line.split_once(' ') {
                Some(("old", key)) if PublicKey::parse(key).is_ok() => keys.old.push(key.to_owned()),
                Some(("cosign", skey)) => {
                    let signer = StandardSigner::new(skey).map_err(|e| fail(e.to_string()))?;
                    keys.cosigner = Some(signer);
                }
                _ => return Err(fail("a line after the third is neither `old …` nor `cosign …`".into())),
            }
        }
        Ok(keys)
    }

    /// Replaces the signing key of `log`, which has signed the commits up to `version` and goes on signing notes. Whoever
    /// has the keys loaded must not commit any more.
    pub(crate) fn rotate(dir: &Path, log: &str, version: u64) -> Result<Self> {
        let before = Self::load(dir, log)?;
        let skey = new_signing_key(before.origin()).map_err(|reason| keys_error(dir, log, reason))?;
        let text = Self::file(dir, log)?;
        let mut lines = text.lines().filter(|line| !line.starts_with("cosign "));
        let (header, old_skey, secret) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        let older: String = lines.map(|line| format!("{line}\n")).collect();
        let old = format!("old {} until {version}\n", before.vkey);
        let text = format!("{header}\n{skey}\n{secret}\n{old}{older}cosign {old_skey}\n");
        Self::replace(dir, log, &text)
    }

    /// Has the key before the newest one sign nothing any more, and forgets it.
    pub(crate) fn retire(dir: &Path, log: &str) -> Result<Self> {
        let text = Self::file(dir, log)?;
        let kept = text.lines().filter(|line| !line.starts_with("cosign ")).map(|line| format!("{line}\n"));
        Self::replace(dir, log, &kept.collect::<String>())
    }

    fn file(dir: &Path, log: &str) -> Result<String> {
        std::fs::read_to_string(key_file(dir, log)).map_err(|e| keys_error(dir, log, e.to_string()))
    }

    fn replace(dir: &Path, log: &str, text: &str) -> Result<Self> {
        let place = key_file(dir, log);
        let replaced = replace(&place.with_extension("tmp"), &place, text.as_bytes(), 0o600);
        replaced.map_err(|e| keys_error(dir, log, e.to_string()))?;
        Self::load(dir, log)
    }

    /// Makes new keys for `log` and writes them to `dir`, mode 0600. `origin` is the log's name to
    /// the world: the first line of its checkpoints (C2SP tlog-checkpoint) and the key's name.
    pub fn generate(dir: &Path, log: &str, origin: &str) -> Result<Self> {
        let place = key_file(dir, log);
        let fail =
            |reason: String| Error::Keys { log: log.into(), place: place.display().to_string(), reason };
        if !signed_note::is_key_name_valid(origin) {
            return Err(fail(format!(
                "the origin '{origin}' must not be empty nor have spaces or '+' in it"
            )));
        }
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|e| fail(e.to_string()))?;
        let skey = new_signing_key(origin).map_err(fail)?;
        let text = format!("{HEADER}\n{skey}\n{}\n", BASE64_STANDARD.encode(secret));
        let what = || format!("making the keys of the log '{log}', {}", place.display());
        // Never over a file that is there: losing a key loses the log.
        write_new(&place, text.as_bytes()).map_err(|source| Error::Io { what: what(), source })?;
        Self::new(&skey, &secret).map_err(fail)
    }

    fn new(skey: &str, secret: &[u8]) -> std::result::Result<Self, String> {
        let signer = StandardSigner::new(skey).map_err(|e| e.to_string())?;
        if secret.len() < 16 {
            return Err("the secret is too short".into());
        }
        let mut parts = skey.splitn(5, '+').skip(4);
        let private = parts.next().and_then(|p| BASE64_STANDARD.decode(p).ok()).unwrap_or_default();
        let seed =
            private.get(1..).and_then(|s| <[u8; 32]>::try_from(s).ok()).ok_or("malformed signing key")?;
        let origin = signer.name().to_owned();
        let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
        let vkey = signed_note::new_ed25519_verifier_key(&origin, &public);
        let salter = Hmac::new_from_slice(secret).map_err(|e| e.to_string())?;
        Ok(LogKeys { signer, cosigner: None, vkey, old: Vec::new(), origin, salter })
    }

    /// The log's name to the world, the first line of its checkpoints.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The public key in the form of C2SP signed-note.
    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// The public key, and behind it the earlier ones: what [`PublicKey::parse`] takes.
    pub(crate) fn vkeys(&self) -> String {
        [&self.vkey].into_iter().chain(&self.old).map(|line| format!("{line}\n")).collect()
    }

    /// Whether the key before the newest one signs notes, too.
    pub(crate) fn is_cosigned(&self) -> bool {
        self.cosigner.is_some()
    }

    /// The first 16 bytes of HMAC-SHA256(secret, id as 8 bytes big-endian).
    pub fn salt(&self, id: u64) -> Salt {
        let mut mac = self.salter.clone();
        mac.update(&id.to_be_bytes());
        let mut salt = [0; 16];
        salt.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        salt
    }

    /// `SHA-256(salt ‖ entry)`.
    pub fn commit(&self, id: u64, entry: &[u8]) -> Commitment {
        commitment(&self.salt(id), entry)
    }

    /// The Ed25519 signature for the commit of `version`, after which the chain is `chain`.
    pub(crate) fn sign_commit(&self, version: u64, chain: &Sha) -> Result<Vec<u8>> {
        self.sign_text(&signed_text(&self.origin, version, chain))
    }

    /// The same for the `frames`th frame after that commit ([`crate::journal`]).
    pub(crate) fn sign_frame(&self, version: u64, frames: u64, chain: &Sha) -> Result<Vec<u8>> {
        self.sign_text(&signed_frame(&self.origin, version, frames, chain))
    }

    fn sign_text(&self, text: &str) -> Result<Vec<u8>> {
        self.signer.sign(text.as_bytes()).map_err(|e| Error::Proof(format!("signing failed: {e}")))
    }

    /// The text with the log's signature, as C2SP signed-note has it, and with that of the key before, while that is to
    /// sign, too.
    pub fn sign(&self, text: &str) -> Result<Vec<u8>> {
        let fail = |e: &dyn std::fmt::Display| Error::Proof(format!("signing failed: {e}"));
        let mut note = Note::new(text.as_bytes(), &[]).map_err(|e| fail(&e))?;
        let signers = [&self.signer].into_iter().chain(&self.cosigner);
        let signers: Vec<&dyn Signer> = signers.map(|signer| signer as &dyn Signer).collect();
        note.add_sigs(&signers).map_err(|e| fail(&e))?;
        Ok(note.to_bytes())
    }
}

/// A log's public key, and those that it had before: parsed once for many signatures.
#[derive(Clone)]
pub(crate) struct PublicKey(Vec<PeriodKey>);

#[derive(Clone)]
struct PeriodKey {
    verifier: StandardVerifier,
    /// The last commit that it may have signed; none of the newest key.
    until: Option<u64>,
}

impl PublicKey {
    /// Parses keys in the form of C2SP signed-note, one a line, those that have been replaced with ` until <version>`.
    pub(crate) fn parse(vkeys: &str) -> Result<Self, String> {
        let parse = |line: &str| {
            let (vkey, until) = match line.split_once(" until ") {
                Some((vkey, until)) => (vkey, Some(until.parse().map_err(|e| format!("'{until}': {e}"))?)),
                None => (line, None),
            };
            let verifier = StandardVerifier::new(vkey);
            let verifier = verifier.map_err(|e| format!("the key '{vkey}' is no vkey: {e}"))?;
            Ok(PeriodKey { verifier, until })
        };
        vkeys.lines().map(parse).collect::<Result<_, _>>().map(PublicKey)
    }

    /// Whether `signature` is this key's for `version` of its log, after which the chain is `chain`.
    pub(crate) fn signed_commit(&self, version: u64, chain: &Sha, signature: &[u8]) -> bool {
        self.0.iter().any(|PeriodKey { verifier, until }| {
            until.is_none_or(|until| version <= until)
                && verifier.verify(signed_text(verifier.name(), version, chain).as_bytes(), signature)
        })
    }

    /// The same for the `frames`th frame after that commit. A key that was replaced has signed no frame after its last
    /// commit.
    pub(crate) fn signed_frame(&self, version: u64, frames: u64, chain: &Sha, signature: &[u8]) -> bool {
        self.0.iter().any(|PeriodKey { verifier, until }| {
            until.is_none_or(|until| version < until)
                && verifier
                    .verify(signed_frame(verifier.name(), version, frames, chain).as_bytes(), signature)
        })
    }
}

/// What is signed for a commit: its place in the chain of this log.
fn signed_text(origin: &str, version: u64, chain: &Sha) -> String {
    format!("sporlog-commit/1\n{origin}\n{version}\n{}\n", hex(chain))
}

/// The same for a frame of the journal.
fn signed_frame(origin: &str, version: u64, frames: u64, chain: &Sha) -> String {
    format!("sporlog-frame/1\n{origin}\n{version}\n{frames}\n{}\n", hex(chain))
}

const ALGORITHM_ED25519: u8 = 1;

/// Whether `vkey` is a public key in the form of C2SP signed-note; the reason if it is none.
pub fn check_vkey(vkey: &str) -> Result<(), String> {
    StandardVerifier::new(vkey).map(drop).map_err(|e| e.to_string())
}

/// `SHA-256(salt ‖ entry)`, for whoever holds both.
pub fn commitment(salt: &Salt, entry: &[u8]) -> Commitment {
    Sha256::new().chain_update(salt).chain_update(entry).finalize().into()
}

/// The text of a signed note, if `vkey` signed it: one of them, if there are several in it.
pub fn open_note(note: &[u8], vkey: &str) -> Result<String, String> {
    let PublicKey(keys) = PublicKey::parse(vkey)?;
    let note = Note::from_bytes(note).map_err(|e| format!("it is no signed note: {e}"))?;
    let verifiers = keys.into_iter().map(|key| Box::new(key.verifier) as Box<dyn Verifier>);
    let known = VerifierList::new(verifiers.collect());
    let (signed, _): (Vec<Signature>, _) =
        note.verify(&known).map_err(|e| format!("the signature does not hold: {e}"))?;
    if signed.is_empty() {
        return Err("it is not signed by the given key".into());
    }
    String::from_utf8(note.text().to_vec()).map_err(|e| e.to_string())
}

fn keys_error(dir: &Path, log: &str, reason: String) -> Error {
    Error::Keys { log: log.into(), place: key_file(dir, log).display().to_string(), reason }
}

/// A private key in the form of C2SP signed-note.
fn new_signing_key(origin: &str) -> Result<String, String> {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).map_err(|e| e.to_string())?;
    let signing = ed25519_dalek::SigningKey::from_bytes(&seed);
    let public = [&[ALGORITHM_ED25519][..], &signing.verifying_key().to_bytes()].concat();
    let private = [&[ALGORITHM_ED25519][..], &seed].concat();
    let id = signed_note::key_id(origin, &public);
    Ok(format!("PRIVATE+KEY+{origin}+{id:08x}+{}", BASE64_STANDARD.encode(private)))
}

fn key_file(dir: &Path, log: &str) -> PathBuf {
    dir.join(format!("{log}.key"))
}
