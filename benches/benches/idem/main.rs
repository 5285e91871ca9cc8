//! Durable begins beside other durable stores on the same disk, in one run.
//!
//! `cargo xtask bench idem [-- --quick] [--full] [--only=CONTENDER] [CASE...]` with the cases `1`,
//! `64`, `async64`, `async1024`, `own`, `compaction`. A begin is an insert-if-absent of a new key: 16 bytes of key
//! and 64 of value, answered when it is on the disk. The files lie in `MAINSTAY_BENCH_DIR`, else in
//! the temporary directory: it must be on a real disk. Redis takes part where a `redis-server` is
//! installed, RocksDB where the system has its library (Debian 12: `librocksdb7.8`).
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod embedded;
mod floor;
mod own;
mod peers;
mod redis;
mod rocksdb;
mod turns;

use std::path::PathBuf;
use std::time::Duration;

use turns::{Contender, Load, Plan, table};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let only = arguments
        .iter()
        .find_map(|argument| argument.strip_prefix("--only="))
        .unwrap_or("");
    let picked: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| picked.is_empty() || picked.iter().any(|&pick| pick == name);
    let quick = has("--quick");
    let plan = Plan {
        rounds: if quick { 3 } else { 7 },
        slice: Duration::from_millis(if quick { 300 } else { 600 }),
    };
    let parent = std::env::var_os("MAINSTAY_BENCH_DIR").map(PathBuf::from);
    let dir = tempfile::tempdir_in(parent.unwrap_or_else(std::env::temp_dir))?;
    let cases = [
        ("1", Load::Threads(1)),
        ("64", Load::Threads(64)),
        ("async64", Load::Pending(64)),
        ("async1024", Load::Pending(1024)),
    ];
    for (name, load) in cases {
        if wanted(name) {
            let dir = dir.path().join(name);
            std::fs::create_dir(&dir)?;
            let mut contenders = contenders(&dir, load, only)?;
            table(plan, load, &dir, &mut contenders);
        }
    }
    if wanted("own") {
        own::table(&dir.path().join("own"), quick, has("--full"))?;
    }
    if wanted("compaction") {
        own::compaction(&dir.path().join("compaction"), quick)?;
    }
    Ok(())
}

/// Who takes part under a load. One that knows no form of it stays away.
fn contenders(
    dir: &std::path::Path,
    load: Load,
    only: &str,
) -> Result<Vec<Box<dyn Contender>>, Error> {
    let mut all: Vec<Box<dyn Contender>> = Vec::new();
    let wanted = |name: &str| only.is_empty() || name.contains(only);
    macro_rules! contender {
        ($name:expr, $make:expr) => {
            if wanted($name) {
                all.push(Box::new($make));
            }
        };
    }
    if load == Load::Threads(1) {
        contender!(floor::DIRECT, floor::Floor::direct(&dir.join("direct"))?);
        contender!(floor::SYNCED, floor::Floor::synced(&dir.join("synced"))?);
    }
    contender!(embedded::NAME, embedded::Embedded::open(&dir.join("idem"))?);
    contender!(peers::BATCHED, peers::Batched::open(&dir.join("batched"))?);
    if matches!(load, Load::Threads(_)) {
        contender!(peers::FJALL, peers::Fjall::open(&dir.join("fjall"))?);
        contender!(peers::REDB, peers::Redb::open(&dir.join("redb"))?);
        contender!(peers::SQLITE, peers::Sqlite::open(&dir.join("sqlite"))?);
    }
    if matches!(load, Load::Threads(_)) && wanted(rocksdb::NAME) {
        match rocksdb::RocksDb::open(&dir.join("rocksdb")) {
            Ok(database) => all.push(Box::new(database)),
            Err(error) => println!("(no rocksdb: {error})\n"),
        }
    }
    if wanted(redis::NAME) {
        match redis::Redis::start(&dir.join("redis")) {
            Ok(server) => all.push(Box::new(server)),
            Err(error) => println!("(no redis: {error})\n"),
        }
    }
    Ok(all)
}
