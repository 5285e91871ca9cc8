//! What the gateway counts while it runs.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::command::Answer;
use super::histogram::Histogram;
use super::outcome::Outcome;
use crate::proto::ErrorCode;

/// Counters that shards and HTTP tasks share.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) beats: AtomicU64,
    /// Bytes that the beats took on the wire, in datagrams and outside.
    pub(crate) beat_bytes: AtomicU64,
    /// Round trips as the devices report them, in milliseconds.
    pub(crate) beat_rtt_ms: Histogram,
    /// From a request's arrival to its answer, in microseconds.
    pub(crate) command_us: Histogram,
    pub(crate) devices_gone: AtomicU64,
    /// Devices that are suspect now.
    devices_suspect: AtomicI64,
    pub(crate) mailbox_full: AtomicU64,
    rejected: [AtomicU64; ErrorCode::ALL.len()],
    commands: [AtomicU64; CommandEnd::ALL.len()],
}

/// How commands end, as metrics name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CommandEnd {
    Done,
    Replayed,
    InDoubt,
    InProgress,
    OtherPayload,
    QueueFull,
    Draining,
    TimedOutUnsent,
    TimedOutSent,
    NotHere,
    BreakerOpen,
    StoreBusy,
    StoreFull,
    StoreFailed,
}

impl CommandEnd {
    pub(crate) const ALL: [(Self, &'static str); 14] = [
        (Self::Done, "done"),
        (Self::Replayed, "replayed"),
        (Self::InDoubt, "in-doubt"),
        (Self::InProgress, "in-progress"),
        (Self::OtherPayload, "other-payload"),
        (Self::QueueFull, "queue-full"),
        (Self::Draining, "draining"),
        (Self::TimedOutUnsent, "timed-out-unsent"),
        (Self::TimedOutSent, "timed-out-sent"),
        (Self::NotHere, "not-here"),
        (Self::BreakerOpen, "breaker-open"),
        (Self::StoreBusy, "store-busy"),
        (Self::StoreFull, "store-full"),
        (Self::StoreFailed, "store-failed"),
    ];

    pub(crate) fn of(answer: &Answer) -> Self {
        match answer {
            Answer::Done(Outcome::DeviceForgot | Outcome::Interrupted) => Self::InDoubt,
            Answer::Done(_) => Self::Done,
            Answer::Replayed(_) => Self::Replayed,
            Answer::InProgress => Self::InProgress,
            Answer::OtherPayload => Self::OtherPayload,
            Answer::QueueFull => Self::QueueFull,
            Answer::Draining => Self::Draining,
            Answer::TimedOutUnsent => Self::TimedOutUnsent,
            Answer::TimedOutSent => Self::TimedOutSent,
            Answer::Open => Self::InDoubt,
            Answer::NotHere => Self::NotHere,
            Answer::BreakerOpen { .. } => Self::BreakerOpen,
            Answer::StoreBusy => Self::StoreBusy,
            Answer::StoreFull | Answer::EndNotStored => Self::StoreFull,
            Answer::StoreFailed(_) => Self::StoreFailed,
        }
    }
}

impl Counters {
    pub(crate) fn beat(&self, rtt_ms: Option<u16>) {
        self.beats.fetch_add(1, Relaxed);
        if let Some(rtt_ms) = rtt_ms {
            self.beat_rtt_ms.record(rtt_ms.into());
        }
    }

    pub(crate) fn beat_bytes(&self, bytes: usize) {
        self.beat_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// A shard counts a suspect after it found one, and another thread may have heard its beat in between: one too few
    /// for that moment.
    pub(crate) fn devices_suspect(&self) -> u64 {
        let count = self.devices_suspect.load(Relaxed);
        u64::try_from(count).unwrap_or(0)
    }

    pub(crate) fn suspected(&self) {
        self.devices_suspect.fetch_add(1, Relaxed);
    }

    /// A suspect beat, or its session ended.
    pub(crate) fn trusted_again(&self) {
        self.devices_suspect.fetch_sub(1, Relaxed);
    }

    pub(crate) fn gone(&self) {
        self.devices_gone.fetch_add(1, Relaxed);
    }

    pub(crate) fn mailbox_full(&self) {
        self.mailbox_full.fetch_add(1, Relaxed);
    }

    pub(crate) fn rejected(&self, code: ErrorCode) {
        let place = ErrorCode::ALL.iter().position(|known| *known == code);
        self.rejected[place.expect("ALL names every code")].fetch_add(1, Relaxed);
    }

    pub(crate) fn command(&self, answer: &Answer) {
        self.commands[CommandEnd::of(answer) as usize].fetch_add(1, Relaxed);
    }

    /// Every reason for which connections were rejected, and how often.
    pub(crate) fn rejections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.rejected.iter().map(|count| count.load(Relaxed));
        ErrorCode::ALL.iter().map(|code| code.name()).zip(counts)
    }

    /// Every way a command can end, and how often it did.
    pub(crate) fn command_ends(&self) -> impl Iterator<Item = (CommandEnd, &'static str, u64)> {
        CommandEnd::ALL
            .iter()
            .map(|&(end, name)| (end, name, self.commands[end as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspect_that_beats_before_it_is_counted_is_not_less_than_none() {
        let counters = Counters::default();
        counters.trusted_again();
        assert_eq!(counters.devices_suspect(), 0);
        counters.suspected();
        assert_eq!(counters.devices_suspect(), 0);
        counters.suspected();
        assert_eq!(counters.devices_suspect(), 1);
    }
}
