//! Durable begins on a Redis server beside a bare `SET NX PX` script on one multiplexed connection:
//!
//! `cargo run --release -p idem-store --features redis --example redis -- [ROUNDS] [MILLISECONDS] [CALLERS]`
//!
//! Starts a redis-server of its own (appendfsync always) in a temporary directory.

mod floor;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use floor::{LEASE_MS, Outcome, Rounds, VALUE};
use idem_store::{Options, Store};
use redis::aio::MultiplexedConnection;
use tokio::time::sleep;

const BARE: &str = "return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])";

#[tokio::main]
async fn main() -> Outcome<()> {
    let rounds = Rounds::from(std::env::args().skip(1))?;
    let dir = tempfile::tempdir()?;
    let _server = Server::start(dir.path())?;
    let url = format!("redis+unix://{}/socket", dir.path().display());
    let store = connect(&url).await?;
    // Connected already: the server is up.
    let by_thread = Store::connect(&url, Options::new())?;
    let bare = Bare::connect(&url).await?;
    floor::beside(rounds, [store, by_thread], move |key| bare.clone().set(key)).await
}

struct Server(Child);

impl Server {
    fn start(dir: &Path) -> Outcome<Self> {
        let mut command = Command::new("redis-server");
        command
            .args(["--port", "0", "--unixsocket", "socket", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            // What is measured is not how a log is rewritten.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .current_dir(dir)
            .stdout(Stdio::null());
        Ok(Self(command.spawn()?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself otherwise.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn connect(url: &str) -> Outcome<Store> {
    for _ in 0..1_000 {
        match Store::connect_async(url, Options::new()).await {
            Err(error) if error.is_unavailable() => sleep(Duration::from_millis(5)).await,
            connected => return Ok(connected?),
        }
    }
    Err("the server does not start".into())
}

/// A claim that knows nothing of states.
#[derive(Clone)]
struct Bare {
    connection: MultiplexedConnection,
    hash: String,
}

impl Bare {
    async fn connect(url: &str) -> Outcome<Self> {
        let client = redis::Client::open(url)?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut load = redis::cmd("SCRIPT");
        let hash = load.arg("LOAD").arg(BARE).query_async(&mut connection);
        let hash = hash.await?;
        Ok(Self { connection, hash })
    }

    async fn set(mut self, key: [u8; 16]) -> Outcome<()> {
        let mut set = redis::cmd("EVALSHA");
        set.arg(&self.hash)
            .arg(1)
            .arg([b"bare:", &key[..]].concat());
        set.arg(&VALUE[..]).arg(LEASE_MS);
        Ok(set.query_async::<()>(&mut self.connection).await?)
    }
}
