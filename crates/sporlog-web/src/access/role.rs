//! What somebody is, and what that lets them do.
//!
//! | role | may |
//! |---|---|
//! | `read` | [`Permission::Read`] |
//! | `write` | [`Permission::Write`] |
//! | `audit` | [`Permission::Read`], [`Permission::Audit`] |
//! | `metrics` | [`Permission::Metrics`] |
//! | `admin` | everything |
//!
//! Nothing that is not in the table is allowed: `write` does not read back.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What somebody is. Written in small letters, in files as on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads logs: a system that keeps a copy, a municipality that fetches its own.
    Read,
    /// Delivers records, and sees none.
    Write,
    /// Looks into what happened: Sporlog's own logs and what suppliers deliver, too.
    Audit,
    /// Collects metrics, and sees no record: Prometheus.
    Metrics,
    /// Runs Sporlog.
    Admin,
}

/// What somebody wants to do to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Ask for a log's head, its records in order, single entries, and proofs of them.
    Read,
    /// Deliver records into a log.
    Write,
    /// Read Sporlog's own logs `access` and `quarantine`, and the register of deliveries.
    Audit,
    /// Read the metrics: names of logs and suppliers, heads, and how much of everything.
    Metrics,
    /// Everything else.
    Administer,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 5] = [Role::Read, Role::Write, Role::Audit, Role::Metrics, Role::Admin];

    /// Its name, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Role::Read => "read",
            Role::Write => "write",
            Role::Audit => "audit",
            Role::Metrics => "metrics",
            Role::Admin => "admin",
        }
    }

    /// Whether the role holds a permission, whatever the log.
    pub fn holds(self, permission: Permission) -> bool {
        match self {
            Role::Read => permission == Permission::Read,
            Role::Write => permission == Permission::Write,
            Role::Audit => matches!(permission, Permission::Read | Permission::Audit),
            Role::Metrics => permission == Permission::Metrics,
            Role::Admin => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// There is no such role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no role '{0}'; the roles are read, write, audit, metrics and admin")]
pub struct UnknownRole(String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or_else(|| UnknownRole(text.to_owned()))
    }
}
