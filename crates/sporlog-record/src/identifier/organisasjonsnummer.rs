//! The Norwegian organisasjonsnummer: nine digits, the last of which is a check digit.

const WEIGHTS: [u8; 9] = [3, 2, 7, 6, 5, 4, 3, 2, 1];

/// Whether this is nine digits.
pub fn is_plain(text: &str) -> bool {
    super::digits::<9>(text.as_bytes()).is_some()
}

/// Whether this is nine digits whose check digit matches. None begins with a zero.
pub fn is_valid(text: &str) -> bool {
    super::is_checked(text, &WEIGHTS)
}

/// The check digit that belongs to the first eight digits (ASCII in, ASCII out); `None` if no
/// number begins so.
pub fn check_digit(first_eight: &[u8]) -> Option<u8> {
    super::check_digit::<8>(first_eight, &WEIGHTS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_numbers() {
        assert!(is_valid("991825827"));
        assert!(is_valid("889640782"));
        for wrong in ["", "123456789", "99182582", "9918258270", "99182582x", "000000000"] {
            assert!(!is_valid(wrong), "{wrong}");
        }
        assert_eq!(check_digit(b"99182582"), Some(b'7'));
        assert_eq!(check_digit(b"9918258"), None);
    }

    proptest! {
        #[test]
        fn a_made_number_passes_and_a_slip_does_not(
            first in "[1-9][0-9]{7}", at in 0..9_usize, add in 1..10_u8,
        ) {
            if let Some(check) = check_digit(first.as_bytes()) {
                let mut number = first.into_bytes();
                number.push(check);
                prop_assert!(is_valid(std::str::from_utf8(&number).unwrap()));
                number[at] = (number[at] - b'0' + add) % 10 + b'0';
                prop_assert!(!is_valid(std::str::from_utf8(&number).unwrap()));
            }
        }
    }
}
