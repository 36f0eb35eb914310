//! What a log answers within one process, in milliseconds: the part of `make bench` for which
//! starting a program would take longer than what is measured.
//!
//! ```text
//! measure page STORE LOG ROWS ITERATIONS [CACHE] pages of ROWS records at random ids; parts of a store in a bucket are kept in CACHE
//! measure cold STORE LOG ROWS ITERATIONS      the same, each by a store that was just opened: no page of it was read before
//! measure read-on STORE LOG ROWS ITERATIONS   pages of ROWS records, each after the one before
//! measure find STORE LOG LIMIT KEYS           the newest LIMIT records of each person in the file KEYS
//! measure append STORE RECORDS TASKS SECONDS  audit records (JSON lines), one each, by TASKS at once
//! measure kill STORE RECORDS COUNT            COUNT audit records, a thousand at a time, and then the end without closing
//! measure recover STORE                       opening that log, for reading and for appending
//! measure commits STORE RECORDS COUNT         COUNT commits of one record each, and what a log of so many costs
//! ```
//!
//! Records are read and written out as JSON, as an API has to. The first [`WARM_UP`] answers do
//! not count. The result is a JSON object on standard output; what it was asked for in vain ends it
//! with an error, so that no figure comes of answers that are not right.
#![forbid(unsafe_code)]

use std::error::Error;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use serde_json::{Value, json};
use sporlog_ledger::{Append, Batches, Find, Key, Log, Outcome, Store, StoreOptions, Writer, WriterOptions};
use sporlog_record::canonical::EntryWriter;
use sporlog_record::json::{Judged, RowsBuilder};
use sporlog_record::{Kind, Position, Rules};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Answers that are given before measuring begins.
const WARM_UP: usize = 100;
/// The same where the measure is a time: so long.
const WARM_UP_TIME: Duration = Duration::from_secs(1);
/// Bytes of a bucket that are kept on a local disk.
const CACHE_BYTES: u64 = 4 << 30;
/// Where the random ids begin: the same ones each time.
const SEED: u64 = 0x53_504f_524c_4f47;

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        [order @ ("page" | "read-on"), store, log, rows, iterations, ref cache @ ..] => {
            let log = open(store, log, cache.first().copied()).await?;
            page(&log, rows.parse()?, iterations.parse()?, order == "read-on").await?
        }
        ["cold", store, log, rows, iterations] => {
            cold(store, log, rows.parse()?, iterations.parse()?).await?
        }
        ["find", store, log, limit, keys] => {
            let keys = std::fs::read_to_string(keys)?;
            find(&open(store, log, None).await?, limit.parse()?, &keys.lines().collect::<Vec<_>>()).await?
        }
        ["append", store, records, tasks, seconds] => {
            append(store, &std::fs::read(records)?, tasks.parse()?, seconds.parse()?).await?
        }
        ["kill", store, records, count] => kill(store, &std::fs::read(records)?, count.parse()?).await?,
        ["recover", store] => recover(store).await?,
        ["commits", store, records, count] => {
            commits(store, &std::fs::read(records)?, count.parse()?).await?
        }
        _ => {
            return Err(
                "measure page|cold|read-on|find|append|kill|recover|commits …: see the head of its source"
                    .into(),
            );
        }
    };
    println!("{result}");
    Ok(())
}

async fn open(store: &str, log: &str, cache: Option<&str>) -> Result<Log> {
    let cache_folder = cache.map(|folder| (folder.into(), CACHE_BYTES));
    let options = StoreOptions { address: store.into(), cache_folder, ..StoreOptions::default() };
    Ok(Store::open(options)?.log(log).await?)
}

/// A page of `rows` records by each of `iterations` stores that were just opened, and the requests to a bucket that it took.
async fn cold(store: &str, log: &str, rows: u64, iterations: usize) -> Result<Value> {
    let (mut times, mut requests, mut random) = (Vec::new(), Vec::new(), Random(SEED));
    for _ in 0..iterations {
        let log = open(store, log, None).await?;
        let after = log.first().saturating_sub(1) + random.below(log.head().saturating_sub(rows) + 1);
        requests_so_far()?;
        let mut answers = Answers::default();
        if answers.take(&log, || log.read(after, Some(rows))).await? as u64 != rows {
            return Err("a page has too few records".into());
        }
        requests.push(requests_so_far()?);
        times.append(&mut answers.times);
    }
    Ok(
        json!({ "milliseconds": spread(times), "most_requests": requests.iter().max(), "median_requests": median(requests) }),
    )
}

/// How many requests `bucket_proxy` before the bucket has seen since it was last asked.
fn requests_so_far() -> Result<usize> {
    let url = std::env::var("AWS_ENDPOINT_URL")?;
    let mut proxy = TcpStream::connect(url.trim_start_matches("http://"))?;
    proxy.write_all(b"MARK measure\r\n\r\n")?;
    let mut answer = String::new();
    proxy.read_to_string(&mut answer)?;
    Ok(answer.parse()?)
}

/// Pages of `rows` records, each somewhere else, or `on` from the end of the one before.
async fn page(log: &Log, rows: u64, iterations: usize, on: bool) -> Result<Value> {
    let (before, pages) = (log.first().saturating_sub(1), log.head().saturating_sub(rows) + 1);
    let mut random = Random(SEED);
    let mut answers = Answers::default();
    let mut after = before + random.below(pages);
    for _ in 0..WARM_UP + iterations {
        after =
            if on && after + 2 * rows <= log.head() { after + rows } else { before + random.below(pages) };
        let count = answers.take(log, || log.read(after, Some(rows))).await?;
        if count as u64 != rows {
            return Err(format!("{count} records after {after}, where {rows} were asked for").into());
        }
    }
    Ok(answers.result(log))
}

/// The newest records of one person after the other.
async fn find(log: &Log, limit: usize, people: &[&str]) -> Result<Value> {
    let mut answers = Answers::default();
    for person in people {
        let key = Key::Subject((*person).to_owned());
        let find = Find { key, from: None, to: None, limit: Some(limit) };
        if answers.take(log, || log.find(find)).await? == 0 {
            return Err("nothing was found about a person who is in the log".into());
        }
    }
    Ok(answers.result(log))
}

/// Answers, and how long each took.
#[derive(Default)]
struct Answers {
    times: Vec<Duration>,
    records: Vec<usize>,
    bytes: Vec<usize>,
    /// The answer's bytes; kept, so that not each answer pays for new memory.
    body: Vec<u8>,
}

impl Answers {
    /// Has one given, as a JSON array; says how many records are in it.
    async fn take(&mut self, log: &Log, ask: impl FnOnce() -> Batches) -> Result<usize> {
        let started = Instant::now();
        self.body.clear();
        let mut count = 0;
        let mut batches = ask();
        while let Some(batch) = batches.try_next().await? {
            count += batch.num_rows();
            self.write(log, &batch)?;
        }
        self.body.push(b']');
        self.times.push(started.elapsed());
        self.records.push(count);
        self.bytes.push(self.body.len());
        Ok(count)
    }

    fn write(&mut self, log: &Log, batch: &RecordBatch) -> Result<()> {
        let ids = batch.column_by_name("id").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let ids = ids.ok_or("the column id is missing")?.values();
        let mut writer = EntryWriter::new(log.name(), log.kind(), batch)?;
        for (row, id) in ids.iter().enumerate() {
            self.body.push(if self.body.is_empty() { b'[' } else { b',' });
            writer.write_wire(row, id.cast_unsigned(), &mut self.body);
        }
        Ok(())
    }

    fn result(self, log: &Log) -> Value {
        let after_warm_up = |all: Vec<usize>| all.into_iter().skip(WARM_UP).collect::<Vec<_>>();
        json!({
            "head": log.head(),
            "milliseconds": spread(self.times.into_iter().skip(WARM_UP).collect()),
            "median_records": median(after_warm_up(self.records)),
            "median_bytes": median(after_warm_up(self.bytes)),
        })
    }
}

/// Single records from many tasks, each of which waits until its own is durable before the next.
async fn append(store: &str, records: &[u8], tasks: usize, seconds: f64) -> Result<Value> {
    let rows: Arc<[RecordBatch]> = rows(records)?.into();
    let options = StoreOptions { address: store.into(), create: true, ..StoreOptions::default() };
    let store = Store::open(options)?;
    let writer = store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await?;
    let log = writer.log().clone();
    let before = log.head();

    let from = Instant::now() + WARM_UP_TIME;
    let to = from + Duration::from_secs_f64(seconds);
    let running: Vec<_> = (0..tasks)
        .map(|task| tokio::spawn(append_until(writer.clone(), rows.clone(), task, tasks, from, to)))
        .collect();
    let (mut times, mut acknowledged) = (Vec::new(), 0);
    for task in running {
        let appended = task.await??;
        times.extend(appended.times);
        acknowledged += appended.acknowledged;
    }
    writer.close().await?;
    if log.head() - before != acknowledged {
        return Err(format!("{acknowledged} acknowledged, {} in the log", log.head() - before).into());
    }
    let appends = times.len();
    Ok(json!({
        "head": log.head(),
        "appends": appends,
        "per_second": appends as f64 / seconds,
        "milliseconds": spread(times),
    }))
}

/// Appends `count` records and ends as a process that is killed does, so that they are in the journal.
async fn kill(store: &str, records: &[u8], count: usize) -> Result<Value> {
    let rows: Vec<_> = rows(records)?.into_iter().cycle().take(1_000).collect();
    let rows = concat_batches(&Kind::Auditlog.row_schema(), &rows)?;
    let options = StoreOptions { address: store.into(), create: true, ..StoreOptions::default() };
    let writer = Store::open(options)?.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await?;
    for _ in 0..count.div_ceil(rows.num_rows()) {
        writer.append(Append { rows: rows.clone(), positions: Vec::new() }).await?;
    }
    std::process::exit(0)
}

/// Opens a log as such a process has left it.
async fn recover(store: &str) -> Result<Value> {
    let options = StoreOptions { address: store.into(), ..StoreOptions::default() };
    let store = Store::open(options)?;
    let reading = timed(store.log("auditlog")).await?;
    let began = Instant::now();
    let writer = store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await?;
    let appending = began.elapsed().as_secs_f64();
    Ok(json!({ "head": writer.log().head(), "reading_seconds": reading, "appending_seconds": appending }))
}

/// Commits of one record each, and at a tenth, a third and all of them: how long it takes to open the log
/// from its Delta checkpoint and from all of its commits, to verify it, and to compact it, and how many files
/// it has. What grows faster than the number of commits is seen from the three.
async fn commits(address: &str, records: &[u8], count: u64) -> Result<Value> {
    let rows = rows(records)?;
    let options = StoreOptions { address: address.into(), create: true, ..StoreOptions::default() };
    let store = Store::open(options)?;
    let folder = std::path::Path::new(address).join("logs/auditlog");
    let (note, aside) = (folder.join("tlog/table"), folder.join("table-note-aside"));
    let mut results = Vec::new();
    for commits in [count / 10, count / 3, count] {
        let writer = store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await?;
        let (began, before) = (Instant::now(), writer.log().head());
        for n in before..commits {
            let append = Append { rows: rows[n as usize % rows.len()].clone(), positions: Vec::new() };
            writer.append(append).await?;
            writer.flush().await?;
        }
        let appending = began.elapsed().as_secs_f64() / commits.saturating_sub(before).max(1) as f64;
        writer.close().await?;
        let files = (count_files(&folder.join("table"))?, count_files(&folder)?);
        let from_checkpoint = timed(store.log("auditlog")).await?;
        std::fs::rename(&note, &aside)?;
        let from_commits = timed(store.log("auditlog")).await;
        std::fs::rename(&aside, &note)?;
        let log = store.log("auditlog").await?;
        let verified = timed(async {
            let problems = log.verify(|_| ()).await?.problems;
            if problems.is_empty() {
                Ok(())
            } else {
                Err(Box::<dyn Error + Send + Sync>::from(format!("{problems:?}")))
            }
        });
        let verified = verified.await?;
        let writer = store.writer("auditlog", Kind::Auditlog, WriterOptions::default()).await?;
        let compacted = timed(writer.compact(Duration::ZERO)).await?;
        writer.close().await?;
        results.push(json!({
            "commits": commits,
            "append_milliseconds": appending * 1e3,
            "open_from_checkpoint_seconds": from_checkpoint,
            "open_from_commits_seconds": from_commits?,
            "verify_seconds": verified,
            "compact_seconds": compacted,
            "files_in_table": files.0,
            "files": files.1,
            "files_after_compact": count_files(&folder)?,
        }));
    }
    Ok(Value::Array(results))
}

/// How long `work` takes, in seconds.
async fn timed<T, E>(work: impl Future<Output = std::result::Result<T, E>>) -> std::result::Result<f64, E> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed().as_secs_f64())
}

fn count_files(folder: &std::path::Path) -> Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        count += if path.is_dir() { count_files(&path)? } else { 1 };
    }
    Ok(count)
}

/// What one task has appended.
struct Appended {
    /// How long each append took that was answered within the time measured.
    times: Vec<Duration>,
    /// All of them.
    acknowledged: u64,
}

async fn append_until(
    writer: Writer,
    rows: Arc<[RecordBatch]>,
    task: usize,
    tasks: usize,
    from: Instant,
    to: Instant,
) -> Result<Appended> {
    let mut appended = Appended { times: Vec::new(), acknowledged: 0 };
    for rows in rows.iter().cycle().skip(task).step_by(tasks) {
        let started = Instant::now();
        if started >= to {
            break;
        }
        let append = Append { rows: rows.clone(), positions: Vec::new() };
        match writer.append(append).await? {
            Outcome::Appended(_) => appended.acknowledged += 1,
            other @ Outcome::AlreadyThere { .. } => return Err(format!("{other:?}").into()),
        }
        let answered = Instant::now();
        if answered >= from && answered < to {
            appended.times.push(answered - started);
        }
    }
    Ok(appended)
}

/// Each record as a batch of its own.
fn rows(records: &[u8]) -> Result<Vec<RecordBatch>> {
    let rules = Rules::default();
    let mut builder = RowsBuilder::new(Kind::Auditlog, &rules);
    let mut rows = Vec::new();
    for (line, record) in (1..).zip(records.split(|b| *b == b'\n')) {
        if record.is_empty() {
            continue;
        }
        let judged = builder.push(record, &format!("bench:{line}"), Position { line, column: 1 });
        if let Judged::Refused(findings) = judged {
            return Err(format!("line {line}: {findings:?}").into());
        }
        rows.push(builder.finish());
    }
    if rows.is_empty() { Err("there are no records to append".into()) } else { Ok(rows) }
}

/// Median and upper percentiles, in milliseconds.
fn spread(mut times: Vec<Duration>) -> Value {
    times.sort_unstable();
    let at = |share: f64| {
        let index = ((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1));
        times.get(index).map(|time| time.as_secs_f64() * 1e3)
    };
    json!({ "count": times.len(), "median": at(0.5), "p90": at(0.9), "p99": at(0.99) })
}

fn median(mut all: Vec<usize>) -> Option<usize> {
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// SplitMix64, which is enough for picking pages.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }
}
