//! What is found out about a record while it is judged.
//!
//! Most records give no cause for a finding, so where exactly a field stands is only looked up once there is one.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserializer as _, Serialize};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::text;
use crate::{Finding, Position, Severity};

/// Findings about one record whose positions are still to be looked up.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    drafts: Vec<(Severity, About, &'static str, Cow<'static, str>)>,
}

/// What a finding is about: the field's name, empty for the record as such, and a place.
#[derive(Debug)]
pub(crate) struct About(Cow<'static, str>, Place);

/// A place in a record.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// The record as such.
    Record,
    /// The name of a field: of the object's first, second, ….
    Name(u32),
    /// The value of a field.
    Value(u32),
    /// What is at this byte.
    Offset(usize),
}

impl From<Place> for About {
    fn from(place: Place) -> Self {
        About(Cow::Borrowed(""), place)
    }
}

impl<T: Into<Cow<'static, str>>> From<(T, Place)> for About {
    fn from((field, place): (T, Place)) -> Self {
        About(field.into(), place)
    }
}

impl Notes {
    pub(crate) fn error(
        &mut self,
        about: impl Into<About>,
        rule: &'static str,
        text: impl Into<Cow<'static, str>>,
    ) {
        self.drafts.push((Severity::Error, about.into(), rule, text.into()));
    }

    pub(crate) fn remark(
        &mut self,
        about: impl Into<About>,
        rule: &'static str,
        text: impl Into<Cow<'static, str>>,
    ) {
        self.drafts.push((Severity::Remark, about.into(), rule, text.into()));
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.drafts.iter().any(|(severity, ..)| *severity == Severity::Error)
    }

    /// The findings, with the places that they are about in a record that begins at `start`.
    pub(crate) fn into_findings(self, record: &str, start: Position) -> Vec<Finding> {
        let by_field = |place| matches!(place, Place::Name(_) | Place::Value(_));
        let by_field = self.drafts.iter().any(|(_, About(_, place), ..)| by_field(*place));
        let fields = if by_field { fields(record) } else { Vec::new() };
        let field = |ordinal: u32| fields.get(ordinal as usize);
        let offset = |place| match place {
            Place::Record => None,
            Place::Name(ordinal) => field(ordinal).map(|(name, _)| *name),
            Place::Value(ordinal) => field(ordinal).map(|(_, value)| *value),
            Place::Offset(offset) => Some(offset),
        };
        let finding = |(severity, About(field, place), rule, text)| {
            let position = offset(place).map_or(start, |offset| text::position(record, offset, start));
            Finding { severity, ..Finding::error(rule, text, position).in_field(field) }
        };
        self.drafts.into_iter().map(finding).collect()
    }
}

/// Where the name and the value of each field begin in an object, as far as the object is well-formed.
fn fields(object: &str) -> Vec<(usize, usize)> {
    struct Fields<'o, 'f>(&'o str, &'f mut Vec<(usize, usize)>);

    impl<'de> Visitor<'de> for Fields<'de, '_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let offset = |raw: &RawValue| raw.get().as_ptr().addr() - self.0.as_ptr().addr();
            while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                self.1.push((offset(name), offset(value)));
            }
            Ok(())
        }
    }

    let mut found = Vec::new();
    // What is behind the first error has no place.
    let _ = Deserializer::from_str(object).deserialize_map(Fields(object, &mut found));
    found
}

/// Remarks as they are stored with their record: a JSON array of objects with `field`, `rule` and
/// `text`, in the order found; `None` if there are none.
pub fn remarks_column(findings: &[Finding]) -> Option<String> {
    #[derive(Serialize)]
    struct Stored<'a> {
        field: &'a str,
        rule: &'a str,
        text: &'a str,
    }

    let remarks: Vec<Stored> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Remark)
        .map(|Finding { field, rule, text, .. }| Stored { field, rule, text })
        .collect();
    // Writing texts into a text cannot fail.
    if remarks.is_empty() { None } else { serde_json::to_string(&remarks).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_objects() {
        assert_eq!(fields("{}"), []);
        let text = " { \"a\" : [1, \"]\", {\"b\":2}] , \"\\\"}\":\"x\\\\\",\n\"c\":-1.5e3}";
        let found: Vec<_> =
            fields(text).iter().map(|(name, value)| (&text[*name..], &text[*value..])).collect();
        let begins = [("\"a\" ", "[1, \"]\""), ("\"\\\"}\":", "\"x\\\\\","), ("\"c\":", "-1.5e3}")];
        assert_eq!(found.len(), 3);
        assert!(
            found
                .iter()
                .zip(begins)
                .all(|((name, value), begin)| { name.starts_with(begin.0) && value.starts_with(begin.1) })
        );
        assert_eq!(fields("{\"a\":1,\"b\":}").len(), 1);
    }
}
