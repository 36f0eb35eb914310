//! Where another server is: `sftp://user@host[:port]/folder`.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

use super::error::Error;

/// The port of SSH.
const PORT: u16 = 22;

/// A folder of another server, and the user to sign in as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The user to sign in as.
    pub user: String,
    /// The server's name, in lower case, or its address without brackets.
    pub host: String,
    /// The server's port.
    pub port: u16,
    /// The folder: from the root, or from the folder that signing in leads to.
    pub folder: String,
}

impl Address {
    /// The path of `name` in the folder.
    pub fn path(&self, name: &str) -> String {
        join(&self.folder, name)
    }

    /// The address of a file of this server, as it stands in a journal.
    pub fn of(&self, path: &str) -> String {
        let Address { user, port, .. } = self;
        let tilde = if path.starts_with('/') { "" } else { "/~/" };
        format!("sftp://{user}@{}:{port}{tilde}{path}", self.bracketed())
    }

    /// The server, for people.
    pub fn server(&self) -> String {
        if self.port == PORT { self.bracketed() } else { format!("{}:{}", self.bracketed(), self.port) }
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

/// The path of `name` in `folder`.
pub(super) fn join(folder: &str, name: &str) -> String {
    match folder {
        "" | "." => name.to_owned(),
        folder if folder.ends_with('/') => format!("{folder}{name}"),
        folder => format!("{folder}/{name}"),
    }
}

/// The path `relative` seen from `folder`, where `..` leads to the folder above, and an absolute path
/// stands for itself.
pub(super) fn seen_from(folder: &str, relative: &str) -> String {
    if relative.starts_with('/') {
        return relative.to_owned();
    }
    let rooted = folder.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(relative.split('/')).filter(|part| !part.is_empty() && *part != ".") {
        match (part, parts.last()) {
            ("..", Some(last)) if *last != ".." => drop(parts.pop()),
            // There is nothing above the root.
            ("..", None) if rooted => {}
            _ => parts.push(part),
        }
    }
    let path = parts.join("/");
    match (rooted, path.is_empty()) {
        (true, _) => format!("/{path}"),
        (false, true) => ".".to_owned(),
        (false, false) => path,
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.of(&self.folder))
    }
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Settings(format!("'{}': {why}", without_password(text)));
        let url = Url::parse(text).map_err(|e| wrong(&format!("{e}; expected sftp://user@host/folder")))?;
        if url.scheme() != "sftp" {
            return Err(wrong("expected an address that begins with sftp://"));
        }
        if url.password().is_some() {
            return Err(wrong("a password does not belong in an address; sign in with a key (--identity)"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("write ? as %3F and # as %23"));
        }
        let host = match url.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(host) => decode(&host.to_string()).ok_or_else(|| wrong("the host is not text"))?,
            None => return Err(wrong("it names no host")),
        };
        let plain = |c: char| !c.is_control() && !c.is_whitespace() && !",*?!|[]".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            return Err(wrong("it names no proper host"));
        }
        let user = decode(url.username()).ok_or_else(|| wrong("the user is not text"))?;
        if user.is_empty() {
            return Err(wrong("it does not say who to sign in as: sftp://user@host/folder"));
        }
        let path = decode(url.path()).ok_or_else(|| wrong("the folder is not text"))?;
        if user.chars().chain(path.chars()).any(char::is_control) {
            return Err(wrong("there are control characters in it"));
        }
        let port = url.port().unwrap_or(PORT);
        if port == 0 {
            return Err(wrong("there is no port 0"));
        }
        Ok(Address { user, host: host.to_lowercase(), port, folder: folder(&path) })
    }
}

/// An address's path as SFTP has it: `/~/` is the folder that signing in leads to.
fn folder(path: &str) -> String {
    let path = match path {
        "/~" => "/~/",
        path => path,
    };
    let folder = match path.strip_prefix("/~/") {
        Some("") => ".",
        Some(relative) => relative,
        None if path.is_empty() => "/",
        None => path,
    };
    match folder.trim_end_matches('/') {
        "" => "/".to_owned(),
        folder => folder.to_owned(),
    }
}

/// `%20` and the like, undone; `None` if it is not text then.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let code = (*first == b'%').then(|| behind.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { behind.get(2..).unwrap_or_default() } else { behind };
    }
    String::from_utf8(bytes).ok()
}

/// What was typed, fit for a message.
fn without_password(text: &str) -> String {
    let masked = text.split_once("://").and_then(|(scheme, rest)| {
        let (user, host) = rest.split_once('@')?;
        let (user, _) = user.split_once(':')?;
        Some(format!("{scheme}://{user}:…@{host}"))
    });
    masked.unwrap_or_else(|| text.to_owned()).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        text.parse().expect(text)
    }

    #[test]
    fn an_address_is_read() {
        let address = parse("sftp://rev-64942212@SFTP.example.dk/ud/2026-11");
        assert_eq!(address.user, "rev-64942212");
        assert_eq!((address.host.as_str(), address.port), ("sftp.example.dk", 22));
        assert_eq!(address.path("a.csv"), "/ud/2026-11/a.csv");
        assert_eq!(address.server(), "sftp.example.dk");
        assert_eq!(address.to_string(), "sftp://rev-64942212@sftp.example.dk:22/ud/2026-11");
        let address = parse("sftp://u@[::1]:2222/~/ind%20bakke/");
        assert_eq!((address.host.as_str(), address.port), ("::1", 2222));
        assert_eq!(address.folder, "ind bakke");
        assert_eq!(address.of("ind bakke/a"), "sftp://u@[::1]:2222/~/ind bakke/a");
        assert_eq!(address.server(), "[::1]:2222");
        for (text, folder) in
            [("sftp://u@h", "/"), ("sftp://u@h/", "/"), ("sftp://u@h/~", "."), ("sftp://u@h//a//", "//a")]
        {
            assert_eq!(parse(text).folder, folder, "{text}");
        }
        assert_eq!(parse("sftp://u@h/~").path("a"), "a");
    }

    #[test]
    fn an_address_that_makes_no_sense_is_refused_without_its_password() {
        for bad in [
            "",
            "host:/folder",
            "ssh://u@h/",
            "sftp://h/folder",
            "sftp://u@/folder",
            "sftp://u@h:0/",
            "sftp://u@h:99999/",
            "sftp://u@h,i/x",
            "sftp://u@h/a?b",
            "sftp://u@h/a%0Ab",
            "sftp://u@h/%FF",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        let error = "sftp://u:hemmelig@h/".parse::<Address>().expect_err("refused").to_string();
        assert!(error.contains("--identity") && !error.contains("hemmelig"), "{error}");
    }

    #[test]
    fn a_path_is_seen_from_a_folder() {
        for (folder, relative, path) in [
            ("/ind", "../kvittering", "/kvittering"),
            ("/a/ind", "../kvittering", "/a/kvittering"),
            ("/", "../kvittering", "/kvittering"),
            ("ind", "../kvittering", "kvittering"),
            (".", "../kvittering", "../kvittering"),
            ("/a", "/b", "/b"),
            ("ind", "..", "."),
        ] {
            assert_eq!(seen_from(folder, relative), path, "{folder} {relative}");
        }
    }
}
