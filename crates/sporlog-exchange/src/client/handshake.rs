//! The first words with another server: it has to show a key that we know.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use russh::client::{Config, Handle, Handler};
use russh::keys::{Algorithm, PublicKeyOrCertificate};
use russh::{Preferred, cipher};

use super::address::Address;
use super::connection::Access;
use super::error::{Error, Result};
use super::known_hosts::HostKeys;

/// A server that says nothing for so long is asked whether it is there, three times.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Bytes that may be on their way to us before we take them.
const WINDOW: u32 = 4 << 20;
/// The ciphers: first the one that processors help with, and that needs no checksum besides.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
/// Families of host keys that a server may have one of each.
const MOST_HOST_KEYS: usize = 5;

/// Judges the server's key.
pub(super) struct Checker {
    address: Address,
    keys: HostKeys,
}

/// What comes of a key exchange.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    /// The key is not accepted; a server with several may have another one.
    #[error("{objection}")]
    HostKey { objection: String, kind: Algorithm },
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
            Some(objection) => Err(Failed::HostKey { objection, kind: key.algorithm() }),
        }
    }
}

/// Connects, until the server shows a key that we know: one with several keys shows that of the kind
/// which we ask for first.
pub(super) async fn connect(access: &Access) -> Result<Handle<Checker>> {
    let address = &access.address;
    let known = access.host_keys.kinds(address)?;
    let mut refused: Vec<(String, Algorithm)> = Vec::new();
    loop {
        let kinds = kinds(&known, &refused);
        if kinds.is_empty() || refused.len() >= MOST_HOST_KEYS {
            return Err(
                first(refused).unwrap_or_else(|| Error::Denied("no kind of host key is left".to_owned()))
            );
        }
        let config = Config {
            window_size: WINDOW,
            keepalive_interval: Some(KEEPALIVE),
            nodelay: true,
            preferred: Preferred {
                key: Cow::Owned(kinds),
                cipher: Cow::Borrowed(CIPHERS),
                ..Preferred::DEFAULT
            },
            ..Config::default()
        };
        let checker = Checker { address: address.clone(), keys: access.host_keys.clone() };
        let target = (address.host.as_str(), address.port);
        match russh::client::connect(Arc::new(config), target, checker).await {
            Ok(session) => return Ok(session),
            Err(Failed::HostKey { objection, kind }) => {
                // What a file says of a server is final; of fingerprints, one may be of another key.
                let final_word = matches!(access.host_keys, HostKeys::Files(_));
                refused.push((objection, kind));
                if final_word {
                    return Err(first(refused).unwrap_or(Error::Stopped));
                }
            }
            Err(Failed::Ours(error)) => return Err(error),
            Err(Failed::Ssh(russh::Error::NoCommonAlgo { .. })) if !refused.is_empty() => {
                return Err(first(refused).unwrap_or(Error::Stopped));
            }
            Err(Failed::Ssh(error @ russh::Error::NoCommonAlgo { .. })) => {
                return Err(Error::Denied(format!("{}: {error}", address.server())));
            }
            Err(Failed::Ssh(error)) => return Err(Error::Lost(format!("{}: {error}", address.server()))),
        }
    }
}

fn first(refused: Vec<(String, Algorithm)>) -> Option<Error> {
    refused.into_iter().next().map(|(objection, _)| Error::HostKey(objection))
}

/// The kinds of host keys to ask for: those that are known first, none that was refused, and no
/// signatures with SHA-1.
fn kinds(known: &[Algorithm], refused: &[(String, Algorithm)]) -> Vec<Algorithm> {
    let family = |kind: &Algorithm| match kind {
        Algorithm::Rsa { .. } => Algorithm::Rsa { hash: None },
        other => other.clone(),
    };
    let refused: Vec<Algorithm> = refused.iter().map(|(_, kind)| kind.clone()).collect();
    let is_in = |kind: &Algorithm, list: &[Algorithm]| list.iter().any(|other| family(other) == family(kind));
    let usual = Preferred::DEFAULT.key.iter().filter(|kind| **kind != Algorithm::Rsa { hash: None });
    let left = usual.filter(|kind| !is_in(kind, &refused));
    let (first, then): (Vec<_>, Vec<_>) = left.cloned().partition(|kind| is_in(kind, known));
    first.into_iter().chain(then).collect()
}

#[cfg(test)]
mod tests {
    use russh::keys::{EcdsaCurve, HashAlg};

    use super::*;

    #[test]
    fn the_kinds_of_keys_that_are_known_are_asked_for_first() {
        let rsa = |hash| Algorithm::Rsa { hash };
        let asked = kinds(&[rsa(None)], &[]);
        assert_eq!(asked.first(), Some(&rsa(Some(HashAlg::Sha512))));
        assert!(asked.contains(&Algorithm::Ed25519) && !asked.contains(&rsa(None)));
        let asked = kinds(&[], &[(String::new(), Algorithm::Ed25519)]);
        assert_eq!(asked.first(), Some(&Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }));
        let asked = kinds(&[], &[(String::new(), rsa(None))]);
        assert!(!asked.contains(&rsa(Some(HashAlg::Sha256))));
    }
}
