//! The numbers that identify people and organisations: whether one can be right, and how to
//! write one down without giving it away.
//!
//! All of this runs once per row of a delivery, so every check looks at bytes and allocates
//! nothing. None of it looks anything up: a number that passes may still belong to nobody.

use std::net::{IpAddr, Ipv6Addr};

pub mod cpr;
pub mod cvr;
pub mod fodselsnummer;
mod masking;
pub mod organisasjonsnummer;

pub use masking::{mask, mask_text, personal_numbers};

/// Whether this is a UUID in its hyphenated form, in any case.
pub fn is_uuid(text: &[u8]) -> bool {
    let Ok(text) = <&[u8; 36]>::try_from(text) else { return false };
    // Without a branch a byte: this is asked several times for every row of a delivery.
    let hex = |byte: u8| (byte.wrapping_sub(b'0') < 10) | ((byte | 0x20).wrapping_sub(b'a') < 6);
    text.iter().enumerate().fold(true, |so_far, (at, &byte)| {
        so_far & if matches!(at, 8 | 13 | 18 | 23) { byte == b'-' } else { hex(byte) }
    })
}

/// Whether this is an IPv4 or IPv6 address, or an integer.
pub fn is_ip_or_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    are_digits(digits) || text.parse::<IpAddr>().is_ok()
}

/// Whether this has the form of an organisation's number: eight digits (CVR) or nine (organisasjonsnummer).
pub fn is_organisation(text: &str) -> bool {
    cvr::is_plain(text) || organisasjonsnummer::is_plain(text)
}

/// Whether this is a number of so many digits, as `weights` has, the last of which is a check digit that matches. None
/// begins with a zero.
fn is_checked<const N: usize>(text: &str, weights: &[u8; N]) -> bool {
    digits::<N>(text.as_bytes()).is_some_and(|digits| digits[0] != 0 && mod11(&digits, weights) == 0)
}

/// The check digit that belongs to the digits before it (ASCII in, ASCII out); `None` if no number begins so.
fn check_digit<const N: usize>(first: &[u8], weights: &[u8]) -> Option<u8> {
    let digits = digits::<N>(first).filter(|digits| digits[0] != 0)?;
    mod11_check_digit(&digits, weights)
}

/// What an address is counted as where clients are limited: an IPv4 address, or the /64 network of an IPv6
/// address, for whoever has one address there has the network.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Whether this is one digit or more, and nothing else.
fn are_digits(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// The text's digits as numbers, if it is exactly `N` of them.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digits: [u8; N] = text.try_into().ok()?;
    are_digits(&digits).then(|| digits.map(|digit| digit - b'0'))
}

/// What is left of the weighted sum of some digits, modulo 11. A digit without a weight, or a
/// weight without a digit, counts for nothing.
fn mod11(digits: &[u8], weights: &[u8]) -> u32 {
    let sum: u32 = digits.iter().zip(weights).map(|(&d, &w)| u32::from(d) * u32::from(w)).sum();
    sum % 11
}

/// The digit that brings a weighted sum to a multiple of 11, as ASCII; `None` where that would
/// take a ten, in which case no such number is ever handed out.
fn mod11_check_digit(digits: &[u8], weights: &[u8]) -> Option<u8> {
    match (11 - mod11(digits, weights)) % 11 {
        10 => None,
        digit => Some(b'0' + digit as u8),
    }
}

/// Whether a year of two digits has such a day. Of which century is left open, so 29 February
/// passes in every fourth year, 1900 included.
fn is_date(day: u8, month: u8, year: u8) -> bool {
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) => 29,
        2 => 28,
        _ => return false,
    };
    (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_in_any_case() {
        assert!(is_uuid(b"4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8"));
        assert!(is_uuid(b"4FCFF0C2-AB6C-4B4F-86E9-0A75A0A009D8"));
        for wrong in [
            "",
            "YK16",
            "4fcff0c2ab6c4b4f86e90a75a0a009d8",
            "4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d",
            "4fcff0c2-ab6c-4b4f-86e9-0a75a0a009dg",
            "{4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8}",
            "4fcff0c2-ab6c-4b4f-86e9-0a75a0a009æ",
        ] {
            assert!(!is_uuid(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn addresses_and_integers() {
        for right in ["185.16.156.19", "3104873491", "-1", "0", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(is_ip_or_integer(right), "{right}");
        }
        for wrong in ["", "-", "185.16.156", "185.16.156.256", "10.0.0.1:80", "host", "1 2"] {
            assert!(!is_ip_or_integer(wrong), "{wrong}");
        }
    }
}
