//! `sporlog sql --file`, an auditor's questions in docs/questions.sql, views for Spark, and the memory that a query may use.

use crate::place::{Place, csv};

/// The file of the repository.
const QUESTIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/questions.sql");

/// Sample records of three kinds over two weeks, and some more of one day.
fn sampled() -> Place {
    let place = Place::new();
    for (kind, more) in [
        ("revision", "--records 6000 --days 13"),
        ("revision", "--records 1500 --day 2026-01-18 --seed 2"),
        ("disclosure", "--records 500 --days 14"),
        ("auditlog", "--records 2000 --days 14"),
    ] {
        place.run(&format!("sample {kind} {more} --faulty 0 --out sample --force")).ok();
        place.run(&format!("import {kind} sample")).ok();
    }
    place
}

#[test]
fn an_auditors_twenty_questions_have_answers() {
    let place = sampled();
    let answers = place.run_args(&["sql", "--file", QUESTIONS, "--format", "json"]).ok().lines();
    let rows: Vec<_> = answers.iter().map(|rows| rows.as_array().expect("rows").len()).collect();
    assert_eq!(rows, [42, 7, 20, 20, 20, 20, 1, 20, 20, 20, 11, 1, 6, 1, 20, 20, 2, 20, 4, 1]);
}

#[test]
fn the_statements_of_a_file_are_answered_one_after_the_other() {
    let place = Place::new();
    place.file("a.csv", csv(0..5));
    place.run("import revision a.csv").ok();
    let file = "-- How many; and 'which'?\nSELECT count(*) AS n, ';' AS t FROM revision;\n\n/* no statement */;\n\
                SELECT 'it''s' AS x, \"BorgerId\" FROM revision ORDER BY id LIMIT 1 -- the first\n";
    place.file("two.sql", file);
    let sql = |args: &str| place.run(&format!("sql --file two.sql {args}"));
    assert_eq!(sql("--format csv").ok().out, "n,t\n5,;\n\nx,BorgerId\nit's,0101018081\n");
    assert_eq!(
        sql("--json").ok().out,
        "[{\"n\":5,\"t\":\";\"}]\n[{\"x\":\"it's\",\"BorgerId\":\"0101018081\"}]\n"
    );
    assert_eq!(sql("--format ndjson --out o").ok().out, "");
    assert_eq!(std::fs::read_to_string(place.path("o")).expect("a file").lines().count(), 2);
    assert!(sql("").ok().out.starts_with("How many; and 'which'?\n"));
    sql("--format parquet --out p").code(2).complains("one statement, and there are 2");
    let actions = place.run("read access --records-only").ok().out;
    assert_eq!(actions.matches("\"logAction\":\"SQL\"").count(), 8, "{actions}");

    place.file("two.sql", "SELECT 1 AS x; SELECT * FROM nowhere; SELECT 2 AS y");
    let failed = sql("--format csv").code(2).complains("two.sql, statement 2").complains("nowhere");
    assert_eq!(failed.out, "x\n1\n\n");
    place.file("two.sql", "SELECT 'open");
    sql("").code(2).complains("two.sql").complains("this is no SQL");
    place.run("sql --file nothing.sql").code(2).complains("nothing.sql");
    place.run_args(&["sql", "SELECT 1", "--file", "two.sql"]).code(2);
}

#[test]
fn spark_is_told_of_the_same_views() {
    let place = Place::new();
    place.file("a.csv", csv(0..5));
    place.run("import revision a.csv --log r-2").ok();
    let views = place.run("sql --views spark").ok().out;
    let table = place.path("sporlog-data/logs/r-2/table").canonicalize().expect("a table");
    let log = "`BrugerId`, `KalderOrganisation`, `KalderItSystemInstans`";
    let from = format!("`extra` FROM delta.`{}`;\n", table.display());
    assert!(
        views.starts_with("CREATE OR REPLACE TEMPORARY VIEW `r-2` AS SELECT `id`, `received_at`, "),
        "{views}"
    );
    assert!(views.contains(log) && views.contains(&from), "{views}");
    assert!(views.contains("CREATE OR REPLACE TEMPORARY VIEW `events` AS SELECT 'r-2' AS log, "), "{views}");
    place.run("sql --views spark --out v.sql").ok();
    assert_eq!(std::fs::read_to_string(place.path("v.sql")).expect("a file"), views);
    place.run("sql --views duckdb").code(2);
}

#[test]
fn a_query_goes_on_on_disk_or_says_what_it_lacks() {
    let place = Place::new();
    place.run("sample revision --records 2000 --faulty 0 --out sample").ok();
    place.run("import revision sample").ok();
    let ask = |memory: u64, query: &str| {
        place.file("sporlog.toml", format!("[sql]\nmemory_bytes = {memory}\n"));
        place.run_args(&["sql", query, "--format", "csv"])
    };
    let (enough, little) = (1_000_000_000, 8_000_000);
    let many = "revision CROSS JOIN generate_series(1, 20) AS s(n)";
    for query in [
        format!("SELECT \"Parametre\", \"LogId\", n FROM {many} ORDER BY \"Parametre\", \"LogId\", n"),
        format!(
            "SELECT \"LogId\", n, max(\"Parametre\") AS p FROM {many} GROUP BY \"LogId\", n ORDER BY \"LogId\", n"
        ),
    ] {
        assert_eq!(ask(little, &query).ok().out, ask(enough, &query).ok().out);
        let explained = ask(little, &format!("EXPLAIN ANALYZE {query}")).ok().out;
        let spilled = explained.split("spill_count=").skip(1).any(|count| !count.starts_with('0'));
        assert!(spilled, "{explained}");
    }
    let join = "SELECT count(*) AS n FROM revision a JOIN revision b ON a.\"Parametre\" = b.\"Parametre\" || b.\"LogId\"";
    assert_eq!(ask(enough, join).ok().out, "n\n0\n");
    ask(100_000, join).code(2).complains("100000 bytes of memory").complains("(sql.memory_bytes)");
    ask(0, "SELECT 1").code(2).complains("memory_bytes");
}

#[cfg(not(feature = "ballista"))]
#[test]
fn a_program_without_clusters_says_how_to_build_one_with_them() {
    let place = Place::new();
    let asked = place.run_args(&["sql", "--cluster", "df://127.0.0.1:50050", "SELECT 1"]);
    asked.code(2).complains("--features ballista");
}
