//! The catalogue is complete: one key in three languages, none missing, none unused.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::pages::texts::{FILES, Lang, Texts, parse};

/// The texts of all templates and of all code of the pages but the tests.
fn sources() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["templates", "src/pages", "src/sign_in"].into_iter().flat_map(|folder| {
        std::fs::read_dir(root.join(folder)).expect("a folder").map(|entry| entry.expect("an entry").path())
    });
    files.filter(|file| file.is_file()).map(|file| std::fs::read_to_string(file).expect("text")).collect()
}

#[test]
fn keys_are_the_same_in_each_language_and_all_used() {
    let keys: Vec<BTreeMap<_, _>> = FILES.iter().map(|(_, file)| parse(file).collect()).collect();
    for ((lang, file), texts) in FILES.iter().zip(&keys) {
        let lines = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(lines, texts.len(), "{lang:?}: a line is no pair, or a key is there twice");
        let missing: Vec<_> = keys[0].keys().filter(|key| !texts.contains_key(*key)).collect();
        let more: Vec<_> = texts.keys().filter(|key| !keys[0].contains_key(*key)).collect();
        assert!(
            missing.is_empty() && more.is_empty(),
            "{lang:?}: {missing:?} are missing, {more:?} are too many"
        );
        assert!(texts.values().all(|text| !text.trim().is_empty()), "{lang:?}");
    }
    let sources = sources();
    let unused: Vec<_> = keys[0].keys().filter(|key| !sources.contains(&format!("\"{key}\""))).collect();
    assert!(unused.is_empty(), "unused: {unused:?}");
    // Whatever looks like a key is one: what stands before its dot does before others', too.
    let groups: BTreeSet<_> = keys[0].keys().filter_map(|key| key.split('.').next()).collect();
    let quoted = sources.split('"').filter(|text| {
        let word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        text.split_once('.').is_some_and(|(group, rest)| groups.contains(group) && word(rest))
    });
    let is_file = |text: &str| text.ends_with(".html") || text.ends_with(".js");
    let unknown: BTreeSet<_> = quoted.filter(|text| !keys[0].contains_key(text) && !is_file(text)).collect();
    assert!(unknown.is_empty(), "not in the catalogue: {unknown:?}");
}

#[test]
fn languages_fill_in_the_same_values() {
    let values = |text: &str| {
        text.match_indices('{').map(|(at, _)| text[at..at + 3].to_owned()).collect::<BTreeSet<_>>()
    };
    let norwegian: BTreeMap<_, _> = parse(FILES[0].1).collect();
    for (lang, file) in FILES {
        for (key, text) in parse(file) {
            assert_eq!(values(&text), values(&norwegian[key]), "{lang:?}: {key}");
        }
    }
}

#[test]
fn times_and_numbers_are_written_as_in_each_language() {
    let time = crate::pages::texts::calendar(sporlog_record::time::parse_iso("2018-10-19T12:04:21").unwrap());
    let written = Lang::ALL.map(|lang| (Texts::of(lang).moment(time), Texts::of(lang).number(1_234_567)));
    assert_eq!(written[0], ("19. oktober 2018 kl. 12:04".into(), "1\u{a0}234\u{a0}567".into()));
    assert_eq!(written[1], ("19. oktober 2018 kl. 12.04".into(), "1.234.567".into()));
    assert_eq!(written[2], ("19 October 2018, 12:04".into(), "1,234,567".into()));
}
