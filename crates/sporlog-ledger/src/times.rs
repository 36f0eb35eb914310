//! The times of records: within what they lie.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::kernels::aggregate;
use arrow::datatypes::TimestampMicrosecondType;

/// The earliest and latest times of records, in microseconds; `None` where no record has one.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Times {
    pub occurred: Option<(i64, i64)>,
    pub received: Option<(i64, i64)>,
}

impl Times {
    /// The times in a batch of the table.
    pub(crate) fn of(batch: &RecordBatch) -> Self {
        let range = |name: &str| {
            let times = batch.column_by_name(name)?.as_primitive_opt::<TimestampMicrosecondType>()?;
            aggregate::min(times).zip(aggregate::max(times))
        };
        Times { occurred: range("occurred_at"), received: range("received_at") }
    }

    /// Those of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Times {
            occurred: widest(self.occurred, other.occurred),
            received: widest(self.received, other.received),
        }
    }
}

/// The smallest range that holds both.
pub(crate) fn widest(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    }
}
