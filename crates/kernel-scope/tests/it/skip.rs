//! What could not be tested, told where it counts.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Prints why this test, or a part of it, cannot run, and leaves that where `cargo xtask test`
/// collects reasons to count them.
pub(crate) fn skip(reason: impl std::fmt::Display) {
    // Past the harness, which keeps what passed tests print to itself.
    let _ = writeln!(std::io::stdout(), "SKIP: {reason}");
    if let Some(log) = std::env::var_os("MAINSTAY_SKIP_LOG") {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let log = OpenOptions::new().append(true).create(true).open(log);
        writeln!(log.expect("it can be opened"), "{test}: {reason}").expect("it can be written");
    }
}
