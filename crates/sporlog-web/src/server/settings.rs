//! What may be set of the server, and its defaults: the section `[server]` of the configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::client::{ForwardedHeader, Network};

/// How the server listens, what it takes, and from whom.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSettings {
    /// The address and port that are listened on; port 0 is any that is free. Default 127.0.0.1:8080:
    /// this machine alone.
    pub listen: SocketAddr,
    /// Another address, on which `/metrics` is answered to anyone, in the clear. Default: none; then the
    /// metrics are read where everything is, with a key of the role `metrics` or `admin`.
    pub metrics_listen: Option<SocketAddr>,
    /// The certificate and its key; without them, HTTP is spoken in the clear.
    pub tls: Option<TlsSettings>,
    /// Proxies that are believed when they say for whom they ask, as addresses or networks (CIDR).
    /// Default: none.
    pub trusted_proxies: Vec<Network>,
    /// The header in which they say it.
    pub forwarded_header: ForwardedHeader,
    /// How much, how many and how slow.
    pub limits: Limits,
    /// How often one client may ask. Default: as often as it likes.
    pub rate: RateSettings,
}

impl Default for ServerSettings {
    fn default() -> Self {
        ServerSettings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            metrics_listen: None,
            tls: None,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::default(),
            limits: Limits::default(),
            rate: RateSettings::default(),
        }
    }
}

impl ServerSettings {
    /// Settings that there are no more, by their full names, and what a configuration that has one says instead.
    pub const REMOVED: [(&str, &str); 5] = [
        (
            "server.limits.streams_per_connection",
            "the server speaks HTTP/1.1, one request at a time on a connection",
        ),
        ("server.limits.header_bytes", "a request's line and headers may have 65,536 bytes"),
        ("server.limits.handshake_seconds", "a TLS handshake may take 10 seconds"),
        (
            "server.limits.header_seconds",
            "a request's head has to be complete within server.limits.idle_seconds",
        ),
        (
            "server.limits.linger_seconds",
            "after SIGTERM the server finishes what is under way and closes; if a load balancer needs time to \
             notice, let whatever stops the server wait before it sends the signal",
        ),
    ];

    /// The server on [`metrics_listen`](Self::metrics_listen), if there is to be one.
    pub fn of_metrics(&self) -> Option<Self> {
        let listen = self.metrics_listen?;
        // Prometheus takes one connection, or a few.
        let limits = Limits { connections: 64, ..self.limits.clone() };
        Some(ServerSettings { listen, limits, ..ServerSettings::default() })
    }

    /// Takes paths that are relative as relative to `folder`, in which the configuration lies.
    pub fn relative_to(&mut self, folder: &Path) {
        if let Some(tls) = &mut self.tls {
            tls.certificate = folder.join(&tls.certificate);
            tls.key = folder.join(&tls.key);
        }
    }
}

/// Where the certificate lies. Both files are read again when either changes, or on SIGHUP.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate and those that vouch for it, PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key, PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// How much the server takes, of how many at once, and how long it waits for it. Sizes are in
/// bytes, times in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections at once; more wait until one is done. Default 20,000, and never more than the
    /// process may have files open.
    #[serde(deserialize_with = "positive")]
    pub connections: usize,
    /// Requests under way at once, over all connections; more are told to come back (503).
    /// Default 1,024.
    #[serde(deserialize_with = "positive")]
    pub requests: usize,
    /// A request's body, in bytes, both as sent and unpacked. Default 64 MiB, as large as a record may
    /// be by default. Routes may have a limit of their own.
    #[serde(deserialize_with = "positive")]
    pub body_bytes: u64,
    /// Until a request's head is complete, from the beginning of the connection or the end of the answer
    /// before. Default 75.
    #[serde(deserialize_with = "positive")]
    pub idle_seconds: u32,
    /// How long to wait for the next piece of a body, or for the client to take something of an answer.
    /// Default 30.
    #[serde(deserialize_with = "positive")]
    pub stall_seconds: u32,
    /// How long an answer may take to begin, from the last byte of the request on. Default 30.
    #[serde(deserialize_with = "positive")]
    pub answer_seconds: u32,
    /// How long requests under way are waited for when the server stops. Default 30.
    #[serde(deserialize_with = "positive")]
    pub shutdown_seconds: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 20_000,
            requests: 1_024,
            body_bytes: 64 << 20,
            idle_seconds: 75,
            stall_seconds: 30,
            answer_seconds: 30,
            shutdown_seconds: 30,
        }
    }
}

/// A number that is not nought: with nothing allowed, nothing works.
fn positive<'de, D: Deserializer<'de>, T>(from: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default + PartialEq,
{
    let number = T::deserialize(from)?;
    if number == T::default() { Err(D::Error::custom("it must be 1 or more")) } else { Ok(number) }
}

/// A time of the settings.
pub(super) fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// How often a client may ask; whoever asks more often is told when to come back (429).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateSettings {
    /// Of one address (IPv6: one network of 64 bits), whoever asks from there.
    pub per_address: Option<Rate>,
    /// With one key or token, wherever it is used.
    pub per_client: Option<Rate>,
}

/// A number of requests in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once, after a quiet time. Default: those of one second.
    #[serde(default)]
    pub burst: Option<NonZeroU32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<ServerSettings, String> {
        serde_json::from_str(json).map_err(|e| e.to_string())
    }

    #[test]
    fn everything_has_a_default() {
        assert_eq!(read("{}"), Ok(ServerSettings::default()));
        assert_eq!(read(r#"{"limits":{},"rate":{}}"#), Ok(ServerSettings::default()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (json, named) in [
            (r#"{"listn":"127.0.0.1:80"}"#, "listn"),
            (r#"{"listen":"localhost"}"#, "socket address"),
            (r#"{"limits":{"connections":0}}"#, "1 or more"),
            (r#"{"limits":{"idle_seconds":-1}}"#, "-1"),
            (r#"{"limits":{"body":1}}"#, "body_bytes"),
            (r#"{"tls":{"certificate":"a"}}"#, "key"),
            (r#"{"trusted_proxies":["10.0.0.0/40"]}"#, "10.0.0.0/40"),
            (r#"{"forwarded_header":"via"}"#, "x-forwarded-for"),
            (r#"{"rate":{"per_client":{"per_second":0}}}"#, "nonzero"),
            (r#"{"rate":{"per_client":{"burst":5}}}"#, "per_second"),
        ] {
            let error = read(json).expect_err(json);
            assert!(error.contains(named), "{json}: {error}");
        }
    }

    #[test]
    fn paths_are_relative_to_their_folder() {
        let mut settings = read(r#"{"tls":{"certificate":"tls.crt","key":"/run/tls.key"}}"#).expect("read");
        settings.relative_to(Path::new("/etc/sporlog"));
        let tls = settings.tls.expect("set");
        assert_eq!(tls.certificate, Path::new("/etc/sporlog/tls.crt"));
        assert_eq!(tls.key, Path::new("/run/tls.key"));
    }
}
