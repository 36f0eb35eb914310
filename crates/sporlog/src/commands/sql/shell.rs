//! The shell of `sporlog sql`: one statement after the other, with history and completion.
//!
//! Each statement is recorded as an access, as if it had been given alone. The history is kept in the user's state folder,
//! for its owner alone, and has no statement in which a personal number stands: those can be recalled until the shell ends.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use arrow::array::AsArray;
use futures::TryStreamExt;
use rustyline::completion::Completer;
use rustyline::config::Config;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{FileHistory, History};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Context, Editor, Helper};
use sporlog_ledger::Store;
use sporlog_record::identifier::personal_numbers;

use super::answer;
use crate::cli::SqlFormat;
use crate::output::{Outcome, Output, explain, note, print_error};
use crate::session::Session;
use crate::text::terminal_width;

const PROMPT: &str = "sporlog> ";
const WELCOME: &str =
    "Statements end with a semicolon; Tab completes names; help; says more, and exit; (or Ctrl-D) ends.\n";
const HELP: &str = "\
SHOW TABLES;              the logs, and the view events
DESCRIBE revision;        the columns of a log
SELECT … ;                a query in DataFusion's dialect of SQL; Ctrl-C stops it
exit;                     or Ctrl-D

Names with capitals need double quotes: \"BrugerId\". The dialect and its functions:
https://datafusion.apache.org/user-guide/sql/
";
/// What is offered besides names.
const KEYWORDS: &str = "ALL AND AS ASC BETWEEN BY CASE CAST COUNT DESC DESCRIBE DISTINCT ELSE END EXCEPT EXISTS EXPLAIN \
                        FALSE FROM FULL GROUP HAVING ILIKE IN INNER INTERSECT INTERVAL IS JOIN LEFT LIKE LIMIT NOT NULL \
                        OFFSET ON OR ORDER OUTER OVER PARTITION RIGHT SELECT SHOW TABLES THEN TRUE UNION USING VALUES WHEN \
                        WHERE WITH";

/// Reads and answers statements until the user has had enough.
pub async fn run(session: &Session, format: SqlFormat, cluster: Option<&str>) -> Result<Outcome> {
    let store = session.store()?;
    let completion = CompletionType::List;
    let config = Config::builder().completion_type(completion).completion_show_all_if_ambiguous(true).build();
    let mut editor = Editor::<Names, FileHistory>::with_config(config.clone()).context("the terminal")?;
    editor.set_helper(Some(names(&store, session.config().sql.memory_bytes.get()).await?));
    let file = history_file();
    if let Some(file) = file.as_ref().filter(|file| file.exists())
        && let Err(error) = editor.load_history(file)
    {
        note(&format!("{}: the history is not used: {error}", file.display()));
    }
    print(WELCOME)?;
    loop {
        // Reading waits for the user: other tasks go on in other threads.
        let line = match tokio::task::block_in_place(|| editor.readline(PROMPT)) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Outcome::Done),
            Err(error) => return Err(error).context("the terminal"),
        };
        let statement = line.trim().trim_end_matches(';').trim_end();
        match statement.to_ascii_lowercase().as_str() {
            "" => continue,
            "exit" | "quit" | "\\q" => return Ok(Outcome::Done),
            "help" => {
                print(HELP)?;
                continue;
            }
            _ => {}
        }
        editor.add_history_entry(line.trim()).context("the history")?;
        if let Some(file) = file.as_ref().filter(|_| personal_numbers(statement).is_empty())
            && let Err(error) = keep(file, line.trim(), &config)
        {
            note(&format!("{}: the statement is not kept in the history: {error:#}", file.display()));
        }
        tokio::select! {
            answered = show(session, &store, cluster, statement, format) => {
                if let Err(error) = answered {
                    print_error(&explain(&error));
                }
            }
            _ = tokio::signal::ctrl_c() => print_error("interrupted"),
        }
    }
}

async fn show(
    session: &Session,
    store: &Store,
    cluster: Option<&str>,
    statement: &str,
    format: SqlFormat,
) -> Result<()> {
    let mut out = Output::new()?;
    answer(session, store, cluster, statement, format, terminal_width(), &mut out).await?;
    Ok(out.flush()?)
}

fn print(text: &str) -> Result<()> {
    let mut out = Output::new()?;
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// `$XDG_STATE_HOME/sporlog/sql_history`, by default in `~/.local/state`; `None` for a user without a home.
fn history_file() -> Option<PathBuf> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("sporlog/sql_history"))
}

/// Adds a statement to the file, which its owner alone may read.
fn keep(file: &Path, statement: &str, config: &Config) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut history = FileHistory::with_config(config);
    history.add(statement)?;
    Ok(history.append(file)?)
}

/// What can be completed: the words as they are written.
struct Names(Vec<String>);

/// The logs, their columns, functions, and keywords.
async fn names(store: &Store, memory: usize) -> Result<Names> {
    let names = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' \
                 UNION SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' \
                 UNION SELECT routine_name FROM information_schema.routines";
    let (_, batches) = sporlog_ledger::query(&store.logs().await?, names, memory).await?;
    let batches: Vec<_> = batches.try_collect().await?;
    let mut words: Vec<String> = KEYWORDS.split_ascii_whitespace().map(str::to_owned).collect();
    for batch in &batches {
        let texts = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
        words.extend(texts.as_string::<i32>().iter().flatten().map(|name| quoted(name).into_owned()));
    }
    words.sort_unstable_by_key(|word| word.to_lowercase());
    words.dedup();
    Ok(Names(words))
}

/// A name as it is written in a statement.
fn quoted(name: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let bare = name.bytes().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit());
    if bare { name.into() } else { format!("\"{name}\"").into() }
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = line.get(..at).unwrap_or_default();
        let in_word = |char: char| char.is_alphanumeric() || matches!(char, '_' | '-' | '"');
        let start = before.rfind(|char| !in_word(char)).map_or(0, |at| at + 1);
        let word = before.get(start..).unwrap_or_default();
        if word.is_empty() {
            return Ok((at, Vec::new()));
        }
        let plain = |word: &str| word.trim_start_matches('"').to_lowercase();
        let begun = plain(word);
        let fitting = self.0.iter().filter(|name| plain(name).starts_with(&begun));
        Ok((start, fitting.cloned().collect()))
    }
}

impl Validator for Names {
    /// A statement goes on over lines until its semicolon.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let line = context.input().trim();
        let whole =
            line.is_empty() || line.ends_with(';') || matches!(line, "exit" | "quit" | "\\q" | "help");
        Ok(if whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}

impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_they_are_written() {
        let names = Names(vec![
            "\"BorgerId\"".into(),
            "\"BrugerId\"".into(),
            "BY".into(),
            "\"d-0\"".into(),
            "id".into(),
        ]);
        let history = FileHistory::new();
        let completed =
            |line: &str| names.complete(line, line.len(), &Context::new(&history)).expect("completed");
        assert_eq!(completed("SELECT br"), (7, vec!["\"BrugerId\"".to_owned()]));
        assert_eq!(completed("SELECT id, \"Bo"), (11, vec!["\"BorgerId\"".to_owned()]));
        assert_eq!(completed("SELECT * FROM d-"), (14, vec!["\"d-0\"".to_owned()]));
        assert_eq!(completed("SELECT revision.i"), (16, vec!["id".to_owned()]));
        assert_eq!(completed("SELECT "), (7, vec![]));
        assert_eq!(completed("SELECT b").1.len(), 3);
    }

    #[test]
    fn names_are_quoted_where_they_have_to_be() {
        assert_eq!(
            ["id", "_a1", "BrugerId", "d-0", "1a"].map(quoted),
            ["id", "_a1", "\"BrugerId\"", "\"d-0\"", "\"1a\""]
        );
    }

    #[test]
    fn the_history_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state/sql_history");
        for statement in ["SELECT 1;", "SELECT\n2;"] {
            keep(&file, statement, &Config::default()).expect("kept");
        }
        let mut history = FileHistory::new();
        history.load(&file).expect("loaded");
        assert_eq!(history.iter().collect::<Vec<_>>(), ["SELECT 1;", "SELECT\n2;"]);
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    }
}
