//! ISO 8859-1, for suppliers that are configured for it: every byte is the character of its number.

/// The text that these bytes are.
pub(super) fn decode(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

/// The bytes that [`decode`] made this text of.
pub(super) fn encode(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
}
