//! JSON as text: what a value is without white space, and what is left when comments are taken out.
//!
//! Parsing is serde's. This is for the rest, and runs only where there is something to say about
//! a record, or to keep of it.

use std::borrow::Cow;

use memchr::{memchr_iter, memchr2, memchr3, memrchr};

use crate::Position;

/// Values nested deeper than this are not taken in, since not every reader can follow them.
pub(super) const MAX_DEPTH: usize = 100;

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

/// What makes a well-formed value one that is not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// The value is nested too deep.
    Depth,
    /// The value has half a surrogate pair, which is no character.
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
                // Of a well-formed string, serde takes all but half a surrogate pair.
                let string = value.get(at..end).unwrap_or_default();
                if string.contains('\\') && serde_json::from_str::<Cow<str>>(string).is_err() {
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
