//! The reactor beside its peers, each an echo server of one thread in a process of its own: raw edge-triggered epoll as
//! the floor, mio, tokio's current_thread runtime and smol; in the table of memory also libuv and Go, where their compilers are.
//!
//! `cargo xtask bench reactor [-- --quick] [echo|life|connects|memory|calls|flood|interest...]` prints the tables of docs/BENCHMARKS.md.
//! What is measured is the server's CPU time, as the kernel counts it for its threads: the wall time of a round trip over
//! the loopback is mostly the client's.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod client;
mod connects;
mod flood;
mod foreign;
mod interest;
mod process;
mod servers;
mod tables;

/// Measures in that many rounds and prints.
type Table = fn(usize) -> Result<()>;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [serve, name] if serve == "serve" => {
            process::yield_to_clients()?;
            return servers::run(name);
        }
        [serve, name] if serve == "serve-apart" => {
            process::stay_on(1);
            process::go_first();
            return servers::run(name);
        }
        [drown, addr] if drown == "drown" => return flood::drown(addr.parse()?),
        _ => {}
    }
    process::raise_descriptor_limit()?;
    process::stay_on(0);
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let picked: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let rounds = if quick { 3 } else { 7 };
    let tables: [(&str, Table); 7] = [
        ("echo", tables::echo),
        ("life", tables::life),
        ("connects", connects::table),
        ("memory", tables::memory),
        ("calls", tables::calls),
        ("flood", flood::table),
        ("interest", interest::table),
    ];
    for (name, table) in tables {
        if picked.is_empty() || picked.contains(&name) {
            table(rounds)?;
        }
    }
    Ok(())
}
