//! Durable begins in PostgreSQL, MariaDB or MySQL beside a bare upsert of the same bytes, which waits
//! for its answer on a connection of its own, as a pool does it:
//!
//! `cargo run --release -p idem-store --features postgres,mysql --example sql_floor -- URL [ROUNDS] [MILLISECONDS] [CALLERS]`
//!
//! Makes the tables `floor_bare` and `floor_...` there.

mod floor;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use floor::{Outcome, Rounds, VALUE};
use idem_store::{Options, Store};
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;
use tokio_postgres::NoTls;

/// Of the store, and of the floor: what the store has when its URL does not say.
const CONNECTIONS: usize = 8;

#[tokio::main]
async fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("give the URL of a database")?;
    let rounds = Rounds::from(args)?;
    let glue = if url.contains('?') { '&' } else { '?' };
    let of_store = format!("{url}{glue}name=floor&connections={CONNECTIONS}");
    let store = Store::connect_async(&of_store, Options::new()).await?;
    let by_thread = Store::connect(&of_store, Options::new())?;
    let bare = Arc::new(Bare::connect(&url).await?);
    let one = move |key: [u8; 16]| {
        let bare = Arc::clone(&bare);
        async move { bare.upsert(&key).await }
    };
    floor::beside(rounds, [store, by_thread], one).await
}

/// An upsert that knows nothing of states, over several connections.
struct Bare {
    lanes: Vec<Mutex<Lane>>,
    next: AtomicUsize,
}

enum Lane {
    Postgres(tokio_postgres::Client, tokio_postgres::Statement),
    Mysql(mysql_async::Conn, mysql_async::Statement),
}

impl Bare {
    async fn connect(url: &str) -> Outcome<Self> {
        let mut lanes = Vec::new();
        for _ in 0..CONNECTIONS {
            lanes.push(Mutex::new(if url.starts_with("postgres") {
                Lane::postgres(url).await?
            } else {
                Lane::mysql(&url.replace("mariadb://", "mysql://")).await?
            }));
        }
        let next = AtomicUsize::new(0);
        Ok(Self { lanes, next })
    }

    async fn upsert(&self, key: &[u8]) -> Outcome<()> {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let mut lane = self.lanes[next % self.lanes.len()].lock().await;
        match &mut *lane {
            Lane::Postgres(client, statement) => {
                let (print, value): (&[u8], &[u8]) = (&[1; 32], &VALUE);
                client.query_one(statement, &[&key, &print, &value]).await?;
            }
            Lane::Mysql(conn, statement) => {
                let parameters = (key, &[1_u8; 32][..], &VALUE[..]);
                conn.exec_drop(&*statement, parameters).await?;
            }
        }
        Ok(())
    }
}

impl Lane {
    async fn postgres(url: &str) -> Outcome<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let table = "CREATE TABLE IF NOT EXISTS floor_bare
                     (key bytea PRIMARY KEY, fingerprint bytea, value bytea, at timestamptz)";
        client.batch_execute(table).await?;
        let upsert = "INSERT INTO floor_bare VALUES ($1, $2, $3, now())
                      ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value RETURNING at";
        let statement = client.prepare(upsert).await?;
        Ok(Self::Postgres(client, statement))
    }

    async fn mysql(url: &str) -> Outcome<Self> {
        let opts = mysql_async::OptsBuilder::from_opts(mysql_async::Opts::from_url(url)?);
        let mut conn = mysql_async::Conn::new(opts.prefer_socket(false)).await?;
        let table = "CREATE TABLE IF NOT EXISTS floor_bare
                     (id VARBINARY(2048) PRIMARY KEY, fingerprint BINARY(32), value BLOB, at DATETIME(3))
                     ENGINE=InnoDB";
        conn.query_drop(table).await?;
        let upsert = "INSERT INTO floor_bare VALUES (?, ?, ?, now(3))
                      ON DUPLICATE KEY UPDATE value = VALUES(value)";
        let statement = conn.prep(upsert).await?;
        Ok(Self::Mysql(conn, statement))
    }
}
