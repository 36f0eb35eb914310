//! The words of the pages, in three languages: `texts/{nb,da,en}.toml` have the same keys.

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, Timelike};

use super::html::{self, Html};
use super::settings::Translated;

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lang {
    Nb,
    Da,
    En,
}

impl Lang {
    pub const ALL: [Lang; 3] = [Lang::Nb, Lang::Da, Lang::En];

    /// As in `lang` attributes.
    pub fn code(self) -> &'static str {
        match self {
            Lang::Nb => "nb",
            Lang::Da => "da",
            Lang::En => "en",
        }
    }

    /// What the language calls itself.
    pub fn own_name(self) -> &'static str {
        match self {
            Lang::Nb => "Norsk",
            Lang::Da => "Dansk",
            Lang::En => "English",
        }
    }

    pub fn of_code(code: &str) -> Option<Lang> {
        Self::ALL.into_iter().find(|lang| lang.code() == code)
    }

    /// The first of a browser's languages that there is.
    pub fn accepted(header: &str) -> Option<Lang> {
        header.split(',').find_map(|part| match part.trim().get(..2)?.to_ascii_lowercase().as_str() {
            "nb" | "no" | "nn" => Some(Lang::Nb),
            code => Lang::of_code(code),
        })
    }
}

/// The words of one language.
pub struct Texts {
    pub lang: Lang,
    texts: HashMap<&'static str, String>,
}

/// The files of the catalogue.
pub(super) const FILES: [(Lang, &str); 3] = [
    (Lang::Nb, include_str!("../../texts/nb.toml")),
    (Lang::Da, include_str!("../../texts/da.toml")),
    (Lang::En, include_str!("../../texts/en.toml")),
];

/// The keys and texts of a file: lines `"key" = "text"`, comments and empty lines.
pub(super) fn parse(file: &'static str) -> impl Iterator<Item = (&'static str, String)> {
    let pair = |line: &'static str| {
        let (key, text) = line.split_once(" = ")?;
        // A basic string of TOML that has no other escapes is one of JSON.
        Some((key.trim().trim_matches('"'), serde_json::from_str(text.trim()).ok()?))
    };
    file.lines().filter(|line| line.starts_with('"')).filter_map(pair)
}

impl Texts {
    pub fn of(lang: Lang) -> &'static Texts {
        static ALL: LazyLock<[Texts; 3]> =
            LazyLock::new(|| FILES.map(|(lang, file)| Texts { lang, texts: parse(file).collect() }));
        &ALL[lang as usize]
    }

    /// The text of a key; the key itself where there is none, which a test excludes.
    pub fn t<'a>(&'a self, key: &'a str) -> &'a str {
        self.texts.get(key).map_or(key, String::as_str)
    }

    /// The text with `{0}`, `{1}`, … replaced.
    pub fn fill(&self, key: &str, values: &[&str]) -> String {
        let mut out = String::new();
        self.pieces(key, |piece| match piece {
            Ok(text) => out.push_str(text),
            Err(nth) => out.push_str(values.get(nth).copied().unwrap_or_default()),
        });
        out
    }

    /// The same as HTML, the values as data that somebody else has written.
    pub fn html(&self, key: &str, values: &[&str]) -> Html {
        let mut out = String::new();
        self.pieces(key, |piece| match piece {
            Ok(text) => html::escape(text, &mut out),
            Err(nth) => {
                out.push_str("<strong>");
                html::push_data(values.get(nth).copied().unwrap_or_default(), html::SHORT, &mut out);
                out.push_str("</strong>");
            }
        });
        askama::filters::Safe(out)
    }

    /// Of one or of several.
    pub fn count(&self, one: &str, many: &str, number: usize) -> String {
        if number == 1 { self.t(one).to_owned() } else { self.fill(many, &[&self.number(number)]) }
    }

    /// Gives the parts of a text: `Ok` for words, `Err` for the value with this number.
    fn pieces(&self, key: &str, mut give: impl FnMut(Result<&str, usize>)) {
        let mut rest = self.t(key);
        while let Some((before, after)) = rest.split_once('{') {
            give(Ok(before));
            let (number, behind) = after.split_once('}').unwrap_or((after, ""));
            give(Err(number.parse().unwrap_or(usize::MAX)));
            rest = behind;
        }
        give(Ok(rest));
    }

    /// A number with its thousands apart.
    pub fn number(&self, number: usize) -> String {
        let separator = match self.lang {
            Lang::Nb => "\u{a0}",
            Lang::Da => ".",
            Lang::En => ",",
        };
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
        groups.join(separator)
    }

    /// The name of a month.
    pub fn month(&self, date: NaiveDate) -> &str {
        const MONTHS: [&str; 12] = [
            "month.1", "month.2", "month.3", "month.4", "month.5", "month.6", "month.7", "month.8",
            "month.9", "month.10", "month.11", "month.12",
        ];
        MONTHS.get(date.month0() as usize).map_or("", |key| self.t(key))
    }

    /// `19. oktober 2018`.
    pub fn date(&self, date: NaiveDate) -> String {
        let dot = if self.lang == Lang::En { "" } else { "." };
        format!("{}{dot} {} {}", date.day(), self.month(date), date.year())
    }

    /// `12:24`, or `12.24` in Danish.
    pub fn clock(&self, time: NaiveDateTime) -> String {
        let separator = if self.lang == Lang::Da { '.' } else { ':' };
        format!("{:02}{separator}{:02}", time.hour(), time.minute())
    }

    /// `19. oktober 2018 kl. 12:24`.
    pub fn moment(&self, time: NaiveDateTime) -> String {
        self.fill("time.moment", &[&self.date(time.date()), &self.clock(time)])
    }

    /// The text of the settings in this language, or in Norwegian.
    pub fn configured<'a>(&self, text: &'a Translated) -> Option<&'a str> {
        let own = match self.lang {
            Lang::Nb => &text.nb,
            Lang::Da => &text.da,
            Lang::En => &text.en,
        };
        own.as_deref().or(text.nb.as_deref())
    }
}

/// A time in microseconds since 1970 as a calendar has it.
pub fn calendar(micros: i64) -> NaiveDateTime {
    let edge = if micros < 0 { NaiveDateTime::MIN } else { NaiveDateTime::MAX };
    DateTime::from_timestamp_micros(micros).map_or(edge, |time| time.naive_utc())
}
