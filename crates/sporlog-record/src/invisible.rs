//! Characters that nobody sees: control characters, byte-order marks, marks of zero width and of direction.
//!
//! In a field that identifies somebody or something, such a character makes another value of one that looks the same.
//! It gets there where files are put together, or by copying from a web page.

use std::borrow::Cow;

/// Whether UTF-8 may hold an invisible character: a control character, or the first byte of another one. Without a
/// branch a byte, because this is asked for every row of a delivery.
pub(crate) fn may_hold(bytes: &[u8]) -> bool {
    bytes.iter().fold(false, |so_far, &byte| {
        so_far
            | (byte < 0x20)
            | (byte == 0x7f)
            | (byte == 0xc2)
            | (byte == 0xd8)
            | (byte == 0xe1)
            | (byte == 0xe2)
            | (byte == 0xef)
    })
}

/// The first invisible character of a text. Tabs and line ends count in a field that identifies, and in no other.
pub(crate) fn first(text: &str, identifies: bool) -> Option<char> {
    let counts = |c: &char| is_invisible(*c) && (identifies || !matches!(c, '\t' | '\r' | '\n'));
    if may_hold(text.as_bytes()) { text.chars().find(counts) } else { None }
}

/// What to say about an invisible character in a field.
pub(crate) fn finding(found: char) -> String {
    let what = match found {
        '\u{feff}' => "a byte-order mark, as is left where two files were put together",
        '\0'..='\u{9f}' => "a control character",
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            "a mark of direction"
        }
        _ => "a mark of zero width",
    };
    format!("the text holds the invisible character U+{:04X}, {what}", u32::from(found))
}

/// The text with its invisible characters written as `\u{200b}` is.
pub fn shown(text: &str) -> Cow<'_, str> {
    if first(text, true).is_none() {
        return Cow::Borrowed(text);
    }
    let escaped =
        text.chars().map(|c| if is_invisible(c) { c.escape_unicode().to_string() } else { c.to_string() });
    Cow::Owned(escaped.collect())
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_sees_is_found() {
        for found in [
            '\0', '\u{1f}', '\u{7f}', '\u{81}', '\u{ad}', '\u{61c}', '\u{180e}', '\u{200b}', '\u{2066}',
            '\u{feff}',
        ] {
            for identifies in [true, false] {
                assert_eq!(first(&format!("æ{found}"), identifies), Some(found), "{found:?}");
            }
        }
        for text in ["", "Søgning – „ærsag“ § 14: 100 €", "日本 😀 é"] {
            assert_eq!(first(text, true), None, "{text}");
        }
        assert_eq!((first("a\tb\r\n", false), first("a\tb", true)), (None, Some('\t')));
    }

    #[test]
    fn no_character_is_passed_over_by_the_quick_look() {
        let mut bytes = [0; 4];
        for c in (0..=u32::from(char::MAX)).filter_map(char::from_u32).filter(|c| is_invisible(*c)) {
            assert!(may_hold(c.encode_utf8(&mut bytes).as_bytes()), "{c:?}");
        }
    }

    #[test]
    fn what_nobody_sees_is_shown() {
        assert_eq!(shown("ky\u{200b}\n"), "ky\\u{200b}\\u{a}");
        assert!(matches!(shown("ky-æøå"), Cow::Borrowed(_)));
    }
}
