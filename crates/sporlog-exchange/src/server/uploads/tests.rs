//! Uploads on a disk.

use std::fs;
use std::io;

use super::*;
use crate::server::account::SILENT;
use crate::server::packets::Code;
use crate::settings::{Account, Limits};
use crate::tree::Home;

const NEW: u32 = flags::WRITE | flags::CREATE | flags::TRUNCATE;
const ON: u32 = flags::WRITE | flags::CREATE;

struct Folders {
    account: Arc<AccountState>,
    root: tempfile::TempDir,
}

impl Folders {
    fn new() -> Result<Self, Refusal> {
        let root = tempfile::tempdir()?;
        let json = serde_json::json!({ "name": "ky", "role": "supplier" });
        let account: Account = serde_json::from_value(json).map_err(io::Error::other)?;
        let limits = Limits { file_bytes: 100, files: 3, ..Limits::default() };
        let account = AccountState::new(&account, Home::new(root.path().to_owned()), &limits, None);
        let account = Arc::new(account.map_err(|error| Refusal::failure(error.to_string()))?);
        Ok(Folders { account, root })
    }

    fn open(&self, name: &str, wanted: u32) -> Result<Upload, Refusal> {
        Upload::open(&self.account, name, wanted)
    }

    fn put(&self, name: &str, content: &str) -> Result<bool, Refusal> {
        let mut upload = self.open(name, NEW)?;
        upload.write(0, content.as_bytes())?;
        upload.begin_close()?;
        upload.finish()
    }

    /// What lies in the inbox, and beside it.
    fn content(&self, name: &str) -> (Option<String>, Option<String>) {
        let read = |folder: &str| fs::read_to_string(self.root.path().join(folder).join(name)).ok();
        (read("ind"), read(".sporlog/uploads"))
    }

    fn fall_silent(&self, name: &str) {
        let active = lock(&self.account.uploads.active);
        if let Some(writer) = active.get(name) {
            let mut writer = lock(writer);
            writer.last_write = writer.last_write.checked_sub(SILENT).unwrap_or(writer.last_write);
        }
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_file_is_in_the_inbox_when_it_is_closed_and_not_before() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let mut upload = folders.open("a.csv", NEW)?;
    upload.write(0, b"ab")?;
    assert_eq!(folders.content("a.csv"), (None, some("ab")));
    upload.begin_close()?;
    assert!(upload.finish()?);
    assert_eq!(folders.content("a.csv"), (some("ab"), None));
    drop(upload);
    assert!(!folders.account.uploads.is_active("a.csv"));
    Ok(())
}

#[test]
fn a_temporary_name_is_delivered_by_a_rename() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    assert!(!folders.put("a.csv.part", "ab")?);
    let renamed = rename(&folders.account, "a.csv.part", "a.csv", false)?;
    assert_eq!(renamed, Renamed::Delivered { is_final: true });
    assert_eq!(folders.content("a.csv"), (some("ab"), None));
    folders.put("b.csv", "b")?;
    assert!(rename(&folders.account, "b.csv", "a.csv", false).is_err());
    assert_eq!(rename(&folders.account, "b.csv", "a.csv", true)?, Renamed::Delivered { is_final: false });
    assert_eq!(folders.content("a.csv"), (some("b"), None));
    Ok(())
}

#[test]
fn what_was_cut_off_stays_beside_and_is_resumed() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let mut cut_off = folders.open("a.csv", NEW)?;
    cut_off.write(0, b"ab")?;
    drop(cut_off);
    assert_eq!(folders.content("a.csv"), (None, some("ab")));
    assert_eq!(rename(&folders.account, "a.csv", "b.csv", false)?, Renamed::Beside);
    let mut resumed = folders.open("b.csv", ON)?;
    resumed.write(2, b"c")?;
    resumed.begin_close()?;
    assert!(resumed.finish()?);
    drop(resumed);
    // Also one that was closed too early, as long as nobody has taken it.
    let mut again = folders.open("b.csv", ON | flags::APPEND)?;
    assert_eq!(folders.content("b.csv"), (None, some("abc")));
    again.write(0, b"d")?;
    again.begin_close()?;
    assert!(again.finish()?);
    assert_eq!(folders.content("b.csv"), (some("abcd"), None));
    Ok(())
}

#[test]
fn of_two_writers_the_second_waits_until_the_first_is_silent() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let mut first = folders.open("a.csv", NEW)?;
    first.write(0, b"first")?;
    assert!(folders.open("a.csv", NEW).is_err());
    assert!(rename(&folders.account, "a.csv", "b.csv", true).is_err());
    assert!(remove(&folders.account, "a.csv").is_err());
    folders.fall_silent("a.csv");
    let mut second = folders.open("a.csv", NEW)?;
    assert!(first.write(5, b"more").is_err() && first.begin_close().is_err());
    drop(first);
    second.write(0, b"2")?;
    assert!(folders.open("a.csv", NEW).is_err(), "the second holds it, though the first has gone");
    second.begin_close()?;
    folders.fall_silent("a.csv");
    assert!(folders.open("a.csv", NEW).is_err(), "nobody takes over what is being closed");
    assert!(second.finish()?);
    assert_eq!(folders.content("a.csv"), (some("2"), None));
    Ok(())
}

#[test]
fn a_file_with_a_gap_is_not_closed_and_is_resumed_at_the_gap() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let mut upload = folders.open("a.csv", NEW)?;
    for (offset, data) in [(0, "ab"), (8, "ij"), (4, "ef")] {
        upload.write(offset, data.as_bytes())?;
    }
    assert_eq!(stat(&folders.account, "a.csv")?.size, 2, "another connection would resume here");
    let refused = upload.begin_close().err().map(|refusal| refusal.text.into_owned()).unwrap_or_default();
    assert!(refused.contains("the bytes from 2 to 4 did not come; go on at 2"), "{refused}");
    drop(upload);
    assert_eq!(folders.content("a.csv"), (None, some("ab")));
    // Whoever sends the rest in any order is content.
    let mut resumed = folders.open("a.csv", ON)?;
    for (offset, data) in [(6, "ghij"), (4, "efg"), (2, "cd")] {
        resumed.write(offset, data.as_bytes())?;
    }
    resumed.begin_close()?;
    assert!(resumed.finish()?);
    drop(resumed);
    assert_eq!(folders.content("a.csv"), (some("abcdefghij"), None));
    Ok(())
}

#[test]
fn a_length_that_was_set_has_to_be_filled() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let mut upload = folders.open("a.csv", NEW)?;
    upload.set_size(4)?;
    upload.write(0, b"ab")?;
    assert!(upload.begin_close().is_err());
    upload.write(2, b"cd")?;
    upload.begin_close()?;
    upload.set_size(3)?;
    assert!(upload.finish()?);
    assert_eq!(folders.content("a.csv"), (some("abc"), None));
    Ok(())
}

#[test]
fn a_gap_is_not_passed_on_by_a_silent_writer_or_a_killed_server() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let mut silent = folders.open("a.csv", NEW)?;
    silent.write(0, b"ab")?;
    silent.write(4, b"ef")?;
    folders.fall_silent("a.csv");
    let mut second = folders.open("a.csv", ON)?;
    drop(silent);
    assert_eq!(second.attributes()?.size, 2);
    second.write(2, b"c")?;
    second.begin_close()?;
    assert!(second.finish()?);
    assert_eq!(folders.content("a.csv"), (some("abc"), None));
    // What a killed server leaves: a hole of the file system's.
    let path = folders.root.path().join(".sporlog/uploads/b.csv");
    let file = File::create(&path)?;
    file.write_all_at(&[b'b'; 4096], 0)?;
    file.write_all_at(b"end", 1 << 20)?;
    cut_at_gaps(&folders.account.home)?;
    assert_eq!(stat(&folders.account, "b.csv")?.size, disk::before_hole(&file)?);
    fs::write(path, "whole")?;
    cut_at_gaps(&folders.account.home)?;
    assert_eq!(folders.content("b.csv"), (None, some("whole")));
    Ok(())
}

#[test]
fn limits_hold_and_what_broke_them_is_not_delivered() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let mut large = folders.open("a.csv", NEW)?;
    large.write(90, b"0123456789")?;
    for (offset, data) in [(91, &b"0123456789"[..]), (u64::MAX, b"a"), (101, b"")] {
        assert!(large.write(offset, data).is_err(), "{offset}");
    }
    assert!(large.set_size(101).is_err());
    assert!(large.begin_close().is_err());
    drop(large);
    assert!(folders.content("a.csv").0.is_none());
    folders.put("b.csv", "b")?;
    folders.put("c.csv", "c")?;
    assert!(folders.open("d.csv", NEW).is_err(), "three files, and no more");
    assert!(folders.open("b.csv", NEW).is_ok(), "one that is there may be sent again");
    remove(&folders.account, "c.csv")?;
    assert!(folders.open("d.csv", NEW).is_ok());
    assert_eq!(remove(&folders.account, "c.csv").err().map(|refusal| refusal.code), Some(Code::NoSuchFile));
    Ok(())
}

#[test]
fn flags_mean_what_they_say() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    assert!(folders.open("a.csv", flags::WRITE).is_err(), "there is nothing, and nothing is to be made");
    folders.put("a.csv", "old")?;
    assert!(folders.open("a.csv", ON | flags::EXCLUDE).is_err());
    let mut anew = folders.open("a.csv", NEW)?;
    anew.write(0, b"n")?;
    assert_eq!(
        folders.content("a.csv"),
        (some("old"), some("n")),
        "until it is closed, the old one is there"
    );
    assert_eq!(stat(&folders.account, "a.csv")?.size, 1);
    Ok(())
}

#[test]
fn a_link_that_was_planted_is_not_written_through() -> Result<(), Refusal> {
    let folders = Folders::new()?;
    let secret = folders.root.path().join("secret");
    fs::write(&secret, "s")?;
    for folder in ["ind", ".sporlog/uploads"] {
        std::os::unix::fs::symlink(&secret, folders.root.path().join(folder).join("a.csv"))?;
    }
    for wanted in [NEW, ON] {
        assert!(folders.open("a.csv", wanted).is_err());
    }
    assert!(remove(&folders.account, "a.csv").is_err());
    assert_eq!(fs::read_to_string(secret)?, "s");
    Ok(())
}
