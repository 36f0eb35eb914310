//! What is known of one column of a kind's records.

use arrow::datatypes::{DataType, Field};

/// Names of columns.
pub type Names = &'static [&'static str];

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The column's name, which is the field's name on the wire.
    pub name: &'static str,
    /// What the values are.
    pub content: Content,
    /// How the values of several records resemble each other.
    pub values: Values,
    /// Whether a JSON record without this field is refused.
    pub required: bool,
    /// Whether JSON has `null` where there is no value, instead of leaving the field out.
    pub shows_null: bool,
}

/// What the values of a column are, and how JSON has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text,
    /// Integers of 64 bits.
    Integer,
    /// JSON, stored as text.
    Json,
    /// Bytes, which JSON has in Base64.
    Bytes,
    /// Text that is stored as the bytes that it encodes, where the column of this name says `base64`, and else as
    /// it is.
    Encoded(&'static str),
    /// How another column is stored ([`Content::Encoded`]). JSON does not have this column.
    Encoding,
}

/// How the values of a column resemble each other, which decides how files store them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Values repeat: a dictionary of them is small.
    Repeating,
    /// (Nearly) all values differ.
    Distinct,
    /// All values differ, and most begin like the one before.
    Prefixed,
}

impl Column {
    pub(crate) const fn new(name: &'static str, content: Content) -> Self {
        Column { name, content, values: Values::Repeating, required: false, shows_null: false }
    }

    pub(crate) const fn text(name: &'static str) -> Self {
        Column::new(name, Content::Text)
    }

    pub(crate) const fn distinct(self) -> Self {
        Column { values: Values::Distinct, ..self }
    }

    pub(crate) const fn required(self) -> Self {
        Column { required: true, ..self }
    }

    /// The column as Arrow has it.
    pub(crate) fn field(&self) -> Field {
        let data_type = match self.content {
            Content::Text | Content::Json | Content::Encoding => DataType::Utf8,
            Content::Integer => DataType::Int64,
            Content::Bytes | Content::Encoded(_) => DataType::Binary,
        };
        Field::new(self.name, data_type, true)
    }
}
