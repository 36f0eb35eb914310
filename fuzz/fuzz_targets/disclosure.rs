//! One disclosure record: judged without a panic, and canonical JSON again if it is accepted.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sporlog_record::canonical::EntryWriter;
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::{Kind, Position, Rules};

fuzz_target!(|record: &[u8]| {
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Disclosure, &rules);
    match builder.push(record, "fuzz:1", Position { line: 1, column: 1 }) {
        Judged::Refused(findings) => assert!(!findings.is_empty(), "a refusal says why"),
        Judged::Accepted(_) => {
            let rows = builder.finish();
            let mut entry = Vec::new();
            EntryWriter::new("disclosure", Kind::Disclosure, &rows).unwrap().write_entry(0, 1, 0, &mut entry);
            // Not into a value: a number of an unknown field is kept as given, beyond what a double holds, too.
            serde_json::from_slice::<serde::de::IgnoredAny>(&entry).expect("an entry is JSON");
        }
    }
});
