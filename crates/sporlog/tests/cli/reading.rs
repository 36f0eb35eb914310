//! `head`, `logs`, `read`, `find` and `sql`; and that every access is recorded.

use std::path::Path;

use serde_json::Value;

use crate::place::{HEADER, Place, Ran, csv, disclosure, row};

/// Ids of the entries that were printed.
fn ids(ran: &Ran) -> Vec<u64> {
    ran.lines().iter().map(|entry| entry["id"].as_u64().expect("an id")).collect()
}

/// Three citizens at three times; citizen 1 has the ids 1, 3 and 5, citizen 2 has 2 and 4.
fn looked_up() -> Place {
    let place = Place::new();
    let rows = [
        row(1, "2026-01-05T08:00:00", "0101018081", "first"),
        row(2, "2026-01-05T09:00:00", "0202028082", "second"),
        row(3, "06-JAN-2026 08.00.00.000000000", "0101018081", "third"),
        row(4, "2026-01-06T09:00:00", "0202028082", "fourth"),
        row(5, "2026-01-07T08:00:00", "0101018081", "fifth"),
    ];
    place.file("day.csv", format!("{HEADER}\n{}", rows.concat()));
    place.run("import revision day.csv").ok();
    place
}

#[test]
fn head_is_a_number_alone() {
    let place = looked_up();
    assert_eq!(place.run("head revision").ok().out, "5\n");
    assert_eq!(place.run("head revision --json").ok().json()["head"], 5);
    // Logs that every store may have are empty before they are begun.
    assert_eq!(place.run("head disclosure").ok().out, "0\n");
    assert_eq!(place.run("read disclosure").ok().out, "");
    place.run("head nothing").code(2).complains("there is no log 'nothing'");
    Place::new().run("head revision").code(2).complains("sporlog-data");
}

#[test]
fn logs_says_what_there_is() {
    let place = looked_up();
    place.run("read revision").ok();
    let logs = place.run("logs --json").ok().lines();
    let of = |name: &str| logs.iter().find(|log| log["log"] == name).cloned().unwrap_or_default();
    assert_eq!((&of("revision")["kind"], &of("revision")["head"]), (&"revision".into(), &5.into()));
    assert_eq!((&of("access")["kind"], &of("access")["head"]), (&"auditlog".into(), &1.into()));
    assert!(of("revision")["bytes"].as_u64() > Some(1_000));
    place.run("logs").ok().says("LOG").says("revision");
}

#[test]
fn read_goes_up_from_an_id() {
    let place = looked_up();
    assert_eq!(ids(&place.run("read revision").ok()), [1, 2, 3, 4, 5]);
    assert_eq!(ids(&place.run("read revision --after 3").ok()), [4, 5]);
    assert_eq!(ids(&place.run("read revision --after 1 --limit 2").ok()), [2, 3]);
    assert_eq!(place.run("read revision --after 5").ok().out, "");
    assert_eq!(place.run("read revision --limit 0").ok().out, "");
    let entry = &place.run("read revision --limit 1").ok().lines()[0];
    assert_eq!(entry["log"], "revision");
    assert_eq!(entry["origin"], "file:day.csv:2");
    assert_eq!(entry["record"]["Note"], "first");
    let record = &place.run("read revision --limit 1 --records-only").ok().lines()[0];
    assert_eq!((&record["Note"], &record["log"]), (&"first".into(), &Value::Null));
    let csv = place.run("read revision --after 4 --format csv").ok().out;
    let lines: Vec<_> = csv.lines().collect();
    assert!(lines[0].starts_with("\"TransaktionsId\",\"TransaktionsTid\""), "{csv}");
    assert!(lines.len() == 2 && lines[1].contains("\"fifth\""), "{csv}");
    place.file("d.json", disclosure("", ""));
    place.run("import disclosure d.json").ok();
    place.run("read disclosure --format csv").ok().says("id,received_at").says("12345678901");
}

#[test]
fn find_gives_the_newest_first() {
    let place = looked_up();
    assert_eq!(ids(&place.run("find revision --subject 0101018081").ok()), [5, 3, 1]);
    assert_eq!(ids(&place.run("find revision --subject 010101-8081 --limit 2").ok()), [5, 3]);
    assert_eq!(ids(&place.run_with("find revision --subject -", b"0202028082\n").ok()), [4, 2]);
    let nobody = place
        .run("find revision --subject 0303038083")
        .ok()
        .complains("note: no record was found in 'revision'");
    assert_eq!((nobody.out.as_str(), nobody.err.lines().count()), ("", 1));
    assert_eq!(place.run("find revision --subject 0303038083 --quiet").ok().err, "");
    place.run("find disclosure --subject 0303038083").ok().complains("no record was found in 'disclosure'");
    let reversed = "find revision --subject 0101018081 --from 2026-01-06 --to 2026-01-05";
    place.run(reversed).code(2).complains("--from is later than --to");
    let actor = "find revision --actor 4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8";
    assert_eq!(ids(&place.run(actor).ok()), [5, 4, 3, 2, 1]);
    place.run(&format!("{actor} --format csv --limit 1")).ok().says("\"fifth\"");
    let table = place.run("find revision --subject 0202028082 --format table").ok();
    assert_eq!(table.out.lines().count(), 6, "{}", table.out);
    // Columns without a value in any of the records are left out.
    assert!(table.out.contains("| BorgerId ") && !table.out.contains("KalderIP"), "{}", table.out);
    assert!(table.says("| fourth |").out.starts_with("+----"));
}

#[test]
fn find_keeps_to_the_times_of_the_events() {
    let place = looked_up();
    let find = |times: &str| ids(&place.run(&format!("find revision --subject 0101018081 {times}")).ok());
    assert_eq!(find("--from 2026-01-06"), [5, 3]);
    assert_eq!(find("--to 2026-01-06"), [3, 1]);
    assert_eq!(find("--from 2026-01-06 --to 2026-01-06"), [3]);
    assert_eq!(find("--to 2026-01-06T08:00"), [1]);
    assert_eq!(find("--from 2026-01-06T08:00 --to 2026-01-06T08:00:00.001"), [3]);
    place.run("find revision --subject x --from yesterday").code(2).complains("2026-11-03");
}

#[test]
fn what_cannot_be_found_is_said() {
    let place = looked_up();
    place.file("d.json", disclosure("", ""));
    place.run("import disclosure d.json").ok();
    assert_eq!(ids(&place.run("find disclosure --subject 12345678901").ok()), [1]);
    place.run("find disclosure --actor x").code(2).complains("name no user");
    place.run("find quarantine --actor x").ok();
    place.run_with("find revision --subject -", b"\n").code(2).complains("nobody");
}

#[test]
fn sql_comes_in_every_format() {
    let place = looked_up();
    let sql = |args: &[&str]| place.run_args(&[&["sql"], args].concat());
    let count = "SELECT log, count(*) AS n FROM events WHERE log = 'revision' GROUP BY log";
    sql(&[count]).ok().says("| log      | n |").says("| revision | 5 |");
    assert_eq!(sql(&[count, "--format", "csv"]).ok().out, "log,n\nrevision,5\n");
    assert_eq!(sql(&[count, "--json"]).ok().out, "[{\"log\":\"revision\",\"n\":5}]\n");
    assert_eq!(sql(&[count, "--format", "ndjson"]).ok().json()["n"], 5);
    let columns = "SELECT \"Note\", subject, actor, organisation FROM revision AS r JOIN events AS e \
                   ON r.id = e.id WHERE e.log = 'revision' AND r.id = 3";
    let row = sql(&[columns, "--json"]).ok().json();
    assert_eq!((&row[0]["Note"], &row[0]["subject"]), (&"third".into(), &"0101018081".into()));
    assert_eq!(sql(&["SELECT 1 AS x WHERE false", "--format", "csv"]).ok().out, "x\n");
    assert_eq!(sql(&["SELECT 1 AS x WHERE false", "--json"]).ok().out, "[]\n");
    assert_eq!(place.run_with("sql - --format csv", b"SELECT 1 AS x").ok().out, "x\n1\n");

    let parquet = ["SELECT * FROM revision", "--format", "parquet", "--out", "r.parquet"];
    assert_eq!(sql(&parquet).ok().out, "");
    let bytes = std::fs::read(place.path("r.parquet")).expect("a file");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
    sql(&parquet).code(2).complains("--force");
    sql(&[&parquet[..], &["--force"]].concat()).ok();
}

#[test]
fn a_result_can_be_read_by_other_programs() {
    let place = looked_up();
    let sql = |query: &str, format: &str| place.run_args(&["sql", query, "--format", format]);
    // Of two columns with one name, the second gets another, in every format.
    let same =
        "SELECT a.id, b.id, a.id AS id_1 FROM revision a JOIN revision b ON a.id = b.id WHERE a.id = 2";
    assert_eq!(sql(same, "json").ok().out, "[{\"id\":2,\"id_2\":2,\"id_1\":2}]\n");
    assert_eq!(sql(same, "csv").ok().out, "id,id_2,id_1\n2,2,2\n");
    sql(same, "table").ok().says("| id | id_2 | id_1 |");
    place.run_args(&["sql", same, "--format", "parquet", "--out", "same.parquet"]).ok();
    let parquet = std::fs::read(place.path("same.parquet")).expect("a file");
    assert!(parquet.windows(4).any(|name| name == b"id_2"));
    // A null is no empty text.
    let none = "SELECT '' AS empty, CAST(NULL AS VARCHAR) AS none, 'a,\"b' AS text";
    assert_eq!(sql(none, "csv").ok().out, "empty,none,text\n\"\",,\"a,\"\"b\"\n");
    sql(none, "table").ok().says("|       | NULL | a,\"b |");
    // JSON has no infinity.
    let numbers = "SELECT 1e308 * 10 AS much, -1e308 * 10 AS little, 'NaN'::DOUBLE AS none, 1.5 AS number";
    let expected = "{\"much\":\"Infinity\",\"little\":\"-Infinity\",\"none\":\"NaN\",\"number\":1.5}\n";
    assert_eq!(sql(numbers, "ndjson").ok().out, expected);
}

#[test]
fn whole_numbers_do_not_wrap_around() {
    let place = looked_up();
    let sql = |query: &str| place.run_args(&["sql", query, "--format", "csv"]);
    let most = i64::MAX;
    for query in [
        format!("SELECT {most} + 1"),
        format!("SELECT id + {most} FROM revision"),
        format!("SELECT -{most} - 2"),
        format!("SELECT id * {most} FROM revision WHERE id > 1"),
        format!("SELECT -({} - {most} - 1 + 0 * id) FROM revision", 0),
        format!("SELECT sum(id + {most} - 5) FROM revision"),
        format!("SELECT sum(id + {most} - 5) OVER (ORDER BY id) FROM revision"),
        format!("SELECT count(*) FROM revision GROUP BY id + {most}"),
        format!("SELECT 1 FROM revision WHERE id + {most} > 0"),
    ] {
        sql(&query).code(2).complains("verflow");
    }
    let sums = "SELECT \"BorgerId\", sum(id) AS s, sum(id + 1) - 1 AS t, -sum(id) AS n FROM revision GROUP BY 1 ORDER BY 1";
    assert_eq!(sql(sums).ok().out, "BorgerId,s,t,n\n0101018081,9,11,-9\n0202028082,6,7,-6\n");
    let running =
        "SELECT id, sum(id) OVER (ORDER BY id ROWS 1 PRECEDING) AS s FROM revision ORDER BY id LIMIT 3";
    assert_eq!(sql(running).ok().out, "id,s\n1,1\n2,3\n3,5\n");
    assert_eq!(
        sql("SELECT id + 1, sum(id) FROM revision WHERE false GROUP BY id + 1").ok().out,
        "revision.id + Int64(1),sum(revision.id)\n"
    );
    assert_eq!(
        sql("SELECT sum(id) AS s, sum(DISTINCT id) AS d FROM revision WHERE false").ok().out,
        "s,d\n,\n"
    );
}

#[test]
fn an_error_of_a_query_can_be_acted_on() {
    let place = looked_up();
    let sql = |query: &str| place.run_args(&["sql", query]).code(2);
    sql("SELECT * FROM revisions")
        .complains("there is no log or view 'revisions'; there are access, events, revision");
    sql("SELECT * FROM \"x-*\"").complains("there is no log or view 'x-*'");
    let column = sql("SELECT borgerid FROM revision").complains("BorgerId").complains("double quotes");
    assert!(!column.err.contains("datafusion."), "{}", column.err);
    sql("SELEC 1").complains("this is no SQL as DataFusion reads it: ");
    sql("SELECT nothing(1)").complains("nothing");
    // What a query names itself is no log.
    place.run_args(&["sql", "WITH mine AS (SELECT 1 AS x) SELECT * FROM mine, generate_series(1, 2)"]).ok();
    // Without a statement and without a terminal, standard input has it.
    assert_eq!(place.run_with("sql --format csv", b"SELECT 1 AS x").ok().out, "x\n1\n");
}

#[test]
fn whoever_is_asked_about_in_a_statement_is_recorded() {
    let place = looked_up();
    let ask = |query: &str| place.run_args(&["sql", query]).ok();
    ask("SELECT 1 FROM revision WHERE \"BorgerId\" = '0101018081'");
    ask("SELECT 1 FROM events WHERE subject IN ('0202028082', '010101-8081', '2302XX22XX', '0202028082')");
    ask("SELECT count(*) FROM events");
    let found = |subject: &str| ids(&place.run(&format!("find access --subject {subject}")).ok());
    // Each look in the access log is an access itself.
    assert_eq!(found("0101018081"), [6, 3, 1]);
    assert_eq!(found("0202028082"), [7, 2]);
    assert_eq!(found("2302XX22XX"), [8, 4]);
    let records = place.run("read access --after 1 --limit 3 --records-only").ok().lines();
    let correlation = &records[0]["correlationId"];
    assert!(correlation.is_string() && records.iter().all(|record| &record["correlationId"] == correlation));
    let details = |at: usize| records[at]["detailContent"].as_str().expect("details").to_owned();
    assert!(details(0).contains("'2302XX22XX'") && !details(1).contains("2302XX22XX"), "{records:?}");
    assert!(
        records.iter().all(|record| !record["message"].to_string().contains("0202028082")),
        "{records:?}"
    );
}

#[test]
fn sql_changes_nothing() {
    let place = looked_up();
    for statement in [
        "DROP TABLE revision",
        "DELETE FROM revision",
        "INSERT INTO revision VALUES (1)",
        "COPY revision TO 'x.csv'",
        "CREATE TABLE x AS SELECT 1",
        "SET datafusion.execution.batch_size = 1",
    ] {
        let ran = place.run_args(&["sql", statement]).code(2);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{ran:?}");
    }
    place.run_args(&["sql", "SELECT * FROM nowhere"]).code(2).complains("nowhere");
    assert_eq!(place.head("revision"), 5);
    place.run("verify revision").ok();
}

#[test]
fn a_long_table_says_that_there_is_more() {
    let place = Place::new();
    place.file("day.csv", csv(0..1_500));
    place.run("import revision day.csv").ok();
    let ran = place.run_args(&["sql", "SELECT id FROM revision"]).ok().complains("more than these 1000 rows");
    assert_eq!(ran.out.lines().count(), 1_004);
    let ran = place.run_args(&["sql", "SELECT id FROM revision", "--format", "csv"]).ok();
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (1_501, ""));
}

#[test]
fn every_access_is_recorded_before_the_data_is_shown() {
    let place = looked_up();
    place.run("read revision --limit 1").ok();
    place.run("find revision --subject 0101018081").ok();
    place.run("find revision --actor 4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8").ok();
    place.run_args(&["sql", "SELECT 1 FROM revision WHERE \"BorgerId\" = '0101018081'"]).ok();
    place.run("prove revision 1").ok();
    place.run("export revision --organisation 64942212 --out out").ok();
    place.run("quarantine show 1").code(2);
    // What shows no record is no access.
    place.run("head revision").ok();
    place.run("logs").ok();
    place.run("verify revision").ok();
    place.run("quarantine list").ok();

    let accesses = place.run("read access --records-only").ok().lines();
    let actions: Vec<_> =
        accesses.iter().map(|access| access["logAction"].as_str().expect("a text")).collect();
    let expected = ["READ", "FIND", "FIND", "SQL", "PROVE", "EXPORT", "QUARANTINE_SHOW", "READ"];
    assert_eq!(actions, expected);
    assert_eq!(accesses[1]["cpr"], "0101018081");
    assert_eq!(accesses[1]["message"], "find revision --subject");
    assert!(
        accesses[2]["message"]
            .as_str()
            .is_some_and(|text| text.starts_with("find revision --actor 4fcff0c2"))
    );
    assert!(
        accesses[3]["message"].as_str().is_some_and(|text| !text.contains("0101018081")),
        "{}",
        accesses[3]
    );
    assert!(accesses[3]["detailContent"].as_str().is_some_and(|text| text.contains("0101018081")));
    assert!(accesses.iter().all(|access| access["performerName"].is_string() && access["tts"].is_string()));
    // The person can find who has read their records: by a statement that names them, and this access, too.
    let found = place.run("find access --subject 0101018081").ok();
    assert_eq!(ids(&found), [9, 4, 2]);
    place.run("verify access").ok();
}

/// A copy of the logs as it would be handed to someone: without the keys.
fn copy_without_keys(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("read") {
        let entry = entry.expect("read");
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            if entry.file_name() != "keys" {
                std::fs::create_dir_all(&target).expect("made");
                copy_without_keys(&path, &target);
            }
        } else {
            std::fs::copy(&path, &target).expect("copied");
        }
    }
}

#[test]
fn a_copy_without_keys_can_be_read_and_says_so() {
    let place = looked_up();
    place.run("read revision").ok();
    std::fs::create_dir(place.path("copy")).expect("made");
    copy_without_keys(&place.path("sporlog-data"), &place.path("copy"));
    let ran = place.run("read revision --store copy").ok().complains("this access is not recorded");
    assert_eq!(ids(&ran), [1, 2, 3, 4, 5]);
    assert_eq!(ran.err.lines().count(), 1);
    place.run("find revision --subject 0101018081 --store copy").ok().complains("not recorded");
    assert_eq!(place.run("head access --store copy").ok().out, "1\n");
    place.run("verify revision --store copy").ok().complains("without the log's keys");
    place.run("prove revision 1 --store copy").code(2).complains("secret");
    // Only the access log's own key is gone.
    std::fs::remove_file(place.path("sporlog-data/keys/access.key")).expect("removed");
    place.run("read revision").ok().complains("not recorded");
}

#[test]
fn an_access_that_cannot_be_recorded_shows_nothing() {
    let place = looked_up();
    place.run("read revision").ok();
    let commits = place.path("sporlog-data/logs/access/table/_delta_log");
    for commit in std::fs::read_dir(&commits).expect("read").flatten() {
        std::fs::write(commit.path(), b"not JSON").expect("written");
    }
    let ran = place.run("read revision").code(2);
    assert_eq!(ran.out, "");
    ran.complains("nothing is shown");
}

/// Disclosures about person 1 in two logs, in turns, and one in a log of another name.
fn in_several_logs() -> Place {
    let place = Place::new();
    for (n, log) in ["d-0", "d-1", "d-0", "other", "d-1"].into_iter().enumerate() {
        place.file("one.json", disclosure("tema", &format!("\"A{n:02}\"")));
        place.run(&format!("import disclosure one.json --log {log}")).ok();
    }
    place
}

#[test]
fn several_logs_are_read_as_one() {
    let place = in_several_logs();
    let found = |arguments: &str| {
        let found = place.run(&format!("find d-* --subject 12345678901 {arguments}")).ok();
        let entry = |entry: &Value| {
            let (log, tema) = (&entry["log"], &entry["record"]["tema"]);
            format!("{} {}", log.as_str().expect("a log"), tema.as_str().expect("a theme"))
        };
        found.lines().iter().map(entry).collect::<Vec<_>>()
    };
    // The newest first, whatever log it is in.
    assert_eq!(found(""), ["d-1 A04", "d-0 A02", "d-1 A01", "d-0 A00"]);
    assert_eq!(found("--limit 3"), ["d-1 A04", "d-0 A02", "d-1 A01"]);
    assert_eq!(found("--limit 0"), [""; 0]);
    place.run("find x-* --subject 12345678901").code(2).complains("no log's name matches");
    place.run("import revision day.csv --log d-9").code(2);
    let query = "SELECT log, count(*) AS n FROM \"d-*\" GROUP BY log ORDER BY log";
    let counted = place.run_args(&["sql", query, "--format", "csv"]).ok().out;
    assert_eq!(counted, "log,n\nd-0,2\nd-1,2\n");
    place.run_args(&["sql", "SELECT * FROM \"x-*\""]).code(2);
}

#[test]
fn events_say_how_exact_their_times_are() {
    let place = Place::new();
    let times = ["2026-10-05", "10-NOV-2021", " 1-NOV-2021 ", "2026-10-05T00:00:00", "10-NOV-2021 00.00"];
    let rows = times.iter().zip(0..).map(|(time, n)| row(n, time, "0101018081", "set"));
    place.file("day.csv", format!("{HEADER}\n{}", rows.collect::<String>()));
    place.run("import revision day.csv").ok();
    place
        .run_with(
            "import auditlog -",
            b"{\"logAction\":\"x\"}{\"logAction\":\"x\",\"tts\":\"2026-10-05T00:00:00\"}",
        )
        .ok();
    place.run_with("import disclosure -", disclosure("", "").as_bytes()).ok();
    let query = "SELECT log, occurred_precision AS p FROM events WHERE log <> 'access' ORDER BY log, id";
    let found = place.run_args(&["sql", query, "--format", "csv"]).ok().out;
    let expected = "log,p\nauditlog,\nauditlog,time\ndisclosure,time\nrevision,day\nrevision,day\nrevision,day\n\
                    revision,time\nrevision,time\n";
    assert_eq!(found, expected);
    // As documented.
    let night = "SELECT actor, count(*) AS look_ups FROM events WHERE log = 'revision' AND occurred_precision = 'time' \
                 AND date_part('hour', occurred_at) NOT BETWEEN 6 AND 19 GROUP BY actor ORDER BY look_ups DESC";
    place.run_args(&["sql", night, "--format", "csv"]).ok().says("0a009d8,2\n");
}
