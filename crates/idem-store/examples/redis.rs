//! Durable begins on a Redis server beside the least that could do: a bare `SET NX PX` script on
//! one multiplexed connection. Rounds of both in turn, so that what else the machine does hits both.
//!
//! `cargo run --release -p idem-store --features redis --example redis -- [SECONDS] [ROUNDS]`
//!
//! Starts a redis-server of its own (appendfsync always) in a temporary directory.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example prints, and ends when something is wrong"
)]

use std::cell::Cell;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use idem_store::{Begin, Begun, Fingerprint, Options, Store};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

const LEASE_MS: u64 = 60_000;
const BARE: &str = "return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    let mut args = std::env::args()
        .skip(1)
        .map(|arg| arg.parse::<f64>().unwrap());
    let seconds = Duration::from_secs_f64(args.next().unwrap_or(1.0));
    let rounds = args.next().unwrap_or(5.0) as usize;
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "socket", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always"])
        .current_dir(dir.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Server(child);
    let url = format!("redis+unix://{}/socket", dir.path().display());
    let store = loop {
        match Store::connect(&url, Options::new()) {
            Ok(store) => break store,
            Err(error) if error.is_unavailable() => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => panic!("{error}"),
        }
    };
    println!("callers  bare/s   begin/s (ratio)   declared begin/s (ratio)   begin+complete/s");
    for callers in [1, 64, 1_024] {
        let mut best = [0.0_f64; 4];
        for round in 0..rounds {
            let id = (callers * 1_000 + round) as u64;
            let rates = [
                bare(&url, callers, seconds, id),
                begins(&store, callers, seconds, id, false),
                begins(&store, callers, seconds, id, true),
                cycles(&store, callers, seconds, id),
            ];
            for (best, rate) in best.iter_mut().zip(rates) {
                *best = best.max(rate);
            }
        }
        let [bare, begin, declared, cycle] = best;
        println!(
            "{callers:>7} {bare:>8.0} {begin:>9.0} ({:.2}) {declared:>15.0} ({:.2}) {cycle:>18.0}",
            begin / bare,
            declared / bare
        );
    }
}

/// 16 bytes that no other call has.
fn key(kind: u8, round: u64, number: u64) -> [u8; 16] {
    let mut key = [kind; 16];
    key[1..8].copy_from_slice(&round.to_be_bytes()[1..]);
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Runs `callers` tasks on one thread until time is up; calls per second.
fn rate<F, C>(callers: usize, time: Duration, call: F) -> f64
where
    F: Fn(u64) -> C + Clone + 'static,
    C: Future<Output = ()>,
{
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (count, next) = (Rc::new(Cell::new(0u64)), Rc::new(Cell::new(0u64)));
    let started = Instant::now();
    let local = LocalSet::new();
    let mut tasks = Vec::new();
    for _ in 0..callers {
        let (count, next, call) = (Rc::clone(&count), Rc::clone(&next), call.clone());
        tasks.push(local.spawn_local(async move {
            while started.elapsed() < time {
                let number = next.replace(next.get() + 1);
                call(number).await;
                count.set(count.get() + 1);
            }
        }));
    }
    local.block_on(&runtime, async {
        for task in tasks {
            task.await.unwrap();
        }
    });
    count.get() as f64 / started.elapsed().as_secs_f64()
}

fn bare(url: &str, callers: usize, time: Duration, round: u64) -> f64 {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let client = redis::Client::open(url).unwrap();
    let connection = runtime
        .block_on(client.get_multiplexed_async_connection())
        .unwrap();
    let hash = redis::Script::new(BARE);
    let mut first = connection.clone();
    runtime.block_on(async {
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(BARE);
        load.query_async::<String>(&mut first).await.unwrap();
    });
    let hash = hash.get_hash().to_owned();
    rate(callers, time, move |number| {
        let mut connection = connection.clone();
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(&hash)
            .arg(1)
            .arg(&key(1, round, number)[..])
            .arg(&[7; 64][..])
            .arg(LEASE_MS);
        async move {
            let answer: String = cmd.query_async(&mut connection).await.unwrap();
            assert_eq!(answer, "OK");
        }
    })
}

fn begins(store: &Store, callers: usize, time: Duration, round: u64, declared: bool) -> f64 {
    let store = store.clone();
    rate(callers, time, move |number| {
        let key = key(2 + u8::from(declared), round, number);
        let begin = Begin::new(&key, Fingerprint([1; 32]), LEASE_MS, 0);
        let asked = if declared {
            store.begin(&begin.declare(&[7; 64]))
        } else {
            store.begin(&begin)
        };
        async move {
            let Begun::Fresh(permit) = asked.await.unwrap() else {
                panic!("a new key");
            };
            // To give it back would be another operation.
            std::mem::forget(permit);
        }
    })
}

fn cycles(store: &Store, callers: usize, time: Duration, round: u64) -> f64 {
    let store = store.clone();
    rate(callers, time, move |number| {
        let store = store.clone();
        async move {
            let key = key(4, round, number);
            let begin = Begin::new(&key, Fingerprint([1; 32]), LEASE_MS, 0).declare(&[7; 64]);
            let permit = store.begin(&begin).await.unwrap().into_fresh().unwrap();
            store.complete(permit, &[7; 64], LEASE_MS, 0).await.unwrap();
        }
    })
}
