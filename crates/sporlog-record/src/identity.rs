//! What tells that two rows are the same one, delivered twice.
//!
//! A row is the same as another if both are of the same system and have the same id. Where there are several ids
//! (a revision log's `LogId` and `TransaktionsId`), the first that has a value counts, and the same value of another
//! is not the same id. What else is in the rows does not matter.

use arrow::array::{Array, AsArray, RecordBatch, StringArray};

use crate::kind::Kind;

/// The identities of a batch of rows.
pub struct Identities<'a> {
    system: &'a StringArray,
    ids: Vec<&'a StringArray>,
}

impl<'a> Identities<'a> {
    /// The identities of `rows`; `None` if rows of this kind have none, or the columns are not there.
    pub fn of(kind: Kind, rows: &'a RecordBatch) -> Option<Self> {
        let column = |name: &&str| rows.column_by_name(name)?.as_string_opt::<i32>();
        let (system, ids) = kind.identity_columns().split_first()?;
        Some(Identities { system: column(system)?, ids: ids.iter().map(column).collect::<Option<_>>()? })
    }

    /// Replaces `bytes` by the identity of a row; the same bytes mean the same row. False, and `bytes` is empty,
    /// if the row has no identity.
    pub fn write(&self, row: usize, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        let mut ids = self.ids.iter().zip(0..);
        let id = ids.find_map(|(column, number)| Some((number, text(column, row)?)));
        let Some((system, (number, id))) = text(self.system, row).zip(id) else { return false };
        bytes.extend_from_slice(&(system.len() as u64).to_le_bytes());
        bytes.extend_from_slice(system.as_bytes());
        bytes.push(number);
        bytes.extend_from_slice(id.as_bytes());
        true
    }
}

/// A row's text, if it has one.
fn text(column: &StringArray, row: usize) -> Option<&str> {
    let present = row < column.len() && column.is_valid(row);
    present.then(|| column.value(row)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::ArrayRef;

    use super::*;

    #[test]
    fn the_system_and_the_log_id_or_else_the_transaction_make_a_row_the_same() {
        let rows = [
            (Some("A"), Some("1"), Some("9")),
            (Some("A"), Some("1"), Some("8")),
            (Some("B"), Some("1"), Some("9")),
            (Some("A"), None, Some("1")),
            (Some("A"), Some(""), Some("1")),
            (Some("AL"), Some("1"), None),
            (Some("A"), Some("\u{1}1"), None),
            (None, Some("1"), Some("1")),
            (Some("A"), None, None),
        ];
        let columns = [rows.map(|row| row.0), rows.map(|row| row.1), rows.map(|row| row.2)];
        let columns = columns.map(|column| Arc::new(StringArray::from(column.to_vec())) as ArrayRef);
        let batch =
            RecordBatch::try_from_iter(Kind::Revision.identity_columns().iter().zip(columns)).expect("rows");
        let identities = Identities::of(Kind::Revision, &batch).expect("identities");
        let mut bytes = Vec::new();
        let all: Vec<_> =
            (0..rows.len()).map(|row| identities.write(row, &mut bytes).then(|| bytes.clone())).collect();
        let same = |a: usize, b: usize| all[a].is_some() && all[a] == all[b];
        assert!(same(0, 1) && same(3, 4));
        for (a, b) in [(0, 2), (0, 3), (0, 5), (0, 6), (5, 6)] {
            assert!(!same(a, b), "{a} {b}");
        }
        assert_eq!((&all[7], &all[8]), (&None, &None));
        assert!(Identities::of(Kind::Auditlog, &batch).is_none());
    }
}
