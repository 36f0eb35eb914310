//! The kinds of record that Sporlog keeps, and what it knows about them.
//!
//! Bytes go in on one side (a JSON message, a CSV file), and columns come out on the other
//! (an Arrow [`RecordBatch`](arrow::array::RecordBatch) of [`Kind::row_schema`]), with every
//! doubt about a record stated as a [`Finding`]. This crate does no I/O, keeps no clock and
//! knows nothing of how a log is stored.
//!
//! | module | idea |
//! |---|---|
//! | [`column`] | what is known of one column: what its values are, and whether they repeat |
//! | [`kind`] | the kinds, a file each: the columns, what they mean, and how JSON records are judged |
//! | [`identity`] | what tells that two rows are the same one, delivered twice |
//! | [`finding`] | errors and remarks, with field, rule and position |
//! | [`rules`] | the limits and switches that a deployment may set |
//! | [`identifier`] | fødselsnummer, CPR, organisasjonsnummer, CVR; masking |
//! | [`time`] | local wall-clock times, as the three documents write them |
//! | [`invisible`] | characters that nobody sees, which no identifying field may have |
//! | [`consent`] | consent tokens, of both shapes |
//! | [`jose`] | JSON Web Tokens and the keys that sign them |
//! | [`json`] | JSON in, columns out |
//! | [`revision`] | revision logs: CSV in, columns out, and CSV out again |
//! | [`canonical`] | an entry's canonical JSON, the bytes that are committed to |
#![forbid(unsafe_code)]

pub mod canonical;
pub mod column;
pub mod consent;
pub mod finding;
mod hex;
pub mod identifier;
pub mod identity;
pub mod invisible;
pub mod jose;
pub mod json;
pub mod kind;
pub mod revision;
pub mod rules;
pub mod time;

pub use finding::{Finding, Position, Severity};
pub use hex::hex;
pub use kind::Kind;
pub use rules::Rules;
