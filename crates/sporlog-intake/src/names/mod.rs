//! What organisations, kinds of data (topics) and systems are called, so that a person reads names and not numbers.
//!
//! The names come from public registers' own downloads ([`import`]) and lie in the store's folder `names`, one text
//! file for each register: a line that says what the file is, then `key TAB first day TAB name` in order of keys
//! and days. Something that has had several names has several lines; a look-up gives the name of the day that it
//! asks about. A file is replaced as a whole.
//!
//! | module | idea |
//! |---|---|
//! | `read` | the registers' downloads |
//! | `import` | a download into a register |
//! | `files` | the registers as a server has them, read anew when a file changes |

mod files;
mod import;
mod read;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::DateTime;

pub use files::NamesFiles;
pub use import::{Imported, import};

/// The folder of the registers in a store.
pub const FOLDER: &str = "names";
/// The first line of a register's file.
const HEAD: &str = "sporlog-names 1";

/// Of what a register has the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// Organisations, by organisasjonsnummer or CVR number.
    Organisations,
    /// Kinds of data, by the code in `tema`.
    Topics,
    /// Systems, by their identifier in the records.
    Systems,
}

impl NameKind {
    /// All of them.
    pub const ALL: [NameKind; 3] = [NameKind::Organisations, NameKind::Topics, NameKind::Systems];

    /// As in commands and file names.
    pub fn name(self) -> &'static str {
        match self {
            NameKind::Organisations => "organisations",
            NameKind::Topics => "topics",
            NameKind::Systems => "systems",
        }
    }

    fn path(self, folder: &Path) -> PathBuf {
        folder.join(self.name()).with_extension("tsv")
    }
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why names could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// A file cannot be read or written.
    #[error("{name}: {source}")]
    File {
        /// The file.
        name: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A register's file is not as the import wrote it.
    #[error("{}: line {line} is not one of a register of names; remove the file and import the register again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A download is not one of those that are known.
    #[error("{name}: {reason}")]
    Unknown {
        /// The file.
        name: String,
        /// What was expected and what was found.
        reason: String,
    },
}

/// All names that are known. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Names {
    registers: [Arc<Register>; 3],
}

impl Names {
    /// What an organisation was called at this time (microseconds since 1970), or else is called now.
    pub fn organisation(&self, number: &str, at_micros: Option<i64>) -> Option<&str> {
        self.find(NameKind::Organisations, number, at_micros)
    }

    /// What a kind of data was called.
    pub fn topic(&self, code: &str, at_micros: Option<i64>) -> Option<&str> {
        self.find(NameKind::Topics, code, at_micros)
    }

    /// What a system was called.
    pub fn system(&self, id: &str, at_micros: Option<i64>) -> Option<&str> {
        self.find(NameKind::Systems, id, at_micros)
    }

    /// How many names there are of a kind.
    pub fn count(&self, kind: NameKind) -> usize {
        self.registers[kind as usize].lines.len()
    }

    fn find(&self, kind: NameKind, key: &str, at_micros: Option<i64>) -> Option<&str> {
        let day =
            at_micros.and_then(DateTime::from_timestamp_micros).map(|time| time.date_naive().to_string());
        self.registers[kind as usize].find(key, day.as_deref())
    }
}

/// One register: its file as it is, and where each line begins. A million organisations take some 50 MB.
#[derive(Debug, Default)]
struct Register {
    text: String,
    lines: Vec<u32>,
}

impl Register {
    /// Reads a register's file; empty if there is none.
    fn load(path: &Path) -> Result<Self, NamesError> {
        let text = match std::fs::read(path) {
            Ok(bytes) => {
                String::from_utf8(bytes).map_err(|_| NamesError::Damaged { path: path.into(), line: 0 })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Register::default()),
            Err(source) => return Err(NamesError::File { name: path.display().to_string(), source }),
        };
        let damaged = |line: usize| NamesError::Damaged { path: path.into(), line };
        if u32::try_from(text.len()).is_err() || text.lines().next() != Some(HEAD) || !text.ends_with('\n') {
            return Err(damaged(1));
        }
        let mut register = Register { lines: Vec::with_capacity(text.len() / 40), text };
        let mut begin = HEAD.len() + 1;
        let mut before: Option<Line<'_>> = None;
        for (at, text) in register.text[begin..].lines().enumerate() {
            let line = Line::parse(text).ok_or_else(|| damaged(at + 2))?;
            if before.is_some_and(|before| before.order(&line) != Ordering::Less) {
                return Err(damaged(at + 2));
            }
            before = Some(line);
            register.lines.push(begin as u32);
            begin += text.len() + 1;
        }
        Ok(register)
    }

    fn line(&self, begin: u32) -> Line<'_> {
        let rest = &self.text[begin as usize..];
        Line::parse(rest.split('\n').next().unwrap_or_default()).unwrap_or_default()
    }

    fn all(&self) -> impl Iterator<Item = Line<'_>> {
        self.lines.iter().map(|begin| self.line(*begin))
    }

    /// The name on this day: the one that began last by then. Before the first name began, that one.
    fn find(&self, key: &str, day: Option<&str>) -> Option<&str> {
        let first = self.lines.partition_point(|line| compare(self.line(*line).key, key) == Ordering::Less);
        let lines = self.lines[first..].iter().map(|line| self.line(*line));
        let mut found = None;
        for line in lines.take_while(|line| compare(line.key, key) == Ordering::Equal) {
            if found.is_some() && day.is_some_and(|day| line.from > day) {
                break;
            }
            found = Some(line.name);
        }
        found
    }
}

/// A line of a register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Line<'a> {
    key: &'a str,
    /// The first day of the name (`2019-05-01`); empty if the name has no beginning.
    from: &'a str,
    name: &'a str,
}

impl<'a> Line<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut fields = text.splitn(3, '\t');
        Some(Line { key: fields.next()?, from: fields.next()?, name: fields.next()? })
    }

    fn order(&self, other: &Line<'_>) -> Ordering {
        compare(self.key, other.key).then_with(|| self.from.cmp(other.from))
    }
}

/// Capital and small letters are the same: identifiers are written both ways.
fn compare(one: &str, other: &str) -> Ordering {
    let small = |text: &str| text.as_bytes().iter().map(u8::to_ascii_lowercase).collect::<Vec<_>>();
    // Mostly digits, which need no copy.
    let plain = |text: &str| !text.bytes().any(|byte| byte.is_ascii_uppercase());
    if plain(one) && plain(other) { one.cmp(other) } else { small(one).cmp(&small(other)) }
}
