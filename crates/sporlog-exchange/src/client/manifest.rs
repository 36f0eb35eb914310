//! Manifests: JSON files beside the others that say which SHA-256 these have.

use serde_json::Value;

/// How a manifest's name ends.
pub(super) const ENDING: &str = ".manifest.json";
/// The largest manifest that is read.
pub(super) const LARGEST: u64 = 16 << 20;
/// How deep in a manifest objects are looked for.
const DEEPEST: usize = 8;

/// The files that a manifest names, with their SHA-256 in lower-case hexadecimal: each object in it that has both. What
/// is not JSON names none.
pub(super) fn mentions(text: &[u8]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_slice(text) {
        search(&value, DEEPEST, &mut found);
    }
    found
}

fn search(value: &Value, depth: usize, found: &mut Vec<(String, String)>) {
    if depth == 0 {
        return;
    }
    match value {
        Value::Array(values) => values.iter().for_each(|value| search(value, depth - 1, found)),
        Value::Object(fields) => {
            let text = |name: &str| fields.get(name).and_then(Value::as_str);
            let name = text("file").or_else(|| text("name")).or_else(|| text("path"));
            if let (Some(name), Some(sha256)) = (name, text("sha256")) {
                let plain = name.rsplit('/').next().unwrap_or(name);
                found.push((plain.to_owned(), sha256.to_ascii_lowercase()));
            }
            fields.values().for_each(|value| search(value, depth - 1, found));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_their_digests_are_found() {
        let text =
            br#"{"day":"2026-11-20","files":[{"file":"a.csv","rows":3,"sha256":"AB12"},{"file":"b.csv"}]}"#;
        assert_eq!(mentions(text), [("a.csv".to_owned(), "ab12".to_owned())]);
        assert_eq!(
            mentions(br#"{"name":"ud/a.csv","sha256":"cd"}"#),
            [("a.csv".to_owned(), "cd".to_owned())]
        );
        assert!(mentions(b"{").is_empty() && mentions(b"[1]").is_empty());
    }
}
