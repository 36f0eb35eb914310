//! `sporlog sample`: synthetic records.

use std::io::Write;

use anyhow::Result;
use sporlog_sample::{Options, write};

use crate::cli::SampleArgs;
use crate::outfile::OutFile;
use crate::output::{Outcome, Output};
use crate::progress::{Progress, Results};

pub fn run(args: &SampleArgs) -> Result<Outcome> {
    let options = Options {
        kind: args.kind,
        records: args.records,
        seed: args.seed,
        faulty: args.faulty,
        day: args.day,
        days: args.days,
    };
    let progress = Progress::records("sample", args.records, Results::Meanwhile);
    let told = |done| progress.at(done);
    match &args.out.out {
        Some(path) => {
            let mut file = OutFile::create(path, args.out.force)?;
            write(&options, &mut file, &told)?;
            file.finish()?;
        }
        None => {
            let mut out = Output::new()?;
            write(&options, &mut out, &told)?;
            out.flush()?;
        }
    }
    Ok(Outcome::Done)
}
