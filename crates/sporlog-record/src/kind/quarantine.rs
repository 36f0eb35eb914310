//! The quarantine: what was refused, and what became of it. `action` is `REFUSED`, `REPLAYED` or `DISCARDED`;
//! `item` is, for the latter two, the id of the `REFUSED` record that they are about; `content` the refused bytes.

use super::{Column, Content, Definition, Format};

const COLUMNS: [Column; 9] = [
    Column::text("action"),
    Column::new("item", Content::Integer).distinct(),
    Column::text("kind"),
    Column::text("log"),
    Column::text("source"),
    Column::new("line", Content::Integer).distinct(),
    Column::new("reasons", Content::Json).distinct(),
    Column::new("content", Content::Bytes).distinct(),
    Column::text("note"),
];

pub(super) static DEFINITION: Definition = Definition {
    name: "quarantine",
    format: Format::Internal,
    columns: &COLUMNS,
    roles: None,
    organisations: &[],
    identity: &[],
    shows_id: false,
};
