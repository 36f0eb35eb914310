//! Which columns tell that two rows are the same one, delivered twice.
//!
//! A row of a revision log is the same as another if both are of the same system and have the same `LogId`, or
//! the same `TransaktionsId` where neither has a `LogId`. What else is in the rows does not matter. Records of
//! other kinds are never compared: their sources number them, or send each once.

use arrow::array::{Array, AsArray, RecordBatch, StringArray};

use crate::kind::Kind;

/// The system that a row of a revision log is of, and the ids that this system gave it.
const REVISION: [&str; 3] = ["KalderItSystemInstans", "LogId", "TransaktionsId"];

impl Kind {
    /// The columns that [`Identities`] reads; none if rows of this kind are never compared.
    pub fn identity_columns(self) -> &'static [&'static str] {
        match self {
            Kind::Revision => &REVISION,
            Kind::Disclosure | Kind::Auditlog | Kind::Quarantine => &[],
        }
    }
}

/// The identities of a batch of rows.
pub struct Identities<'a> {
    system: &'a StringArray,
    log_id: &'a StringArray,
    transaction: &'a StringArray,
}

impl<'a> Identities<'a> {
    /// The identities of `rows`; `None` if rows of this kind have none, or the columns are not there.
    pub fn of(kind: Kind, rows: &'a RecordBatch) -> Option<Self> {
        if kind.identity_columns().is_empty() {
            return None;
        }
        let [system, log_id, transaction] =
            REVISION.map(|name| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>()));
        Some(Identities { system: system?, log_id: log_id?, transaction: transaction? })
    }

    /// Replaces `bytes` by the identity of a row; the same bytes mean the same row. False, and `bytes` is empty,
    /// if the row has no identity.
    pub fn write(&self, row: usize, bytes: &mut Vec<u8>) -> bool {
        bytes.clear();
        let log_id = text(self.log_id, row).map(|id| (b'L', id));
        let id = log_id.or_else(|| text(self.transaction, row).map(|id| (b'T', id)));
        let Some((system, (sort, id))) = text(self.system, row).zip(id) else { return false };
        bytes.extend_from_slice(&(system.len() as u64).to_le_bytes());
        bytes.extend_from_slice(system.as_bytes());
        bytes.push(sort);
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
            (Some("A"), Some("L1"), None),
            (None, Some("1"), Some("1")),
            (Some("A"), None, None),
        ];
        let columns = [rows.map(|row| row.0), rows.map(|row| row.1), rows.map(|row| row.2)];
        let columns = columns.map(|column| Arc::new(StringArray::from(column.to_vec())) as ArrayRef);
        let batch = RecordBatch::try_from_iter(REVISION.into_iter().zip(columns)).expect("rows");
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
