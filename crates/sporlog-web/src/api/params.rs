//! What stands behind the question mark.

use std::borrow::Cow;

use crate::problem::Problem;

/// A request's parameters.
pub struct Params<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Params<'a> {
    /// From the raw query.
    pub fn new(query: Option<&'a str>) -> Self {
        let pairs = query.map(|query| url::form_urlencoded::parse(query.as_bytes()).collect());
        Params { pairs: pairs.unwrap_or_default() }
    }

    /// The parameter's text. One that is there twice is refused: only one of them can be meant.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut all = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
        let first = all.next();
        if all.next().is_some() {
            return Err(Problem::bad_request(format!("'{name}' is there more than once")));
        }
        Ok(first)
    }

    /// The parameter as a non-negative integer, in digits and nothing else. One that is too large for
    /// us is larger than any id, and is taken as the largest there is.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Problem::bad_request(format!("'{name}' has to be a non-negative integer")));
        }
        Ok(Some(text.parse().unwrap_or(u64::MAX)))
    }

    /// The parameter as a number from `min` to `max`.
    pub fn number_within(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Problem> {
        match self.number(name)? {
            Some(number) if !(min..=max).contains(&number) => {
                Err(Problem::bad_request(format!("'{name}' has to be from {min} to {max}")))
            }
            number => Ok(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits() {
        let number = |query: &str| Params::new(Some(query)).number("offset").map_err(|p| p.status);
        assert_eq!(number(""), Ok(None));
        assert_eq!(number("offset=7192&x=1"), Ok(Some(7192)));
        assert_eq!(number("offset=007"), Ok(Some(7)));
        assert_eq!(number("offset=99999999999999999999"), Ok(Some(u64::MAX)));
        for wrong in ["-1", "1.0", "1e3", "+1", "%2B1", "", " 1", "0x1", "null", "%D9%A1", "1%00"] {
            assert_eq!(number(&format!("offset={wrong}")), Err(400), "{wrong}");
        }
        assert_eq!(number("offset=1&offset=1"), Err(400));
        assert_eq!(number("offset"), Err(400));
    }

    #[test]
    fn numbers_have_bounds() {
        let limit = |query| Params::new(Some(query)).number_within("limit", 1, 1000).map_err(|p| p.status);
        assert_eq!(limit("limit=1000"), Ok(Some(1000)));
        assert_eq!(limit("limit=0"), Err(400));
        assert_eq!(limit("limit=1001"), Err(400));
    }
}
