//! Writing into a byte buffer without detours: this is where most of a sample's time goes.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD, URL_SAFE_NO_PAD};

use crate::chance::Dice;

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A part of a record, which is appended as it is: text, bytes, or a number in decimal digits.
pub(crate) trait Part {
    fn append(&self, out: &mut Vec<u8>);
}

/// Appends parts, one after the other: `put! { out; "{\"id\":" (event.id) "}" }`.
macro_rules! put {
    ($out:expr; $($part:tt)+) => {{ $($crate::text::Part::append(&$part, $out);)+ }};
}
pub(crate) use put;

impl<T: Part + ?Sized> Part for &T {
    fn append(&self, out: &mut Vec<u8>) {
        (**self).append(out);
    }
}

macro_rules! parts_of_bytes {
    ($([$($generic:tt)*] $part:ty),+) => {$(
        impl<$($generic)*> Part for $part {
            fn append(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.as_ref());
            }
        }
    )+};
}
parts_of_bytes!([] str, [] String, [] [u8], [] Vec<u8>, [const N: usize] [u8; N]);

impl Part for u64 {
    fn append(&self, out: &mut Vec<u8>) {
        self.to_string().append(out);
    }
}

/// `value`'s last `N` decimal digits, with leading zeros.
pub(crate) fn digits<const N: usize>(value: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    let mut rest = value;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// A version 4 UUID made of the given bits.
pub(crate) fn uuid(bits: u128) -> [u8; 36] {
    let mut bytes = bits.to_be_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = [b'-'; 36];
    let mut at = 0;
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            at += 1;
        }
        text[at] = HEX[usize::from(byte >> 4)];
        text[at + 1] = HEX[usize::from(byte & 15)];
        at += 2;
    }
    text
}

/// Appends `count` random letters of Base64's alphabet for URLs.
pub(crate) fn noise(out: &mut Vec<u8>, dice: &mut Dice, count: usize) {
    let mut bits = 0;
    for i in 0..count {
        if i % 10 == 0 {
            bits = dice.bits();
        }
        out.push(BASE64URL[(bits & 63) as usize]);
        bits >>= 6;
    }
}

/// Appends Base64 (RFC 4648 section 4, padded).
pub(crate) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    encode(&STANDARD, out, bytes);
}

/// Appends Base64 for URLs (RFC 4648 section 5, not padded), as JSON Web Tokens have it.
pub(crate) fn base64url(out: &mut Vec<u8>, bytes: &[u8]) {
    encode(&URL_SAFE_NO_PAD, out, bytes);
}

fn encode(engine: &GeneralPurpose, out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The buffer has at least the size that the encoding takes.
    let written = engine.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Appends a JSON string, quoted and escaped.
pub(crate) fn json_string(out: &mut Vec<u8>, text: &str) {
    // Writing into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}
