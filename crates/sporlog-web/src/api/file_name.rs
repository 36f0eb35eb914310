//! What a delivered file is called. The name ends in receipts and in the records' origins, so nothing but
//! a name is left of what a client says.

use axum::http::{HeaderMap, header};
use sporlog_record::identifier::mask_text;

/// What a delivery without a name is called.
const NAMELESS: &str = "delivery";
/// The longest name, in bytes.
const LONGEST: usize = 255;

/// The name that the request gives: `asked` for it, or else its `Content-Disposition`. Of a path, the last
/// component; without control characters, and personal numbers masked.
pub(super) fn file_name(asked: Option<&str>, headers: &HeaderMap) -> String {
    let given = asked.map(str::to_owned).or_else(|| disposition(headers)).unwrap_or_default();
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain: String = last.chars().filter(|char| !char.is_control()).collect();
    let masked = mask_text(plain.trim());
    match &masked[..masked.floor_char_boundary(LONGEST)] {
        "" | "." | ".." => NAMELESS.to_owned(),
        name => name.to_owned(),
    }
}

/// The `filename*` or `filename` of RFC 6266.
fn disposition(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_DISPOSITION)?;
    let parameters = parameters(&String::from_utf8_lossy(value.as_bytes()));
    let find = |wanted: &str| parameters.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let extended = find("filename*").and_then(|(_, value)| extended(value));
    extended.or_else(|| find("filename").map(|(_, value)| value.clone()))
}

/// Names and values of what stands behind the first semicolon; the values without their quotes.
fn parameters(text: &str) -> Vec<(String, String)> {
    let (mut parts, mut part, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for char in text.chars() {
        match char {
            _ if std::mem::take(&mut escaped) => part.push(char),
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => parts.push(std::mem::take(&mut part)),
            _ => part.push(char),
        }
    }
    parts.push(part);
    let pair =
        |part: &String| part.split_once('=').map(|(name, value)| (name.trim().into(), value.trim().into()));
    parts.iter().skip(1).filter_map(pair).collect()
}

/// `UTF-8''day%20one.csv`, read.
fn extended(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    // The decoder is one of forms, in which these two characters stand for something else.
    let encoded = encoded.replace('+', "%2B").replace('&', "%26");
    let (name, rest) = url::form_urlencoded::parse(encoded.as_bytes()).next()?;
    charset
        .eq_ignore_ascii_case("utf-8")
        .then(|| if rest.is_empty() { name.into_owned() } else { format!("{name}={rest}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_header(value: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_DISPOSITION, value.parse().unwrap());
        file_name(None, &headers)
    }

    #[test]
    fn only_a_name_is_left() {
        for (given, expected) in [
            ("day.csv", "day.csv"),
            ("/etc/passwd", "passwd"),
            ("..\\..\\day.csv", "day.csv"),
            ("a/..", NAMELESS),
            ("a/.", NAMELESS),
            ("a/", NAMELESS),
            ("", NAMELESS),
            ("\0", NAMELESS),
            ("da\0y\r\n.csv", "day.csv"),
            (" day 1.csv ", "day 1.csv"),
            ("æøå.csv", "æøå.csv"),
            ("0101018081.csv", "01********.csv"),
            ("010101\u{7}8081.csv", "01********.csv"),
        ] {
            assert_eq!(file_name(Some(given), &HeaderMap::new()), expected, "{given:?}");
        }
        let long = "æ".repeat(200);
        assert_eq!(file_name(Some(&long), &HeaderMap::new()), "æ".repeat(127));
    }

    #[test]
    fn content_disposition() {
        for (given, expected) in [
            ("attachment; filename=day.csv", "day.csv"),
            ("attachment; filename=\"day; 1.csv\"; size=3", "day; 1.csv"),
            ("attachment; FileName=\"a\\\"b.csv\"", "a\"b.csv"),
            ("attachment; filename=\"../x.csv\"", "x.csv"),
            ("attachment; filename=plain.csv; filename*=UTF-8''d%C3%A6%20g+1%262=3.csv", "dæ g+1&2=3.csv"),
            ("attachment; filename=plain.csv; filename*=latin-1''x.csv", "plain.csv"),
            ("attachment; filename*=UTF-8''..%2Fx%00.csv", "x.csv"),
            ("attachment; filename=\"unfinished", "unfinished"),
            ("filename=first.csv", NAMELESS),
            (";;;=;", NAMELESS),
        ] {
            assert_eq!(by_header(given), expected, "{given}");
        }
        assert_eq!(file_name(None, &HeaderMap::new()), NAMELESS);
    }
}
