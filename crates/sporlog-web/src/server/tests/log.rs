//! What a request leaves in the log.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::harness::start;

/// Keeps all that is logged, as text.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<String>>>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Kept {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().expect("kept").clone()
    }

    fn keep(&self, line: Line) {
        self.0.lock().expect("kept").push(line.0);
    }
}

impl Subscriber for Kept {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target().starts_with("sporlog")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut line = Line(format!("span {}", span.metadata().name()));
        span.record(&mut line);
        self.keep(line);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("record".into());
        values.record(&mut line);
        self.keep(line);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(format!("{} {}", event.metadata().level(), event.metadata().target()));
        event.record(&mut line);
        self.keep(line);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_request_is_one_line_without_anybodys_number() {
    let kept = Kept::default();
    // With a single subscriber, whichever test comes by first decides for all threads what is logged.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let guard = tracing::subscriber::set_default(kept.clone());
    let server = start().await;
    let headers = "X-Request-Id: trace-17\r\nApiKey: sporlog_abc_secret\r\nReferer: /0101018081\r\n";
    server.ask("GET /person/01010112345?cpr=0101018081&name=Kari", headers, "").await;
    server.ask("GET /nowhere/01010112345", "X-Request-Id: 01010112345\r\n", "").await;
    server.ask("BREW /hello", "", "abc").await;
    server.ask("GET /panic", "", "").await;
    drop(server);
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    drop(guard);
    let lines = kept.lines();
    let all = lines.join("\n");
    for never in ["01010112345", "0101018081", "Kari", "secret", "nowhere", "BREW"] {
        assert!(!all.contains(never), "{never}: {all}");
    }
    let done: Vec<_> = lines.iter().filter(|line| line.starts_with("INFO sporlog::http")).collect();
    assert_eq!(done.len(), 4, "{all}");
    let person = done.iter().find(|line| line.contains("/person/")).expect("a line");
    for part in [
        "method=\"GET\"",
        "route=\"/person/{number}\"",
        "status=\"200\"",
        "client=127.0.0.1",
        "by=\"odense\"",
        "complete=true",
    ] {
        assert!(person.contains(part), "{part}: {person}");
    }
    assert!(all.contains("span request id=trace-17"), "{all}");
    assert!(done.iter().any(|line| line.contains("route=\"none\"")), "{all}");
    assert!(all.contains("said=\"over 01********\""), "{all}");
}
