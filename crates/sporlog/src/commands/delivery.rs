//! What `check` and `import` have in common.

use std::io;
use std::path::Path;

use sporlog_intake::Error;
use sporlog_intake::source::Source;
use sporlog_record::{Finding, Position};

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
        Error::Read { source, .. } if is_damaged(&source) => {
            let text = format!("the compressed file is damaged or cut off ({source})");
            let position = Position { line: 1, column: 1 };
            Ok(vec![Finding::error("compression", text, position)])
        }
        error => Err(error),
    }
}

/// What the decoders say, and no disk does.
fn is_damaged(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    error.raw_os_error().is_none()
        && matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
}
