//! A small attacker: somebody who can write to a log's folder, knows its format, and has no key.
//!
//! The attacker rewrites data files, recomputes every digest and the chain over the commits, and adds
//! commits. The only thing that the attacker cannot do is sign.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sporlog_ledger::{Error, Store, Verified};

use super::store;

/// The log's folder within the store's.
pub const LOG: &str = "logs/auditlog";

pub fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// The files of the log, relative to its folder.
pub fn files(log: &Path) -> BTreeSet<String> {
    let mut found = Vec::new();
    walk(log, &mut found);
    found.iter().map(|p| p.strip_prefix(log).unwrap().to_str().unwrap().to_owned()).collect()
}

/// The lines of every commit, in order.
pub fn commits(log: &Path) -> Vec<Vec<Value>> {
    let parse = |text: String| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (0..)
        .map_while(|v| fs::read_to_string(log.join(format!("table/_delta_log/{v:020}.json"))).ok())
        .map(parse)
        .collect()
}

pub async fn verify(store: Store) -> Result<Verified, Error> {
    store.log_to_verify("auditlog").await?.verify(|_| ()).await
}

/// Everything that a fresh look at the store in `dir` says is wrong.
pub async fn complaints(dir: &Path) -> Vec<String> {
    look(dir).await.unwrap_or_else(|error| vec![error])
}

/// What verification finds, or why there can be none.
pub async fn look(dir: &Path) -> Result<Vec<String>, String> {
    let store = store(dir);
    // A task of its own, so that a panic is an answer too.
    match tokio::spawn(verify(store)).await {
        Ok(Ok(verified)) => {
            Ok(verified.problems.iter().map(|p| format!("{}: {}", p.file, p.problem)).collect())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Ok(vec![format!("PANIC {panic}")]),
    }
}

/// Copies all that is in a folder, with what a bucket's server keeps of each object beside its content.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The file of a version.
pub fn commit_file(log: &Path, version: usize) -> PathBuf {
    log.join(format!("table/_delta_log/{version:020}.json"))
}

const SIGNATURE: &str = r#","signature":""#;

/// A commit without the characters of its signature, which is what the chain is taken over.
fn without_signature(text: &str) -> String {
    match text.find(SIGNATURE).map(|at| at + SIGNATURE.len()) {
        Some(at) => format!("{}{}", &text[..at], &text[at + 88..]),
        None => text.to_owned(),
    }
}

/// Changes every commit by `edit` and gives each the chain that belongs to those before it, as somebody
/// would who covers up a change to one of them. Gives the chain after the newest.
pub fn rewrite_commits(log: &Path, edit: impl Fn(usize, String) -> String) -> [u8; 32] {
    let mut chain = [0; 32];
    for version in 0.. {
        let path = commit_file(log, version);
        let Ok(text) = fs::read_to_string(&path) else { break };
        let text = edit(version, text);
        let at = text.find(r#""previous":""#).unwrap() + r#""previous":""#.len();
        let mended = format!("{}{}{}", &text[..at], hex(&chain), &text[at + 64..]);
        let digest = Sha256::digest(without_signature(&mended));
        chain = Sha256::new().chain_update(chain).chain_update(digest).finalize().into();
        fs::write(&path, mended).unwrap();
    }
    chain
}

/// Gives every commit the chain that belongs to those before it.
pub fn mend_chain(log: &Path) -> [u8; 32] {
    rewrite_commits(log, |_, text| text)
}

/// Takes the signatures off all commits, as a version of this program that does not sign would have
/// written them. Gives the chain after the newest.
pub fn strip_signatures(log: &Path) -> [u8; 32] {
    rewrite_commits(log, |_, text| {
        let Some(at) = text.find(SIGNATURE) else { return text };
        format!("{}{}", &text[..at], &text[at + SIGNATURE.len() + 89..])
    })
}

/// Adds a commit with these actions after the newest one, its statement in order but for the signature,
/// which is that of the commit before.
pub fn append_commit(log: &Path, size: u64, actions: &[Value]) -> PathBuf {
    let version = commits(log).len();
    let before = fs::read_to_string(commit_file(log, version - 1)).unwrap();
    let first: Value = serde_json::from_str(before.lines().next().unwrap()).unwrap();
    let stated = &first["commitInfo"]["sporlog"];
    let text = |field: &str| stated[field].as_str().unwrap_or_default().to_owned();
    let mut lines = format!(
        r#"{{"commitInfo":{{"timestamp":0,"operation":"WRITE","operationParameters":{{}},"engineInfo":"","sporlog":{{"size":{size},"root":"{}","previous":"{}","signature":"{}"}}}}}}"#,
        text("root"),
        hex(&[0; 32]),
        text("signature"),
    );
    for action in actions {
        lines.push('\n');
        lines.push_str(&action.to_string());
    }
    fs::write(commit_file(log, version), lines).unwrap();
    mend_chain(log);
    commit_file(log, version)
}

/// The `add` action of the newest file of the table.
pub fn newest_add(log: &Path) -> Value {
    let actions = commits(log).into_iter().flatten();
    actions.filter_map(|action| action.get("add").cloned()).next_back().unwrap()
}

/// Writes a data file with the records of `batch` and gives the `add` action for it; `like` is that of
/// another file.
pub fn add_file(log: &Path, like: &Value, batch: &RecordBatch, ids: (u64, u64)) -> Value {
    let bytes = write_parquet(batch);
    let path = format!("{}-forged000000.parquet", &like["path"].as_str().unwrap()[..26]);
    fs::write(log.join("table").join(&path), &bytes).unwrap();
    let mut add = like.clone();
    let mut stats: Value = serde_json::from_str(add["stats"].as_str().unwrap()).unwrap();
    stats["numRecords"] = (ids.1 - ids.0 + 1).into();
    stats["minValues"]["id"] = ids.0.into();
    stats["maxValues"]["id"] = ids.1.into();
    add["stats"] = stats.to_string().into();
    add["path"] = path.into();
    add["size"] = bytes.len().into();
    add["tags"] = json!({"sporlog.sha256": hex(&Sha256::digest(&bytes))});
    add
}

pub fn read_parquet(path: &Path) -> RecordBatch {
    let file = fs::File::open(path).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

pub fn write_parquet(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Puts `bytes` in the place of a data file and makes the Delta log agree.
pub fn replace_data_file(log: &Path, path: &str, bytes: &[u8]) {
    for version in 0.. {
        let commit = commit_file(log, version);
        let Ok(text) = fs::read_to_string(&commit) else { break };
        let edit = |line: &str| {
            let mut action: Value = serde_json::from_str(line).unwrap();
            match action.get_mut("add").filter(|add| add["path"] == path) {
                Some(add) => {
                    add["size"] = bytes.len().into();
                    add["tags"]["sporlog.sha256"] = hex(&Sha256::digest(bytes)).into();
                    action.to_string()
                }
                None => line.to_owned(),
            }
        };
        fs::write(&commit, text.lines().map(edit).collect::<Vec<_>>().join("\n")).unwrap();
    }
    fs::write(log.join("table").join(path), bytes).unwrap();
}
