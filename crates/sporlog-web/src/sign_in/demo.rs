//! Demo people: signing in by choosing one of some people who do not exist. Only for a server on loopback, and
//! never beside a real provider.

use serde::Deserialize;
use sporlog_record::identifier::{cpr, fodselsnummer};

/// The id of the provider of demo people.
pub(super) const ID: &str = "demo";

/// Somebody who does not exist.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoPerson {
    /// What they are called.
    pub name: String,
    /// A number of a synthetic series: a fødselsnummer with a raised month, or a CPR number with a raised day.
    pub pid: String,
    /// `no` or `dk`.
    pub country: Country,
}

/// Where somebody lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Country {
    /// Norway.
    No,
    /// Denmark.
    Dk,
}

impl Country {
    /// The key of its name.
    pub fn text(self) -> &'static str {
        match self {
            Country::No => "demo.no",
            Country::Dk => "demo.dk",
        }
    }
}

/// What is wrong with a list of demo people.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is nobody in the list.
    #[error("there is nobody in the list; name one [[person]] or more, each with name, pid and country")]
    Nobody,
    /// Somebody has a number that somebody real may have.
    #[error(
        "person {0}: pid is not a number of a synthetic series of the person's country (month raised by 40, \
             65 or 80 in Norway, day raised by 60 in Denmark)"
    )]
    NotSynthetic(usize),
}

/// Says what is wrong with a list of demo people. Numbers are not quoted: they may be real.
pub(super) fn check(people: &[DemoPerson]) -> Result<(), DemoError> {
    if people.is_empty() {
        return Err(DemoError::Nobody);
    }
    let wrong = people.iter().position(|person| !is_synthetic(person));
    wrong.map_or(Ok(()), |at| Err(DemoError::NotSynthetic(at + 1)))
}

fn is_synthetic(person: &DemoPerson) -> bool {
    let pid = person.pid.as_str();
    match person.country {
        Country::No => fodselsnummer::is_valid(pid) && pid.as_bytes()[2] >= b'4',
        Country::Dk => cpr::is_date_plausible(pid) && pid.as_bytes()[0] >= b'6',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_people_are_of_synthetic_series() {
        let person = |pid: &str, country| DemoPerson { name: "Test".into(), pid: pid.into(), country };
        assert!(matches!(check(&[]), Err(DemoError::Nobody)));
        assert!(check(&[person("25922947409", Country::No), person("6101010000", Country::Dk)]).is_ok());
        for (pid, country) in [
            ("01010180812", Country::No),
            ("25922947408", Country::No),
            ("25922947409", Country::Dk),
            ("2902040000", Country::Dk),
            ("6101010000", Country::No),
            ("", Country::No),
            ("", Country::Dk),
        ] {
            let error = check(&[person("25922947409", Country::No), person(pid, country)]).expect_err(pid);
            assert!(matches!(error, DemoError::NotSynthetic(2)), "{error}");
            assert!(pid.is_empty() || !error.to_string().contains(pid), "{error}");
        }
    }
}
