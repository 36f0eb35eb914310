//! Values as text: CSV, and tables for reading.
//!
//! A null and an empty text are told apart: in CSV, a null is an empty field and an empty text is `""`, as PostgreSQL writes
//! them; in a table, a null is `NULL`.

use std::io::{self, Write};

use anyhow::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::output::note;

/// The most rows of a table.
const TABLE_ROWS: usize = 1_000;
/// A column of a table that does not fit the terminal keeps so many characters at the least.
const NARROWEST: usize = 8;

/// Writes a batch as CSV, with a header if that is asked for.
pub fn write_csv(batch: &RecordBatch, header: bool, out: &mut impl Write) -> Result<()> {
    if header {
        let names: Vec<_> = batch.schema().fields().iter().map(|field| Some(field.name().clone())).collect();
        write_csv_line(&names, out)?;
    }
    each_row(batch, |row| Ok(write_csv_line(&row, out)?))
}

fn write_csv_line(values: &[Option<String>], out: &mut impl Write) -> io::Result<()> {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        match value {
            None => {}
            Some(text) if text.is_empty() || text.contains([',', '"', '\n', '\r']) => {
                write!(out, "\"{}\"", text.replace('"', "\"\""))?;
            }
            Some(text) => out.write_all(text.as_bytes())?,
        }
    }
    out.write_all(b"\n")
}

/// Calls `take` with the values of each row as text, `None` for a null.
fn each_row(batch: &RecordBatch, mut take: impl FnMut(Vec<Option<String>>) -> Result<()>) -> Result<()> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    let nulls: Vec<_> = batch.columns().iter().map(|column| column.logical_nulls()).collect();
    for row in 0..batch.num_rows() {
        let values = columns.iter().zip(&nulls).map(|(text, nulls)| {
            let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            (!is_null).then(|| text.value(row).try_to_string()).transpose()
        });
        take(values.collect::<Result<_, _>>()?)?;
    }
    Ok(())
}

/// A table for reading: a line for each row, or one for each value where the rows do not fit the terminal.
pub struct Table {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
    /// For each column, whether it has a value in any row.
    filled: Vec<bool>,
    more: bool,
}

impl Table {
    /// A table with these columns and no rows.
    pub fn new(schema: &SchemaRef) -> Self {
        let names: Vec<_> = schema.fields().iter().map(|field| on_one_line(field.name())).collect();
        Table { filled: vec![false; names.len()], names, rows: Vec::new(), more: false }
    }

    /// Adds rows, up to [`TABLE_ROWS`] in all.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let room = TABLE_ROWS - self.rows.len();
        self.more |= batch.num_rows() > room;
        let (rows, filled) = (&mut self.rows, &mut self.filled);
        each_row(&batch.slice(0, batch.num_rows().min(room)), |row| {
            filled.iter_mut().zip(&row).for_each(|(filled, value)| *filled |= value.is_some());
            rows.push(row.iter().map(|value| value.as_deref().map_or("NULL".into(), on_one_line)).collect());
            Ok(())
        })
    }

    /// Whether there were more rows than the table has.
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// Leaves out the columns that have no value in any row.
    pub fn without_empty_columns(mut self) -> Self {
        let filled = std::mem::take(&mut self.filled);
        let keep = |row: &mut Vec<String>| {
            let mut filled = filled.iter();
            row.retain(|_| filled.next().is_some_and(|filled| *filled));
        };
        if !self.rows.is_empty() {
            keep(&mut self.names);
            self.rows.iter_mut().for_each(keep);
        }
        self
    }

    /// Prints the table. True if values were cut for the terminal.
    fn print(&self, terminal: Option<usize>, out: &mut impl Write) -> io::Result<bool> {
        let lines = || std::iter::once(&self.names).chain(&self.rows);
        let width = |column: usize| lines().map(|row| length(&row[column])).max().unwrap_or_default();
        let widths: Vec<_> = (0..self.names.len()).map(width).collect();
        let widest = widths.iter().copied().max().unwrap_or_default();
        // Each column has `| ` before it and a space behind it.
        let total = |most: usize| widths.iter().map(|width| width.min(&most) + 3).sum::<usize>() + 1;
        let room = terminal.unwrap_or(usize::MAX);
        let least = NARROWEST.min(widest);
        let Some(most) = (least..=widest).rev().find(|most| total(*most) <= room) else {
            return self.print_upright(room, out);
        };
        let widths: Vec<_> = widths.iter().map(|width| *width.min(&most)).collect();
        let border: String = widths.iter().map(|width| format!("+{}", "-".repeat(width + 2))).collect();
        writeln!(out, "{border}+")?;
        for (at, row) in lines().enumerate() {
            for (text, width) in row.iter().zip(&widths) {
                let text = cut(text, *width);
                write!(out, "| {text}{} ", " ".repeat(width - length(&text)))?;
            }
            writeln!(out, "|")?;
            if at == 0 {
                writeln!(out, "{border}+")?;
            }
        }
        writeln!(out, "{border}+")?;
        Ok(most < widest)
    }

    /// A line for each value.
    fn print_upright(&self, room: usize, out: &mut impl Write) -> io::Result<bool> {
        let widest = self.names.iter().map(|name| length(name)).max().unwrap_or_default();
        let mut was_cut = false;
        for (at, row) in self.rows.iter().enumerate() {
            let title = format!("--- row {} ", at + 1);
            writeln!(out, "{title}{}", "-".repeat(room.saturating_sub(title.len())))?;
            for (name, text) in self.names.iter().zip(row) {
                let line = format!("{name:widest$} | {text}");
                was_cut |= length(&line) > room;
                writeln!(out, "{}", cut(&line, room))?;
            }
        }
        Ok(was_cut)
    }
}

/// Prints a table, for a terminal of so many columns if there is one, and says on standard error what it does not show.
pub fn print_table(table: &Table, terminal: Option<usize>, out: &mut impl Write) -> io::Result<()> {
    let was_cut = table.print(terminal, out)?;
    out.flush()?;
    if was_cut {
        note("values are cut to fit the terminal; --format csv gives them whole");
    }
    if table.more {
        note(&format!("there are more than these {TABLE_ROWS} rows; --format csv gives all"));
    }
    Ok(())
}

/// The columns of the terminal that standard output is, if it is one.
pub fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, width: usize) -> String {
    match length(text) <= width {
        true => text.to_owned(),
        false => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// The text without line ends, and without what a terminal would take for an order.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn batch(columns: &[(&str, &[Option<&str>])]) -> RecordBatch {
        let column = |(name, values): &(&str, &[Option<&str>])| {
            (name.to_string(), Arc::new(StringArray::from(values.to_vec())) as ArrayRef, true)
        };
        RecordBatch::try_from_iter_with_nullable(columns.iter().map(column)).expect("a batch")
    }

    fn printed(batch: &RecordBatch, terminal: Option<usize>) -> (String, bool) {
        let mut table = Table::new(&batch.schema());
        table.push(batch).expect("pushed");
        let mut out = Vec::new();
        let cut = table.print(terminal, &mut out).expect("printed");
        (String::from_utf8(out).expect("text"), cut)
    }

    #[test]
    fn a_null_is_no_empty_text() {
        let batch = batch(&[("a", &[None, Some(""), Some("x,\"y\"")]), ("b", &[Some("1"), Some("2"), None])]);
        let mut csv = Vec::new();
        write_csv(&batch, true, &mut csv).expect("written");
        assert_eq!(String::from_utf8(csv).expect("text"), "a,b\n,1\n\"\",2\n\"x,\"\"y\"\"\",\n");
        let (table, _) = printed(&batch, None);
        assert!(table.contains("| NULL  | 1    |\n|       | 2    |\n"), "{table}");
    }

    #[test]
    fn a_table_fits_the_terminal() {
        let batch =
            batch(&[("id", &[Some("1")]), ("note", &[Some("a text of more than twenty characters")])]);
        let (whole, cut) = printed(&batch, None);
        assert!(whole.contains("more than twenty characters |") && !cut);
        let (narrow, cut) = printed(&batch, Some(30));
        assert!(narrow.contains("| 1  | a text of more than … |") && cut, "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
        // Where not even eight characters of each column fit, there is a line for each value.
        let (upright, cut) = printed(&batch, Some(15));
        assert_eq!(upright, "--- row 1 -----\nid   | 1\nnote | a text …\n");
        assert!(cut);
    }

    #[test]
    fn a_value_gives_the_terminal_no_orders() {
        let (table, _) = printed(&batch(&[("a", &[Some("\u{1b}[2Jx\ny")])]), None);
        assert!(table.contains(r"| \u{1b}[2Jx\ny |"), "{table}");
    }

    #[test]
    fn a_table_ends_and_says_so() {
        let numbers = Arc::new(Int64Array::from_iter_values(0..1_500)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("n", numbers)]).expect("a batch");
        let mut table = Table::new(&batch.schema());
        table.push(&batch).expect("pushed");
        assert!(table.more && table.rows.len() == TABLE_ROWS);
    }
}
