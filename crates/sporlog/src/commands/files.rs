//! `sporlog files`: the data files of a log's table, for programs that read Parquet.

use std::io::Write;

use anyhow::Result;

use crate::cli::FilesArgs;
use crate::output::{Outcome, Output};
use crate::session::Session;

pub async fn run(session: &Session, args: &FilesArgs) -> Result<Outcome> {
    let store = session.store()?;
    let log = session.log_if_begun(&store, &args.log.log).await?;
    let files = log.map(|log| log.data_files()).unwrap_or_default();
    let mut out = Output::new()?;
    if !args.paths && !session.json {
        writeln!(out, "{:>12} {:>12} {:>12} {:>14}  PATH", "FIRST", "LAST", "ROWS", "BYTES")?;
    }
    for file in files {
        if args.paths {
            writeln!(out, "{}", file.path)?;
        } else if session.json {
            out.json(&file)?;
        } else {
            let (first, last, rows, bytes) = (file.first_id, file.last_id, file.rows, file.bytes);
            writeln!(out, "{first:>12} {last:>12} {rows:>12} {bytes:>14}  {}", file.path)?;
        }
    }
    out.flush()?;
    Ok(Outcome::Done)
}
