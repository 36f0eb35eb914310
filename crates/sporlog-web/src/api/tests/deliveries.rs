//! Whole files.

use std::ops::Range;
use std::time::Duration;

use axum::body::{Body, Bytes};
use serde_json::json;

use super::place::{Answer, Place, disclosure};
use crate::server::{Server, ServerSettings};

const PATH: &str = "/api/deliveries";
const HEADER: &str = r#""TransaktionsId","TransaktionsTid","BrugerId","KalderOrganisation","KalderItSystemInstans","BorgerId""#;

/// A row of a revision log; refused if the organisation is none.
fn row(id: usize, organisation: &str) -> String {
    let uuid = "4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8";
    format!(r#""{id}","2021-11-10T04:03:47","{uuid}","{organisation}","{uuid}","2302XX22XX""#)
}

fn csv(rows: usize) -> String {
    file(1..rows + 1)
}

fn file(rows: Range<usize>) -> String {
    let rows = rows.map(|id| row(id, "64942212") + "\n");
    format!("{HEADER}\n{}", rows.collect::<String>())
}

async fn deliver(place: &Place, path: &str, body: impl Into<Body>) -> Answer {
    let request = place.request("sender", path).header("content-type", "text/csv");
    place.send(request.body(body.into()).unwrap()).await
}

#[tokio::test]
async fn a_file_is_taken_once() {
    let mut place = Place::new().await;
    let path = format!("{PATH}?file=day.csv");
    let answer = deliver(&place, &path, csv(3)).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    let receipt = answer.json();
    assert_eq!(
        (&receipt["file"], &receipt["log"], &receipt["kind"]),
        (&json!("day.csv"), &json!("revision"), &json!("revision"))
    );
    assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&json!(3), &json!(0)));
    assert_eq!((&receipt["firstId"], &receipt["lastId"]), (&json!(1), &json!(3)));
    assert_eq!(receipt["bytes"], csv(3).len());
    place.restart(true).await;
    let answer = deliver(&place, PATH, csv(3)).await;
    assert_eq!(answer.status.as_u16(), 200);
    let again = answer.json();
    assert!(
        again["alreadySince"].is_string() && again["accepted"] == 0 && again["sha256"] == receipt["sha256"]
    );
    let entries = place.entries("revision").await;
    assert_eq!(entries.len(), 3);
    assert!(entries[0]["origin"].as_str().unwrap().starts_with("file:day.csv"), "{}", entries[0]["origin"]);
    assert_eq!(place.spooled(), 0);
}

#[tokio::test]
async fn rows_that_the_log_has_from_another_file_are_left_out() {
    let place = Place::new().await;
    deliver(&place, PATH, csv(3)).await;
    let answer = deliver(&place, PATH, csv(5)).await;
    assert_eq!(answer.status.as_u16(), 201);
    let receipt = answer.json();
    assert_eq!((&receipt["accepted"], &receipt["overlapping"]), (&json!(2), &json!(3)));
    assert_eq!((&receipt["skipped"], &receipt["overlaps"][0]["rows"]), (&json!(3), &json!(3)));
    assert_eq!(place.entries("revision").await.len(), 5);
}

#[tokio::test]
async fn bad_rows_go_into_the_quarantine() {
    let place = Place::new().await;
    let answer = deliver(&place, PATH, csv(2) + &row(3, "none") + "\n").await;
    assert_eq!(answer.status.as_u16(), 201);
    let receipt = answer.json();
    assert_eq!((&receipt["accepted"], &receipt["quarantined"]), (&json!(2), &json!(1)));
    let note = &receipt["quarantinedRows"][0];
    assert_eq!(
        (&note["line"], &note["rule"], &note["TransaktionsId"]),
        (&json!(4), &json!("digits"), &json!("3"))
    );
    assert_eq!(place.app.catalog.quarantine().list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn files_that_are_refused_whole() {
    let place = Place::new().await;
    let whole = csv(3);
    for body in [
        String::new(),
        "no header".to_owned(),
        "\"TransaktionsId\"\n\"1\"\n".to_owned(),
        whole[..whole.len() - 8].to_owned(),
        "\0\0\0\0".to_owned(),
    ] {
        let answer = deliver(&place, PATH, body.clone()).await;
        assert_eq!(answer.status.as_u16(), 422, "{body}: {}", answer.text());
        let receipt = answer.json();
        assert!(!receipt["refused"].as_array().unwrap().is_empty() && receipt["accepted"] == 0);
    }
    assert_eq!(place.entries("revision").await.len(), 0);
    assert_eq!(place.spooled(), 0);
}

#[tokio::test]
async fn packed_files() {
    use std::io::Write;
    let place = Place::new().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(csv(5).as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    // Cut off within the stream: refused whole.
    let answer = deliver(&place, PATH, gzip[..gzip.len() - 9].to_vec()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.json()["refused"][0]["rule"].clone()),
        (422, json!("compression"))
    );
    let answer = deliver(&place, PATH, gzip.clone()).await;
    assert_eq!((answer.status.as_u16(), answer.json()["accepted"].clone()), (201, json!(5)));
    // The same bytes, whether they are called packed or not.
    let request = place.request("sender", PATH).header("content-encoding", "gzip");
    let answer = place.send(request.body(gzip.into()).unwrap()).await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    let zstd = zstd::encode_all(csv(6).as_bytes(), 1).unwrap();
    assert_eq!(deliver(&place, PATH, zstd).await.status.as_u16(), 201);
}

#[tokio::test]
async fn json_files() {
    let place = Place::new().await;
    let body = || format!("{}\n{{}}\n", disclosure());
    let answer = deliver(&place, &format!("{PATH}?kind=disclosure"), body()).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    assert_eq!((&answer.json()["accepted"], &answer.json()["quarantined"]), (&json!(1), &json!(1)));
    let answer = deliver(&place, &format!("{PATH}?log=auditlog"), "[{\"logAction\":\"X\"}]").await;
    assert_eq!((answer.status.as_u16(), answer.json()["kind"].clone()), (201, json!("auditlog")));
    for query in
        ["log=auditlog&kind=revision", "kind=quarantine", "kind=x", "kind=", "log=auditlog&log=auditlog"]
    {
        deliver(&place, &format!("{PATH}?{query}"), body()).await.refused(400);
    }
    deliver(&place, &format!("{PATH}?log=nothing"), body()).await.refused(404);
}

#[tokio::test]
async fn names_of_files() {
    let place = Place::new().await;
    for (number, (file, expected)) in [
        ("..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("a%00b.csv", "ab.csv"),
        ("0101018081.csv", "01********.csv"),
        ("%2E%2E", "delivery"),
        ("-", "-"),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = deliver(&place, &format!("{PATH}?file={file}"), csv(number + 1)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["file"]), (201, &json!(expected)), "{file}");
    }
    let request =
        place.request("sender", PATH).header("content-disposition", "attachment; filename=\"week.csv\"");
    let answer = place.send(request.body(csv(10).into()).unwrap()).await;
    assert_eq!(answer.json()["file"], "week.csv");
}

#[tokio::test]
async fn who_may() {
    let place = Place::new().await;
    for (key, query, status) in [
        ("reader", "", 403),
        ("elsewhere", "", 403),
        ("elsewhere", "?log=auditlog", 422),
        ("bounded", "", 403),
        ("sender", "?log=access", 403),
        ("sender", "?log=quarantine", 403),
        ("admin", "?log=quarantine", 403),
        ("admin", "?log=access&kind=auditlog", 403),
    ] {
        let request = place.request(key, &format!("{PATH}{query}")).body(Body::empty()).unwrap();
        assert_eq!(place.send(request).await.status.as_u16(), status, "{key} {query}");
    }
    let html = place.request("sender", PATH).header("content-type", "text/html").body(csv(1).into()).unwrap();
    place.send(html).await.refused(415);
    let nobody = axum::http::Request::post(PATH).body(csv(1).into()).unwrap();
    place.send(nobody).await.refused(401);
}

#[tokio::test]
async fn too_large() {
    let limit = csv(3).len() as u64;
    let place = Place::with(|settings, _| settings.max_delivery_bytes = limit).await;
    deliver(&place, PATH, csv(3) + "\n").await.refused(413);
    // Without a length that is told beforehand.
    let pieces = csv(4)
        .into_bytes()
        .chunks(100)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()))
        .collect::<Vec<_>>();
    deliver(&place, PATH, Body::from_stream(futures::stream::iter(pieces))).await.refused(413);
    assert_eq!(deliver(&place, PATH, csv(3)).await.status.as_u16(), 201);
    assert_eq!(place.spooled(), 0);
}

#[tokio::test]
async fn a_delivery_larger_than_other_bodies_may_be() {
    let place = Place::new().await;
    let rows = 17 * (1 << 20) / row(1, "64942212").len() + 1;
    let body = csv(rows);
    assert!(body.len() > 16 << 20);
    let answer = deliver(&place, PATH, body).await;
    assert_eq!((answer.status.as_u16(), answer.json()["accepted"].clone()), (201, json!(rows)));
}

#[tokio::test]
async fn what_is_cut_off_is_never_taken() {
    let place = Place::new().await;
    // Cut between two rows, so that only the transport knows.
    let pieces = [Ok(Bytes::from(csv(3))), Err(std::io::Error::other("gone"))];
    deliver(&place, PATH, Body::from_stream(futures::stream::iter(pieces))).await.refused(400);
    assert_eq!(place.entries("revision").await.len(), 0);
    assert_eq!(place.spooled(), 0);
}

#[tokio::test]
async fn slow_senders_hold_up_neither_the_log_nor_many_places() {
    let place = Place::new().await;
    // They have sent their beginning, and then nothing more.
    let slow = (0..4).map(|_| {
        let beginning = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(csv(1)))]);
        let body = Body::from_stream(futures::StreamExt::chain(beginning, futures::stream::pending()));
        deliver(&place, PATH, body)
    });
    let mut slow = Box::pin(futures::future::join_all(slow));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut slow).await.is_err());
    assert_eq!(place.spooled(), 0, "a spool has no name, so a kill leaves nothing");
    let answer = deliver(&place, PATH, csv(2)).await;
    answer.refused(503);
    assert!(answer.header("retry-after").is_some());
    // The log itself is free.
    let record = place.post("/api/logs/auditlog/entries", "{\"logAction\":\"X\"}").await;
    assert_eq!(record.status.as_u16(), 200);
    drop(slow);
    assert_eq!(deliver(&place, PATH, csv(2)).await.status.as_u16(), 201);
    assert_eq!(place.entries("revision").await.len(), 2);
}

#[tokio::test]
async fn the_same_file_from_several_at_once() {
    let place = Place::new().await;
    let answers = futures::future::join_all((0..4).map(|_| deliver(&place, PATH, csv(50)))).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 201]);
    assert_eq!(place.entries("revision").await.len(), 50);
}

#[tokio::test]
async fn without_a_place_to_spool() {
    let place = Place::with(|settings, _| settings.spool = Some("/nowhere/at/all".into())).await;
    let problem = deliver(&place, PATH, csv(1)).await.refused(503);
    assert!(!problem.to_string().contains("/nowhere"), "{problem}");
}

#[tokio::test]
async fn others_append_meanwhile() {
    let mut place = Place::new().await;
    assert_eq!(deliver(&place, PATH, csv(1)).await.status.as_u16(), 201);
    let beside = place.app.clone();
    place.restart(false).await;
    assert_eq!(deliver(&place, PATH, file(2..4)).await.status.as_u16(), 201);
    // This one's writer does not know of the other's records yet.
    place.router_over(beside);
    let answer = deliver(&place, PATH, file(3..7)).await;
    assert_eq!(answer.status.as_u16(), 201, "{}", answer.text());
    assert_eq!((&answer.json()["firstId"], &answer.json()["lastId"]), (&json!(4), &json!(6)));
    assert_eq!(answer.json()["skipped"], 1);
}

#[tokio::test]
async fn connections_that_end_too_early() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let place = Place::new().await;
    let settings = ServerSettings { listen: ([127, 0, 0, 1], 0).into(), ..ServerSettings::default() };
    let server = Server::bind(&settings).await.unwrap();
    let address = server.local_addr();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(server.run(place.router(), async { drop(stopped.await) }));
    let (whole, secret) = (csv(3), place.secret("sender"));
    let head = format!("POST {PATH} HTTP/1.1\r\nHost: x\r\nApiKey: {secret}\r\nConnection: close\r\n");
    let announced = format!("{head}Content-Length: {}\r\n\r\n{whole}", whole.len() + 1);
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n", whole.len());
    for (request, status) in [(announced, "400"), (chunked.clone(), "400"), (chunked + "0\r\n\r\n", "201")] {
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let expected = format!("HTTP/1.1 {status}");
        // Who has hung up need not be answered.
        assert!(answer.starts_with(&expected) || (answer.is_empty() && status == "400"), "{answer}");
        let stored = place.entries("revision").await.len();
        assert_eq!(stored, if status == "201" { 3 } else { 0 });
        assert_eq!(place.spooled(), 0);
    }
    drop(stop);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_during_the_import() {
    let place = Place::new().await;
    let body = csv(20_000);
    for millis in [1, 5, 20, 60, 150] {
        let delivery = deliver(&place, PATH, body.clone());
        let _ = tokio::time::timeout(Duration::from_millis(millis), delivery).await;
    }
    // Whether one of them came to its end is not known; sent again, it is there, and once.
    let answer = deliver(&place, PATH, body).await;
    assert!(matches!(answer.status.as_u16(), 200 | 201), "{}", answer.text());
    assert_eq!(place.entries("revision").await.len(), 20_000);
    assert_eq!(place.spooled(), 0);
}
