//! How fast the path from CSV to columns and back is, on rows like those that the printed example
//! shows: `cargo test -p sporlog-record --release --lib throughput -- --ignored --nocapture`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::{Header, Slab, Splitter, parse_slab, write_csv_header, write_csv_rows};
use crate::canonical::EntryWriter;
use crate::{Kind, Rules};

const ROWS: usize = 44_000;

fn uuid(seed: usize, salt: u64) -> String {
    let a = (seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17) ^ salt;
    let b = a.wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(31);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xffff,
        b >> 48,
        b & 0xffff_ffff_ffff
    )
}

/// About 758 bytes a row, as the million rows have that other systems were measured with.
fn delivery() -> Vec<u8> {
    let mut file = Vec::new();
    write_csv_header(&mut file);
    let mut rows = String::new();
    for n in 0..ROWS {
        let fields = [
            uuid(n, 1),
            format!(
                "{:02}-NOV-2021 {:02}.{:02}.{:02}.{:09}",
                n % 28 + 1,
                n % 24,
                n % 60,
                n * 7 % 60,
                n * 1_000
            ),
            uuid(n % 500, 2),
            ["64942212", "55133018", "29189846"][n % 3].to_owned(),
            uuid(n % 20, 3),
            uuid(n, 4),
            uuid(n, 5),
            format!("5dbf4E02grPU{:09}", n * 31),
            format!(
                "/Ydelser/YdelserList?sessionKey=MTo4MDZkOGQxYS0wOWIwLTQ0NGMtOTBlOC1lODg4&columnConfigurationId={}&instanceGuid={}&_t={n}",
                n % 97,
                uuid(n, 6)
            ),
            "kombit.ky.bpm.common.service.KyProcessOpgaveService".to_owned(),
            format!("185.16.{}.{}", n / 256 % 256, n % 256),
            format!("YK{}", n % 500),
            "SAPA: Sag og part eller Advis modul".to_owned(),
            "SagService".to_owned(),
            ["Task completed", "Opslag på borger", ""][n % 3].to_owned(),
            format!("{:010}", 101_018_081 + n % 9_000),
            uuid(n % 7_000, 7),
            uuid(n % 9_000, 8),
            uuid(n, 9),
            uuid(n % 40, 10),
            "Borgerservice, Ydelser og Kontrol".to_owned(),
            ["", "", "GetAdvisSearchResultsViewModelTask executed Error"][n % 3].to_owned(),
            uuid(n % 10, 11),
        ];
        for (column, field) in fields.iter().enumerate() {
            let before = if column == 0 { "\"" } else { "\",\"" };
            write!(rows, "{before}{field}").unwrap();
        }
        rows.push_str("\"\r\n");
    }
    file.extend_from_slice(rows.as_bytes());
    file
}

/// The best of some runs.
fn best<T>(mut run: impl FnMut() -> T) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..15 {
        let start = Instant::now();
        black_box(run());
        best = best.min(start.elapsed());
    }
    best
}

fn report(what: &str, took: Duration, bytes: usize, rows: usize) {
    println!(
        "{what:28} {:6.0} MB/s {:6.0} ns a row",
        bytes as f64 / took.as_secs_f64() / 1e6,
        took.as_secs_f64() * 1e9 / rows as f64
    );
}

#[test]
#[ignore = "a measurement, for release builds"]
fn throughput() {
    let file = delivery();
    let rules = Rules { now: "2026-11-21T08:00:00".parse().unwrap(), ..Rules::default() };
    let header = Header::parse(&file, &rules).unwrap();
    let bytes = &file[header.body()..];
    println!("{ROWS} rows, {} bytes a row", bytes.len() / ROWS);

    let took = best(|| Splitter::new(&header, &rules).split(bytes).unwrap());
    report("split", took, bytes.len(), ROWS);

    let parse = || -> Slab { parse_slab(&header, &rules, bytes, 2, "file:day1.csv", 0).unwrap() };
    let slab = parse();
    println!("{} accepted, {} remarks", slab.rows.num_rows(), slab.remarks);
    report("parse, one thread", best(parse), bytes.len(), ROWS);
    let took = best(|| {
        std::thread::scope(|scope| {
            let workers = [scope.spawn(parse), scope.spawn(parse)];
            workers.map(|worker| worker.join().unwrap())
        })
    });
    report("parse, two threads", took, 2 * bytes.len(), 2 * ROWS);

    let mut out = Vec::new();
    let took = best(|| {
        out.clear();
        let mut writer = EntryWriter::new("revision", Kind::Revision, &slab.rows).unwrap();
        for row in 0..slab.rows.num_rows() {
            writer.write_entry(row, row as u64 + 1, 1_795_248_000_123_456, &mut out);
        }
        out.len()
    });
    report("canonical entries", took, out.len(), ROWS);
    let took = best(|| {
        out.clear();
        write_csv_rows(&slab.rows, 0..ROWS, &mut out).unwrap();
        out.len()
    });
    report("CSV out", took, out.len(), ROWS);

    // What the `csv` crate needs for the same bytes, with nothing judged and nothing stored.
    let took = best(|| {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
        let (mut record, mut fields) = (csv::ByteRecord::new(), 0);
        while reader.read_byte_record(&mut record).unwrap() {
            fields += record.len();
        }
        fields
    });
    report("csv: fields alone", took, bytes.len(), ROWS);
}
