//! What a client's path names. '.', '..' and '//' are resolved here without asking the file system. A path can
//! only name one of a few folders or a file in one of these; no other text of a client reaches the disk.

use crate::settings::Role;
use crate::tree::{INBOX, OUTBOX, RECEIPTS};

use super::packets::Code;
use super::refusal::Refusal;

/// The longest file name, as in common file systems.
const MAX_NAME: usize = 255;
/// The longest path that is parsed.
const MAX_PATH: usize = 4096;

/// What a path names in an account's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VirtualPath {
    Root,
    Folder(Folder),
    File(Folder, String),
}

/// A folder of an account's tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Folder {
    Inbox,
    Receipts,
    Outbox,
    /// A month of the outbox, as `2026-11`.
    Month(String),
}

impl Folder {
    /// The folder's name in its parent folder.
    pub(super) fn name(&self) -> &str {
        match self {
            Folder::Inbox => INBOX,
            Folder::Receipts => RECEIPTS,
            Folder::Outbox => OUTBOX,
            Folder::Month(month) => month,
        }
    }

    /// The folder's path, as clients see it.
    pub(super) fn path(&self) -> String {
        match self {
            Folder::Month(month) => format!("/{OUTBOX}/{month}"),
            folder => format!("/{}", folder.name()),
        }
    }
}

/// The components of a path from the root on.
fn parts(path: &[u8]) -> Result<Vec<&str>, Refusal> {
    if path.len() > MAX_PATH {
        return Err(Refusal::new(Code::Failure, "the path is too long"));
    }
    let path = str::from_utf8(path).map_err(|_| Refusal::new(Code::Failure, "names have to be in UTF-8"))?;
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(checked(name)?),
        }
    }
    Ok(parts)
}

fn checked(name: &str) -> Result<&str, Refusal> {
    if name.len() > MAX_NAME {
        return Err(Refusal::new(Code::Failure, "a name has 255 bytes at most"));
    }
    if name.chars().any(char::is_control) {
        return Err(Refusal::new(Code::Failure, "names have no control characters"));
    }
    Ok(name)
}

/// A path in its shortest form. Nothing of that name has to exist.
pub(super) fn shortest(path: &[u8]) -> Result<String, Refusal> {
    Ok(format!("/{}", parts(path)?.join("/")))
}

/// What `path` names in the tree of an account of this role.
pub(super) fn resolve(role: Role, path: &[u8]) -> Result<VirtualPath, Refusal> {
    let parts = parts(path)?;
    let file = |folder, name: &str| VirtualPath::File(folder, name.to_owned());
    Ok(match (role, parts.as_slice()) {
        (_, []) => VirtualPath::Root,
        (Role::Supplier, [INBOX]) => VirtualPath::Folder(Folder::Inbox),
        (Role::Supplier, [INBOX, name]) => file(Folder::Inbox, name),
        (Role::Supplier, [RECEIPTS]) => VirtualPath::Folder(Folder::Receipts),
        (Role::Supplier, [RECEIPTS, name]) => file(Folder::Receipts, name),
        (Role::Municipality, [OUTBOX]) => VirtualPath::Folder(Folder::Outbox),
        (Role::Municipality, [OUTBOX, month]) if is_month(month) => {
            VirtualPath::Folder(Folder::Month((*month).to_owned()))
        }
        (Role::Municipality, [OUTBOX, month, name]) if is_month(month) => {
            file(Folder::Month((*month).to_owned()), name)
        }
        _ => return Err(Refusal::missing()),
    })
}

/// Whether this is a month, as `2026-11`.
pub(super) fn is_month(name: &str) -> bool {
    let Some((year, month)) = name.split_once('-') else { return false };
    let digits = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_digit());
    digits(year, 4) && digits(month, 2) && ("01"..="12").contains(&month)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supplier(path: &str) -> Result<VirtualPath, Code> {
        resolve(Role::Supplier, path.as_bytes()).map_err(|refusal| refusal.code)
    }

    fn municipality(path: &str) -> Result<VirtualPath, Code> {
        resolve(Role::Municipality, path.as_bytes()).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_file_is_found_however_its_path_is_written() {
        let file = Ok(VirtualPath::File(Folder::Inbox, "a.csv".into()));
        for path in
            ["/ind/a.csv", "ind/a.csv", "//ind/./a.csv/", "/kvittering/../ind/a.csv", "/../../ind/b/../a.csv"]
        {
            assert_eq!(supplier(path), file, "{path}");
        }
    }

    #[test]
    fn nobody_gets_out_of_the_tree() {
        for path in ["", "/", ".", "..", "/../..", "ind/..", "../../.."] {
            assert_eq!(supplier(path), Ok(VirtualPath::Root), "{path}");
        }
        for path in ["/../etc/passwd", "/.sporlog", "/.sporlog/uploads", "/ind/a/b", "/ud", "/IND", "/x"] {
            assert_eq!(supplier(path), Err(Code::NoSuchFile), "{path}");
        }
    }

    #[test]
    fn a_municipality_has_months() {
        let month = Folder::Month("2026-11".into());
        assert_eq!(municipality("/ud/2026-11"), Ok(VirtualPath::Folder(month.clone())));
        assert_eq!(municipality("/ud/2026-11/a.csv"), Ok(VirtualPath::File(month, "a.csv".into())));
        for path in ["/ind", "/ud/a.csv", "/ud/2026-13", "/ud/2026-1", "/ud/..2026-11", "/ud/2026-11/a/b"] {
            assert_eq!(municipality(path), Err(Code::NoSuchFile), "{path}");
        }
    }

    #[test]
    fn names_may_be_of_any_alphabet_but_not_of_control_characters() {
        assert!(supplier("/ind/løn æøå 日本 \u{1F600}.csv").is_ok());
        assert!(supplier(&format!("/ind/{}", "a".repeat(255))).is_ok());
        assert_ne!(supplier("/ind/A.csv"), supplier("/ind/a.csv"));
        for name in ["a\0b", "a\nb", "\u{7f}", "a\u{85}b", &"a".repeat(256)] {
            assert_eq!(supplier(&format!("/ind/{name}")), Err(Code::Failure), "{name:?}");
        }
        assert!(resolve(Role::Supplier, b"/ind/\xff.csv").is_err());
        let path = |length: usize| format!("{}ind", "/".repeat(length - 3));
        assert_eq!(supplier(&path(MAX_PATH)), Ok(VirtualPath::Folder(Folder::Inbox)));
        assert_eq!(supplier(&path(MAX_PATH + 1)), Err(Code::Failure));
    }

    #[test]
    fn the_shortest_form_names_the_same() {
        assert_eq!(shortest(b"./ind/../ind//x/.").ok().as_deref(), Some("/ind/x"));
        assert_eq!(shortest(b"..").ok().as_deref(), Some("/"));
    }

    #[test]
    fn whatever_is_thrown_at_it_names_something_in_the_tree_or_nothing() {
        const PARTS: [&[u8]; 12] = [
            b"/",
            b"//",
            b".",
            b"..",
            b"ind",
            b"ud",
            b"kvittering",
            b"2026-11",
            b"a.csv",
            b"\0",
            b"\xff",
            b"\\",
        ];
        let mut state = 1u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..50_000 {
            let path: Vec<u8> = (0..next(10)).flat_map(|_| PARTS[next(PARTS.len())]).copied().collect();
            for role in [Role::Supplier, Role::Municipality] {
                let Ok(VirtualPath::File(_, name)) = resolve(role, &path) else { continue };
                assert!(!name.is_empty() && name != "." && name != "..", "{path:?}");
                assert!(!name.contains(['/', '\0']), "{path:?}");
            }
        }
    }
}
