//! `sporlog sample`: synthetic records.

use anyhow::Result;
use sporlog_sample::{Options, write};

use crate::cli::SampleArgs;
use crate::outfile::Sink;
use crate::output::Outcome;
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
    let mut out = Sink::open(&args.out)?;
    write(&options, &mut out, &told)?;
    out.finish()?;
    Ok(Outcome::Done)
}
