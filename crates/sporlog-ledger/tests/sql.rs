//! Sums of whole numbers in queries: right, or an error.

#[allow(dead_code)]
mod common;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use sporlog_ledger::{Error, query};

#[tokio::test(flavor = "multi_thread")]
async fn sums_do_not_wrap_around() {
    let dir = tempfile::tempdir().unwrap();
    let writer = common::writer(dir.path()).await;
    common::append(&writer, 0, 50).await;
    let logs = [writer.log().clone()];
    let ask = async |sql: &str| -> Result<Vec<RecordBatch>, Error> {
        query(&logs, sql, 1 << 28).await?.1.try_collect().await
    };
    let numbers = async |sql: &str| -> Vec<Option<i64>> {
        let batches = ask(sql).await.unwrap();
        batches
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().iter().collect::<Vec<_>>())
            .collect()
    };
    assert_eq!(numbers("SELECT sum(id) FROM auditlog").await, [Some(1_275)]);
    assert_eq!(
        numbers("SELECT sum(id % 3) FROM auditlog GROUP BY id % 2 ORDER BY 1").await,
        [Some(25), Some(26)]
    );
    assert_eq!(numbers("SELECT sum(DISTINCT id % 5) FROM auditlog").await, [Some(10)]);
    let two = "SELECT sum(DISTINCT id % 5), count(DISTINCT message) FROM auditlog";
    assert_eq!(numbers(two).await, [Some(10)]);
    assert_eq!(numbers("SELECT sum(id) FROM auditlog WHERE false").await, [None]);
    let running = "SELECT sum(id) OVER (ORDER BY id ROWS 1 PRECEDING) FROM auditlog ORDER BY id LIMIT 3";
    assert_eq!(numbers(running).await, [Some(1), Some(3), Some(5)]);
    for sum in [
        "sum(id + 9223372036854775000)",
        "sum(id + 9223372036854775000) OVER (ORDER BY id)",
        "sum(DISTINCT id + 9223372036854775000)",
        "sum(DISTINCT id + 9223372036854775000), count(DISTINCT message)",
    ] {
        let failed = ask(&format!("SELECT {sum} FROM auditlog")).await.expect_err(sum).to_string();
        assert!(failed.contains("overflow: the sum "), "{sum}: {failed}");
    }
    writer.close().await.unwrap();
}
