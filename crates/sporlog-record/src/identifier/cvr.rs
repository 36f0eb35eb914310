//! The Danish CVR number: eight digits, the last of which is a check digit.

const WEIGHTS: [u8; 8] = [2, 7, 6, 5, 4, 3, 2, 1];

/// Whether this is eight digits.
pub fn is_plain(text: &str) -> bool {
    super::digits::<8>(text.as_bytes()).is_some()
}

/// Whether this is eight digits whose check digit matches. None begins with a zero.
pub fn is_valid(text: &str) -> bool {
    super::is_checked(text, &WEIGHTS)
}

/// The check digit that belongs to the first seven digits (ASCII in, ASCII out); `None` if no
/// number begins so.
pub fn check_digit(first_seven: &[u8]) -> Option<u8> {
    super::check_digit::<7>(first_seven, &WEIGHTS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_printed_examples_number() {
        assert!(is_valid("64942212"));
        for wrong in ["", "64942213", "6494221", "649422120", "6494221x", "00000000"] {
            assert!(!is_valid(wrong), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_made_number_passes_and_a_slip_does_not(
            first in "[1-9][0-9]{6}", at in 0..8_usize, add in 1..10_u8,
        ) {
            if let Some(check) = check_digit(first.as_bytes()) {
                let mut number = first.into_bytes();
                number.push(check);
                prop_assert!(is_valid(std::str::from_utf8(&number).unwrap()));
                number[at] = (number[at] - b'0' + add) % 10 + b'0';
                prop_assert!(!is_valid(std::str::from_utf8(&number).unwrap()));
            }
        }

        #[test]
        fn any_text_is_judged(text in "\\PC*") {
            is_valid(&text);
            check_digit(text.as_bytes());
        }
    }
}
