//! Looking at JSON as text: where a member stands, what a value is without white space, and what
//! is left when comments are taken out.
//!
//! Parsing is serde's. This is for the rest, and runs only where there is something to say about
//! a record, or to keep of it.

use std::ops::Range;

use memchr::{memchr_iter, memchr2, memchr3, memrchr};

use crate::Position;

/// Values nested deeper than this are not taken in, since not every reader can follow them.
pub(super) const MAX_DEPTH: usize = 100;

/// Where a member of an object stands in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) key: usize,
    pub(super) value: Range<usize>,
}

/// The members of an object, of which it is known that it is well-formed.
pub(super) fn members(object: &str) -> Vec<Span> {
    let bytes = object.as_bytes();
    let mut spans = Vec::new();
    let mut at = memchr::memchr(b'{', bytes).map_or(bytes.len(), |brace| brace + 1);
    loop {
        at = skip(bytes, at, b",");
        if bytes.get(at) != Some(&b'"') {
            return spans;
        }
        let key = at;
        at = skip(bytes, string_end(bytes, at), b":");
        let end = value_end(bytes, at);
        spans.push(Span { key, value: at..end });
        at = end;
    }
}

/// Behind white space and the given separator.
fn skip(bytes: &[u8], at: usize, separator: &[u8]) -> usize {
    let rest = bytes.iter().skip(at);
    at + rest.take_while(|byte| byte.is_ascii_whitespace() || separator.contains(byte)).count()
}

/// Behind the string whose quote is at `at`, or behind the text.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
        at += found + 1;
        if bytes.get(at - 1) == Some(&b'"') {
            return at;
        }
        at += 1;
    }
    bytes.len()
}

/// Behind the value at `at`.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut at = at;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' if depth > 0 => {
                depth -= 1;
                at += 1;
            }
            b',' | b'}' | b']' if depth == 0 => return at,
            byte if depth == 0 && byte.is_ascii_whitespace() => return at,
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    at
}

/// What makes a well-formed value one that is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is nested too deep.
    Depth,
    /// It has half a surrogate pair, which is no character.
    Surrogate,
}

/// Appends a well-formed value without the white space around its parts, and else as it is.
pub(super) fn compact(value: &str, out: &mut String) -> Result<(), Unfit> {
    let bytes = value.as_bytes();
    let mut depth = 0_usize;
    let mut copied = 0;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let end = string_end(bytes, at);
                if has_lone_surrogate(bytes.get(at..end).unwrap_or_default()) {
                    return Err(Unfit::Surrogate);
                }
                at = end;
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Unfit::Depth);
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            byte if byte.is_ascii_whitespace() => {
                out.push_str(value.get(copied..at).unwrap_or_default());
                copied = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    out.push_str(value.get(copied..).unwrap_or_default());
    Ok(())
}

/// Whether a string's escapes hold a half of a surrogate pair without the other.
fn has_lone_surrogate(string: &[u8]) -> bool {
    let mut at = 0;
    let mut high = None;
    while let Some(found) = string.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        let unit = match string.get(at + 1..at + 6) {
            Some([b'u', hex @ ..]) => {
                std::str::from_utf8(hex).ok().and_then(|hex| u16::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        match (unit, high) {
            (Some(0xdc00..=0xdfff), Some(end)) if end == at => high = None,
            (_, Some(_)) | (Some(0xdc00..=0xdfff), None) => return true,
            (Some(0xd800..=0xdbff), None) => high = Some(at + 6),
            _ => {}
        }
        at += if unit.is_some() { 6 } else { 2 };
    }
    high.is_some()
}

/// Blanks out `//` comments, so that every other byte stays where it was. Also says where the
/// first was; `None` if there is none.
pub(super) fn blank_comments(text: &str) -> Option<(String, usize)> {
    let bytes = text.as_bytes();
    let mut blanked = String::new();
    let mut first = None;
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'/', rest)) {
        at += found;
        if bytes.get(at) == Some(&b'"') {
            at = string_end_on_line(bytes, at);
        } else if bytes.get(at + 1) == Some(&b'/') {
            let rest = bytes.get(at..).unwrap_or_default();
            let end = at + memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            blanked.push_str(text.get(copied..at).unwrap_or_default());
            blanked.extend(std::iter::repeat_n(' ', end - at));
            first.get_or_insert(at);
            copied = end;
            at = end;
        } else {
            at += 1;
        }
    }
    blanked.push_str(text.get(copied..).unwrap_or_default());
    Some((blanked, first?))
}

/// Behind the string whose quote is at `at`; one that is not closed ends with its line.
pub(super) fn string_end_on_line(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = memchr3(b'"', b'\\', b'\n', bytes.get(at..).unwrap_or_default()) {
        at += found + 1;
        match bytes.get(at - 1) {
            Some(b'\\') if bytes.get(at) != Some(&b'\n') => at += 1,
            Some(b'\\') => {}
            _ => return at,
        }
    }
    bytes.len()
}

/// The place of a byte in a text that itself begins at `start`.
pub(super) fn position(text: &str, offset: usize, start: Position) -> Position {
    let before = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
    let lines = memchr_iter(b'\n', before).count() as u64;
    let column = match memrchr(b'\n', before) {
        Some(newline) => 1 + characters(before.get(newline + 1..).unwrap_or_default()),
        None => start.column + characters(before),
    };
    Position { line: start.line + lines, column }
}

/// How many characters begin in these bytes of UTF-8.
pub(super) fn characters(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| (**byte & 0xc0) != 0x80).count() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compacted(value: &str) -> Result<String, Unfit> {
        let mut out = String::new();
        compact(value, &mut out).map(|()| out)
    }

    #[test]
    fn members_of_objects() {
        assert_eq!(members("{}"), []);
        let text = " { \"a\" : [1, \"]\", {\"b\":2}] , \"\\\"}\":\"x\\\\\",\n\"c\":-1.5e3}";
        let found: Vec<_> = members(text).iter().map(|span| &text[span.value.clone()]).collect();
        assert_eq!(found, ["[1, \"]\", {\"b\":2}]", "\"x\\\\\"", "-1.5e3"]);
        assert_eq!(members(text)[0].key, 3);
    }

    #[test]
    fn compact_values() {
        assert_eq!(compacted("{ \"a b\" : [ 1 , \"x\\\" y\" ] }").unwrap(), "{\"a b\":[1,\"x\\\" y\"]}");
        assert_eq!(compacted(r#""\ud83d\ude00 \u00e6 \\u""#).unwrap(), r#""\ud83d\ude00 \u00e6 \\u""#);
        for lone in [r#""\ud83d""#, r#""\ude00""#, r#""\ud83d\ud83d""#, r#""\ud83d \ude00""#, r#""\ud83d\n""#]
        {
            assert_eq!(compacted(lone), Err(Unfit::Surrogate), "{lone}");
        }
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(compacted(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(compacted(&nested(MAX_DEPTH + 1)), Err(Unfit::Depth));
    }

    #[test]
    fn comments() {
        assert_eq!(blank_comments("{\"a\": \"http://x\"}"), None);
        let (blanked, first) = blank_comments("{\"a\": 1, // \"æ\r\n\"b\": \"//\" /}//").unwrap();
        assert_eq!(blanked, "{\"a\": 1,       \r\n\"b\": \"//\" /}  ");
        assert_eq!(first, 9);
    }

    #[test]
    fn positions_count_characters() {
        let start = Position { line: 7, column: 3 };
        let at = |offset| position("æø\nå\"x\"", offset, start);
        assert_eq!(at(0), start);
        assert_eq!(at(4), Position { line: 7, column: 5 });
        assert_eq!(at(7), Position { line: 8, column: 2 });
        assert_eq!(at(1_000), Position { line: 8, column: 5 });
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(text in "[\\[\\]{}:,\"\\\\/u0-9dD æ\n]{0,60}", offset in 0..80_usize) {
            members(&text);
            let _ = compacted(&text);
            if let Some((blanked, _)) = blank_comments(&text) {
                prop_assert_eq!(blanked.len(), text.len());
                prop_assert_eq!(blank_comments(&blanked), None);
            }
            position(&text, offset, Position { line: 1, column: 1 });
        }

        #[test]
        fn compact_changes_no_value(value in json_value()) {
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(compacted(&pretty).unwrap(), serde_json::to_string(&value).unwrap());
        }
    }

    fn json_value() -> impl Strategy<Value = serde_json::Value> {
        use serde_json::Value;
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,4}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
