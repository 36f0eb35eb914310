//! `names import`.

use std::os::unix::fs::PermissionsExt;

use crate::place::Place;

#[test]
fn names_are_imported_as_the_registers_give_them() {
    let place = Place::new();
    place.file(
        "enheter.csv",
        "\"organisasjonsnummer\",\"navn\"\n\"974761076\",\"SKATTEETATEN\"\n\"x\",\"Y\"\n",
    );
    let dry = "names import organisations enheter.csv --dry-run";
    place.file("a.csv", crate::place::csv(0..3));
    place.run("import revision a.csv").ok();
    place.run(dry).code(1).says("1 new, 0 changed, 1 known now (nothing was stored)");
    let folder = place.path("sporlog-data/names");
    assert!(!folder.exists());
    place
        .run("names import organisations enheter.csv")
        .code(1)
        .says("enheter.csv: line 3: 'x' is neither")
        .says("organisations: 1 names read, 1 refused; 1 new, 0 changed, 1 known now");
    let mode = folder.join("organisations.tsv").metadata().expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    place.file(
        "tema.json",
        r#"{"betydninger": {"AAP": [{"gyldigFra": "2018-01-01", "beskrivelser": {"nb": {"term": "AAP"}}}]}}"#,
    );
    place.run("names import topics tema.json --json").ok().says("\"new\":1");
    place.run("names import topics enheter.csv").code(2).complains("enheter.csv");
}
