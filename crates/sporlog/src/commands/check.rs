//! `sporlog check`: validates without storing.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use arrow::array::RecordBatch;
use serde::Serialize;
use sporlog_intake::Error;
use sporlog_intake::delivery::{Judged, Options, Receiver, Summary, deliver};
use sporlog_intake::source::Source;
use sporlog_record::{Finding, Rules, Severity};

use super::delivery;
use crate::cli::CheckArgs;
use crate::outfile::OutFile;
use crate::output::{Outcome, Output, counted, print_error};
use crate::progress::Results;
use crate::session::Session;

/// Prints findings as they come, or counts them by their rules.
struct Findings {
    file: String,
    json: bool,
    errors_only: bool,
    /// By severity, field and rule, if they are to be counted.
    counted: Option<Mutex<Counts>>,
    bad_rows: Option<Mutex<BadRows>>,
    out: Mutex<Output>,
}

type Counts = BTreeMap<(Severity, String, &'static str), Counted>;

/// How often a rule was broken, and the first finding about it.
struct Counted {
    number: u64,
    first: Finding,
}

/// The file that takes the rows that would be refused.
struct BadRows {
    file: OutFile,
    begun: bool,
}

impl BadRows {
    fn write(&mut self, header: &[u8], judged: &Judged) -> io::Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            self.file.write_all(header)?;
        }
        for record in &judged.refused {
            self.file.write_all(&record.content)?;
            self.file.write_all(b"\n")?;
        }
        Ok(())
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Line<'a> {
    Finding {
        file: &'a str,
        #[serde(flatten)]
        finding: &'a Finding,
    },
    Rule {
        file: &'a str,
        count: u64,
        severity: Severity,
        field: &'a str,
        rule: &'a str,
        first: &'a Finding,
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
    fn take(&self, findings: &[&Finding]) -> io::Result<()> {
        let wanted =
            findings.iter().filter(|finding| !self.errors_only || finding.severity == Severity::Error);
        if let Some(counted) = &self.counted {
            let mut counted = counted.lock().unwrap_or_else(PoisonError::into_inner);
            for finding in wanted {
                let rule = (finding.severity, finding.field.clone().into_owned(), finding.rule);
                let first = || Counted { number: 0, first: (*finding).clone() };
                counted.entry(rule).or_insert_with(first).number += 1;
            }
            return Ok(());
        }
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        for finding in wanted {
            if self.json {
                out.json(&Line::Finding { file: &self.file, finding })?;
            } else {
                writeln!(out, "{}:{finding}", self.file)?;
            }
        }
        Ok(())
    }

    fn summarise(self, summary: &Summary, refused_whole: bool) -> Result<Output> {
        let mut out = self.out.into_inner().unwrap_or_else(PoisonError::into_inner);
        let (file, counts) = (&self.file, self.counted.map(Mutex::into_inner));
        for ((severity, field, rule), of_rule) in
            counts.map(|c| c.unwrap_or_else(PoisonError::into_inner)).iter().flatten()
        {
            let Counted { number: count, first } = of_rule;
            if self.json {
                let (severity, count) = (*severity, *count);
                out.json(&Line::Rule { file, count, severity, field, rule, first })?;
            } else {
                let field = if field.is_empty() { "-" } else { field };
                let (text, at) = (&first.text, first.position);
                writeln!(
                    out,
                    "{file}: {count} x {severity} {field}: {text} ({rule}; first at {}:{})",
                    at.line, at.column
                )?;
            }
        }
        let Summary { accepted, refused, remarks, bytes, .. } = *summary;
        if self.json {
            let sha256 = if refused_whole { String::new() } else { sporlog_record::hex(summary.sha256) };
            out.json(&Line::Summary { file, refused_whole, accepted, refused, remarks, bytes, sha256 })?;
        } else if refused_whole {
            writeln!(out, "{file}: refused whole: nothing of it would be stored")?;
        } else {
            let (accepted, remarks) = (counted(accepted, "record"), counted(remarks, "remark"));
            writeln!(out, "{file}: {accepted} accepted, {refused} refused, {remarks}")?;
        }
        out.flush()?;
        // Of a file that is refused whole, no row is bad alone.
        if let Some(bad) = self.bad_rows.filter(|_| !refused_whole) {
            let mut bad = bad.into_inner().unwrap_or_else(PoisonError::into_inner);
            bad.write(&summary.header, &Judged::default())?;
            bad.file.finish()?;
        }
        Ok(out)
    }
}

impl Receiver for Findings {
    fn rows(&self, _: u64, _: RecordBatch) -> sporlog_intake::Result<()> {
        Ok(())
    }

    fn judged(&self, header: &[u8], judged: Judged) -> sporlog_intake::Result<()> {
        if let Some(bad) = &self.bad_rows {
            let written = bad.lock().unwrap_or_else(PoisonError::into_inner).write(header, &judged);
            written.map_err(|source| Error::Read { name: "the file of --bad-rows".into(), source })?;
        }
        let refused = judged.refused.iter().flat_map(|record| &record.findings);
        let mut findings: Vec<_> = refused.chain(&judged.findings).collect();
        findings.sort_by_key(|finding| finding.position);
        let failed = |source| Error::Read { name: "standard output".into(), source };
        self.take(&findings).map_err(failed)
    }
}

pub async fn run(session: &Session, args: CheckArgs) -> Result<Outcome> {
    if args.bad_rows.is_some() && args.delivery.files.len() > 1 {
        bail!("--bad-rows takes the rows of one file, for they need its header; check the files one by one");
    }
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
        let bad_rows = args.bad_rows.as_deref().map(|path| OutFile::create(path, args.force)).transpose()?;
        let receiver = Findings {
            file: delivery::name(path),
            json,
            errors_only: args.errors_only,
            counted: args.summary.then(Mutex::default),
            bad_rows: bad_rows.map(|file| Mutex::new(BadRows { file, begun: false })),
            out: Mutex::new(out),
        };
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
            receiver.take(&summary.file_remarks.iter().collect::<Vec<_>>())?;
            let outcome = if summary.refused == 0 { Outcome::Done } else { Outcome::Differs };
            Ok((receiver.summarise(&summary, false)?, outcome))
        }
        Err(error) => {
            let findings = delivery::refusal(error).with_context(|| delivery::name(path))?;
            receiver.take(&findings.iter().collect::<Vec<_>>())?;
            let summary = Summary { bytes, ..Summary::default() };
            Ok((receiver.summarise(&summary, true)?, Outcome::Differs))
        }
    }
}
