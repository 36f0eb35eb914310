//! The files, and what a running server makes of them.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use sporlog_web::access::{KeyRefusal, KeyRegistry, NewKey, Role};

use super::follow::FollowedKeys;
use super::*;

fn new(name: &str) -> NewKey {
    NewKey { name: name.into(), role: Role::Read, logs: vec![], organisations: vec![], expires: None }
}

/// Makes a key in the file, and gives its id and what is sent.
fn make(files: &KeyFile, name: &str) -> (Arc<str>, String) {
    let locked = files.lock().expect("locked");
    let mut ring = files.ring().expect("read");
    let (key, secret) = ring.create(new(name), Utc::now()).expect("made");
    locked.save(&ring).expect("saved");
    (key.id, secret)
}

#[test]
fn nobody_else_reads_the_files() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("deep/keys");
    let files = KeyFile::new(&folder);
    assert!(files.ring().expect("none").keys().is_empty());
    make(&files, "a");
    files.lock().and_then(|locked| locked.add_uses(&LastUse::new())).expect("written");
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("read") {
        let path = entry.expect("read").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().expect("a name").to_string_lossy().into_owned());
    }
    names.sort();
    assert_eq!(names, ["apikeys.json", "apikeys.lock", "apikeys.used.json"]);
}

#[test]
fn many_at_once_lose_nothing() {
    let place = tempfile::tempdir().expect("a folder");
    let files = KeyFile::new(place.path());
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let files = &files;
            scope.spawn(move || (0..5).for_each(|n| drop(make(files, &format!("{worker}-{n}")))));
        }
    });
    assert_eq!(files.ring().expect("read").keys().len(), 40);
}

#[test]
fn what_a_crash_left_is_in_nobodys_way() {
    let place = tempfile::tempdir().expect("a folder");
    let files = KeyFile::new(place.path());
    std::fs::write(place.path().join("apikeys.tmp"), "half").expect("written");
    make(&files, "a");
    assert_eq!(files.ring().expect("read").keys().len(), 1);
    assert!(!place.path().join("apikeys.tmp").exists());
}

#[test]
fn the_later_use_counts() {
    let place = tempfile::tempdir().expect("a folder");
    let files = KeyFile::new(place.path());
    let (early, late) = (Utc::now() - TimeDelta::hours(1), Utc::now());
    let add = |id: &str, time| {
        let uses = LastUse::from([(id.to_owned(), time)]);
        files.lock().and_then(|locked| locked.add_uses(&uses)).expect("written");
    };
    add("a", late);
    add("a", early);
    add("b", early);
    let expected = LastUse::from([("a".to_owned(), late), ("b".to_owned(), early)]);
    assert_eq!(files.last_use().expect("read"), expected);
    std::fs::write(place.path().join("apikeys.used.json"), "{").expect("written");
    assert!(files.last_use().is_err());
    add("a", late);
    assert_eq!(files.last_use().expect("read").len(), 1);
}

/// Waits until the registry judges a key so.
async fn until(registry: &FollowedKeys, secret: &str, expected: Result<(), KeyRefusal>) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while registry.current().find(secret, Utc::now()).map(|_| ()) != expected {
        assert!(Instant::now() < deadline, "{expected:?} did not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_running_server_sees_what_is_made_and_revoked() {
    let place = tempfile::tempdir().expect("a folder");
    let files = KeyFile::new(place.path());
    let registry = KeyFile::follow(place.path()).expect("opened");
    let (id, secret) = make(&files, "a");
    until(&registry, &secret, Ok(())).await;

    // What is damaged changes nothing.
    let path = place.path().join("apikeys.json");
    let good = std::fs::read(&path).expect("read");
    std::fs::write(&path, &good[..good.len() / 2]).expect("written");
    tokio::time::sleep(Duration::from_millis(1300)).await;
    until(&registry, &secret, Ok(())).await;
    std::fs::write(&path, &good).expect("written");

    let mut ring = files.ring().expect("read");
    ring.revoke("a", Utc::now()).expect("revoked");
    files.lock().and_then(|locked| locked.save(&ring)).expect("saved");
    until(&registry, &secret, Err(KeyRefusal::Revoked)).await;

    let (_, other) = make(&files, "b");
    until(&registry, &other, Ok(())).await;
    std::fs::remove_file(&path).expect("removed");
    until(&registry, &other, Err(KeyRefusal::Unknown)).await;

    registry.used(&id);
    registry.used(&id);
    assert!(files.last_use().expect("read").is_empty());
    registry.close().await;
    registry.close().await;
    let used = files.last_use().expect("read");
    assert!(Utc::now() - used[&*id] < TimeDelta::minutes(1));
}

#[tokio::test]
async fn a_server_does_not_start_with_damaged_keys() {
    let place = tempfile::tempdir().expect("a folder");
    std::fs::write(place.path().join("apikeys.json"), "{}").expect("written");
    let error = KeyFile::follow(place.path()).err().expect("refused");
    assert!(error.to_string().contains("apikeys.json"), "{error}");
}
