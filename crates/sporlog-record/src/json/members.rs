//! A JSON object taken apart into the members that a record has, and those it should not have.
//!
//! One pass of serde, which borrows every text that has no escapes. A value of the wrong type does
//! not end it: all that is wrong with a record is to be said at once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;

use super::notes::Place;

/// What a record has under the names that are known, by their number, and what else it has.
#[derive(Debug)]
pub(super) struct Members<'a, const N: usize> {
    pub(super) fields: [Field<'a>; N],
    /// Members under other names, in the order given.
    pub(super) others: Vec<Other<'a>>,
    /// Members whose name was there before.
    pub(super) repeated: Vec<(Cow<'a, str>, u32)>,
}

/// A known member; of several, the first.
#[derive(Debug, Default)]
pub(super) struct Field<'a> {
    pub(super) value: Value<'a>,
    /// Which of the object's members it is.
    pub(super) ordinal: Option<u32>,
}

/// A member that is kept as it is.
#[derive(Debug)]
pub(super) struct Other<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) ordinal: u32,
    /// Whether a remark says that nobody knows it.
    pub(super) unknown: bool,
}

/// A value, as far as records have any.
#[derive(Debug, Default, PartialEq)]
pub(super) enum Value<'a> {
    /// `null`, or nothing.
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(i64),
    /// What it is instead.
    Wrong(&'static str),
}

/// Why a text is no JSON object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) rule: &'static str,
    pub(super) text: Cow<'static, str>,
    pub(super) offset: usize,
}

impl Field<'_> {
    /// Whether it is there, and not `null`.
    pub(super) fn is_given(&self) -> bool {
        self.value != Value::Absent
    }

    /// Where its value stands, or should have.
    pub(super) fn place(&self) -> Place {
        self.ordinal.map_or(Place::Record, Place::Value)
    }
}

impl<'a, const N: usize> Members<'a, N> {
    /// Parses an object that has these members.
    pub(super) fn parse(text: &'a str, names: &[&'static str; N]) -> Result<Self, SyntaxError> {
        // Told apart here, since serde would quote what it found instead of an object.
        let start = text.len() - text.trim_ascii_start().len();
        let not_object = |rule, text| SyntaxError { rule, text: Cow::Borrowed(text), offset: start };
        match text.as_bytes().get(start) {
            Some(b'{') => {}
            Some(_) => return Err(not_object("object", "this is not a JSON object")),
            None => return Err(not_object("json", "the record is empty")),
        }
        let mut deserializer = Deserializer::from_str(text);
        (&mut deserializer)
            .deserialize_map(MembersVisitor { names })
            .and_then(|members| deserializer.end().map(|()| members))
            .map_err(|error| explain(text, &error))
    }
}

fn explain(text: &str, error: &serde_json::Error) -> SyntaxError {
    let line_start = match error.line() {
        0 | 1 => 0,
        line => memchr::memchr_iter(b'\n', text.as_bytes())
            .nth(line - 2)
            .map_or(text.len(), |newline| newline + 1),
    };
    let offset = (line_start + error.column().saturating_sub(1)).min(text.len());
    let message = error.to_string();
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(message, _)| message);
    let text = match error.is_eof() {
        true => format!("the record ends in the middle ({message})"),
        false => format!("this is not well-formed JSON: {message}"),
    };
    SyntaxError { rule: "json", text: Cow::Owned(text), offset }
}

struct MembersVisitor<'n, const N: usize> {
    names: &'n [&'static str; N],
}

impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
    type Value = Members<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: [Field; N] = std::array::from_fn(|_| Field::default());
        let mut others = Vec::new();
        let mut repeated = Vec::new();
        let mut other_names = HashSet::new();
        // Members mostly come in the order of the spec, so the next name is guessed first.
        let mut next = 0;
        let mut ordinal = 0;
        while let Some(name) = map.next_key_seed(NameSeed { names: self.names, guess: next })? {
            match name {
                Name::Known(number, name) => {
                    next = number + 1;
                    match fields.get_mut(number) {
                        Some(field) if field.ordinal.is_none() => {
                            let value = map.next_value_seed(ValueSeed)?;
                            *field = Field { value, ordinal: Some(ordinal) };
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            repeated.push((Cow::Borrowed(name), ordinal));
                        }
                    }
                }
                Name::Other(name) => {
                    map.next_value::<IgnoredAny>()?;
                    if other_names.insert(name.clone()) {
                        others.push(Other { name, ordinal, unknown: true });
                    } else {
                        repeated.push((name, ordinal));
                    }
                }
            }
            ordinal += 1;
        }
        Ok(Members { fields, others, repeated })
    }
}

/// A member's name: the number of a known one, or another.
enum Name<'a> {
    Known(usize, &'static str),
    Other(Cow<'a, str>),
}

struct NameSeed<'n, const N: usize> {
    names: &'n [&'static str; N],
    guess: usize,
}

impl<const N: usize> NameSeed<'_, N> {
    fn find(&self, name: &str) -> Option<Name<'static>> {
        let is_it = |known: &&str| *known == name;
        let number = match self.names.get(self.guess) {
            Some(known) if is_it(known) => self.guess,
            _ => self.names.iter().position(is_it)?,
        };
        Some(Name::Known(number, self.names.get(number)?))
    }
}

impl<'de, const N: usize> DeserializeSeed<'de> for NameSeed<'_, N> {
    type Value = Name<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Name<'de>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for NameSeed<'_, N> {
    type Value = Name<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<Name<'de>, E> {
        Ok(self.find(name).unwrap_or(Name::Other(Cow::Borrowed(name))))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Name<'de>, E> {
        Ok(self.find(name).unwrap_or_else(|| Name::Other(Cow::Owned(name.to_owned()))))
    }
}

struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value<'de>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(Value::Wrong("a number beyond 64 bits"), Value::Integer))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Wrong("a number that is no integer of 64 bits"))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Wrong("true or false"))
    }

    fn visit_unit<E: Error>(self) -> Result<Value<'de>, E> {
        Ok(Value::Absent)
    }

    // What is inside is skipped without recursion, however deep it is nested.

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Value<'de>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Wrong("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value<'de>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Wrong("an object"))
    }
}
