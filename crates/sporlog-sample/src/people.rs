//! Who there is. People are numbers 0, 1, 2, …; everything about them follows from their number,
//! so that nothing about them has to be kept.
//!
//! Nobody exists: fødselsnummer are of the synthetic series (month + 80), CPR numbers have 60 added
//! to their day as replacement numbers do, and organisations are numbered where the synthetic ones
//! are. All check digits that there are hold.

use chrono::{Datelike, Days, NaiveDate};
use sporlog_record::identifier::{fodselsnummer, organisasjonsnummer};

use crate::chance::hash;
use crate::text;

const FIRST_BIRTHDAY: NaiveDate = NaiveDate::from_ymd_opt(1935, 1, 1).expect("a date");
/// Birthdays up to 2007.
const BIRTHDAYS: u64 = 26_600;

const GIVEN: [&str; 32] = [
    "Anne", "Mette", "Kirsten", "Hanne", "Lene", "Camilla", "Sofie", "Ida", "Freja", "Karen", "Louise",
    "Maja", "Rikke", "Signe", "Åse", "Bodil", "Peter", "Jens", "Lars", "Søren", "Niels", "Mikkel", "Rasmus",
    "Jørgen", "Mads", "Emil", "Oliver", "Kasper", "Bjørn", "Aage", "Tobias", "Henrik",
];
const MIDDLE: [&str; 8] = ["Bach", "Dam", "Holm", "Krogh", "Lund", "Møller", "Skov", "Vestergård"];
#[rustfmt::skip]
const FAMILY: [&str; 32] = [
    "Jensen", "Nielsen", "Hansen", "Pedersen", "Andersen", "Christensen", "Larsen", "Sørensen",
    "Rasmussen", "Jørgensen", "Petersen", "Madsen", "Kristensen", "Olsen", "Thomsen", "Poulsen",
    "Johansen", "Knudsen", "Mortensen", "Jakobsen", "Mikkelsen", "Frederiksen", "Laursen", "Henriksen",
    "Eriksen", "Schmidt", "Clausen", "Simonsen", "Svendsen", "Kjær", "Østergaard", "Ærenlund",
];

/// Spreads consecutive numbers over `slots` without two of them meeting, for `step` and `slots`
/// have no divisor in common.
fn scatter(index: u64, step: u64, slots: u64) -> u64 {
    ((u128::from(index) + 1) * u128::from(step) % u128::from(slots)) as u64
}

fn birthday(days: u64) -> NaiveDate {
    FIRST_BIRTHDAY + Days::new(days)
}

/// A CPR number: plainly none that was ever given out, with 60 added to the day. Different for the
/// first 266 million people.
pub(crate) fn cpr(index: u64) -> [u8; 10] {
    let slot = scatter(index, 164_395_759, BIRTHDAYS * 10_000);
    let born = birthday(slot / 10_000);
    let date = u64::from(born.day() + 60) * 10_000
        + u64::from(born.month()) * 100
        + u64::from(born.year().unsigned_abs() % 100);
    text::digits(date * 10_000 + slot % 10_000)
}

/// The same masked, as some systems log it: `8302XX22XX`.
pub(crate) fn masked_cpr(index: u64) -> [u8; 10] {
    let mut cpr = cpr(index);
    for at in [4, 5, 8, 9] {
        cpr[at] = b'X';
    }
    cpr
}

/// A fødselsnummer of the synthetic series, check digits and all.
pub(crate) fn fodselsnummer(index: u64) -> [u8; 11] {
    // Some serial numbers have no check digits; four in a row per person, tried in turn, nearly
    // always hold one that has. Where not, the next slot's is as good.
    const PER_DAY: u64 = 125;
    let slots = BIRTHDAYS * PER_DAY;
    let mut slot = scatter(index, 2_054_957, slots);
    loop {
        let born = birthday(slot / PER_DAY);
        // From 2000 on the serial numbers 500 to 999 tell the century.
        let century = if born.year() >= 2000 { 500 } else { 0 };
        let date = u64::from(born.day()) * 10_000
            + u64::from(born.month() + 80) * 100
            + u64::from(born.year().unsigned_abs() % 100);
        for serial in slot % PER_DAY * 4..slot % PER_DAY * 4 + 4 {
            let stem: [u8; 9] = text::digits(date * 1_000 + century + serial);
            if let Some(check) = fodselsnummer::check_digits(&stem) {
                let mut number = [0; 11];
                number[..9].copy_from_slice(&stem);
                number[9..].copy_from_slice(&check);
                return number;
            }
        }
        slot = (slot + 1) % slots;
    }
}

/// An organisasjonsnummer, its check digit and all.
pub(crate) fn organisasjonsnummer(index: u64) -> [u8; 9] {
    // Synthetic organisations are numbered from 310 million on. One stem in eleven has no check
    // digit, and never two in a row.
    let stem = 31_000_000 + scatter(index, 9_739, 500_000) * 2;
    for stem in stem.. {
        let stem: [u8; 8] = text::digits(stem);
        if let Some(check) = organisasjonsnummer::check_digit(&stem) {
            let mut number = [0; 9];
            number[..8].copy_from_slice(&stem);
            number[8] = check;
            return number;
        }
    }
    [b'0'; 9]
}

/// A name, not rare and not anyone's.
pub(crate) fn name(index: u64) -> [&'static str; 3] {
    let bits = hash(index, 0x6e61_6d65);
    [
        GIVEN[(bits % 32) as usize],
        MIDDLE[(bits >> 8) as usize % MIDDLE.len()],
        FAMILY[(bits >> 16) as usize % FAMILY.len()],
    ]
}

/// Initials and a number, such as `YK16`: how a person is called at the keyboard.
pub(crate) fn initials(bits: u64) -> [u8; 4] {
    let letter = |bits: u64| b'A' + (bits % 26) as u8;
    let [ten, one] = text::digits::<2>(bits >> 20);
    [letter(bits), letter(bits >> 8), ten, one]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_citizens_share_a_number() {
        let numbers: HashSet<_> = (0..200_000).map(cpr).collect();
        assert_eq!(numbers.len(), 200_000);
        assert!(numbers.iter().all(|number| (b'6'..=b'9').contains(&number[0])));
        assert_eq!(&masked_cpr(3)[..4], &cpr(3)[..4]);
    }

    #[test]
    fn hardly_two_people_share_a_fodselsnummer() {
        let numbers: HashSet<_> = (0..50_000).map(fodselsnummer).collect();
        assert!(numbers.len() > 49_900, "{} numbers", numbers.len());
    }

    #[test]
    fn no_two_organisations_share_a_number() {
        let numbers: HashSet<_> = (0..20_000).map(organisasjonsnummer).collect();
        assert_eq!(numbers.len(), 20_000);
    }
}
