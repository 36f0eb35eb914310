//! What Sporlog's server is measured against: the same requests, answered from PostgreSQL by handlers
//! that do no more than they must.
//!
//! ```text
//! sporlog-bench-baseline SOCKET POOL agg|rows
//! ```
//!
//! `SOCKET` is the folder of PostgreSQL's socket, `POOL` the number of connections to it. A page is put
//! together by PostgreSQL (`agg`) or here, of rows that PostgreSQL has made JSON of (`rows`): which of them
//! is quicker, the run finds out. The tables are made by `served_tables.py`.

use std::error::Error;

use axum::Router;
use axum::extract::{Json, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio_postgres::NoTls;

const PAGE_AGG: &str = "SELECT json_agg(t)::text FROM \
    (SELECT * FROM served_audit WHERE id > $1 ORDER BY id LIMIT 100) t";
const PAGE_ROWS: &str = "SELECT row_to_json(t)::text FROM \
    (SELECT * FROM served_audit WHERE id > $1 ORDER BY id LIMIT 100) t";
/// Who has read what, in a transaction of its own.
const ACCESS: &str = "INSERT INTO served_access (reader, after) VALUES ('bench', $1)";
/// A transaction of its own.
const POST: &str = r#"INSERT INTO served_disclosure (person, mottaker, tema, "behandlingsGrunnlag",
    "uthentingsTidspunkt", "leverteData", "samtykkeToken", "dataForespoersel", leverandoer)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) RETURNING id"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, pool, page] = &args[..] else {
        return Err("sporlog-bench-baseline SOCKET POOL agg|rows".into());
    };
    let mut config = tokio_postgres::Config::new();
    config.host(socket).user("postgres").dbname("postgres");
    let quick = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let pool = Pool::builder(Manager::from_config(config, NoTls, quick)).max_size(pool.parse()?).build()?;
    let (page, recorded) = match page.as_str() {
        "agg" => (get(page_agg), get(page_agg_recorded)),
        "rows" => (get(page_rows), get(page_rows_recorded)),
        _ => return Err("a page is made by agg or by rows".into()),
    };
    let router = Router::new()
        .route("/head-constant", get(head_constant))
        .route("/page", page)
        .route("/page-recorded", recorded)
        .route("/post", post(post_disclosure))
        .with_state(pool);
    // As Sporlog has it, too: an answer does not wait for the acknowledgement of the one before.
    let listener = TcpListener::bind("127.0.0.1:0").await?.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            eprintln!("TCP_NODELAY: {error}");
        }
    });
    eprintln!("listening on http://{}", axum::serve::Listener::local_addr(&listener)?);
    axum::serve(listener, router).await?;
    Ok(())
}

/// Whatever goes wrong with the database.
struct Failed(Box<dyn Error + Send + Sync>);

impl From<PoolError> for Failed {
    fn from(error: PoolError) -> Self {
        Failed(error.into())
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Failed(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        eprintln!("failed: {}", self.0);
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

fn json(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn head_constant() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], r#"{"head":7192}"#).into_response()
}

#[derive(Clone, Copy, Deserialize)]
struct After {
    #[serde(default)]
    offset: i64,
}

async fn page_agg(
    State(pool): State<Pool>,
    Query(After { offset }): Query<After>,
) -> Result<Response, Failed> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(PAGE_AGG).await?;
    let page: Option<String> = client.query_one(&statement, &[&offset]).await?.try_get(0)?;
    Ok(json(page.unwrap_or_else(|| "[]".into())))
}

async fn page_rows(
    State(pool): State<Pool>,
    Query(After { offset }): Query<After>,
) -> Result<Response, Failed> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(PAGE_ROWS).await?;
    let rows = client.query(&statement, &[&offset]).await?;
    let mut page = String::with_capacity(256 << 10);
    page.push('[');
    for (n, row) in rows.iter().enumerate() {
        if n > 0 {
            page.push(',');
        }
        page.push_str(row.try_get(0)?);
    }
    page.push(']');
    Ok(json(page))
}

/// A page, and a durable record that it was read, side by side, as Sporlog has it.
async fn page_agg_recorded(pool: State<Pool>, after: Query<After>) -> Result<Response, Failed> {
    let (page, ()) = tokio::try_join!(page_agg(pool.clone(), Query(*after)), record(&pool, *after))?;
    Ok(page)
}

async fn page_rows_recorded(pool: State<Pool>, after: Query<After>) -> Result<Response, Failed> {
    let (page, ()) = tokio::try_join!(page_rows(pool.clone(), Query(*after)), record(&pool, *after))?;
    Ok(page)
}

async fn record(pool: &Pool, After { offset }: After) -> Result<(), Failed> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(ACCESS).await?;
    client.execute(&statement, &[&offset]).await?;
    Ok(())
}

/// A disclosure; what it says is not judged.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Disclosure {
    person: String,
    mottaker: String,
    tema: String,
    behandlings_grunnlag: String,
    uthentings_tidspunkt: String,
    leverte_data: String,
    samtykke_token: Option<String>,
    data_forespoersel: Option<String>,
    leverandoer: Option<String>,
}

async fn post_disclosure(State(pool): State<Pool>, Json(d): Json<Disclosure>) -> Result<Response, Failed> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(POST).await?;
    let row = client
        .query_one(
            &statement,
            &[
                &d.person,
                &d.mottaker,
                &d.tema,
                &d.behandlings_grunnlag,
                &d.uthentings_tidspunkt,
                &d.leverte_data,
                &d.samtykke_token,
                &d.data_forespoersel,
                &d.leverandoer,
            ],
        )
        .await?;
    let id: i64 = row.try_get(0)?;
    Ok(json(id.to_string()))
}
