//! Ten seconds of BPF map walks, one line for each process and map.
//!
//! `cargo run -p mainstay-kernel-scope --example walks`, as root.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::time::Duration;

use kernel_scope::ScopeError;
use kernel_scope::map_iter::{MapIter, Options, Summary};

fn main() -> Result<(), ScopeError> {
    let mut tool = MapIter::open(&Options::default())?;
    println!("attached to {}", tool.attached());
    let mut summary = Summary::default();
    tool.collect(Duration::from_secs(10), &mut summary)?;
    let events = tool.finish(&mut summary)?;
    for row in summary.rows() {
        let (walks, keys, restarts) = (row.walks, row.keys, row.restarts);
        print!(
            "{} ({}) and map {} {}: ",
            row.comm, row.pid, row.map_id, row.map_name
        );
        println!("{walks} walks, {keys} keys, {restarts} restarts");
    }
    println!(
        "{} delivered, {} dropped",
        events.delivered,
        events.dropped()
    );
    Ok(())
}
