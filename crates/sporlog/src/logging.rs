//! What goes to standard error: warnings, unless more or less is asked for.
//!
//! Lines are for people, or JSON objects for what collects them. Either way, whatever may be a personal
//! number is masked on its way out, wherever it came from: a library's error may quote what it read.

use std::fmt;
use std::io::{self, IsTerminal, Write, stderr};
use std::sync::OnceLock;

use serde_json::{Map, Value};
use sporlog_record::identifier::mask_text;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::cli::{Global, LogFormat};

/// The variable that overrides `-v` and `-q`, in the syntax of `tracing-subscriber`'s filters.
pub const FILTER: &str = "SPORLOG_LOG";

/// The format of lines, and whether only errors are said: set once.
static ASKED_FOR: OnceLock<(LogFormat, bool)> = OnceLock::new();

/// Whether nothing but errors is said.
pub fn is_quiet() -> bool {
    ASKED_FOR.get().is_some_and(|(_, quiet)| *quiet)
}

/// Whether nothing but JSON goes to standard error.
pub fn is_json() -> bool {
    ASKED_FOR.get().is_some_and(|(format, _)| *format == LogFormat::Json)
}

/// Whether JSON is asked for by arguments that could not be parsed.
pub fn set_json_if_asked_for(arguments: &[String]) {
    let given = |pair: &[String]| pair[0] == "--log-format" && pair[1] == "json";
    let set = std::env::var("SPORLOG_LOG_FORMAT").is_ok_and(|format| format == "json");
    if set || arguments.windows(2).any(given) || arguments.iter().any(|given| given == "--log-format=json") {
        ASKED_FOR.get_or_init(|| (LogFormat::Json, false));
    }
}

/// Prints a command's own message on standard error: as text, or as a line of the log.
pub fn print(level: &str, message: &str) {
    let line = if is_json() {
        let mut object = Object::line(level, "sporlog");
        object.put("message", mask_text(message).into());
        Value::Object(object.0).to_string()
    } else {
        format!("sporlog: {}", mask_text(message))
    };
    // There is nobody left to tell if standard error is closed, too.
    let _ = writeln!(stderr(), "{line}");
}

/// Starts logging. Sporlog's own crates are turned up by `-v`, those it is built on by the variable only. The exception is
/// what a bucket is asked once more.
pub fn start(global: &Global) {
    ASKED_FOR.get_or_init(|| (global.log_format, global.quiet));
    // A target's beginning is enough: this is all of our crates.
    let ours = |level: &str| format!("warn,object_store=info,sporlog={level}");
    let default = match (global.quiet, global.verbose) {
        (true, _) => "error".to_owned(),
        (false, 0) => "warn".to_owned(),
        (false, 1) => ours("info"),
        (false, 2) => ours("debug"),
        (false, _) => ours("trace"),
    };
    let filter = match std::env::var(FILTER) {
        Ok(set) => EnvFilter::try_new(&set).unwrap_or_else(|error| {
            print("WARN", &format!("{FILTER} is ignored: {error}"));
            EnvFilter::new(&default)
        }),
        Err(_) => EnvFilter::new(&default),
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Masked(stderr()));
    match global.log_format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => lines.with_ansi(false).fmt_fields(Json).event_format(Json).init(),
    }
    // A panic's message may quote anything, too.
    std::panic::set_hook(Box::new(|panic| {
        let said = panic.payload_as_str().unwrap_or("nothing");
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            tracing::error!(said, at, %trace, "this should not have happened");
        } else {
            tracing::error!(said, at, "this should not have happened");
        }
    }));
}

/// Masks personal numbers. A line comes in one piece.
struct Masked<W>(W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        self.0.write_all(mask_text(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// One JSON object a line: `time`, `level`, `target`, `message`, the event's fields, and by its name
/// each span that it is in, with the span's fields.
struct Json;

impl<'a> FormatFields<'a> for Json {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        let mut object = Object::default();
        fields.record(&mut object);
        write!(writer, "{}", Value::Object(object.0))
    }
}

impl<S> FormatEvent<S, Json> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, Json>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut object = Object::line(event.metadata().level().as_str(), event.metadata().target());
        event.record(&mut object);
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<Json>>();
            let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
            object.put(span.name(), fields.unwrap_or(Value::Null));
        }
        writeln!(writer, "{}", Value::Object(object.0))
    }
}

/// Fields, as the members of an object.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    /// What every line begins with.
    fn line(level: &str, target: &str) -> Self {
        let mut object = Object::default();
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        object.put("time", time.into());
        object.put("level", level.into());
        object.put("target", target.into());
        object
    }

    /// A number that looks like a personal number becomes a text: masked, it is no number any more.
    fn put(&mut self, name: &str, value: Value) {
        let value = match &value {
            Value::Number(number) if number.to_string() != mask_text(&number.to_string()) => {
                mask_text(&number.to_string()).into_owned().into()
            }
            _ => value,
        };
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Object {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        // More digits than anybody reads, and enough of them to look like a personal number.
        self.put(field.name(), ((value * 1e3).round() / 1e3).into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("kept").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || Masked(writer.clone())).with_ansi(false);
        let log = || {
            let span = tracing::info_span!("request", id = "abc", person = 1_010_112_345_u64);
            let _in = span.enter();
            let quoted = "line \"1\"\nof 010101-8081";
            tracing::warn!(
                number = 1_010_112_345_u64,
                ms = 0.123_456_789_012,
                on = true,
                quoted,
                "0101018081 is new"
            );
        };
        if json {
            tracing::subscriber::with_default(lines.fmt_fields(Json).event_format(Json).finish(), log);
        } else {
            tracing::subscriber::with_default(lines.finish(), log);
        }
        let text = kept.0.lock().expect("kept").clone();
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn no_line_holds_a_personal_number() {
        for json in [false, true] {
            let text = logged(json);
            for never in ["1010112345", "0101018081", "010101-8081"] {
                assert!(!text.contains(never), "{text}");
            }
            assert!(text.contains("01******** is new"), "{text}");
        }
    }

    #[test]
    fn a_line_of_json_is_an_object() {
        let text = logged(true);
        let line: Value = serde_json::from_str(&text).expect("one object");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["ms"], 0.123);
        assert_eq!(line["on"], true);
        assert_eq!(line["number"], "10********");
        assert_eq!(line["quoted"], "line \"1\"\nof 01****-****");
        assert_eq!(line["request"], serde_json::json!({"id": "abc", "person": "10********"}));
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
