//! What others have written, as HTML: escaped, kept from changing the direction of the text around it, and
//! with its invisible characters made visible.

/// HTML that is ready to be put into a page.
pub type Html = askama::filters::Safe<String>;

/// Characters of a value that are shown in a list.
pub const SHORT: usize = 160;
/// Characters of a value that are shown on a record's own page.
pub const LONG: usize = 4_000;

/// Data as HTML, at most `limit` characters of it.
pub fn data(text: &str, limit: usize) -> Html {
    let mut out = String::new();
    push_data(text, limit, &mut out);
    askama::filters::Safe(out)
}

/// Appends data in an element that isolates its direction.
pub fn push_data(text: &str, limit: usize, out: &mut String) {
    out.push_str("<bdi>");
    push_visible(text, limit, out);
    out.push_str("</bdi>");
}

/// Appends data; it has to stand in an element that isolates its direction. A character that is made visible
/// counts for several, so that hostile text does not make a page large.
pub fn push_visible(text: &str, limit: usize, out: &mut String) {
    let mut left = limit;
    for character in text.chars() {
        if left == 0 {
            return out.push('…');
        }
        if is_invisible(character) {
            out.push_str(&format!("<span class=\"invisible\">U+{:04X}</span>", u32::from(character)));
            left = left.saturating_sub(8);
        } else {
            escape(character.encode_utf8(&mut [0; 4]), out);
            left -= 1;
        }
    }
}

/// Whether a character shows nothing, or changes how others are shown: controls, marks and overrides of
/// direction, joiners, tags.
pub fn is_invisible(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\t' | '\r'))
        || matches!(character, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// Appends text with the characters escaped that mean something in HTML.
pub fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
}

/// Appends the value of an address's parameter, encoded.
pub fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
