//! What `check` and `import` have in common.

use std::path::Path;

use sporlog_intake::Error;
use sporlog_intake::delivery::damage;
use sporlog_intake::source::Source;
use sporlog_record::Finding;

use crate::progress::{Progress, Results};

/// What a file is called in messages: as it was given.
pub fn name(path: &Path) -> String {
    if path == Path::new("-") { "(standard input)".to_owned() } else { path.display().to_string() }
}

/// The progress of reading a source.
pub fn progress(source: &Source, results: Results) -> Progress {
    Progress::bytes(source.name(), source.size(), results)
}

/// Why a file is refused whole, if that is what the error says: also when it cannot be unpacked.
pub fn refusal(error: Error) -> Result<Vec<Finding>, Error> {
    match error {
        Error::Refused { findings } => Ok(findings),
        Error::Read { source, .. } if let Some(damage) = damage(&source) => Ok(vec![damage]),
        error => Err(error),
    }
}
