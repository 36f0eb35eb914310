//! Writing about a personal number without giving it away.
//!
//! Of a masked number its first two digits are left, the day of the month: enough to tell two
//! numbers of one message apart as a rule, and shared by some thirtieth of all people.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::cpr::is_masked_or_plain;

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
    let mut masked = String::new();
    let mut copied = 0;
    for number in numbers(text) {
        // Both ends lie beside an ASCII digit, so they are character boundaries.
        masked.push_str(text.get(copied..number.start + KEPT).unwrap_or_default());
        let rest = text.get(number.start + KEPT..number.end).unwrap_or_default();
        masked.extend(rest.chars().map(|char| if char.is_ascii_digit() { '*' } else { char }));
        copied = number.end;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(masked)
}

/// The personal numbers in free text, each once, without hyphens and spaces: what [`mask_text`] masks, and CPR numbers that
/// are masked already, such as `2302XX22XX`, for records may have those.
pub fn personal_numbers(text: &str) -> Vec<String> {
    let plain = numbers(text).filter_map(|number| text.get(number));
    let plain = plain.map(|number| number.chars().filter(char::is_ascii_digit).collect::<String>());
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '*');
    let masked = words.filter(|word| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        (4..10).contains(&digits) && is_masked_or_plain(word)
    });
    let mut found = Vec::new();
    let mut known = HashSet::new();
    for number in plain.chain(masked.map(str::to_owned)) {
        if known.insert(number.clone()) {
            found.push(number);
        }
    }
    found
}

/// Where in a text something stands that may be a personal number.
fn numbers(text: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            let length = digits_at(bytes, at);
            at += length.max(1);
            match length {
                10 | 11 => return Some(start..at),
                6 if matches!(bytes.get(at), Some(b'-' | b' '))
                    && matches!(digits_at(bytes, at + 1), 4 | 5) =>
                {
                    at += 1 + digits_at(bytes, at + 1);
                    return Some(start..at);
                }
                _ => {}
            }
        }
        None
    })
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

    #[test]
    fn personal_numbers_are_found_in_a_statement() {
        let sql = "SELECT * FROM revision WHERE \"BorgerId\" IN ('0101018081', '010101-8081', '2302XX22XX') \
                   OR person = 01017012345 AND id > 7 AND \"KalderOrganisation\" = '64942212' -- XXXXXXXXXX 2026-11-03";
        assert_eq!(personal_numbers(sql), ["0101018081", "01017012345", "2302XX22XX"]);
        assert!(personal_numbers("SELECT count(*) FROM events").is_empty());
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
