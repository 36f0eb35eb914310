//! What is found out about a record while it is judged.
//!
//! Most records give no cause for a finding, so where exactly a member stands is only looked up
//! once there is one.

use std::borrow::Cow;

use serde::Serialize;

use super::text::{self, Span};
use crate::{Finding, Position, Severity};

/// Of findings about names that nobody knows, or that are repeated, so many are listed one by one.
/// How many there may be is up to the sender alone.
pub(super) const LISTED: usize = 50;

/// Findings about one record whose positions are still to be looked up.
#[derive(Debug, Default)]
pub(super) struct Notes {
    drafts: Vec<Draft>,
}

#[derive(Debug)]
struct Draft {
    severity: Severity,
    field: Cow<'static, str>,
    rule: &'static str,
    text: Cow<'static, str>,
    place: Place,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// The record as such.
    Record,
    /// The name of a member.
    Name(u32),
    /// The value of a member.
    Value(u32),
    /// What is at this byte.
    Offset(usize),
}

impl Notes {
    pub(super) fn error(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        rule: &'static str,
        text: impl Into<Cow<'static, str>>,
        place: Place,
    ) {
        let (field, text) = (field.into(), text.into());
        self.drafts.push(Draft { severity: Severity::Error, field, rule, text, place });
    }

    pub(super) fn remark(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        rule: &'static str,
        text: impl Into<Cow<'static, str>>,
        place: Place,
    ) {
        let (field, text) = (field.into(), text.into());
        self.drafts.push(Draft { severity: Severity::Remark, field, rule, text, place });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.drafts.iter().any(|draft| draft.severity == Severity::Error)
    }

    /// The findings, with the places that they are about in a record that begins at `start`.
    pub(super) fn into_findings(self, record: &str, start: Position) -> Vec<Finding> {
        let by_member = |draft: &Draft| matches!(draft.place, Place::Name(_) | Place::Value(_));
        let spans = match self.drafts.iter().any(by_member) {
            true => text::members(record),
            false => Vec::new(),
        };
        let span = |ordinal: u32| spans.get(ordinal as usize);
        let offset = |place| match place {
            Place::Record => None,
            Place::Name(ordinal) => span(ordinal).map(|span: &Span| span.key),
            Place::Value(ordinal) => span(ordinal).map(|span| span.value.start),
            Place::Offset(offset) => Some(offset),
        };
        let finding = |Draft { severity, field, rule, text, place }| {
            let position = offset(place).map_or(start, |offset| text::position(record, offset, start));
            Finding { severity, field, rule, text, position }
        };
        self.drafts.into_iter().map(finding).collect()
    }
}

/// Remarks as they are stored with their record: a JSON array of objects with `field`, `rule` and
/// `text`, in the order found; `None` if there are none.
pub fn remarks_column(findings: &[Finding]) -> Option<String> {
    #[derive(Serialize)]
    struct Stored<'a> {
        field: &'a str,
        rule: &'a str,
        text: &'a str,
    }

    let remarks: Vec<Stored> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Remark)
        .map(|Finding { field, rule, text, .. }| Stored { field, rule, text })
        .collect();
    if remarks.is_empty() {
        return None;
    }
    // Writing texts into a text cannot fail.
    serde_json::to_string(&remarks).ok()
}
