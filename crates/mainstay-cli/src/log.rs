//! Logs on stderr, by `RUST_LOG`; warnings without it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::out::Out;

/// When the command ends, whoever reads the log has so long for its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The log of a command that ends when its work is done: written where it is said.
pub(crate) fn init() {
    subscriber().with_writer(std::io::stderr).init();
}

/// The log of a service. It is written by a thread of its own, so that a reader that stops reading stops nothing else.
/// Dropping what this returns writes the last lines.
pub(crate) fn init_service() -> Lines {
    let Ok(out) = Out::stderr() else {
        init();
        return Lines(None);
    };
    subscriber().with_writer(Arc::clone(&out)).init();
    Lines(Some(out))
}

/// Lines that are still to be written.
pub(crate) struct Lines(Option<Arc<Out>>);

impl Drop for Lines {
    fn drop(&mut self) {
        if let Some(out) = &self.0 {
            out.flush(LAST_LINES);
        }
    }
}

fn subscriber() -> tracing_subscriber::fmt::SubscriberBuilder<
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    EnvFilter,
> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(has_colours())
}

/// Whether stderr is a terminal that may be coloured (<https://no-color.org>).
fn has_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::io::stderr().is_terminal()
}
