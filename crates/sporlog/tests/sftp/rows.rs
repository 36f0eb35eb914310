//! Files of a revision log, whose rows are told apart by a number. All persons are made up.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

/// The municipality of the rows.
pub const CVR: &str = "64942212";
/// And another one.
pub const OTHER_CVR: &str = "55133018";

pub const HEADER: &str = r#""TransaktionsId","TransaktionsTid","BrugerId","KalderOrganisation","KalderItSystemInstans","LogId","BorgerId","Note""#;

/// A row of the municipality, without its line's end.
pub fn row(n: usize) -> String {
    row_of(CVR, n)
}

pub fn row_of(cvr: &str, n: usize) -> String {
    format!(
        "\"0d57d91a-03d5-4e96-9e63-{n:012}\",\"2026-01-05T08:30:00\",\"4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8\",\
         \"{cvr}\",\"cc038af5-0e68-43e5-bb17-957ad6f45f8e\",\"bb6e9e88-79ba-46f7-b492-{n:012}\",\"3112999999\",\"n={n}\""
    )
}

/// A file with these rows.
pub fn csv(numbers: Range<usize>) -> String {
    csv_of(CVR, numbers)
}

pub fn csv_of(cvr: &str, numbers: Range<usize>) -> String {
    let rows: String = numbers.map(|n| row_of(cvr, n) + "\n").collect();
    format!("{HEADER}\n{rows}")
}

/// The number of a stored row.
pub fn number(entry: &Value) -> usize {
    let text = entry["record"]["Note"].as_str().and_then(|text| text.strip_prefix("n="));
    text.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{entry}"))
}

/// The numbers of stored rows, and how often each is there.
pub fn numbers(entries: &[Value]) -> BTreeMap<usize, usize> {
    entries.iter().fold(BTreeMap::new(), |mut counts, entry| {
        *counts.entry(number(entry)).or_insert(0) += 1;
        counts
    })
}

/// These numbers, each of them so many times.
pub fn each(numbers: impl IntoIterator<Item = usize>, times: usize) -> BTreeMap<usize, usize> {
    numbers.into_iter().map(|n| (n, times)).collect()
}
