//! `sporlog check`: validates without storing.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use serde::Serialize;
use sporlog_intake::Error;
use sporlog_intake::delivery::{Judged, Options, Receiver, Summary, deliver};
use sporlog_intake::source::Source;
use sporlog_record::{Finding, Rules, Severity};

use super::delivery;
use crate::cli::CheckArgs;
use crate::output::{Outcome, Output, counted, print_error};
use crate::progress::Results;
use crate::session::Session;

/// Prints findings as they come.
struct Findings {
    file: String,
    json: bool,
    errors_only: bool,
    out: Mutex<Output>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Finding {
        file: &'a str,
        #[serde(flatten)]
        finding: &'a Finding,
    },
    Summary {
        file: &'a str,
        #[serde(rename = "refusedWhole")]
        refused_whole: bool,
        accepted: u64,
        refused: u64,
        remarks: u64,
        bytes: u64,
        sha256: String,
    },
}

impl Findings {
    fn print(&self, findings: &[&Finding]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        for finding in findings {
            if self.errors_only && finding.severity == Severity::Remark {
                continue;
            }
            if self.json {
                out.json(&Line::Finding { file: &self.file, finding })?;
            } else {
                writeln!(out, "{}:{finding}", self.file)?;
            }
        }
        Ok(())
    }

    fn summarise(self, summary: &Summary, refused_whole: bool) -> io::Result<Output> {
        let mut out = self.out.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Summary { accepted, refused, remarks, bytes, .. } = *summary;
        if self.json {
            let sha256 = if refused_whole { String::new() } else { sporlog_record::hex(summary.sha256) };
            let file = &self.file;
            out.json(&Line::Summary { file, refused_whole, accepted, refused, remarks, bytes, sha256 })?;
        } else if refused_whole {
            writeln!(out, "{}: refused whole: nothing of it would be stored", self.file)?;
        } else {
            let (accepted, remarks) = (counted(accepted, "record"), counted(remarks, "remark"));
            writeln!(out, "{}: {accepted} accepted, {refused} refused, {remarks}", self.file)?;
        }
        out.flush()?;
        Ok(out)
    }
}

impl Receiver for Findings {
    fn rows(&self, _: u64, _: RecordBatch) -> sporlog_intake::Result<()> {
        Ok(())
    }

    fn judged(&self, _: &[u8], judged: Judged) -> sporlog_intake::Result<()> {
        let refused = judged.refused.iter().flat_map(|record| &record.findings);
        let mut findings: Vec<_> = refused.chain(&judged.findings).collect();
        findings.sort_by_key(|finding| finding.position);
        let failed = |source| Error::Read { name: "standard output".into(), source };
        self.print(&findings).map_err(failed)
    }
}

pub async fn run(session: &Session, args: CheckArgs) -> Result<Outcome> {
    let (rules, json) = (session.rules()?, session.json);
    // Reading and judging are blocking work from end to end.
    tokio::task::spawn_blocking(move || check_all(&args, &rules, json)).await.context("checking")?
}

fn check_all(args: &CheckArgs, rules: &Rules, json: bool) -> Result<Outcome> {
    let mut outcome = Outcome::Done;
    let mut out = Output::new()?;
    for path in &args.delivery.files {
        let source = match Source::open(path) {
            Ok(source) => source,
            Err(error) => {
                print_error(&error.to_string());
                outcome = outcome.max(Outcome::Failed);
                continue;
            }
        };
        let file = delivery::name(path);
        let receiver = Findings { file, json, errors_only: args.errors_only, out: Mutex::new(out) };
        let options = Options { collect: usize::MAX, ..Options::new(args.delivery.kind, rules.clone()) };
        let checked;
        (out, checked) = check(path, source, &options, receiver)?;
        outcome = outcome.max(checked);
    }
    Ok(outcome)
}

fn check(path: &Path, source: Source, options: &Options, receiver: Findings) -> Result<(Output, Outcome)> {
    let bytes = source.size().unwrap_or_default();
    let progress = delivery::progress(&source, Results::Meanwhile);
    let delivered = deliver(source, options, &receiver, &|done| progress.at(done));
    drop(progress);
    match delivered {
        Ok(summary) => {
            receiver.print(&summary.file_remarks.iter().collect::<Vec<_>>())?;
            let outcome = if summary.refused == 0 { Outcome::Done } else { Outcome::Differs };
            Ok((receiver.summarise(&summary, false)?, outcome))
        }
        Err(error) => {
            let findings = delivery::refusal(error).with_context(|| delivery::name(path))?;
            receiver.print(&findings.iter().collect::<Vec<_>>())?;
            let summary = Summary { bytes, ..Summary::default() };
            Ok((receiver.summarise(&summary, true)?, Outcome::Differs))
        }
    }
}
