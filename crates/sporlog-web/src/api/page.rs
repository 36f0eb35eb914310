//! Records on their way out: a JSON array, streamed.
//!
//! What is in memory of a page is one batch of the ledger's and one chunk of text, however large the
//! records are; a client that reads slowly is waited for.

use arrow::array::RecordBatch;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use sporlog_ledger::{Batches, Error, Result, numbers};
use sporlog_record::Kind;
use sporlog_record::canonical::EntryWriter;

use crate::access::Principal;
use crate::problem::Problem;

/// Bytes of text after which a chunk is sent off.
const CHUNK: usize = 256 << 10;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// As entries: `{"log","id","receivedAt","origin","remarks","record"}`.
    Entries,
    /// As the API of their kind gives them: audit records with their `id`.
    Records,
    /// As disclosures are given to the person they are about: with the id as a text.
    Own,
}

/// Whose records a reader may see, if not all.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    organisations: Option<Vec<String>>,
}

impl Bounds {
    /// Those of a principal in a log of this kind.
    pub fn of(principal: &Principal, kind: Kind) -> Result<Self, Problem> {
        let organisations = principal.bounded_to().map(<[String]>::to_vec);
        if organisations.is_some() && kind.organisation_columns().is_empty() {
            return Err(Problem::forbidden(
                "you may see certain organisations' records only, and these name none",
            ));
        }
        Ok(Bounds { organisations })
    }

    /// Whether nothing is left out.
    pub fn are_open(&self) -> bool {
        self.organisations.is_none()
    }

    /// Whether this record may be seen.
    pub fn admit(&self, kind: Kind, batch: &RecordBatch, row: usize) -> bool {
        self.organisations.as_ref().is_none_or(|theirs| kind.is_of(batch, row, theirs))
    }

    /// The organisations whose records may be seen, if not all.
    pub fn organisations(&self) -> Option<&[String]> {
        self.organisations.as_deref()
    }
}

/// Records that are to be sent.
pub struct Page {
    /// The log's name.
    pub log: String,
    /// What its records are.
    pub kind: Kind,
    /// Where they come from.
    pub batches: Batches,
    /// At most so many are sent.
    pub limit: u64,
    /// How they are written.
    pub shape: Shape,
    /// Which may be seen.
    pub bounds: Bounds,
}

impl Page {
    /// The answer, once `recorded` has recorded that it is given: the first chunk is made meanwhile. What
    /// fails before that is a problem; what fails later breaks the answer off, so that no client takes a
    /// part for the whole.
    pub async fn respond(
        self,
        recorded: impl Future<Output = Result<(), Problem>>,
    ) -> Result<Response, Problem> {
        let mut sending = Sending { page: self, batch: None, begun: false, done: false };
        let (recorded, first) = futures::join!(recorded, sending.next());
        recorded?;
        let first = first?.unwrap_or_default();
        let body = if sending.done {
            Body::from(first)
        } else {
            let rest = futures::stream::try_unfold(sending, |mut sending| async move {
                let chunk = sending.next().await.inspect_err(|error| {
                    tracing::error!(%error, "a page broke off");
                })?;
                Ok::<_, Error>(chunk.map(|chunk| (chunk, sending)))
            });
            Body::from_stream(futures::stream::once(async { Ok(first) }).chain(rest))
        };
        Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
    }
}

/// A page that is under way.
struct Sending {
    page: Page,
    /// The batch that is being written, and the next row of it.
    batch: Option<(RecordBatch, usize)>,
    begun: bool,
    done: bool,
}

impl Sending {
    /// The next chunk of the array; `None` after the last.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.done {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(CHUNK / 4);
        if !self.begun {
            out.push(b'[');
        }
        while out.len() < CHUNK {
            let (batch, row) = match self.batch.take() {
                Some(under_way) => under_way,
                None if self.page.limit == 0 => break,
                None => match self.page.batches.try_next().await? {
                    Some(batch) => (batch, 0),
                    None => break,
                },
            };
            let next = self.write(&batch, row, &mut out)?;
            if next < batch.num_rows() && self.page.limit > 0 {
                self.batch = Some((batch, next));
            }
        }
        if out.len() < CHUNK {
            out.push(b']');
            self.done = true;
        }
        Ok(Some(out.into()))
    }

    /// Writes rows of `batch` from `row` on, as many as go into a chunk, and says which is next.
    fn write(&mut self, batch: &RecordBatch, mut row: usize, out: &mut Vec<u8>) -> Result<usize> {
        let page = &mut self.page;
        let (ids, received) = numbers(batch)?;
        let mut writer =
            EntryWriter::new(&page.log, page.kind, batch).map_err(|e| Error::Columns(e.to_string()))?;
        while row < batch.num_rows() && page.limit > 0 && out.len() < CHUNK {
            if page.bounds.admit(page.kind, batch, row) {
                if self.begun {
                    out.push(b',');
                }
                let id = ids.value(row).unsigned_abs();
                match page.shape {
                    Shape::Entries => writer.write_entry(row, id, received.value(row), out),
                    Shape::Records => writer.write_wire(row, id, out),
                    Shape::Own => write_own(&mut writer, row, id, out),
                }
                page.limit -= 1;
                self.begun = true;
            }
            row += 1;
        }
        Ok(row)
    }
}

/// A record with its id before it, as a text.
fn write_own(writer: &mut EntryWriter<'_>, row: usize, id: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{{\"id\":\"{id}\"").as_bytes());
    let start = out.len();
    writer.write_record(row, out);
    match out.get(start + 1) {
        Some(b'}') | None => out.truncate(start),
        Some(_) => {
            out[start] = b',';
            return;
        }
    }
    out.push(b'}');
}
