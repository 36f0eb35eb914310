//! On which line of a TOML file a setting stands.
//!
//! The parser does not say, so the file is looked through for headers and names. Where that is not
//! enough (a line within a longer text looks like a setting), a line may be off; nothing else depends
//! on it.

use std::collections::HashMap;

/// The line, counted from 1, on which the setting stands, or else the section that it belongs to.
pub fn line_of(text: &str, path: &[&str]) -> Option<usize> {
    let mut section: Vec<String> = Vec::new();
    let mut arrays: HashMap<String, usize> = HashMap::new();
    let mut best: Option<(usize, usize)> = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let here = if let Some(name) = header(line, "[[", "]]") {
            let inner = indexed(&names(name), &arrays);
            let count = arrays.entry(inner.join(".")).and_modify(|count| *count += 1).or_default();
            section = [inner, vec![count.to_string()]].concat();
            section.clone()
        } else if let Some(name) = header(line, "[", "]") {
            section = indexed(&names(name), &arrays);
            section.clone()
        } else if let Some((name, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
            [section.clone(), names(name)].concat()
        } else {
            continue;
        };
        let fits = here.len() <= path.len() && here.iter().zip(path).all(|(a, b)| a == b);
        if fits && best.is_none_or(|(length, _)| here.len() > length) {
            best = Some((here.len(), at + 1));
        }
    }
    best.map(|(_, line)| line)
}

fn header<'a>(line: &'a str, open: &str, close: &str) -> Option<&'a str> {
    line.strip_prefix(open)?.split_once(close).map(|(name, _)| name)
}

/// The parts of a name, between dots and without quotes.
fn names(name: &str) -> Vec<String> {
    name.split('.').map(|part| part.trim().trim_matches(['"', '\'']).to_owned()).collect()
}

/// A section's path, with the number of each list's last element after the list's name.
fn indexed(names: &[String], arrays: &HashMap<String, usize>) -> Vec<String> {
    let mut path = Vec::new();
    for (at, name) in names.iter().enumerate() {
        path.push(name.clone());
        // A list's own name is followed by its number only for what is in it.
        if let Some(count) = arrays.get(&path.join(".")).filter(|_| at + 1 < names.len()) {
            path.push(count.to_string());
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found() {
        let text = "\
store = 'x'
# server.listen = 'no'
[server]
listen = '127.0.0.1:80'
tls = { certificate = 'a', key = 'b' }
[server.limits]
requests = 5 # = 6

[[access.issuer]]
issuer = 'a'
[[access.issuer.role]]
role = 'read'
[[access.issuer.role]]
role = 'write'
[[access.issuer]]
issuer = 'b'
[[access.issuer.role]]
\"role\" = 'audit'
[rules]
revision.encoding = 'x'
";
        for (path, line) in [
            ("store", Some(1)),
            ("server", Some(3)),
            ("server.listen", Some(4)),
            ("server.tls.key", Some(5)),
            ("server.limits.requests", Some(7)),
            ("server.limits.nothing", Some(6)),
            ("access.issuer.0.issuer", Some(10)),
            ("access.issuer.0.role.1.role", Some(14)),
            ("access.issuer.1", Some(15)),
            ("access.issuer.1.role.0.role", Some(18)),
            ("rules.revision.encoding", Some(20)),
            ("keys", None),
        ] {
            let parts: Vec<_> = path.split('.').collect();
            assert_eq!(line_of(text, &parts), line, "{path}");
        }
        assert_eq!(line_of("", &["a"]), None);
        assert_eq!(line_of("[[\n]=\n[[]]\n=\n[", &["a"]), None);
    }
}
