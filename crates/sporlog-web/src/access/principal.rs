//! Who asks: a system or an employee with a role, or a person about themselves.

use std::fmt;
use std::sync::Arc;

use super::{Permission, Role, bounds};
use crate::Problem;

/// By what somebody was known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Via {
    /// By one of our keys.
    ApiKey {
        /// The key's id, which is no secret.
        id: Arc<str>,
    },
    /// By a token.
    Token {
        /// Who issued it, as configured.
        issuer: Arc<str>,
        /// What the issuer calls the client. Personal numbers in it are masked.
        client: Arc<str>,
    },
}

/// Somebody with a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key's name, or what the token calls its client. Personal numbers in it are masked.
    pub name: Arc<str>,
    /// By what they were known.
    pub via: Via,
    /// What they are.
    pub role: Role,
    /// The logs that they may use: names, or patterns that end in `*`. Empty: all but Sporlog's own
    /// `access` and `quarantine`, which take the role `audit` or `admin`, or to be named outright.
    pub logs: Vec<String>,
    /// The organisations whose records they may see: CVR numbers (8 digits) and Norwegian
    /// organisation numbers (9 digits). Empty: all.
    pub organisations: Vec<String>,
}

impl Principal {
    /// Tells principals apart for good, and is no secret. Two that are called the same are not the same: a key that was
    /// revoked and made anew under its name, or a key and a token's client.
    pub fn id(&self) -> String {
        match &self.via {
            Via::ApiKey { id } => format!("key:{id}"),
            Via::Token { issuer, client } => format!("token:{issuer}#{client}"),
        }
    }

    /// Whether they may do this to the log, and otherwise 403, which says what was lacking. What
    /// concerns no single log is asked for as log `*`.
    pub fn require(&self, permission: Permission, log: &str) -> Result<(), Problem> {
        if !self.role.holds(permission) {
            return Err(Problem::forbidden(format!("the role '{}' does not allow this", self.role)));
        }
        if !self.covers(log) {
            return Err(Problem::forbidden("this log is not among those that you may use"));
        }
        if permission == Permission::Write && self.role != Role::Admin && bounds::is_own(log) {
            return Err(Problem::forbidden("nothing is delivered into Sporlog's own logs"));
        }
        Ok(())
    }

    /// Whether the log is one of theirs, whatever they want with it.
    pub fn covers(&self, log: &str) -> bool {
        if bounds::is_own(log) && !self.role.holds(Permission::Audit) {
            return self.logs.iter().any(|named| named == log);
        }
        self.logs.is_empty() || self.logs.iter().any(|pattern| sporlog_ledger::matches(pattern, log))
    }

    /// The organisations that bound what they see; `None` if nothing does. A record that belongs to
    /// no organisation is beyond any bound.
    pub fn bounded_to(&self) -> Option<&[String]> {
        (!self.organisations.is_empty()).then_some(&self.organisations)
    }
}

/// A person who asks about themselves.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    /// Their personal number: a fødselsnummer (11 digits) or a CPR number (10 digits).
    pub pid: String,
    /// Who vouches for them.
    pub issuer: Arc<str>,
    /// At which level they signed in, as the issuer calls it.
    pub acr: Option<String>,
}

impl fmt::Debug for Person {
    /// Without the personal number: this ends in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person").field("issuer", &self.issuer).field("acr", &self.acr).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody(role: Role, logs: &[&str]) -> Principal {
        Principal {
            name: "test".into(),
            via: Via::ApiKey { id: "x".into() },
            role,
            logs: logs.iter().map(ToString::to_string).collect(),
            organisations: Vec::new(),
        }
    }

    const PERMISSIONS: [Permission; 4] =
        [Permission::Read, Permission::Write, Permission::Audit, Permission::Administer];

    /// What each role may do to a log, in the order of `PERMISSIONS`.
    #[track_caller]
    fn may(role: Role, logs: &[&str], log: &str, expected: [bool; 4]) {
        let somebody = somebody(role, logs);
        let found = PERMISSIONS.map(|permission| somebody.require(permission, log).is_ok());
        assert_eq!(found, expected, "{role} of {logs:?} to {log}");
    }

    #[test]
    fn each_role_may_what_the_table_says() {
        may(Role::Read, &[], "revision", [true, false, false, false]);
        may(Role::Write, &[], "revision", [false, true, false, false]);
        may(Role::Audit, &[], "revision", [true, false, true, false]);
        may(Role::Metrics, &[], "revision", [false; 4]);
        may(Role::Admin, &[], "revision", [true; 4]);
        may(Role::Admin, &[], "*", [true; 4]);
    }

    #[test]
    fn metrics_are_for_those_who_collect_them() {
        for role in Role::ALL {
            let allowed = somebody(role, &[]).require(Permission::Metrics, "*").is_ok();
            assert_eq!(allowed, matches!(role, Role::Metrics | Role::Admin), "{role}");
        }
    }

    #[test]
    fn sporlogs_own_logs_take_more() {
        for own in ["access", "quarantine"] {
            may(Role::Read, &[], own, [false; 4]);
            may(Role::Read, &["*"], own, [false; 4]);
            may(Role::Read, &["a*", "q*"], own, [false; 4]);
            may(Role::Read, &[own], own, [true, false, false, false]);
            may(Role::Write, &[own], own, [false; 4]);
            may(Role::Audit, &[], own, [true, false, true, false]);
            may(Role::Audit, &["revision"], own, [false; 4]);
            may(Role::Admin, &[], own, [true; 4]);
        }
    }

    #[test]
    fn logs_bound_every_role() {
        may(Role::Read, &["disclosure*"], "disclosure", [true, false, false, false]);
        may(Role::Read, &["disclosure*"], "disclosure_oslo", [true, false, false, false]);
        may(Role::Read, &["disclosure*"], "revision", [false; 4]);
        may(Role::Read, &["disclosure"], "disclosure_oslo", [false; 4]);
        may(Role::Admin, &["disclosure"], "revision", [false; 4]);
        may(Role::Admin, &["disclosure"], "*", [false; 4]);
        may(Role::Read, &["revision", "auditlog"], "auditlog", [true, false, false, false]);
        may(Role::Read, &["revision"], "", [false; 4]);
    }

    #[test]
    fn a_refusal_is_403() {
        let refused = somebody(Role::Read, &[]).require(Permission::Write, "revision").expect_err("refused");
        assert_eq!(refused.status, 403);
    }

    #[test]
    fn organisations_bound_what_is_seen() {
        let mut somebody = somebody(Role::Read, &[]);
        assert!(somebody.bounded_to().is_none());
        somebody.organisations = vec!["64942212".into()];
        assert_eq!(somebody.bounded_to(), Some(&["64942212".to_owned()][..]));
    }

    #[test]
    fn a_persons_number_is_not_printed() {
        let person = Person { pid: "01010180812".into(), issuer: "https://i".into(), acr: None };
        assert!(!format!("{person:?}").contains("0101"));
    }
}
