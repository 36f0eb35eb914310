//! The transparency log of each log, for anyone: checkpoints, tiles and bundles of commitments, as
//! C2SP tlog-tiles has them. Nothing in them is personal.

use axum::extract::{FromRequestParts, Path, State};
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use sporlog_ledger::Log;

use super::reader::Reader;
use crate::app::App;
use crate::problem::Problem;

/// Tiles never change.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

/// Whoever may read transparency logs: anyone, or, if it is configured so, a reader.
pub struct Witness(Option<Reader>);

impl FromRequestParts<App> for Witness {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if app.settings.public_tlog {
            return Ok(Witness(None));
        }
        Reader::from_request_parts(parts, app).await.map(|reader| Witness(Some(reader)))
    }
}

impl Witness {
    async fn log(&self, app: &App, name: &str) -> Result<Log, Problem> {
        let log = match &self.0 {
            Some(reader) => reader.log(app, name).await?,
            None => app.catalog.log(name).await?,
        };
        log.ok_or_else(|| Problem::not_found(format!("nothing is in the log '{name}' yet")))
    }
}

/// An answer that pages of any other site may read, too.
fn to_anyone(content_type: &'static str, cache: &'static str, body: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, cache),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    ];
    (headers, body).into_response()
}

/// The newest signed checkpoint: the tree's size and root (C2SP tlog-checkpoint).
#[utoipa::path(get, path = "/tlog/{log}/checkpoint", tag = "Transparency log",
    params(("log" = String, Path, description = "The log's name", example = "auditlog")),
    responses(
        (status = 200, description = "A signed note", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such log, or nothing is in it", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn checkpoint(
    State(app): State<App>,
    Path(log): Path<String>,
    witness: Witness,
) -> Result<Response, Problem> {
    let note = witness.log(&app, &log).await?.checkpoint().await?;
    Ok(to_anyone("text/plain; charset=utf-8", "no-cache", note))
}

/// The public key that checkpoints are signed with (C2SP signed-note). Whoever checks the log takes it
/// from somewhere else, and compares.
#[utoipa::path(get, path = "/tlog/{log}/key", tag = "Transparency log",
    params(("log" = String, Path, description = "The log's name", example = "auditlog")),
    responses(
        (status = 200, description = "A verifier key", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such log, or nothing is in it", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn key(
    State(app): State<App>,
    Path(log): Path<String>,
    witness: Witness,
) -> Result<Response, Problem> {
    let log = witness.log(&app, &log).await?;
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    Ok((headers, format!("{}\n", log.vkey())).into_response())
}

/// The keys that the log has had, once its key was replaced: a note of Sporlog's own, which the newest key signs, and the one
/// before until it is retired.
#[utoipa::path(get, path = "/tlog/{log}/keys", tag = "Transparency log",
    params(("log" = String, Path, description = "The log's name", example = "auditlog")),
    responses(
        (status = 200, description = "A signed note", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such log, or it has the key that it was made with", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn keys(
    State(app): State<App>,
    Path(log): Path<String>,
    witness: Witness,
) -> Result<Response, Problem> {
    let note = witness.log(&app, &log).await?.keys_note().await?;
    let note = note.ok_or_else(|| Problem::not_found("the log has the key that it was made with"))?;
    Ok(to_anyone("text/plain; charset=utf-8", "no-cache", note))
}

/// A tile of the tree (`<L>/<N>`, `<L>/<N>.p/<W>`) or a bundle of entries (`entries/<N>`,
/// `entries/<N>.p/<W>`); `<N>` in groups of three digits, all but the last with an `x` before them.
#[utoipa::path(get, path = "/tlog/{log}/tile/{tile}", tag = "Transparency log",
    params(
        ("log" = String, Path, description = "The log's name", example = "auditlog"),
        ("tile" = String, Path, description = "Which tile", example = "0/000.p/7"),
    ),
    responses(
        (status = 200, description = "Hashes, or commitments behind their lengths", body = Vec<u8>, content_type = "application/octet-stream"),
        (status = 404, description = "There is no such tile", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn tile(
    State(app): State<App>,
    Path((log, tile)): Path<(String, String)>,
    witness: Witness,
) -> Result<Response, Problem> {
    let no_such = || Problem::not_found("there is no such tile");
    let Wanted { level, index, width } = Wanted::parse(&tile).ok_or_else(no_such)?;
    let log = witness.log(&app, &log).await?;
    let bytes = log.tile(level, index, width).await?.ok_or_else(no_such)?;
    Ok(to_anyone("application/octet-stream", IMMUTABLE, bytes))
}

/// What the path of a tile says (C2SP tlog-tiles).
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    /// The level, or none for a bundle of entries.
    level: Option<u8>,
    index: u64,
    /// Hashes or entries: 256, or fewer of an unfinished one.
    width: u64,
}

impl Wanted {
    /// Only what is spelt as the specification spells it.
    fn parse(path: &str) -> Option<Self> {
        let (level, rest) = path.split_once('/')?;
        let level = match level {
            "entries" => None,
            level => Some(number(level, 63)? as u8),
        };
        let (groups, width) = match rest.split_once(".p/") {
            Some((groups, width)) => (groups, number(width, 255).filter(|width| *width > 0)?),
            None => (rest, 256),
        };
        let mut index = 0_u64;
        let mut groups = groups.split('/').peekable();
        let mut first = true;
        while let Some(group) = groups.next() {
            let digits = if groups.peek().is_some() { group.strip_prefix('x')? } else { group };
            if digits.len() != 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            // `x000/001` would be another name of `001`.
            if first && groups.peek().is_some() && digits == "000" {
                return None;
            }
            first = false;
            index = index.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
        }
        Some(Wanted { level, index, width })
    }
}

/// A number up to `max`, in digits and without zeros before it.
fn number(text: &str, max: u64) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok()).flatten().filter(|number| *number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_specification() {
        let parse = |path| Wanted::parse(path).map(|w| (w.level, w.index, w.width));
        assert_eq!(parse("0/000"), Some((Some(0), 0, 256)));
        assert_eq!(parse("0/x001/x234/067"), Some((Some(0), 1_234_067, 256)));
        assert_eq!(parse("entries/x001/000.p/17"), Some((None, 1_000, 17)));
        assert_eq!(parse("63/001.p/255"), Some((Some(63), 1, 255)));
        for wrong in [
            "",
            "0",
            "0/",
            "0/0",
            "0/00",
            "0/0000",
            "0/x001",
            "0/x000/001",
            "0/001/002",
            "64/000",
            "-1/000",
            "00/000",
            "01/000",
            "0/000.p/0",
            "0/000.p/256",
            "0/000.p/",
            "0/000.p/01",
            "0/000.p/1/2",
            "0/../../checkpoint",
            "entries/..",
            "0/%2e%2e",
            "0/x001//002",
            "entries/000.p",
            "data/000",
            "0/000.",
            "0/٠٠٠",
            "0/x018/x446/x744/x073/x709/x551/616",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
