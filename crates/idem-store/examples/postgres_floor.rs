//! Measures a store in PostgreSQL beside a bare upsert of the same bytes, in interleaved rounds:
//! `cargo run --release -p idem-store --features postgres --example postgres_floor -- URL`.

#![expect(clippy::print_stdout, reason = "this program exists to print")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use idem_store::{Begin, Fingerprint, Options, Store};
use tokio_postgres::{Client, NoTls, Statement};

const ROUND: Duration = Duration::from_millis(1_500);
const ROUNDS: usize = 5;
const VALUE: [u8; 64] = [7; 64];

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let url = std::env::args()
        .nth(1)
        .ok_or("give the URL of a database")?;
    for (connections, callers) in [(1, 1), (8, 64)] {
        let glue = if url.contains('?') { '&' } else { '?' };
        let of_store = format!("{url}{glue}name=floor&connections={connections}");
        let store = Store::connect(&of_store, Options::new())?;
        let bare = Bare::connect(&url, connections).await?;
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let lanes = Arc::clone(&bare);
            let floor = round(callers, move |key| {
                let bare = Arc::clone(&lanes);
                async move { bare.upsert(&key).await }
            })
            .await?;
            let handle = store.clone();
            let durable = round(callers, move |key| {
                let store = handle.clone();
                async move {
                    let begin = Begin::new(&key, Fingerprint([1; 32]), 60_000, 0);
                    let begun = store.begin(&begin.declare(&VALUE)).await?;
                    // Kept: giving it back would be one more operation.
                    std::mem::forget(begun);
                    Ok(())
                }
            })
            .await?;
            ratios.push(durable / floor);
            println!(
                "{connections} connections, {callers} callers: bare upsert {floor:7.0}/s, begin {durable:7.0}/s, ratio {:.2}",
                durable / floor
            );
        }
        ratios.sort_by(f64::total_cmp);
        println!("median ratio {:.2}", ratios[ROUNDS / 2]);
    }
    Ok(())
}

/// Operations a second of `callers` that each do one after the other on new keys.
async fn round<F>(
    callers: usize,
    operation: impl Fn([u8; 16]) -> F + Clone + Send + 'static,
) -> Outcome<f64>
where
    F: Future<Output = Outcome<()>> + Send,
{
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let started = Instant::now();
    let run = u64::from(std::process::id());
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let operation = operation.clone();
            tokio::spawn(async move {
                let mut done = 0_u64;
                while started.elapsed() < ROUND {
                    let number = NEXT.fetch_add(1, Ordering::Relaxed);
                    let mut key = [0; 16];
                    // Spread, as keys are.
                    key[..8]
                        .copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
                    key[8..].copy_from_slice(&run.to_be_bytes());
                    operation(key).await?;
                    done += 1;
                }
                Outcome::Ok(done)
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        done += task.await??;
    }
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// An upsert that knows nothing of states, on as many connections.
struct Bare {
    lanes: Vec<tokio::sync::Mutex<(Client, Statement)>>,
    next: AtomicU64,
}

impl Bare {
    async fn connect(url: &str, connections: usize) -> Outcome<Arc<Self>> {
        let mut lanes = Vec::new();
        for _ in 0..connections {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            tokio::spawn(connection);
            client
                .batch_execute(
                    "CREATE TABLE IF NOT EXISTS floor_bare (key bytea PRIMARY KEY, fingerprint bytea, value bytea, at timestamptz)",
                )
                .await?;
            let statement = client
                .prepare(
                    "INSERT INTO floor_bare VALUES ($1, $2, $3, now())
                     ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value RETURNING at",
                )
                .await?;
            lanes.push(tokio::sync::Mutex::new((client, statement)));
        }
        Ok(Arc::new(Self {
            lanes,
            next: AtomicU64::new(0),
        }))
    }

    async fn upsert(&self, key: &[u8]) -> Outcome<()> {
        let lane = self.next.fetch_add(1, Ordering::Relaxed) as usize % self.lanes.len();
        let lane = self.lanes[lane].lock().await;
        let (client, statement) = &*lane;
        client
            .query_one(statement, &[&key, &&[1_u8; 32][..], &&VALUE[..]])
            .await?;
        Ok(())
    }
}
