//! A revision CSV, read in buffers of changing size, must come to the same as read whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sporlog_record::revision::{Header, Slab, Splitter, parse_slab};
use sporlog_record::{Kind, Rules, canonical::EntryWriter};

fuzz_target!(|input: &[u8]| {
    let [first, second, file @ ..] = input else { return };
    let rules = Rules { max_record_bytes: 1 << 14, ..Rules::default() };
    let Ok(header) = Header::parse(file, &rules) else { return };
    let body = &file[header.body()..];

    let mut splitter = Splitter::new(&header, &rules);
    let (mut pending, mut slabs, mut line) = (Vec::new(), Vec::new(), header.first_line());
    let mut refused = false;
    for chunk in chunks(body, usize::from(*first) + 1, usize::from(*second) + 1) {
        let seen = pending.len();
        pending.extend_from_slice(chunk);
        match splitter.split(chunk) {
            Ok(cut) if cut.end > 0 => {
                let rest = pending.split_off(seen + cut.end);
                let records = std::mem::replace(&mut pending, rest);
                assert_eq!(cut.first_line, line, "lines are counted alike");
                line += records.iter().filter(|b| **b == b'\n').count() as u64;
                match parse_slab(&header, &rules, &records, cut.first_line, "f", usize::MAX) {
                    Ok(slab) => slabs.push(slab),
                    Err(_) => refused = true,
                }
            }
            Ok(_) => {}
            Err(_) => refused = true,
        }
        if refused {
            break;
        }
    }
    if !refused {
        match splitter.finish(&header, &pending) {
            Ok(line) if !pending.is_empty() => match parse_slab(&header, &rules, &pending, line, "f", usize::MAX) {
                Ok(slab) => slabs.push(slab),
                Err(_) => refused = true,
            },
            Ok(_) => {}
            Err(_) => refused = true,
        }
    }
    for slab in &slabs {
        check(slab);
    }
    if !refused && let Ok(whole) = parse_slab(&header, &rules, body, header.first_line(), "f", usize::MAX) {
        assert_eq!(whole.rows.num_rows(), slabs.iter().map(|s| s.rows.num_rows()).sum::<usize>());
        assert_eq!(whole.refused.len(), slabs.iter().map(|s| s.refused.len()).sum::<usize>());
    }
});

/// The input in pieces of two sizes in turn.
fn chunks(mut bytes: &[u8], one: usize, other: usize) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut sizes = [one, other].into_iter().cycle();
    while let (false, Some(size)) = (bytes.is_empty(), sizes.next()) {
        let (piece, rest) = bytes.split_at(size.min(bytes.len()));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}

fn check(slab: &Slab) {
    assert_eq!(slab.records, slab.rows.num_rows() as u64 + slab.refused.len() as u64);
    let mut writer = EntryWriter::new("revision", Kind::Revision, &slab.rows).unwrap();
    let mut entry = Vec::new();
    for row in 0..slab.rows.num_rows() {
        entry.clear();
        writer.write_entry(row, row as u64 + 1, 0, &mut entry);
        // Not into a value: a number of an unknown field is kept as given, beyond what a double holds, too.
        serde_json::from_slice::<serde::de::IgnoredAny>(&entry).expect("an entry is JSON");
    }
}
