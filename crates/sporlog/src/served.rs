//! A transparency log that is served over HTTP, to be checked from outside.

use std::io;
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use reqwest::{Client, StatusCode, Url};
use sporlog_ledger::{Error, TlogSource};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a file is asked for until the check is given up, and the first pause, which doubles.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(250);
/// No file of a transparency log is longer: a bundle of entries has 8,704 bytes, a checkpoint some lines.
const MOST_BYTES: usize = 64 << 10;

/// The transparency log at an address.
pub struct ServedLog {
    client: Client,
    base: Url,
}

/// Why a file could not be fetched.
struct Failure {
    reason: String,
    /// Whether it may succeed a moment later.
    passing: bool,
}

impl ServedLog {
    /// The log at `address`, such as `https://host/tlog/revision`.
    pub fn new(address: &str) -> Result<Self> {
        let base = Url::parse(&format!("{}/", address.trim_end_matches('/')));
        let Some(base) = base.ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
            bail!("--url: '{address}' is no address such as https://host/tlog/LOG");
        };
        let agent = concat!("sporlog/", env!("CARGO_PKG_VERSION"));
        let client = Client::builder().user_agent(agent).timeout(TIMEOUT).build()?;
        Ok(ServedLog { client, base })
    }

    async fn fetch(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let url = format!("{}{name}", self.base);
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.ask(&url).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if !failure.passing || attempt == TRIES => {
                    let tries = if attempt > 1 { format!(" ({attempt} tries)") } else { String::new() };
                    let source = io::Error::other(format!("{}{tries}", failure.reason));
                    return Err(Error::Io { what: url, source });
                }
                Err(failure) => tracing::info!(url, reason = failure.reason, "fetching it again"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        Ok(None)
    }

    async fn ask(&self, url: &str) -> Result<Option<Bytes>, Failure> {
        let transport = |error: reqwest::Error| {
            let error = error.without_url();
            let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
            let reason = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
            Failure { reason, passing: true }
        };
        let mut response = self.client.get(url).send().await.map_err(transport)?;
        let status = response.status();
        match status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let reason =
                    format!("the answer is {status}: this server shows the log to nobody without a key");
                return Err(Failure { reason, passing: false });
            }
            _ => {
                let later = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
                let passing = status.is_server_error() || later.contains(&status);
                return Err(Failure { reason: format!("the answer is {status}"), passing });
            }
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(transport)? {
            if body.len() + chunk.len() > MOST_BYTES {
                let reason =
                    format!("the answer is longer than {MOST_BYTES} bytes: it is no transparency log's");
                return Err(Failure { reason, passing: false });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(body.into()))
    }
}

impl TlogSource for ServedLog {
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        self.fetch(name).boxed()
    }
}
