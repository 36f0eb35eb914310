//! What was handed out, made readable: JSON as a tree, also where it was cut in mid-text; XML indented;
//! anything else as text.

use askama::filters::Safe;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::html::{Html, push_data, push_visible};

/// HTML of one content: at this many bytes it ends, so that a page stays below 100 kB.
const BUDGET: usize = 24 << 10;
/// So many bytes of a content are looked at: a tree of the largest content that is taken in would take half a GiB.
const MOST: usize = 1 << 20;
/// Levels of a tree that are shown.
const DEPTH: usize = 24;
/// Characters of one value that are shown.
const VALUE: usize = 1_000;

/// A content as it is shown.
pub struct Shown {
    pub html: Html,
    /// It ends in mid-text: whoever delivered it has cut it.
    pub cut: bool,
    /// Only its beginning is shown.
    pub shortened: bool,
}

/// Shows a content.
pub fn show(bytes: &[u8]) -> Shown {
    let beginning = bytes.get(..MOST).unwrap_or(bytes);
    // Where a longer content ends is not seen.
    let long = beginning.len() < bytes.len();
    let (text, cut) = whole_characters(beginning);
    let trimmed = text.trim_start_matches('\u{feff}').trim();
    if trimmed.starts_with(['{', '['])
        && let Some((node, json_cut)) = parse(trimmed)
    {
        let mut out = Out { html: String::new(), full: false };
        out.node(&node, 0);
        return Shown { html: Safe(out.html), cut: !long && (cut || json_cut), shortened: long || out.full };
    }
    let (text, lang) = if trimmed.starts_with('<') && (long || trimmed.ends_with('>')) {
        (indent(trimmed), "xml")
    } else {
        (trimmed.to_owned(), "text")
    };
    let mut html = format!("<pre class=\"{lang}\" tabindex=\"0\"><bdi>");
    let mut characters = text.chars();
    while html.len() < BUDGET
        && let Some(character) = characters.next()
    {
        push_visible(character.encode_utf8(&mut [0; 4]), 1, &mut html);
    }
    html.push_str("</bdi></pre>");
    Shown { html: Safe(html), cut: !long && cut, shortened: long || characters.next().is_some() }
}

/// The text, and whether it ends within a character. Bytes that are no text become replacement characters.
fn whole_characters(bytes: &[u8]) -> (std::borrow::Cow<'_, str>, bool) {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => {
            let whole = bytes.get(..error.valid_up_to()).unwrap_or_default();
            (String::from_utf8_lossy(whole), true)
        }
        _ => (String::from_utf8_lossy(bytes), false),
    }
}

/// Whether a content begins as JSON or XML does.
pub fn is_markup(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'[' | b'<'))
}

/// Whether bytes are a text, which may be cut within a character.
pub fn is_text(bytes: &[u8]) -> bool {
    let whole = std::str::from_utf8(bytes).err().and_then(|error| error.error_len()).is_none();
    whole && !bytes.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

/// Base64 of either alphabet, with or without padding, also cut at any character.
pub fn decode_liberally(text: &str) -> Option<Vec<u8>> {
    const LIBERAL: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let mut unbroken: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if unbroken.len() % 4 == 1 {
        unbroken.pop();
    }
    [&alphabet::STANDARD, &alphabet::URL_SAFE]
        .into_iter()
        .find_map(|alphabet| GeneralPurpose::new(alphabet, LIBERAL).decode(&unbroken).ok())
}

enum Node {
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    Value(String),
    /// What came here was cut off.
    Cut,
}

/// The tree of a JSON text, and whether it was cut; `None` if it is no JSON even so far as it goes.
fn parse(text: &str) -> Option<(Node, bool)> {
    let mut parser = Parser { text, at: 0, cut: false };
    let node = parser.value(0)?;
    parser.space();
    (parser.cut || parser.at == text.len()).then_some((node, parser.cut))
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    cut: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// The next byte after white space; at the end, the text is cut.
    fn next(&mut self) -> Option<u8> {
        self.space();
        let next = self.peek();
        self.cut |= next.is_none();
        next
    }

    /// `None` if it is no JSON.
    fn value(&mut self, depth: usize) -> Option<Node> {
        match self.next() {
            None => Some(Node::Cut),
            Some(_) if depth > 4 * DEPTH => None,
            Some(b'{') => {
                let mut members = Vec::new();
                self.members(b'}', |parser| {
                    if parser.peek() != Some(b'"') {
                        return None;
                    }
                    let name = parser.string()?;
                    if parser.cut {
                        members.push((name, Node::Cut));
                        return Some(());
                    }
                    match parser.next() {
                        None => members.push((name, Node::Cut)),
                        Some(b':') => {
                            parser.at += 1;
                            members.push((name, parser.value(depth + 1)?));
                        }
                        Some(_) => return None,
                    }
                    Some(())
                })?;
                Some(if self.cut && members.is_empty() { Node::Cut } else { Node::Object(members) })
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.members(b']', |parser| {
                    items.push(parser.value(depth + 1)?);
                    Some(())
                })?;
                Some(if self.cut && items.is_empty() { Node::Cut } else { Node::Array(items) })
            }
            Some(b'"') => self.string().map(Node::Value),
            Some(_) => {
                let start = self.at;
                while self.peek().is_some_and(|byte| !b",]} \t\r\n".contains(&byte)) {
                    self.at += 1;
                }
                let word = self.text.get(start..self.at)?;
                if self.at == self.text.len() {
                    self.cut = true;
                    return Some(Node::Cut);
                }
                serde_json::from_str::<serde_json::Value>(word).ok()?;
                Some(Node::Value(word.to_owned()))
            }
        }
    }

    /// What stands between brackets, with commas between.
    fn members(&mut self, end: u8, mut member: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.at += 1;
        if self.next() == Some(end) {
            self.at += 1;
            return Some(());
        }
        loop {
            if self.next().is_none() {
                return Some(());
            }
            member(self)?;
            if self.cut {
                return Some(());
            }
            match self.next() {
                None => return Some(()),
                Some(b',') => self.at += 1,
                Some(byte) if byte == end => {
                    self.at += 1;
                    return Some(());
                }
                Some(_) => return None,
            }
        }
    }

    /// A string; one that is cut is given as far as it goes.
    fn string(&mut self) -> Option<String> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                None => {
                    self.cut = true;
                    // What is left of an escape is left out.
                    let part = self.text.get(start + 1..)?;
                    let tail = part.rfind('\\').filter(|at| part.len() - at < 6).unwrap_or(part.len());
                    let whole = |part: &str| serde_json::from_str(&format!("\"{part}\"")).ok();
                    return whole(part).or_else(|| whole(part.get(..tail)?));
                }
                Some(b'\\') => self.at += 2,
                Some(b'"') => {
                    self.at += 1;
                    return serde_json::from_str(self.text.get(start..self.at)?).ok();
                }
                Some(_) => self.at += 1,
            }
        }
    }
}

struct Out {
    html: String,
    full: bool,
}

impl Out {
    fn node(&mut self, node: &Node, depth: usize) {
        match node {
            Node::Value(text) => {
                self.html.push_str(" <span class=\"value\">");
                push_data(text, VALUE, &mut self.html);
                self.html.push_str("</span>");
            }
            Node::Cut => self.html.push_str(" <span class=\"cut\">…</span>"),
            Node::Object(members) => {
                self.list(members.len(), depth, |out, nth| {
                    let Some((name, node)) = members.get(nth) else { return };
                    out.html.push_str("<span class=\"key\">");
                    push_data(name, VALUE, &mut out.html);
                    out.html.push_str("</span>");
                    out.node(node, depth + 1);
                });
            }
            Node::Array(items) => {
                self.list(items.len(), depth, |out, nth| {
                    out.html.push_str(&format!("<span class=\"key\">{}.</span>", nth + 1));
                    items.get(nth).into_iter().for_each(|node| out.node(node, depth + 1));
                });
            }
        }
    }

    fn list(&mut self, items: usize, depth: usize, mut item: impl FnMut(&mut Self, usize)) {
        if items == 0 {
            return self.html.push_str(" <span class=\"value\">–</span>");
        }
        if depth >= DEPTH {
            self.full = true;
            return self.html.push_str(" <span class=\"cut\">…</span>");
        }
        self.html.push_str(if depth == 0 { "<ul class=\"tree\">" } else { "<ul>" });
        for nth in 0..items {
            if self.html.len() > BUDGET {
                self.full = true;
                break;
            }
            self.html.push_str("<li>");
            item(self, nth);
            self.html.push_str("</li>");
        }
        self.html.push_str("</ul>");
    }
}

/// XML with a line for each element, indented by its depth.
fn indent(xml: &str) -> String {
    let (mut out, mut depth, mut rest) = (String::new(), 0_usize, xml);
    let mut line = |depth: usize, text: &str| {
        if !text.is_empty() {
            out.push_str(&"  ".repeat(depth.min(DEPTH)));
            out.push_str(text);
            out.push('\n');
        }
    };
    while let Some(start) = rest.find('<') {
        let (text, from) = rest.split_at(start);
        line(depth, text.trim());
        let end = from.find('>').map_or(from.len(), |end| end + 1);
        let (tag, behind) = from.split_at(end);
        rest = behind;
        if tag.starts_with("</") {
            depth = depth.saturating_sub(1);
            line(depth, tag);
            continue;
        }
        let opens = !tag.ends_with("/>") && !tag.starts_with("<?") && !tag.starts_with("<!");
        // An element that holds nothing but text stays on its line.
        let closing = rest.find('<').filter(|at| opens && rest[*at..].starts_with("</"));
        match closing.and_then(|at| Some(at + rest[at..].find('>')? + 1)) {
            Some(end) => {
                let (content, behind) = rest.split_at(end);
                line(depth, &format!("{tag}{}", content.trim_start()));
                rest = behind;
            }
            None => {
                line(depth, tag);
                depth += usize::from(opens);
            }
        }
    }
    line(depth, rest.trim());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shown(text: &str, cut: bool, parts: &[&str]) -> String {
        let shown = show(text.as_bytes());
        assert_eq!(shown.cut, cut, "{text}: {}", shown.html.0);
        for part in parts {
            assert!(shown.html.0.contains(part), "{part} is not in {}", shown.html.0);
        }
        shown.html.0
    }

    #[test]
    fn json_is_a_tree() {
        let html = shown(r#"{"a":[1,{"b":"<x>"}],"c":{},"d":null}"#, false, &["class=\"tree\"", "&lt;x&gt;"]);
        assert_eq!(html.matches("<ul").count(), html.matches("</ul>").count());
        assert_eq!(html.matches("<li>").count(), 6);
    }

    #[test]
    fn json_that_was_cut_shows_what_is_whole() {
        let text = r#"{"ytelser":[{"navn":"Æ \u00e5 \"x\"","beloep":1200.5},{"navn":"to"}],"slutt":true}"#;
        for end in (2..text.len()).filter(|end| text.is_char_boundary(*end)) {
            let shown = show(&text.as_bytes()[..end]);
            assert!(shown.cut, "{}", &text[..end]);
            assert!(shown.html.0.starts_with("<ul class=\"tree\">") || end < 4, "{}", &text[..end]);
        }
        // Within a character, too.
        assert!(show(&text.as_bytes()[..22]).cut && show(&text.as_bytes()[..23]).cut);
        shown(&text[..60], true, &["1200.5"]);
    }

    #[test]
    fn anything_else_is_text() {
        shown("{not json} at all", false, &["<pre class=\"text\"", "{not json} at all"]);
        shown(
            "<a><b c=\"1\">x</b><d/></a>",
            false,
            &["&lt;a&gt;\n  &lt;b", "x&lt;/b&gt;\n  &lt;d/&gt;\n&lt;/a&gt;"],
        );
        shown("\u{202e}abc\u{0}", false, &["U+202E</span>abc", "U+0000"]);
        assert!(show(&[0xff, 0xfe, b'a']).html.0.contains('\u{fffd}'));
    }

    #[test]
    fn hostile_contents_stay_small() {
        let deep = "[".repeat(100_000);
        let wide = format!("[{}1]", "1,".repeat(500_000));
        let word = "x".repeat(1 << 20);
        let tags = "<a>".repeat(100_000);
        let controls = "\u{202e}".repeat(500_000);
        for hostile in [&deep, &wide, &word, &format!("{{\"{word}\":\"{word}\"}}"), &tags, &controls] {
            let shown = show(hostile.as_bytes());
            assert!(shown.html.0.len() < 80 << 10, "{} bytes", shown.html.0.len());
        }
    }

    #[test]
    fn of_a_long_content_only_the_beginning_is_looked_at() {
        for (one, end, shown_as) in
            [("1,", "not JSON", "class=\"tree\""), ("<a/>", "no end", "class=\"xml\"")]
        {
            let begin = if one == "1," { "[" } else { "<b>" };
            let shown = show(format!("{begin}{}{end}", one.repeat(MOST)).as_bytes());
            assert!(shown.html.0.contains(shown_as) && shown.shortened && !shown.cut, "{end}");
        }
    }

    #[test]
    fn base64_is_decoded_liberally() {
        for text in ["e30=", "e30", "e3 0\n", "e30="] {
            assert_eq!(decode_liberally(text).as_deref(), Some(&b"{}"[..]), "{text}");
        }
        assert_eq!(decode_liberally("eyJhIjox"), Some(b"{\"a\":1".to_vec()));
        assert_eq!(decode_liberally("eyJhI"), Some(b"{\"a".to_vec()));
        assert_eq!(decode_liberally("not base64!"), None);
    }
}
