//! Certificates, and new ones without a restart.
//!
//! A certificate that is renewed is taken up within ten seconds, or at once on SIGHUP. If the new
//! files cannot be used, or do not belong together yet, the old ones stay in use and the log says so.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ::metrics::{counter, gauge};
use rustls::InconsistentKeys;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::error::ServerError;
use super::metrics;
use super::settings::TlsSettings;

/// How often to look whether the files are others.
const LOOK: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// With less time left than this, in seconds, a certificate is warned about.
const SOON: i64 = 14 * 24 * 3600;

impl TlsSettings {
    /// Whether the files can be used, now: the certificate is one, and the key belongs to it.
    pub async fn check(&self) -> Result<(), ServerError> {
        read(self, &aws_lc_rs::default_provider()).await.map(|_| ())
    }
}

/// The certificate in use.
pub(super) struct Certificates {
    settings: TlsSettings,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    seen: Option<[Seen; 2]>,
}

/// What is seen of a file without reading it.
type Seen = (u64, u64, i64, i64);

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

impl Current {
    fn get(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Certificates {
    /// Reads the certificate and its key.
    pub(super) async fn load(settings: &TlsSettings) -> Result<Self, ServerError> {
        let seen = look(settings).await;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let certified = read(settings, &provider).await?;
        let current = Arc::new(Current(RwLock::new(certified)));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Current>::clone(&current));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Certificates { settings: settings.clone(), current, acceptor, seen })
    }

    /// What shakes hands with clients; it takes up new certificates by itself.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Takes up new certificates until `stop`.
    pub(super) async fn renew(mut self, stop: CancellationToken) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => false,
                // A signal that cannot be listened to, or no more, never comes.
                Some(()) = async { hangup.as_mut()?.recv().await } => true,
            };
            let seen = look(&self.settings).await;
            if !asked && seen == self.seen {
                continue;
            }
            self.seen = seen;
            let outcome = match read(&self.settings, self.acceptor.config().crypto_provider()).await {
                // On SIGHUP it may be the same.
                Ok(certified) if certified.cert == self.current.get().cert => continue,
                Ok(certified) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = certified;
                    tracing::info!("a new certificate is in use");
                    "ok"
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificate cannot be used; the old one stays");
                    "failed"
                }
            };
            counter!(metrics::TLS_RELOADS, "outcome" => outcome).increment(1);
        }
    }
}

async fn look(settings: &TlsSettings) -> Option<[Seen; 2]> {
    let seen = async |file: &Path| {
        let meta = tokio::fs::metadata(file).await.ok()?;
        Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
    };
    Some([seen(&settings.certificate).await?, seen(&settings.key).await?])
}

async fn read(settings: &TlsSettings, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, ServerError> {
    let failed = |file: &Path, reason: String| ServerError::Certificate { file: file.to_owned(), reason };
    let load = async |file: &Path| {
        let bytes: io::Result<Vec<u8>> = tokio::fs::read(file).await;
        bytes.map_err(|error| failed(file, error.to_string()))
    };
    let pem = load(&settings.certificate).await?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&settings.certificate, error.to_string()))?;
    let Some(own) = chain.first() else {
        return Err(failed(&settings.certificate, "there is no certificate in it".into()));
    };
    warn_of_end(not_after(own));
    let key = PrivateKeyDer::from_pem_slice(&load(&settings.key).await?)
        .map_err(|_| failed(&settings.key, "there is no private key in it that can be read".into()))?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let certificate = settings.certificate.display();
            failed(
                &settings.key,
                format!("this key does not belong to the first certificate in {certificate}"),
            )
        }
        error => error.into(),
    })?;
    Ok(Arc::new(certified))
}

fn warn_of_end(end: Option<i64>) {
    let Some(end) = end else { return };
    gauge!(metrics::TLS_EXPIRY).set(end as f64);
    let left = end - chrono::Utc::now().timestamp();
    if left <= 0 {
        tracing::error!("the certificate has run out");
    } else if left < SOON {
        tracing::warn!("the certificate runs out in {} days", left / (24 * 3600));
    }
}

/// When a certificate runs out, in seconds since 1970: X.509's `tbsCertificate.validity.notAfter`.
fn not_after(certificate: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // The serial number, the algorithm and the issuer come before.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (tag, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (form, time, _) = element(rest)?;
    let time = std::str::from_utf8(time).ok()?;
    // UTCTime has two digits of the year, up to 2049; GeneralizedTime has four.
    let time = match form {
        0x17 if time < "50" => format!("20{time}"),
        0x17 => format!("19{time}"),
        _ => time.to_owned(),
    };
    let time = chrono::NaiveDateTime::parse_from_str(&time, "%Y%m%d%H%M%SZ").ok()?;
    (tag == SEQUENCE).then(|| time.and_utc().timestamp())
}

/// A DER element: its tag, what is in it, and what comes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn certificate(end: (i32, u8, u8)) -> rcgen::CertifiedKey<rcgen::KeyPair> {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let cert = params.self_signed(&key).expect("a certificate");
        rcgen::CertifiedKey { cert, signing_key: key }
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        for (end, expected) in [((2031, 5, 17), "2031-05-17"), ((2075, 1, 2), "2075-01-02")] {
            let seconds = not_after(certificate(end).cert.der()).expect("an end");
            let time = chrono::DateTime::from_timestamp(seconds, 0).expect("a time");
            assert_eq!(time.date_naive().to_string(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_no_certificate_has_no_end(bytes: Vec<u8>, cut in 0usize..200, flip in 0usize..200) {
            let _ = not_after(&bytes);
            let mut der = certificate((2031, 5, 17)).cert.der().to_vec();
            der.truncate(cut);
            if let Some(byte) = der.get_mut(flip) { *byte ^= 0xff; }
            let _ = not_after(&der);
        }
    }

    #[tokio::test]
    async fn files_that_are_no_certificate_are_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (one, other) = (certificate((2031, 5, 17)), certificate((2031, 5, 17)));
        let good = file("good.pem", &one.cert.pem());
        let good_key = file("good.key", &one.signing_key.serialize_pem());
        let key_of_other = file("other.key", &other.signing_key.serialize_pem());
        let empty = file("empty.pem", "");
        let cut = file("cut.pem", one.cert.pem().get(..100).unwrap_or_default());
        let nowhere = dir.path().join("nowhere");
        let load = async |certificate: &Path, key: &Path| {
            let settings = TlsSettings { certificate: certificate.into(), key: key.into() };
            Certificates::load(&settings).await.map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(load(&good, &good_key).await, Ok(()));
        for (certificate, key, named) in [
            (&empty, &good_key, "empty.pem"),
            (&cut, &good_key, "cut.pem"),
            (&nowhere, &good_key, "nowhere"),
            (&good, &nowhere, "nowhere"),
            (&good, &empty, "empty.pem"),
            (&good, &good, "good.pem"),
            (&good, &key_of_other, "does not belong"),
        ] {
            let error = load(certificate, key).await.expect_err(named);
            assert!(error.contains(named), "{error}");
        }
    }
}
