//! The style sheet, the scripts and the images.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::{App, Problem};

const STYLE: &str = include_str!("../../assets/style.css");
const CHECK: &str = include_str!("../../assets/check.js");
const SESSION: &str = include_str!("../../assets/session.js");
const LEAVE: &str = include_str!("../../assets/leave.js");
const ICON: &str = include_str!("../../assets/icon.svg");

/// One of the files that pages refer to. They hold nothing personal and may be kept for an hour.
pub async fn asset(State(app): State<App>, Path(name): Path<String>) -> Response {
    let pages = &app.pages;
    let (mime, bytes) = match name.as_str() {
        "style.css" => {
            let (light, dark) = (&pages.settings.accent, &pages.settings.accent_dark);
            let own = format!(":root{{--accent-light:{light};--accent-dark:{dark}}}\n");
            ("text/css; charset=utf-8", (own + STYLE).into_bytes())
        }
        "check.js" => ("text/javascript; charset=utf-8", CHECK.into()),
        "session.js" => ("text/javascript; charset=utf-8", SESSION.into()),
        "leave.js" => ("text/javascript; charset=utf-8", LEAVE.into()),
        "icon.svg" => ("image/svg+xml", ICON.into()),
        "logo" if pages.logo.is_some() => {
            let (mime, bytes) = pages.logo.clone().unwrap_or_default();
            (mime, bytes)
        }
        _ => return Problem::not_found("there is no such file").into_response(),
    };
    let headers = [(header::CONTENT_TYPE, mime), (header::CACHE_CONTROL, "max-age=3600")];
    (StatusCode::OK, headers, bytes).into_response()
}
