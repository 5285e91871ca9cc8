//! Worker ids that are leased in a store on a server.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use idem_store::token::{Generator, GeneratorOptions, StoreWorkers, TokenError};
use idem_store::{Options, Store};

use super::leases::{Printer, check_lease_that_passes_on, check_workers};
use crate::shared::Shared;

/// The store's URL.
const CHILD: &str = "MAINSTAY_TOKEN_URL";
/// Long for a child that lives, short for a test that waits for the end of dead ones.
const LEASE_MS: u64 = 1_000;

/// Runs every function here as a test of its own, each on a new `$rig`.
macro_rules! suite {
    ($rig:expr) => {
        #[test]
        fn worker_ids_of_a_store_keep_the_contract() {
            $crate::token::shared::worker_ids_of_a_store_keep_the_contract(&$rig);
        }

        #[test]
        fn worker_ids_of_killed_processes_pass_on_and_no_id_comes_twice() {
            $crate::token::shared::worker_ids_of_killed_processes_pass_on_and_no_id_comes_twice(
                &$rig,
            );
        }
    };
}
pub(crate) use suite;

pub(crate) fn worker_ids_of_a_store_keep_the_contract(rig: &dyn Shared) {
    check_workers(&StoreWorkers::new(rig.open(), "tokens").range(10..=11));
    check_lease_that_passes_on(rig.open());
}

/// Prints ids until it is killed; does nothing in a normal run.
#[test]
fn child() {
    let Ok(url) = std::env::var(CHILD) else {
        return;
    };
    let store = Store::connect(&url, Options::new()).unwrap();
    let workers = StoreWorkers::new(store, "tokens")
        .range(0..=1)
        .lease_ms(LEASE_MS);
    let mut out = std::io::stdout().lock();
    loop {
        let error = print_ids(&workers, &mut out);
        // Held by the dead until their leases end; lost to another when this process stood still.
        assert!(error.is_no_worker() || error.is_lease_lost(), "{error}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn print_ids(workers: &StoreWorkers, out: &mut impl Write) -> TokenError {
    let options = GeneratorOptions::new().reserve_ms(50);
    let mut generator = match Generator::open(workers, options) {
        Ok(generator) => generator,
        Err(error) => return error,
    };
    loop {
        let mut lines = String::new();
        for _ in 0..100 {
            match generator.next_id() {
                Ok(id) => lines += &format!("id {}\n", id.as_u64()),
                Err(error) => return error,
            }
        }
        out.write_all(lines.as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

/// Two processes share two worker ids; `kill -9` ends both, and two others get the same ones.
pub(crate) fn worker_ids_of_killed_processes_pass_on_and_no_id_comes_twice(rig: &dyn Shared) {
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let url = rig.url();
        let child = || Printer::start("token::shared::child", (CHILD, url.as_ref()));
        let mut printers = [child(), child()];
        for printer in &mut printers {
            printer.take(2_000, &mut seen);
        }
        for printer in printers {
            printer.kill(&mut seen);
        }
    }
}
