//! A folder to run the program in, and what came of running it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The header and one row of a revision log that is in order, but for the columns given.
pub const HEADER: &str = r#""TransaktionsId","TransaktionsTid","BrugerId","KalderOrganisation","KalderItSystemInstans","BorgerId","Note""#;

/// A row under [`HEADER`].
pub fn row(n: u32, time: &str, citizen: &str, note: &str) -> String {
    format!(
        "\"0d57d91a-03d5-4e96-9e63-{n:012}\",\"{time}\",\"4fcff0c2-ab6c-4b4f-86e9-0a75a0a009d8\",\
         \"64942212\",\"cc038af5-0e68-43e5-bb17-957ad6f45f8e\",\"{citizen}\",\"{note}\"\n"
    )
}

/// A file of rows that are all in order.
pub fn csv(rows: std::ops::Range<u32>) -> String {
    let rows = rows.map(|n| row(n, "2026-01-05T08:30:00", "0101018081", "set"));
    format!("{HEADER}\n{}", rows.collect::<String>())
}

/// A disclosure that is in order, with `field` set to `value` (JSON as it stands).
pub fn disclosure(field: &str, value: &str) -> String {
    let fields = [
        ("person", "\"12345678901\""),
        ("mottaker", "\"123456789\""),
        ("tema", "\"ABC\""),
        ("behandlingsGrunnlag", "\"hjemmel\""),
        ("uthentingsTidspunkt", "\"2018-10-19T12:24:21.675\""),
        ("leverteData", "\"e30=\""),
    ];
    let mut known = false;
    let mut members: Vec<_> = fields
        .iter()
        .map(|(name, given)| {
            known |= *name == field;
            format!("\"{name}\":{}", if *name == field { value } else { given })
        })
        .collect();
    if !known && !field.is_empty() {
        members.push(format!("\"{field}\":{value}"));
    }
    format!("{{{}}}\n", members.join(","))
}

/// A folder to run the program in.
pub struct Place {
    pub dir: tempfile::TempDir,
}

/// What came of it.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Place { dir: tempfile::tempdir().expect("a folder") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    /// A file that comes with the tests.
    pub fn data(name: &str) -> String {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name).display().to_string()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sporlog"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SPORLOG_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs it with the words of `line`.
    pub fn run(&self, line: &str) -> Ran {
        self.run_args(&line.split_whitespace().collect::<Vec<_>>())
    }

    pub fn run_args(&self, args: &[&str]) -> Ran {
        Ran::of(self.command().args(args).output().expect("run"))
    }

    /// Runs it with something on its standard input.
    pub fn run_with(&self, line: &str, input: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(line.split_whitespace()).stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("run");
        // It may have had enough before the end.
        let _ = writer.join().expect("no panic");
        Ran::of(output)
    }

    /// The head of a log.
    pub fn head(&self, log: &str) -> u64 {
        self.run(&format!("head {log}")).ok().out.trim().parse().expect("a number")
    }

    /// All files below the folder, by their names relative to it.
    pub fn files(&self, below: &str) -> Vec<String> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(&self.path(below), &mut found);
        let name = |path: PathBuf| path.strip_prefix(self.path(below)).expect("below").display().to_string();
        let mut names: Vec<_> = found.into_iter().map(name).collect();
        names.sort();
        names
    }
}

impl Ran {
    fn of(output: std::process::Output) -> Self {
        Ran {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It ended with this exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }

    /// It ended well.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Its results say this.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.out.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    /// Its standard error says this.
    #[track_caller]
    pub fn complains(self, text: &str) -> Self {
        assert!(self.err.contains(text), "{text:?} is not in {self:#?}");
        self
    }

    /// Its results, a JSON value on each line.
    #[track_caller]
    pub fn lines(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.out.lines().map(parse).collect()
    }

    /// Its result, a JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}
