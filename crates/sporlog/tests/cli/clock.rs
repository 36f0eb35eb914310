//! A log that a clock was wrong for: what is stored by the wrong day stays there, and hides nothing else.

use sporlog_ledger::{Append, Clock, Store, StoreOptions, WriterOptions};
use sporlog_record::revision::{Header, parse_slab};
use sporlog_record::{Kind, Rules};

use crate::place::{Place, csv};

/// Noon on 17 January 2037.
const IN_2037: Clock = Clock(|| 2_115_806_400_000_000);

/// Appends these rows to the log `revision`, received by this clock.
fn append(place: &Place, clock: Clock, rows: std::ops::Range<u32>) {
    let (file, rules) = (csv(rows), Rules::default());
    let header = Header::parse(file.as_bytes(), &rules).expect("a header");
    let body = &file.as_bytes()[header.body()..];
    let slab = parse_slab(&header, &rules, body, header.first_line(), "test", usize::MAX).expect("rows");
    let options = StoreOptions {
        address: place.path("sporlog-data").display().to_string(),
        create: true,
        clock,
        ..StoreOptions::default()
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(options).expect("a store");
        let options = WriterOptions { take_turns: true };
        let writer = store.writer("revision", Kind::Revision, options).await.expect("a writer");
        writer.append(Append { rows: slab.rows, positions: vec![] }).await.expect("appended");
        writer.close().await.expect("closed");
    });
}

#[test]
fn an_import_in_2037_hides_nothing_that_comes_after_it() {
    let place = Place::new();
    append(&place, IN_2037, 0..3);
    place.file("f", csv(3..5));
    let imported = place.run("import revision f").ok();
    assert!(imported.err.contains("the clock went back"), "{}", imported.err);
    let today = chrono::Utc::now().date_naive();
    assert!(imported.out.contains(&format!("received at  {today}T")), "{}", imported.out);
    // Once only: the next one knows better.
    place.file("g", csv(5..6));
    let next = place.run("import revision g").ok();
    assert!(!next.err.contains("the clock"), "{}", next.err);
    for (n, (args, rows)) in (0..).zip([
        (format!("--date {today}"), "3 rows of 64942212 in 1 file"),
        (format!("--to {today}"), "3 rows of 64942212 in 1 file"),
        ("--date 2037-01-17".to_owned(), "3 rows of 64942212 in 1 file"),
        (String::new(), "6 rows of 64942212 in 2 files"),
    ]) {
        let exported =
            place.run(&format!("export revision --organisation 64942212 --out out-{n} {args}")).ok();
        assert!(exported.out.contains(rows), "{args}: {}", exported.out);
    }
    let found = place.run("find revision --subject 0101018081").ok();
    assert_eq!(found.out.lines().count(), 6);
    place.run("compact revision").ok();
    place.run("verify revision").ok();
}

#[test]
fn a_clock_that_is_ahead_is_reported() {
    let place = Place::new();
    append(&place, Clock(|| 1_000_000_000_000_000), 0..1);
    place.file("f", csv(1..2));
    let imported = place.run("import revision f").ok();
    assert!(imported.err.contains("the clock is over a day ahead of the last receipt"), "{}", imported.err);
}
