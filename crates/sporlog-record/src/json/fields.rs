//! A JSON object taken apart into the fields that its kind knows, and those that it does not.
//!
//! One pass of serde, which borrows every text that has no escapes. A value of the wrong type does not end the pass:
//! all that is wrong with a record is to be said at once.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Deserializer;
use serde_json::value::RawValue;

use super::notes::{Notes, Place};
use crate::column::{Column, Content};
use crate::{Kind, invisible};

/// The fields of a record.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    columns: &'static [Column],
    /// One for each column; of several fields with the same name, the first.
    known: Vec<Field<'a>>,
    /// Fields with other names, in the order given.
    pub(crate) others: Vec<Other<'a>>,
    /// Fields whose name was there before, and which of the object's they are.
    pub(crate) repeated: Vec<(Cow<'a, str>, u32)>,
}

#[derive(Debug, Default)]
struct Field<'a> {
    value: Value<'a>,
    /// Which of the object's fields it is.
    ordinal: Option<u32>,
}

/// A field that is kept as it is.
#[derive(Debug)]
pub(crate) struct Other<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) ordinal: u32,
    /// The JSON.
    pub(crate) value: Cow<'a, str>,
    /// Whether a remark says that nobody knows the field.
    pub(crate) unknown: bool,
}

/// A value, as far as records have any.
#[derive(Debug, Default, PartialEq)]
pub(crate) enum Value<'a> {
    /// `null`, or nothing.
    #[default]
    Absent,
    Text(Cow<'a, str>),
    Integer(i64),
    /// What is stored instead of the text that encodes it.
    Bytes(Vec<u8>),
    /// What it is instead of a text or an integer, or of what its column has.
    Wrong(&'static str),
}

/// Why a text is no JSON object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) rule: &'static str,
    pub(super) text: Cow<'static, str>,
    pub(super) offset: usize,
}

impl<'a> Fields<'a> {
    /// Parses an object that has fields for these columns.
    pub(super) fn parse(text: &'a str, columns: &'static [Column]) -> Result<Self, SyntaxError> {
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
            .deserialize_map(FieldsVisitor { columns })
            .and_then(|fields| deserializer.end().map(|()| fields))
            .map_err(|error| explain(text, &error))
    }

    /// Notes fields that are required and absent, and values of another type than their column has, which count as
    /// [`Value::Wrong`] from now on.
    pub(super) fn check_types(&mut self, notes: &mut Notes) {
        for (field, column) in self.known.iter_mut().zip(self.columns) {
            let about = (column.name, field.place());
            let found = match (&field.value, column.content == Content::Integer) {
                (Value::Absent, _) if column.required => {
                    notes.error(about, "required", "the field is missing");
                    continue;
                }
                (Value::Text(_), true) => "a text",
                (Value::Integer(_), false) => "a number",
                (Value::Wrong(what), _) => what,
                _ => continue,
            };
            let expected = if column.content == Content::Integer { "an integer" } else { "a text" };
            notes.error(about, "type", format!("{expected} is expected here, and this is {found}"));
            field.value = Value::Wrong(found);
        }
    }

    /// Notes texts with invisible characters: an error where the column identifies, and else a remark.
    pub(super) fn check_visible(&self, kind: Kind, notes: &mut Notes) {
        for (field, column) in self.known.iter().zip(self.columns) {
            let Value::Text(text) = &field.value else { continue };
            if !invisible::may_hold(text.as_bytes()) {
                continue;
            }
            let identifies = kind.is_identifying(column.name);
            if let Some(found) = invisible::first(text, identifies) {
                let (about, text) = ((column.name, field.place()), invisible::finding(found));
                if identifies {
                    notes.error(about, "invisible", text);
                } else {
                    notes.remark(about, "invisible", text);
                }
            }
        }
    }

    /// The text of a column, if there is one.
    pub(crate) fn text(&self, column: usize) -> Option<&str> {
        match &self.known.get(column)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The integer of a column, if there is one.
    pub(crate) fn integer(&self, column: usize) -> Option<i64> {
        match self.known.get(column)?.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    /// Whether there is nothing, or `null`.
    pub(crate) fn is_absent(&self, column: usize) -> bool {
        self.known.get(column).is_none_or(|field| field.value == Value::Absent)
    }

    /// Stores another value than the one given.
    pub(crate) fn set(&mut self, column: usize, value: Value<'a>) {
        if let Some(field) = self.known.get_mut(column) {
            field.value = value;
        }
    }

    /// What a note about a column's value is about.
    pub(crate) fn at(&self, column: usize) -> (&'static str, Place) {
        let name = self.columns.get(column).map_or("", |column| column.name);
        (name, self.known.get(column).map_or(Place::Record, Field::place))
    }

    /// The values, by columns.
    pub(super) fn into_values(self) -> impl Iterator<Item = Value<'a>> {
        self.known.into_iter().map(|field| field.value)
    }
}

impl Field<'_> {
    /// Where its value stands, or should have.
    fn place(&self) -> Place {
        self.ordinal.map_or(Place::Record, Place::Value)
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

struct FieldsVisitor {
    columns: &'static [Column],
}

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let columns = self.columns;
        let mut known: Vec<Field> = columns.iter().map(|_| Field::default()).collect();
        let (mut others, mut repeated) = (Vec::new(), Vec::new());
        let mut other_names = HashSet::new();
        // Fields mostly come in the order of the columns, so the next name is guessed first.
        let mut next = 0;
        let mut ordinal = 0;
        while let Some(name) = map.next_key_seed(NameSeed { columns, guess: next })? {
            match name {
                Name::Known(number) => {
                    next = number + 1;
                    match known.get_mut(number) {
                        Some(field) if field.ordinal.is_none() => {
                            let value = map.next_value_seed(ValueSeed)?;
                            *field = Field { value, ordinal: Some(ordinal) };
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            repeated
                                .push((columns.get(number).map_or("", |column| column.name).into(), ordinal));
                        }
                    }
                }
                Name::Other(name) => {
                    let value = map.next_value::<&RawValue>()?.get().into();
                    if other_names.insert(name.clone()) {
                        others.push(Other { name, ordinal, value, unknown: true });
                    } else {
                        repeated.push((name, ordinal));
                    }
                }
            }
            ordinal += 1;
        }
        Ok(Fields { columns, known, others, repeated })
    }
}

/// A field's name: the number of a known column, or another.
enum Name<'a> {
    Known(usize),
    Other(Cow<'a, str>),
}

struct NameSeed {
    columns: &'static [Column],
    guess: usize,
}

impl NameSeed {
    fn find(&self, name: &str) -> Option<Name<'static>> {
        let (before, behind) = self.columns.split_at_checked(self.guess).unwrap_or((self.columns, &[]));
        let is_it = |column: &Column| column.name == name && column.content != Content::Encoding;
        let number = behind.iter().position(is_it).map(|at| at + before.len());
        number.or_else(|| before.iter().position(is_it)).map(Name::Known)
    }
}

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Name<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Name<'de>, D::Error> {
        from.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
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
