//! Writing into a byte buffer without detours: this is where most of a sample's time goes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::chance::Dice;

const HEX: &[u8; 16] = b"0123456789abcdef";
const BASE64URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Appends a text.
pub(crate) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends `value` in decimal digits.
pub(crate) fn number(out: &mut Vec<u8>, value: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
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

/// Appends bytes in hexadecimal.
pub(crate) fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.push(HEX[usize::from(byte >> 4)]);
        out.push(HEX[usize::from(byte & 15)]);
    }
}

/// Appends a version 4 UUID made of the given bits.
pub(crate) fn uuid(out: &mut Vec<u8>, bits: u128) {
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
    out.extend_from_slice(&text);
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
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    // The buffer has exactly the size that the encoding takes.
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Appends Base64 for URLs (RFC 4648 section 5, not padded), as JSON Web Tokens have it.
pub(crate) fn base64url(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
}

/// Appends a JSON string, quoted and escaped, of valid UTF-8 without control characters other
/// than line ends and tabs.
pub(crate) fn json_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | b'\n' | b'\t')) {
        let (clean, after) = rest.split_at(at);
        out.extend_from_slice(clean);
        out.extend_from_slice(match after[0] {
            b'\n' => b"\\n",
            b'\t' => b"\\t",
            b'\\' => b"\\\\",
            _ => b"\\\"",
        });
        rest = &after[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}
