//! Requests to the upstream, and what may be wrong with an answer.
//!
//! An answer is taken whole or not at all. No error quotes an answer: personal numbers may be in it.

use std::io::{Cursor, Read};
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Client, Response, StatusCode, Url, header};
use serde::Deserialize;

use super::failure::Failure;
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::spool::Spool;

/// Longer answers wait on the disk: a page may hold a hundred records of 20 MB.
const IN_MEMORY: usize = 16 << 20;
/// The answer to `head` is no longer than this.
const HEAD_BYTES: usize = 64 << 10;
/// The longest pause that an upstream can ask for.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

/// The upstream of one pull.
pub(super) struct Upstream {
    settings: Settings,
    client: Client,
    base: Url,
}

/// The bytes of an answer.
pub(super) type Body = Box<dyn Read + Send>;

impl Upstream {
    pub(super) fn new(settings: &Settings) -> Result<Self> {
        Ok(Upstream { client: settings.client()?, base: settings.base()?, settings: settings.clone() })
    }

    /// The newest id; 0 if there is no record.
    pub(super) async fn head(&self) -> Result<i64> {
        #[derive(Deserialize)]
        struct Head {
            head: i64,
        }
        let path = format!("{}/head", self.settings.path());
        let mut response = self.get(&path).await?;
        let mut body = Vec::new();
        while let Some(chunk) = chunk(&path, &mut response).await? {
            body.extend_from_slice(&chunk);
            if body.len() > HEAD_BYTES {
                break;
            }
        }
        let head = serde_json::from_slice(&body).map(|Head { head }| head);
        let expected = "{\"head\": ID}";
        Ok(head.map_err(|_| Failure::Format { at: path, expected, found: found(&body).to_owned() })?)
    }

    /// The page of records with ids above `offset`; it is sure to begin as a JSON array does.
    pub(super) async fn page(&self, offset: i64) -> Result<Body> {
        let path = format!("{}/read?offset={offset}", self.settings.path());
        let mut response = self.get(&path).await?;
        let (mut body, mut spool) = (Vec::new(), None);
        while let Some(chunk) = chunk(&path, &mut response).await? {
            let io = |source| Error::Read { name: "the file for a long page".into(), source };
            match &mut spool {
                None if body.len() + chunk.len() <= IN_MEMORY => body.extend_from_slice(&chunk),
                None => {
                    let spool = spool.insert(Spool::begin(None).await.map_err(io)?);
                    spool.write(&body).await.map_err(io)?;
                    spool.write(&chunk).await.map_err(io)?;
                    body.truncate(HEAD_BYTES);
                }
                Some(spool) => spool.write(&chunk).await.map_err(io)?,
            }
        }
        if !body.trim_ascii_start().starts_with(b"[") {
            let expected = "a JSON array of records";
            return Err(Failure::Format { at: path, expected, found: found(&body).to_owned() }.into());
        }
        match spool {
            None => Ok(Box::new(Cursor::new(body))),
            Some(spool) => {
                let io = |source| Error::Read { name: "the file for a long page".into(), source };
                Ok(spool.finish().await.map_err(io)?.source("page")?.unpack()?.0)
            }
        }
    }

    async fn get(&self, path: &str) -> Result<Response> {
        let settings = self.settings.clone();
        let key = crate::blocking::blocking(move || Ok::<_, Error>(settings.key())).await?;
        let key = key.map_err(Failure::NoKey)?;
        let transport = |e| Failure::Transport { at: path.to_owned(), reason: reason(e) };
        let request = self.client.get(format!("{}{path}", self.base)).header("ApiKey", key);
        let response = request.header(header::ACCEPT, "application/json").send().await.map_err(transport)?;
        let status = response.status();
        match status {
            StatusCode::OK => Ok(response),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Failure::Key { at: path.to_owned(), status }.into())
            }
            _ => {
                let given = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let retry_after = given.and_then(|given| retry_after(given, Utc::now()));
                Err(Failure::Status { at: path.to_owned(), status, retry_after }.into())
            }
        }
    }
}

async fn chunk(
    path: &str,
    response: &mut Response,
) -> Result<Option<impl AsRef<[u8]> + std::ops::Deref<Target = [u8]>>> {
    let transport = |e| Failure::Transport { at: path.to_owned(), reason: reason(e) };
    Ok(response.chunk().await.map_err(transport)?)
}

/// An error with its causes, and without the address, which is said already.
fn reason(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// What an answer looks like that is not what it should be, without quoting it.
fn found(body: &[u8]) -> &'static str {
    match body.trim_ascii_start() {
        [] => "the answer is empty",
        [b'<', ..] => "the answer is HTML",
        [b'{', ..] => "the answer is another JSON object",
        _ => "the answer is something else",
    }
}

/// The pause that a `Retry-After` asks for: seconds, or a time.
fn retry_after(given: &str, now: DateTime<Utc>) -> Option<Duration> {
    let pause = match given.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(given.trim()).ok()?.to_utc() - now).to_std().ok()?,
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_seconds_or_times() {
        let now = DateTime::from_timestamp(1_795_255_200, 0).expect("a time");
        let seconds = |given: &str| retry_after(given, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds("999999999"), Some(3_600));
        assert_eq!(seconds("Sat, 21 Nov 2026 10:00:30 GMT"), Some(30));
        assert_eq!(seconds("Sat, 21 Nov 2026 09:00:30 GMT"), None);
        assert_eq!(seconds("soon"), None);
    }
}
