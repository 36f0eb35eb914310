//! Deliveries that come again, whole or in part.

use crate::client::quoted;
use crate::rows::{HEADER, csv, each, numbers, row};
use crate::site::{DELIVERS, SUPPLIER, Site};

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn a_file_that_comes_again_is_told_apart_and_goes_in_once() {
    let site = Site::with("settle_seconds = 1\n", &[(SUPPLIER, DELIVERS), ("another", DELIVERS)]);
    let server = site.serve();
    let supplier = site.client(SUPPLIER);
    let file = site.file("a.csv", csv(0..100));
    supplier.put(&file);
    let first = site.receipt("a.csv");
    assert_eq!((&first["outcome"], &first["overlapping"]), (&"accepted".into(), &0.into()), "{first}");

    // The same under its name, and under a new one.
    supplier.put(&file);
    let again = site.receipts("a.csv", 2).remove(1);
    supplier.sftp(&format!("put {} ind/b.csv", quoted(&file))).ok();
    let renamed = site.receipt("b.csv");
    for receipt in [&again, &renamed] {
        assert_eq!(receipt["outcome"], "repeated", "{receipt}");
        assert_eq!(receipt["accepted"], 0, "{receipt}");
        assert_eq!(receipt["repeats"]["delivery"], first["delivery"], "{receipt}");
        assert_eq!(receipt["repeats"]["file"], "a.csv", "{receipt}");
        assert_eq!(receipt["sha256"], first["sha256"], "{receipt}");
    }
    // The receipt of the first is still there, under another name.
    let listed = supplier.list("kvittering");
    assert_eq!(listed.iter().filter(|name| name.starts_with("a.csv.") && name.ends_with(".json")).count(), 2);

    // Half old, half new, twice over.
    supplier.put(&site.file("c.csv", csv(50..150)));
    let overlap = site.receipt("c.csv");
    assert_eq!(overlap["outcome"], "accepted", "{overlap}");
    let counts = ["accepted", "overlapping", "skipped"].map(|name| overlap[name].as_u64());
    assert_eq!(counts, [Some(50), Some(50), Some(50)], "{overlap}");
    assert_eq!(overlap["overlaps"][0]["delivery"], first["delivery"], "{overlap}");
    assert_eq!(overlap["overlaps"][0]["rows"], 50, "{overlap}");
    supplier.put(&site.file("d.csv", csv(0..300)));
    let both = site.receipt("d.csv");
    let counts = ["accepted", "overlapping", "skipped"].map(|name| both[name].as_u64());
    assert_eq!(counts, [Some(150), Some(150), Some(150)], "{both}");
    assert_eq!(both["overlaps"].as_array().map(Vec::len), Some(2), "{both}");
    // All old, though the bytes are others; and from another account.
    site.client("another").put(&site.file("e.csv", csv(10..20)));
    let old = site.receipts_of("another", "e.csv", 1).remove(0);
    let counts = ["accepted", "overlapping", "skipped"].map(|name| old[name].as_u64());
    assert_eq!(counts, [Some(0), Some(10), Some(10)], "{old}");
    site.client("another").put(&file);
    assert_eq!(site.receipts_of("another", "a.csv", 1)[0]["outcome"], "repeated");

    // It is so after a start anew, when nothing is in memory.
    server.stop();
    let _server = site.serve();
    supplier.put(&site.file("f.csv", csv(290..310)));
    let later = site.receipt("f.csv");
    let counts = ["accepted", "overlapping", "skipped"].map(|name| later[name].as_u64());
    assert_eq!(counts, [Some(10), Some(10), Some(10)], "{later}");
    assert_eq!(numbers(&site.entries("revision")), each(0..310, 1));
    site.print(&["verify", "revision"]);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn overlapping_rows_are_taken_again_where_that_is_wanted() {
    let site = Site::configured("settle_seconds = 1\noverlap = \"take\"\n");
    let _server = site.serve();
    let supplier = site.client(SUPPLIER);
    let file = site.file("a.csv", csv(0..10));
    supplier.put(&file);
    site.receipt("a.csv");
    supplier.put(&site.file("b.csv", csv(5..15)));
    let receipt = site.receipt("b.csv");
    let counts = ["accepted", "overlapping", "skipped"].map(|name| receipt[name].as_u64());
    assert_eq!(counts, [Some(10), Some(5), Some(0)], "{receipt}");
    // The same file is the same file all the same.
    supplier.put(&file);
    assert_eq!(site.receipts("a.csv", 2)[1]["outcome"], "repeated");
    let mut expected = each(0..15, 1);
    expected.extend(each(5..10, 2));
    assert_eq!(numbers(&site.entries("revision")), expected);
}

#[test]
#[ignore = "needs sftp: tests/sftp/run"]
fn without_a_log_id_the_transaction_tells_rows_apart_and_systems_do_not_mix() {
    let site = Site::new();
    let _server = site.serve();
    let supplier = site.client(SUPPLIER);
    let without = |numbers: std::ops::Range<usize>| -> String {
        let rows = numbers.map(|n| row(n).replace(&format!("bb6e9e88-79ba-46f7-b492-{n:012}"), "") + "\n");
        format!("{HEADER}\n{}", rows.collect::<String>())
    };
    supplier.put(&site.file("a.csv", without(0..10)));
    site.receipt("a.csv");
    supplier.put(&site.file("b.csv", without(5..15)));
    let receipt = site.receipt("b.csv");
    assert_eq!((&receipt["accepted"], &receipt["skipped"]), (&5.into(), &5.into()), "{receipt}");
    // The same ids of another system are other rows.
    let other = without(0..10)
        .replace("cc038af5-0e68-43e5-bb17-957ad6f45f8e", "cc038af5-0e68-43e5-bb17-000000000000");
    supplier.put(&site.file("c.csv", other));
    let receipt = site.receipt("c.csv");
    assert_eq!((&receipt["accepted"], &receipt["overlapping"]), (&10.into(), &0.into()), "{receipt}");
    assert_eq!(site.entries("revision").len(), 25);
}
