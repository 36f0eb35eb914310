//! What the API serves, and from which logs.

use serde::Deserialize;

/// The section `[api]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiSettings {
    /// The log behind `/api/auditlog/…`.
    pub auditlog: String,
    /// The log behind `/api/auditlog/mfa/…`.
    pub mfa: String,
    /// The log that `/sporingslogg/api/post` appends to.
    pub disclosure: String,
    /// The log that `/api/deliveries` appends to, unless the request names another.
    pub revision: String,
    /// The logs in which `/api/les` looks for a person's disclosures; `*` stands for anything.
    pub les: Vec<String>,
    /// Whether anyone may read the transparency logs, which hold no personal data. Otherwise a key is
    /// needed that may read the log in question.
    pub public_tlog: bool,
    /// The greatest size of a delivery, in bytes.
    pub max_delivery_bytes: u64,
    /// Where deliveries lie while they arrive; by default, the system's folder for temporary files.
    pub spool: Option<std::path::PathBuf>,
}

impl Default for ApiSettings {
    fn default() -> Self {
        ApiSettings {
            auditlog: "auditlog".into(),
            mfa: "mfa".into(),
            disclosure: "disclosure".into(),
            revision: "revision".into(),
            les: vec!["disclosure*".into()],
            public_tlog: true,
            max_delivery_bytes: 2 << 30,
            spool: None,
        }
    }
}
