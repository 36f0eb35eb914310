//! Records that are in order. All personal numbers are made up.

use serde_json::{Value, json};

/// The persons of the records here.
pub const PERSONS: [&str; 3] = ["41018312345", "12345678901", "31129956715"];
/// And those of the audit records.
pub const CITIZENS: [&str; 2] = ["0101018081", "3112999999"];

/// A disclosure about a person, to be told from others by `n`.
pub fn disclosure(person: &str, n: usize) -> Value {
    json!({
        "person": person, "mottaker": "123456789", "tema": "ABC", "behandlingsGrunnlag": "hjemmel",
        "uthentingsTidspunkt": "2018-10-19T12:24:21.675", "leverteData": "e30=",
        "dataForespoersel": format!("n={n}"),
    })
}

/// An audit record, to be told from others by `n`.
pub fn login(n: usize) -> Value {
    json!({
        "tts": "2022-07-26T06:50:55", "ipAddress": "127.0.0.1", "correlationId": format!("session-{n}"),
        "personId": n, "personName": "Test Testesen", "cpr": CITIZENS[0], "performerId": null,
        "performerName": null, "logAction": "LOGIN", "message": format!("n={n}"),
        "personDomain": "kommune.dk", "samaccountName": "bsg", "detailType": "TEXT",
        "detailContent": null, "detailSupplement": null,
    })
}

/// Records, one a line.
pub fn lines(records: impl IntoIterator<Item = Value>) -> String {
    records.into_iter().map(|record| format!("{record}\n")).collect()
}

/// A file of a revision log, with a row for each organisation.
pub fn revision(organisations: &[&str]) -> String {
    let header = r#""TransaktionsId","TransaktionsTid","BrugerId","KalderOrganisation","KalderItSystemInstans","BorgerId","Note""#;
    let row = |(n, organisation): (usize, &&str)| {
        format!(
            "\"0d57d91a-03d5-4e96-9e63-{n:012}\",\"2026-01-05T08:30:00\",\"4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8\",\
             \"{organisation}\",\"cc038af5-0e68-43e5-bb17-957ad6f45f8e\",\"{}\",\"set\"\n",
            CITIZENS[1]
        )
    };
    format!("{header}\n{}", organisations.iter().enumerate().map(row).collect::<String>())
}

/// The `n` of a disclosure.
pub fn number(disclosure: &Value) -> usize {
    let text = disclosure["dataForespoersel"].as_str().and_then(|text| text.strip_prefix("n="));
    text.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{disclosure}"))
}
