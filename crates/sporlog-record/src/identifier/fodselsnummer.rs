//! The Norwegian fødselsnummer and its relatives: `DDMMYY`, three digits, two check digits.
//!
//! In a D-number the day is raised by 40. In a synthetic number, made for tests and never handed
//! out, the month is raised: by 80 (Skatteetaten's series), by 40 (NAV's) or by 65. Both may be
//! combined.

use super::{digits, is_date, mod11, mod11_check_digit};

const WEIGHTS_1: [u8; 10] = [3, 7, 6, 1, 8, 9, 4, 5, 2, 1];
const WEIGHTS_2: [u8; 11] = [5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1];

/// Whether this is eleven digits that begin with a date and whose check digits match.
pub fn is_valid(text: &str) -> bool {
    let Some(digits) = digits::<11>(text.as_bytes()) else {
        return false;
    };
    let [d1, d2, m1, m2, y1, y2, ..] = digits;
    let day = match d1 * 10 + d2 {
        day @ 41..=71 => day - 40,
        day => day,
    };
    let month = match m1 * 10 + m2 {
        month @ 41..=52 => month - 40,
        month @ 66..=77 => month - 65,
        month @ 81..=92 => month - 80,
        month => month,
    };
    is_date(day, month, y1 * 10 + y2) && mod11(&digits, &WEIGHTS_1) == 0 && mod11(&digits, &WEIGHTS_2) == 0
}

/// The check digits that belong to the first nine digits (ASCII in, ASCII out); `None` if no
/// number begins so.
pub fn check_digits(first_nine: &[u8]) -> Option<[u8; 2]> {
    let [a, b, c, d, e, f, g, h, i] = digits::<9>(first_nine)?;
    let first = mod11_check_digit(&[a, b, c, d, e, f, g, h, i], &WEIGHTS_1)?;
    let second = mod11_check_digit(&[a, b, c, d, e, f, g, h, i, first - b'0'], &WEIGHTS_2)?;
    Some([first, second])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any date of any series, with three digits after it.
    fn first_nine() -> impl Strategy<Value = String> {
        let day = (1..=28_u8, prop::sample::select(vec![0, 40_u8]));
        let month = (1..=12_u8, prop::sample::select(vec![0, 40, 65, 80_u8]));
        (day, month, 0..100_u8, 0..1000_u16).prop_map(|((day, d), (month, m), year, rest)| {
            format!("{:02}{:02}{year:02}{rest:03}", day + d, month + m)
        })
    }

    #[test]
    fn known_synthetic_numbers() {
        for right in ["25922947409", "21818297804", "23886799519"] {
            assert!(is_valid(right), "{right}");
        }
        for wrong in ["", "12345678901", "25922947408", "2592294740", "259229474090", "2592294740x"] {
            assert!(!is_valid(wrong), "{wrong}");
        }
    }

    #[test]
    fn the_date_must_exist() {
        // All of these have the right check digits for a date that no calendar has.
        for date in ["300270", "310470", "001270", "320170", "720170", "011370", "016570", "019370"] {
            let made = (0..1000).find_map(|rest| {
                let first = format!("{date}{rest:03}");
                let [k1, k2] = check_digits(first.as_bytes())?;
                Some(format!("{first}{}{}", char::from(k1), char::from(k2)))
            });
            assert!(!is_valid(&made.unwrap()), "{date}");
        }
    }

    proptest! {
        #[test]
        fn a_made_number_passes_and_a_slip_does_not(
            first in first_nine(), at in 0..11_usize, add in 1..10_u8,
        ) {
            if let Some(check) = check_digits(first.as_bytes()) {
                let mut number = first.into_bytes();
                number.extend(check);
                prop_assert!(is_valid(std::str::from_utf8(&number).unwrap()));
                number[at] = (number[at] - b'0' + add) % 10 + b'0';
                prop_assert!(!is_valid(std::str::from_utf8(&number).unwrap()));
            }
        }

        #[test]
        fn any_text_is_judged(text in "\\PC*") {
            is_valid(&text);
            check_digits(text.as_bytes());
        }
    }
}
