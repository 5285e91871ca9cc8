//! Standard output that nobody has to read: jobs go on when a pipe is full.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

/// So many lines wait for whoever reads; then lines are dropped.
const LINES_MAX: usize = 4096;

enum Message {
    Line(String),
    /// All before it is written.
    Flush(SyncSender<()>),
}

/// A thread that writes lines.
pub(super) struct Out {
    sender: SyncSender<Message>,
    dropped: AtomicU64,
}

impl Out {
    pub(super) fn start() -> std::io::Result<std::sync::Arc<Self>> {
        let (sender, messages) = mpsc::sync_channel(LINES_MAX);
        let dropped = AtomicU64::new(0);
        let out = std::sync::Arc::new(Self { sender, dropped });
        let weak = std::sync::Arc::downgrade(&out);
        let dropped = move || weak.upgrade().map_or(0, |out| out.dropped());
        thread::Builder::new()
            .name("mainstay-output".into())
            .spawn(move || write(&messages, dropped))?;
        Ok(out)
    }

    /// Does not wait: with as many lines before it, it is dropped and counted.
    pub(super) fn line(&self, line: String) {
        if self.sender.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until what was said is written, at most for `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let (sender, flushed) = mpsc::sync_channel(1);
        if self.sender.try_send(Message::Flush(sender)).is_ok() {
            // Whoever does not read at the end does not want to.
            flushed.recv_timeout(patience).ok();
        }
    }
}

fn write(messages: &Receiver<Message>, dropped: impl Fn() -> u64) {
    let mut told = 0;
    while let Ok(message) = messages.recv() {
        match message {
            // A reader that is gone is not missed.
            Message::Line(line) => drop(writeln!(std::io::stdout(), "{line}")),
            Message::Flush(done) => drop(done.send(())),
        }
        let dropped = dropped();
        if dropped > told {
            let lines = dropped - told;
            tracing::warn!(
                lines,
                "standard output was not read in time: lines are lost"
            );
            told = dropped;
        }
    }
}
