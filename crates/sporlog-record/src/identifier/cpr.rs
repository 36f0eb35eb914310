//! The Danish CPR number: `DDMMYY` and four digits, the last of which was a check digit once. Numbers without one
//! have been handed out since 2007, so a mismatch would prove nothing and is not looked for.

use super::{are_digits, digits, is_date};

/// Whether this is ten digits, or ten digits some of which are masked, as in `2302XX22XX`.
pub fn is_masked_or_plain(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'X' | b'x' | b'*'))
}

/// Whether this is ten digits.
pub fn is_plain(text: &str) -> bool {
    text.len() == 10 && are_digits(text.as_bytes())
}

/// Whether the first six digits are a date. In a stand-in number, given to someone who has none,
/// the day is raised by 60.
pub fn is_date_plausible(text: &str) -> bool {
    digits::<10>(text.as_bytes()).is_some_and(|[d1, d2, m1, m2, y1, y2, ..]| {
        let day = d1 * 10 + d2;
        let day = if day > 60 { day - 60 } else { day };
        is_date(day, m1 * 10 + m2, y1 * 10 + y2)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_masked() {
        for right in ["0101018081", "2302XX22XX", "2302xx22xx", "230200****", "XXXXXXXXXX"] {
            assert!(is_masked_or_plain(right), "{right}");
        }
        for wrong in ["", "010101-8081", "230200", "2302XX22X", "2302YY22YY", "23020022æ"] {
            assert!(!is_masked_or_plain(wrong), "{wrong}");
        }
        assert!(is_plain("0101018081"));
        assert!(!is_plain("2302XX22XX"));
    }

    #[test]
    fn a_date_or_a_stand_in_numbers_date() {
        assert!(is_date_plausible("2902040000"));
        assert!(is_date_plausible("6101010000"), "a stand-in number");
        for wrong in ["2902010000", "3104010000", "0013010000", "6001010000", "9901010000", "x"] {
            assert!(!is_date_plausible(wrong), "{wrong}");
        }
    }
}
