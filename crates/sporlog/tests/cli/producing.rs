//! Disclosures as real producers send them: longer than the specification says, with fields that are empty or
//! `null`, with data that was cut off to fit into a message.

use crate::place::{Place, disclosure};

/// What producers send, and the rules of the remarks on it.
fn as_produced() -> Vec<(String, &'static [&'static str])> {
    let text = |text: String| format!("\"{text}\"");
    let cut = "eyJ2ZWR0YWsiOlt7InN0YXR1cyI6IklOTlZJTEdFVCIsImJlbG9lcCI6MTIzNDV9LHsic3Rh";
    vec![
        (disclosure("behandlingsGrunnlag", &text("§ ".repeat(55))), &["length"]),
        (disclosure("samtykkeToken", &text("e30.e30.".to_owned() + &"A".repeat(3_987))), &["length", "jwt"]),
        (disclosure("leverteData", &text("e30K".repeat(260_000))), &["length", "payload-json"]),
        (disclosure("leverteData", &text(cut.to_owned())), &["payload-json"]),
        (disclosure("samtykkeToken", "\"\",\"leverandoer\":\"\",\"dataForespoersel\":\"\""), &[]),
        (disclosure("id", "null"), &[]),
    ]
}

#[test]
fn what_producers_send_is_taken_in() {
    let place = Place::new();
    let produced = as_produced();
    place.file("f", produced.iter().map(|(record, _)| record.as_str()).collect::<String>());
    place.run("check disclosure f").ok().says("6 records accepted, 0 refused");
    place.run("import disclosure f").ok().says("accepted     6\n").says("quarantined  0\n");
    let read = place.run("read disclosure --format ndjson").ok();
    let entries: Vec<serde_json::Value> =
        read.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(entries.len(), 6);
    for (entry, (sent, expected)) in entries.iter().zip(&produced) {
        let remarks = entry["remarks"].as_array().expect("an array");
        let rules: Vec<_> = remarks.iter().map(|remark| &remark["rule"]).collect();
        // The example's numbers have no valid check digits.
        let rules: Vec<_> = rules.into_iter().filter(|rule| **rule != "check-digit").collect();
        assert_eq!(rules, *expected, "{remarks:?}");
        let mut sent: serde_json::Value = serde_json::from_str(sent).expect("JSON");
        sent.as_object_mut().expect("an object").retain(|_, value| !value.is_null() && *value != "");
        let (kept, sent) = (&entry["record"], &sent);
        assert!(kept == sent, "record {} came back changed", entry["id"]);
    }
}

#[test]
fn the_greatest_lengths_are_settings() {
    let place = Place::new();
    place.file("f", disclosure("behandlingsGrunnlag", &format!("\"{}\"", "x".repeat(1_001))));
    place.run("check disclosure f").code(1).says("1001 characters").says("1 to 1000");
    place.file("sporlog.toml", "[rules.disclosure]\nbehandlingsGrunnlag = 1001\n");
    place.run("check disclosure f").ok().says("1 record accepted, 0 refused");
}
