//! Finding the end of a JSON value without parsing it, bit by bit as it is read.

use memchr::memchr3;

/// Looks for the end of one value, in bytes of which there are more each time.
///
/// Of a well-formed value it finds the end. Of another it finds an end, too, mostly where a reader
/// would see it: a text that is not closed ends with its line, and of brackets only those count
/// that are like the first. `//` begins a comment, since it can begin nothing else.
#[derive(Debug)]
pub(super) struct Scan {
    /// The brackets that count: of the value itself.
    brackets: Option<(u8, u8)>,
    depth: usize,
    within: Within,
    /// Bytes that were looked at.
    done: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Anything outside texts.
    Value,
    Text,
    /// A text, behind a backslash.
    Escape,
    /// Behind one slash.
    Slash,
    Comment,
}

impl Scan {
    /// For a value that begins with this byte: an object or an array ends with its bracket, all
    /// else before the next comma, closing bracket or line's end.
    pub(super) fn of_value(first: u8) -> Self {
        let brackets = match first {
            b'{' => Some((b'{', b'}')),
            b'[' => Some((b'[', b']')),
            _ => None,
        };
        Scan { brackets, depth: 0, within: Within::Value, done: 0 }
    }

    /// Behind the value's end, if that is among these bytes. The bytes are those of last time, and
    /// more.
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(&byte) = bytes.get(self.done) {
            self.done += 1;
            self.within = match self.within {
                Within::Text => {
                    let from = self.done - 1;
                    let rest = bytes.get(from..).unwrap_or_default();
                    let Some(found) = memchr3(b'"', b'\\', b'\n', rest) else {
                        self.done = bytes.len();
                        return None;
                    };
                    self.done = from + found + 1;
                    if rest.get(found) == Some(&b'\\') { Within::Escape } else { Within::Value }
                }
                Within::Escape if byte != b'\n' => Within::Text,
                Within::Comment if byte != b'\n' => Within::Comment,
                Within::Slash if byte == b'/' => Within::Comment,
                _ => match (byte, self.brackets) {
                    (b'"', _) => Within::Text,
                    (b'/', _) => Within::Slash,
                    (byte, Some((open, _))) if byte == open => {
                        self.depth += 1;
                        Within::Value
                    }
                    (byte, Some((_, close))) if byte == close => {
                        self.depth = self.depth.saturating_sub(1);
                        if self.depth == 0 {
                            return Some(self.done);
                        }
                        Within::Value
                    }
                    (b',' | b']' | b'}' | b'\n', None) if self.done > 1 => {
                        return Some(self.done - 1);
                    }
                    _ => Within::Value,
                },
            };
        }
        None
    }

    /// Whether the bytes so far end within a text.
    pub(super) fn is_in_text(&self) -> bool {
        matches!(self.within, Within::Text | Within::Escape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_values() {
        for (text, rest) in [
            ("{}", ""),
            ("{\"a\":{\"}\":[1]}} {", " {"),
            ("{\"a\\\"}\":1},", ","),
            ("[[1],{\"a\":\"]\"}]]", "]"),
            ("{ // it's {\n}x", "x"),
            ("{\"lost: 1\n},{", ",{"),
            ("{\"a\":[1},", ","),
            ("{\"a\":1/}", ""),
            ("{/\"}\"}", ""),
            ("12,", ","),
            ("\"a,b\\\"]\"]", "]"),
            ("}x]", "]"),
        ] {
            let bytes = text.as_bytes();
            let end = Scan::of_value(bytes[0]).find_end(bytes);
            assert_eq!(end.map(|end| &text[end..]), Some(rest), "{text}");
            // The same, a byte at a time.
            let mut scan = Scan::of_value(bytes[0]);
            let bitwise = (0..=bytes.len()).find_map(|length| scan.find_end(&bytes[..length]));
            assert_eq!(bitwise, end, "{text}");
        }
        for open in ["{", "{\"}", "[{]"[..2].as_ref(), "{//}", "12"] {
            assert_eq!(Scan::of_value(open.as_bytes()[0]).find_end(open.as_bytes()), None, "{open}");
        }
    }
}
