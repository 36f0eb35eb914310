//! TLS: handshakes, and certificates that change.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::{Running, read_all, settings, start_with};
use crate::server::{ServerSettings, TlsSettings};

/// Writes a new certificate, and gives it.
fn renew(certificate: &Path, key: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("made");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("written");
    std::fs::write(certificate, made.cert.pem()).expect("written");
    made.cert.der().clone()
}

pub struct TlsServer {
    pub server: Running,
    certificate: PathBuf,
    key: PathBuf,
    pub first: CertificateDer<'static>,
    _dir: tempfile::TempDir,
}

async fn start() -> TlsServer {
    start_with_tls(settings()).await
}

pub async fn start_with_tls(settings: ServerSettings) -> TlsServer {
    let dir = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let first = renew(&certificate, &key);
    let tls = Some(TlsSettings { certificate: certificate.clone(), key: key.clone() });
    let server = start_with(ServerSettings { tls, ..settings }).await;
    TlsServer { server, certificate, key, first, _dir: dir }
}

/// A connection that trusts one certificate only.
pub async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocols: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(address).await?).await
}

async fn hello(address: SocketAddr, trusted: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut stream = connect(address, trusted, &[b"http/1.1"], rustls::ALL_VERSIONS).await?;
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn both_versions_are_spoken_and_http_1_alone() {
    let tls = start().await;
    let answer = hello(tls.server.address, &tls.first).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("strict-transport-security: "), "{answer}");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let stream =
            connect(tls.server.address, &tls.first, &[b"h2", b"http/1.1"], &[version]).await.expect("shaken");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let refused = connect(tls.server.address, &tls.first, &[b"h2"], &[version]).await;
        assert!(refused.is_err(), "HTTP/2 was agreed to");
    }
}

#[tokio::test]
async fn a_new_certificate_is_taken_up_and_a_bad_one_is_not() {
    let tls = start().await;
    let address = tls.server.address;
    // A connection that is open stays.
    let mut open = connect(address, &tls.first, &[], rustls::ALL_VERSIONS).await.expect("shaken");
    std::fs::write(&tls.certificate, "nonsense").expect("written");
    sleep(Duration::from_millis(2_500)).await;
    hello(address, &tls.first).await.expect("the old one is in use");
    let second = renew(&tls.certificate, &tls.key);
    let began = Instant::now();
    while hello(address, &second).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(10), "the new one is not taken up");
        sleep(Duration::from_millis(100)).await;
    }
    assert!(hello(address, &tls.first).await.is_err(), "the old one is still in use");
    let asked = open.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let mut answer = String::new();
    // Unless it was closed for being idle meanwhile.
    if asked.is_ok() && open.read_to_string(&mut answer).await.is_ok() && !answer.is_empty() {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_handshake_that_is_none_or_never_ends_is_closed() {
    let tls = start().await;
    let began = Instant::now();
    let mut stream = tls.server.connect().await;
    stream.write_all(b"\x16\x03\x01").await.expect("sent");
    assert!(!read_all(&mut stream).await.contains("HTTP"));
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    let mut stream = tls.server.connect().await;
    stream.write_all(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
    assert!(!read_all(&mut stream).await.contains("HTTP"));
    hello(tls.server.address, &tls.first).await.expect("others are served");
}
