//! Writing about a personal number without giving it away.
//!
//! Of a masked number its first two digits are left, the day of the month: enough to tell two
//! numbers of one message apart as a rule, and shared by some thirtieth of all people.

use std::borrow::Cow;

/// Digits that are left to be read.
const KEPT: usize = 2;

/// A value that is longer is cut: what is masked tells nothing anyway.
const LONGEST: usize = 24;

/// Masks a value that is, or stands where there should be, a personal number.
pub fn mask(value: &str) -> String {
    value.chars().take(LONGEST).enumerate().map(|(at, char)| if at < KEPT { char } else { '*' }).collect()
}

/// Masks, in free text, whatever may be a personal number: ten or eleven digits in a row, or six
/// with a hyphen or a space and then four or five (`DDMMYY-NNNN`).
pub fn mask_text(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    let mut masked = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let length = digits_at(bytes, at);
        if length == 0 {
            at += 1;
            continue;
        }
        let end = match length {
            10 | 11 => at + length,
            6 if matches!(bytes.get(at + 6), Some(b'-' | b' '))
                && matches!(digits_at(bytes, at + 7), 4 | 5) =>
            {
                at + 7 + digits_at(bytes, at + 7)
            }
            _ => {
                at += length;
                continue;
            }
        };
        // Both ends lie beside an ASCII digit, so they are character boundaries.
        masked.push_str(text.get(copied..at + KEPT).unwrap_or_default());
        masked.extend(bytes.iter().take(end).skip(at + KEPT).map(|byte| match byte {
            b'0'..=b'9' => '*',
            separator => char::from(*separator),
        }));
        copied = end;
        at = end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(masked)
}

/// How many digits stand in a row from here.
fn digits_at(bytes: &[u8], at: usize) -> usize {
    bytes.iter().skip(at).take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_keeps_two_characters() {
        assert_eq!(mask("01017012345"), "01*********");
        assert_eq!(mask("æøå"), "æø*");
        assert_eq!(mask(""), "");
        assert_eq!(mask(&"x".repeat(5_000)).len(), LONGEST);
    }

    #[test]
    fn numbers_in_text() {
        for (text, masked) in [
            ("", ""),
            ("no number", "no number"),
            ("0101018081", "01********"),
            ("fnr 01017012345, cpr 010101-8081.", "fnr 01*********, cpr 01****-****."),
            ("010170 12345", "01**** *****"),
            ("/sok?fnr=01017012345&x=1", "/sok?fnr=01*********&x=1"),
            ("æ0101018081ø", "æ01********ø"),
            ("990 983 666, 123456789, 123456 123", "990 983 666, 123456789, 123456 123"),
            ("123456789012 2021-11-10", "123456789012 2021-11-10"),
            ("010101-80810101-8081", "010101-80810101-8081"),
            ("123456-", "123456-"),
        ] {
            assert_eq!(mask_text(text), masked);
        }
        assert!(matches!(mask_text("nothing to mask: 42"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn whatever_surrounds_it_a_number_is_masked(
            before in "(.*[^0-9])?", number in "[0-9]{10,11}", after in "([^0-9].*)?",
        ) {
            let masked = mask_text(&format!("{before}{number}{after}")).into_owned();
            let hidden = format!("{}{}", &number[..2], "*".repeat(number.len() - 2));
            prop_assert!(masked.contains(&hidden));
            prop_assert!(mask_text(&masked) == masked.as_str());
        }
    }
}
