//! Keys as they are made, kept and compared.

use chrono::TimeDelta;
use proptest::prelude::*;

use super::*;

fn new(name: &str) -> NewKey {
    NewKey { name: name.into(), role: Role::Read, logs: vec![], organisations: vec![], expires: None }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000, 0).expect("a time")
}

#[test]
fn a_key_is_found_by_what_its_holder_was_told_and_by_nothing_else() {
    let mut ring = KeyRing::default();
    let (key, secret) = ring.create(new("kommune"), now()).expect("made");
    let (other, other_secret) = ring.create(new("other"), now()).expect("made");
    assert_eq!(ring.find(&secret, now()), Ok(&key));
    assert_eq!(ring.find(&other_secret, now()), Ok(&other));
    let crossed = secret.replace(&*key.id, &other.id);
    let cut = secret.get(..secret.len() - 1).expect("ASCII");
    let upper = secret.to_uppercase();
    for wrong in
        ["", PREFIX, "sporlog__", &crossed, cut, &upper, &format!("{secret}x"), &format!(" {secret}")]
    {
        assert_eq!(ring.find(wrong, now()), Err(KeyRefusal::Unknown), "{wrong}");
    }
}

#[test]
fn any_other_character_makes_it_another_key() {
    let mut ring = KeyRing::default();
    let (_, secret) = ring.create(new("kommune"), now()).expect("made");
    for at in 0..secret.len() {
        for byte in [b'A', b'z', b'0', b'_'] {
            let mut other = secret.clone().into_bytes();
            if std::mem::replace(&mut other[at], byte) != byte {
                let other = String::from_utf8(other).expect("ASCII");
                assert_eq!(ring.find(&other, now()), Err(KeyRefusal::Unknown), "{at}");
            }
        }
    }
}

#[test]
fn a_revoked_key_is_refused_and_its_name_is_free() {
    let mut ring = KeyRing::default();
    let (_, first) = ring.create(new("kommune"), now()).expect("made");
    assert!(matches!(ring.create(new("kommune"), now()), Err(KeyRingError::Taken(_))));
    ring.revoke("kommune", now()).expect("revoked");
    assert_eq!(ring.find(&first, now()), Err(KeyRefusal::Revoked));
    assert!(matches!(ring.revoke("kommune", now()), Err(KeyRingError::Revoked(_))));
    assert!(matches!(ring.revoke("nobody", now()), Err(KeyRingError::NoSuchKey(_))));
    let (again, second) = ring.create(new("kommune"), now()).expect("made");
    assert_eq!(ring.find(&second, now()), Ok(&again));
    assert_eq!(ring.find(&first, now()), Err(KeyRefusal::Revoked));
    // Who has not the secret does not learn that the key is revoked.
    let guess = format!("{}{}", first.get(..first.len() - 43).expect("ASCII"), "A".repeat(43));
    assert_eq!(ring.find(&guess, now()), Err(KeyRefusal::Unknown));
}

#[test]
fn a_rotated_key_has_two_secrets_for_a_time_and_stays_the_same_key() {
    let mut ring = KeyRing::default();
    let (key, first) = ring.create(new("kommune"), now()).expect("made");
    let until = now() + TimeDelta::days(7);
    let (rotated, second) = ring.rotate("kommune", until).expect("rotated");
    assert_eq!(rotated.id, key.id);
    let mut ring = KeyRing::from_json(&ring.to_json().expect("written")).expect("read");
    for secret in [&first, &second] {
        assert_eq!(ring.find(secret, now()), Ok(&rotated));
    }
    assert_eq!(ring.find(&first, until), Err(KeyRefusal::Expired));
    assert_eq!(ring.find(&second, until), Ok(&rotated));
    // Only two at a time, and none once it is revoked.
    let (_, third) = ring.rotate("kommune", until).expect("rotated");
    assert_eq!(ring.find(&first, now()), Err(KeyRefusal::Unknown));
    assert!(ring.find(&second, now()).is_ok() && ring.find(&third, now()).is_ok());
    ring.revoke("kommune", now()).expect("revoked");
    for secret in [&second, &third] {
        assert_eq!(ring.find(secret, now()), Err(KeyRefusal::Revoked));
    }
    assert!(matches!(ring.rotate("kommune", until), Err(KeyRingError::Revoked(_))));
    assert!(matches!(ring.rotate("nobody", until), Err(KeyRingError::NoSuchKey(_))));
}

#[test]
fn a_key_runs_out() {
    let mut ring = KeyRing::default();
    let end = now() + TimeDelta::days(1);
    let (key, secret) = ring.create(NewKey { expires: Some(end), ..new("brief") }, now()).expect("made");
    assert_eq!(ring.find(&secret, end - TimeDelta::seconds(1)), Ok(&key));
    assert_eq!(ring.find(&secret, end), Err(KeyRefusal::Expired));
    let past = ring.create(NewKey { expires: Some(now()), ..new("past") }, now());
    assert!(matches!(past, Err(KeyRingError::Expired)));
}

#[test]
fn what_cannot_be_is_not_made() {
    let mut ring = KeyRing::default();
    let long = "x".repeat(65);
    for name in ["", "a\nb", "a\u{1b}[0m", "01010180812", "key of 0101018081", &long] {
        assert!(matches!(ring.create(new(name), now()), Err(KeyRingError::Name)), "{name}");
    }
    assert!(
        KeyRing::default().create(new(&"x".repeat(64)), now()).is_ok(),
        "a name may have so many characters"
    );
    for log in ["", "Revision", "../x", "a*b", "**", "re vision", "-"] {
        let made = ring.create(NewKey { logs: vec![log.into()], ..new("k") }, now());
        assert!(matches!(made, Err(KeyRingError::Bound(BoundError::Log(_)))), "{log}");
    }
    for number in ["", "6494221", "6494221x", "0101018081", "64942212 ", "６４９４２２１２"] {
        let made = ring.create(NewKey { organisations: vec![number.into()], ..new("k") }, now());
        let Err(error @ KeyRingError::Bound(BoundError::Organisation(_))) = made else {
            panic!("{number}: {made:?}")
        };
        assert!(!error.to_string().contains("0101018081"));
    }
    assert!(ring.keys().is_empty());
    let all = NewKey {
        logs: vec!["disclosure*".into(), "access".into(), "*".into()],
        organisations: vec!["64942212".into(), "974760673".into()],
        ..new("Ålesund kommune, fagsystem")
    };
    ring.create(all, now()).expect("made");
}

#[test]
fn they_are_kept_without_their_secrets() {
    let mut ring = KeyRing::default();
    let (key, secret) = ring.create(new("kommune"), now()).expect("made");
    let json = String::from_utf8(ring.to_json().expect("written")).expect("text");
    assert!(!json.contains(secret.get(secret.len() - 43..).expect("ASCII")));
    assert_eq!(KeyRing::from_json(json.as_bytes()).expect("read"), ring);
    assert_eq!(KeyRing::from_json(json.as_bytes()).expect("read").find(&secret, now()), Ok(&key));
    let shown = format!("{key:?}");
    assert!(!shown.contains(&String::from(key.sha256)), "{shown}");
}

#[test]
fn damaged_lists_are_refused_and_not_half_read() {
    let mut ring = KeyRing::default();
    ring.create(new("kommune"), now()).expect("made");
    let json = String::from_utf8(ring.to_json().expect("written")).expect("text");
    for end in 0..json.trim_end().len() {
        assert!(KeyRing::from_json(&json.as_bytes()[..end]).is_err(), "{end}");
    }
    let key = json.split_once('[').and_then(|(_, rest)| rest.rsplit_once(']')).expect("a list").0;
    let twice = format!("{{\"version\":1,\"keys\":[{key},{key}]}}");
    assert!(matches!(KeyRing::from_json(twice.as_bytes()), Err(KeyRingError::Damaged(_))));
    let later = json.replace("\"version\": 1", "\"version\": 2");
    assert!(matches!(KeyRing::from_json(later.as_bytes()), Err(KeyRingError::Version(2))));
    for (was, wrong) in
        [("\"read\"", "\"root\""), ("\"sha256\": \"", "\"sha256\": \"x"), ("\"id\": \"", "\"id\": \"A")]
    {
        assert!(KeyRing::from_json(json.replace(was, wrong).as_bytes()).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn nothing_that_is_sent_is_a_key_by_chance(sent in "\\PC*|sporlog_[a-z2-7]{12}_[A-Za-z0-9_-]{43}") {
        let mut ring = KeyRing::default();
        ring.create(new("kommune"), now()).expect("made");
        prop_assert_eq!(ring.find(&sent, now()), Err(KeyRefusal::Unknown));
    }

    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = KeyRing::from_json(&bytes);
    }
}
