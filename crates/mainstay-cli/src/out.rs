//! Output that nobody has to read: work goes on when a pipe is full.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

/// So many lines wait for whoever reads; then lines are dropped.
const LINES_MAX: usize = 4096;

enum Message {
    Text(Vec<u8>),
    /// All before it is written.
    Flush(SyncSender<()>),
}

/// A thread that writes lines.
pub(crate) struct Out {
    sender: SyncSender<Message>,
    dropped: AtomicU64,
}

impl Out {
    /// Standard output. Lines that are lost are told in the log.
    pub(crate) fn stdout() -> io::Result<Arc<Self>> {
        Self::start("mainstay-output", io::stdout, |lines| {
            tracing::warn!(
                lines,
                "standard output was not read in time: lines are lost"
            );
        })
    }

    /// Standard error, for the log. Lines that are lost are told there.
    pub(crate) fn stderr() -> io::Result<Arc<Self>> {
        Self::start("mainstay-log", io::stderr, |lines| {
            let text = "lines of the log are lost: standard error was not read in time";
            drop(writeln!(io::stderr(), "mainstay: {lines} {text}"));
        })
    }

    fn start<W: Write>(
        name: &str,
        sink: impl Fn() -> W + Send + 'static,
        lost: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Arc<Self>> {
        let (sender, messages) = mpsc::sync_channel(LINES_MAX);
        let dropped = AtomicU64::new(0);
        let out = Arc::new(Self { sender, dropped });
        let weak = Arc::downgrade(&out);
        let dropped = move || weak.upgrade().map_or(0, |out| out.dropped());
        thread::Builder::new()
            .name(name.into())
            .spawn(move || write(&messages, sink, dropped, lost))?;
        Ok(out)
    }

    /// Says a line. Does not wait: with as many lines before it, it is dropped and counted.
    pub(crate) fn line(&self, mut line: String) {
        line.push('\n');
        self.text(line.into_bytes());
    }

    fn text(&self, text: Vec<u8>) {
        if self.sender.try_send(Message::Text(text)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines that were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until what was said is written, at most for `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let (sender, flushed) = mpsc::sync_channel(1);
        if self.sender.try_send(Message::Flush(sender)).is_ok() {
            // Whoever does not read at the end does not want to.
            flushed.recv_timeout(patience).ok();
        }
    }
}

/// Each `write` is a line with its end, as tracing's subscriber makes them.
impl Write for &Out {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text(text.to_vec());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write<W: Write>(
    messages: &Receiver<Message>,
    sink: impl Fn() -> W,
    dropped: impl Fn() -> u64,
    lost: impl Fn(u64),
) {
    let mut told = 0;
    while let Ok(message) = messages.recv() {
        match message {
            // A reader that is gone is not missed.
            Message::Text(text) => drop(sink().write_all(&text)),
            Message::Flush(done) => drop(done.send(())),
        }
        let dropped = dropped();
        if dropped > told {
            lost(dropped - told);
            told = dropped;
        }
    }
}
