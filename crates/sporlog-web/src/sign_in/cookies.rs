//! Cookies that only this server's instances can read or write: encrypted and authenticated.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, header};
use cookie::time::Duration;
use cookie::{Cookie, CookieJar, SameSite};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::keys::SessionRegistry;

/// A cookie by its name and path.
#[derive(Debug, Clone, Copy)]
pub(super) struct CookieName {
    pub name: &'static str,
    pub path: &'static str,
}

/// The session.
pub(super) const SESSION: CookieName = CookieName { name: "sporlog-session", path: "/" };

/// Seals and opens cookies.
pub(super) struct Cookies {
    pub registry: Arc<dyn SessionRegistry>,
    /// Only for the demo, which is served on loopback without TLS, cookies are not `Secure`.
    pub secure: bool,
}

impl Cookies {
    /// What the request has under this name, if this server sealed it. An attribute such as a lifetime is no more
    /// than a wish to the browser, so whoever asks checks the times within.
    pub(super) fn open<T: DeserializeOwned>(&self, headers: &HeaderMap, cookie: CookieName) -> Option<T> {
        let (name, keys, jar) = (self.name(cookie), self.registry.keys(), CookieJar::new());
        let sent = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let sent = sent.flat_map(Cookie::split_parse).filter_map(Result::ok).filter(|one| one.name() == name);
        let mut opened = sent.flat_map(|one| {
            let (one, jar) = (one.into_owned(), &jar);
            keys.opening().filter_map(move |key| jar.private(key).decrypt(one.clone())).collect::<Vec<_>>()
        });
        opened.find_map(|one| serde_json::from_str(one.value()).ok())
    }

    /// `Set-Cookie` with this value. Without a lifetime the cookie goes when the browser is closed.
    pub(super) fn seal<T: Serialize>(
        &self,
        cookie: CookieName,
        value: &T,
        now: i64,
        lifetime: Option<i64>,
    ) -> Option<HeaderValue> {
        let keys = self.registry.keys();
        let mut made = self.bare(cookie, serde_json::to_string(value).ok()?);
        made.set_max_age(lifetime.map(Duration::seconds));
        let (name, mut jar) = (made.name().to_owned(), CookieJar::new());
        jar.private_mut(keys.sealing(now)?).add(made);
        HeaderValue::from_str(&jar.get(&name)?.to_string()).ok()
    }

    /// `Set-Cookie` that removes the cookie.
    pub(super) fn remove(&self, cookie: CookieName) -> Option<HeaderValue> {
        let mut gone = self.bare(cookie, String::new());
        gone.set_max_age(Duration::ZERO);
        HeaderValue::from_str(&gone.to_string()).ok()
    }

    fn bare(&self, cookie: CookieName, value: String) -> Cookie<'static> {
        Cookie::build((self.name(cookie), value))
            .path(cookie.path)
            .http_only(true)
            .secure(self.secure)
            .same_site(SameSite::Lax)
            .build()
    }

    /// The prefixes have browsers take the cookie only from this host, over TLS, and for this path.
    pub(super) fn name(&self, cookie: CookieName) -> String {
        let prefix = match (self.secure, cookie.path) {
            (false, _) => "",
            (true, "/") => "__Host-",
            (true, _) => "__Secure-",
        };
        format!("{prefix}{}", cookie.name)
    }
}
