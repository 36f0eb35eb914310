//! What came over the exchange, as those are told who look after it.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use sporlog_exchange::{Receipt, Register, Settings};
use tempfile::TempDir;

use super::place::{Answer, Place};

const LIST: &str = "/api/deliveries";

/// A server over an exchange with two suppliers and seven deliveries.
struct Exchange {
    place: Place,
    _root: TempDir,
}

impl Exchange {
    async fn new() -> Self {
        Self::into_log("revision").await
    }

    async fn into_log(log: &str) -> Self {
        let (mut place, root) = (Place::new().await, tempfile::tempdir().unwrap());
        let register = Register::new(root.path());
        for (account, day, outcome) in [
            ("a", 1, "accepted"),
            ("a", 2, "accepted"),
            ("b", 2, "refused"),
            ("a", 3, "repeated"),
            ("b", 3, "accepted"),
            ("gone", 4, "accepted"),
            ("a", 4, "refused"),
        ] {
            register.add(&receipt(account, day, outcome)).unwrap();
        }
        let supplier = |name| json!({"name": name, "role": "supplier"});
        let municipality = json!({"name": "k", "role": "municipality", "cvr": ["64942212"]});
        let settings = json!({"log": log, "account": [supplier("b"), municipality, supplier("a")]});
        let settings: Settings = serde_json::from_value(settings).unwrap();
        place.set_up(|app| {
            app.register = Some(register);
            app.exchange = Some(crate::Exchange { settings: settings.into(), root: root.path().to_owned() });
        });
        Exchange { place, _root: root }
    }

    async fn get(&self, path: &str) -> Answer {
        get(&self.place, "auditor", path).await
    }

    async fn json(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status.as_u16(), 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// The ids of what is listed.
    async fn ids(&self, parameters: &str) -> Vec<String> {
        let listed = self.json(&format!("{LIST}?{parameters}")).await;
        let id = |one: &Value| one["delivery"].as_str().unwrap().to_owned();
        listed.as_array().unwrap().iter().map(id).collect()
    }
}

async fn get(place: &Place, key: &str, path: &str) -> Answer {
    let request = Request::get(path).header("apikey", place.secret(key));
    place.send(request.body(Body::empty()).unwrap()).await
}

fn receipt(account: &str, day: u32, outcome: &str) -> Receipt {
    let mut receipt = json!({
        "delivery": format!("2026110{day}T060000Z-{account}"), "account": account, "file": "dag.csv",
        "log": "revision", "outcome": outcome, "takenAt": format!("2026-11-0{day}T06:00:00Z"),
        "bytes": 100, "accepted": 10, "quarantined": 0, "remarks": 0, "overlapping": 0, "skipped": 0,
        "seconds": 0.5,
    });
    if outcome == "refused" {
        let note = |line| json!({"line": line, "column": 1, "rule": "header", "text": "not 0101018081"});
        receipt["refused"] = json!([note(1)]);
        receipt["quarantinedRows"] = json!([note(2)]);
    }
    serde_json::from_value(receipt).unwrap()
}

#[tokio::test]
async fn the_newest_come_first() {
    let exchange = Exchange::new().await;
    let all = [
        "20261104T060000Z-gone",
        "20261104T060000Z-a",
        "20261103T060000Z-b",
        "20261103T060000Z-a",
        "20261102T060000Z-b",
        "20261102T060000Z-a",
        "20261101T060000Z-a",
    ];
    assert_eq!(exchange.ids("").await, all);
    assert_eq!(exchange.ids("limit=2").await, all[..2]);
    assert_eq!(exchange.ids("limit=1000").await, all);
    for (at, id) in all.iter().enumerate() {
        assert_eq!(
            exchange.ids(&format!("limit=3&before={id}")).await,
            all[at + 1..].split_at((6 - at).min(3)).0
        );
        let one = exchange.json(&format!("{LIST}/{id}")).await;
        assert_eq!(one["delivery"], *id);
    }
    assert_eq!(exchange.ids("since=2026-11-03").await, all[..4]);
    assert_eq!(exchange.ids("account=b").await, [all[2], all[4]]);
    assert_eq!(exchange.ids("account=a&outcome=refused").await, [all[1]]);
    assert_eq!(exchange.ids("account=b&before=20261103T060000Z-a").await, [all[4]]);
    for nothing in ["account=c", "account=", "account=../a", "account=%00", "since=9999-12-31"] {
        assert!(exchange.ids(nothing).await.is_empty(), "{nothing}");
    }
}

#[tokio::test]
async fn what_is_told_of_one() {
    let exchange = Exchange::new().await;
    let one = exchange.json("/api/deliveries/20261104T060000Z-a").await;
    assert_eq!(
        (&one["outcome"], &one["file"], &one["bytes"]),
        (&json!("refused"), &json!("dag.csv"), &json!(100))
    );
    // Neither what stood in a row, nor a number that stood in the file.
    assert_eq!(one.get("quarantinedRows"), None);
    assert_eq!(one["refused"][0]["text"], "not 01********");
    for text in [exchange.get(LIST).await, exchange.get("/api/deliveries/20261104T060000Z-a").await] {
        assert!(!text.text().contains("0101018081"), "{}", text.text());
    }
    for nowhere in ["x", "..%2Fa", "20261104T060000Z", "%00", "20261104T060000Z-a/x"] {
        exchange.get(&format!("{LIST}/{nowhere}")).await.refused(404);
    }
    assert_eq!(exchange.place.entries("access").await.len(), 0, "nothing personal was looked at");
}

#[tokio::test]
async fn suppliers_and_how_they_stand() {
    let exchange = Exchange::new().await;
    let suppliers = exchange.json("/api/deliveries/suppliers").await;
    let suppliers = suppliers.as_array().unwrap();
    let names: Vec<_> = suppliers.iter().map(|one| one["account"].as_str().unwrap()).collect();
    assert_eq!(names, ["b", "a"], "as configured");
    assert_eq!(suppliers[0]["lastAccepted"]["delivery"], "20261103T060000Z-b");
    assert_eq!(suppliers[1]["last"]["outcome"], "refused");
    assert_eq!(suppliers[1]["lastAccepted"]["takenAt"], "2026-11-02T06:00:00Z");
    assert_eq!(suppliers[1]["due"], "2026-11-04T00:00:00Z");
    assert_eq!(suppliers[1]["volume"], json!({"volume": "unknown", "day": "2026-11-02", "rows": 10}));
}

#[tokio::test]
async fn what_is_told_is_described() {
    let exchange = Exchange::new().await;
    let described = get(&exchange.place, "reader", "/api/openapi.json").await.json();
    let paths = &described["paths"];
    assert!(paths[LIST]["get"].is_object() && paths[LIST]["post"].is_object(), "{}", paths[LIST]);
    assert!(paths["/api/deliveries/suppliers"]["get"].is_object());
    assert!(paths["/api/deliveries/{id}"]["get"].is_object());
    let schemas = &described["components"]["schemas"];
    let mut told = exchange.json(LIST).await.as_array().unwrap().clone();
    told.push(serde_json::to_value(full()).unwrap());
    for one in &told {
        fits(schemas, "Delivery", one);
    }
    for one in exchange.json("/api/deliveries/suppliers").await.as_array().unwrap() {
        fits(schemas, "Supplier", one);
    }
}

/// A receipt with all that it may have.
fn full() -> Receipt {
    let mut full = serde_json::to_value(receipt("a", 5, "accepted")).unwrap();
    let earlier = json!({"delivery": "x", "file": "y", "receivedAt": "2026-11-05T06:00:00Z", "rows": 1});
    let note = json!({"line": 1, "column": 1, "field": "f", "rule": "r", "text": "t"});
    for (name, value) in [
        ("receivedAt", json!("2026-11-05T06:00:01Z")),
        ("sha256", json!("00")),
        ("firstId", json!(1)),
        ("lastId", json!(10)),
        ("repeats", earlier.clone()),
        ("overlaps", json!([earlier])),
        ("fileRemarks", json!([note])),
        ("refused", json!([note])),
        ("quarantinedRows", json!([note])),
    ] {
        full[name] = value;
    }
    serde_json::from_value(full).unwrap()
}

/// All fields that there are, are described, and all that are required are there; of those within, too.
#[track_caller]
fn fits(schemas: &Value, name: &str, value: &Value) {
    let schema = &schemas[name];
    let (properties, found) = (schema["properties"].as_object().unwrap(), value.as_object().unwrap());
    for required in schema["required"].as_array().unwrap() {
        assert!(found.contains_key(required.as_str().unwrap()), "{name} has no {required}: {value}");
    }
    for (field, value) in found {
        let described = properties.get(field).unwrap_or_else(|| panic!("{name}: nothing tells of {field}"));
        let type_ = match value {
            Value::String(_) => "string",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::Array(_) => "array",
            _ => "object",
        };
        let inner = [described, &described["items"]].map(|one| one["$ref"].as_str());
        match (inner.into_iter().flatten().next(), value) {
            (Some(inner), Value::Array(several)) => {
                let inner = inner.rsplit('/').next().unwrap();
                several.iter().for_each(|one| fits(schemas, inner, one));
            }
            (Some(inner), one) => fits(schemas, inner.rsplit('/').next().unwrap(), one),
            (None, _) => assert_eq!(described["type"], type_, "{name}.{field}: {described}"),
        }
    }
}

#[tokio::test]
async fn parameters_that_are_wrong() {
    let exchange = Exchange::new().await;
    for wrong in [
        "limit=0",
        "limit=-1",
        "limit=1001",
        "limit=99999999999999999999",
        "limit=1e2",
        "limit=",
        "limit=1&limit=2",
        "outcome=good",
        "outcome=",
        "since=yesterday",
        "since=2026-02-30",
        "since=",
    ] {
        exchange.get(&format!("{LIST}?{wrong}")).await.refused(400);
    }
    for nowhere in ["x", "", "0101018081"] {
        let problem = exchange.get(&format!("{LIST}?before={nowhere}")).await.refused(404);
        assert!(!problem.to_string().contains("0101018081"), "{problem}");
    }
}

#[tokio::test]
async fn who_may() {
    let exchange = Exchange::new().await;
    let paths =
        [LIST, "/api/deliveries/suppliers", "/api/deliveries/20261104T060000Z-a", "/api/deliveries/x"];
    for path in paths {
        for key in ["sender", "reader", "elsewhere", "bounded", "bounded auditor", "other auditor"] {
            get(&exchange.place, key, path).await.refused(403);
        }
        let there = if path.ends_with('x') { 404 } else { 200 };
        for key in ["auditor", "admin"] {
            assert_eq!(get(&exchange.place, key, path).await.status.as_u16(), there, "{key} {path}");
        }
        let nobody = Request::get(path).body(Body::empty()).unwrap();
        exchange.place.send(nobody).await.refused(401);
    }
    // The log that counts is the one that the exchange delivers into.
    let exchange = Exchange::into_log("auditlog").await;
    assert_eq!(get(&exchange.place, "other auditor", LIST).await.status.as_u16(), 200);
}

#[tokio::test]
async fn without_an_exchange() {
    let place = Place::new().await;
    for path in [LIST, "/api/deliveries/suppliers", "/api/deliveries/x", "/api/deliveries?before=x"] {
        get(&place, "auditor", path).await.refused(404);
        get(&place, "reader", path).await.refused(403);
    }
    get(&place, "auditor", "/api/deliveries?limit=0").await.refused(400);
}
