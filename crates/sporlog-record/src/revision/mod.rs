//! Revision logs: CSV in, columns out, and CSV out again.
//!
//! A delivery is a file of up to two gigabytes, so it is read in *slabs*: one thread reads buffers
//! and asks the [`Splitter`] where the last whole record ends; workers [parse](parse_slab) each
//! slab on its own. Nothing is kept per row but its bytes in the columns.
//!
//! ```
//! use sporlog_record::Rules;
//! use sporlog_record::revision::{Header, Splitter, parse_slab};
//!
//! let file = b"\"TransaktionsId\",\"TransaktionsTid\",\"BrugerId\",\"KalderOrganisation\",\"KalderItSystemInstans\"\r\n\
//!     \"1\",\"2021-11-10\",\"YK16\",\"64942212\",\"SAPA\"\r\n";
//! let rules = Rules::default();
//! let header = Header::parse(file, &rules)?;
//! let mut splitter = Splitter::new(&header, &rules);
//! let buffer = &file[header.body()..];
//! let cut = splitter.split(buffer)?;
//! let slab = parse_slab(&header, &rules, &buffer[..cut.end], cut.first_line, "file:day1.csv", usize::MAX)?;
//! assert_eq!(slab.rows.num_rows(), 1);
//! let rest = &buffer[cut.end..]; // put before the next buffer; at the end, the last record
//! splitter.finish(&header, rest)?;
//! # Ok::<(), sporlog_record::revision::FileRefusal>(())
//! ```
//!
//! A row with a fault is refused alone ([`RefusedRow`]); a fault of the file refuses it whole
//! ([`FileRefusal`]). Of refusals by several slabs the earliest by line is the one to report.

mod check;
mod columns;
mod from_auditlog;
mod header;
mod refusal;
mod scan;
mod slab;
mod split;
mod write;

#[cfg(test)]
mod tests;

pub use from_auditlog::{Caller, revision_rows};
pub use header::Header;
pub use refusal::{FileRefusal, file_remarks};
pub use slab::{RefusedRow, Slab, parse_slab};
pub use split::{Cut, Splitter};
pub use write::{CsvRows, write_csv_header, write_csv_rows};
