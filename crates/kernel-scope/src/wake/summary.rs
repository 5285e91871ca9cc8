use std::collections::HashMap;

use super::event::Event;
use crate::error::ScopeError;
use crate::histogram::Histogram;
use crate::waker::WakerClass;

/// A thread's calls that slept, of one kind.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Row {
    /// The process, as the initial pid namespace numbers it.
    pub pid: u32,
    /// The thread, likewise. After its end the kernel may give the number to another one.
    pub tid: u32,
    /// When the thread began, by `CLOCK_MONOTONIC`, nanoseconds: with `tid` it is never given twice.
    pub start_ns: u64,
    /// The thread's name.
    pub comm: String,
    /// The call's name.
    pub call: String,
    /// Calls that slept.
    pub calls: u64,
    /// Nanoseconds a call slept until it was woken, its sleeps together.
    pub asleep_ns: Histogram,
    /// Nanoseconds a call waited for a CPU after that.
    pub queued_ns: Histogram,
    /// All of `asleep_ns`.
    pub asleep_total_ns: u64,
    /// All of `queued_ns`.
    pub queued_total_ns: u64,
    /// Who woke it from the longest sleep of each call, first come first. Beyond 64, further ones
    /// are counted under their class alone.
    pub wakers: Vec<Waker>,
    /// The call that took longest.
    pub slowest: Event,
}

/// Who woke a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waker {
    /// In whose context.
    pub class: WakerClass,
    /// The process, if it was a task; else 0.
    pub pid: u32,
    /// The thread, likewise.
    pub tid: u32,
    /// Its name; empty if it was not a task.
    pub comm: String,
    /// Calls that it woke.
    pub count: u64,
}

/// Events summed up by thread and call.
///
/// Bounded: beyond [`groups_max`](Self::with_groups_max) pairs, further pairs are counted in
/// [`ungrouped`](Self::ungrouped) and nothing else about them is kept.
#[derive(Debug, Clone)]
pub struct Summary {
    groups_max: usize,
    /// By thread, as tid and beginning, and call.
    rows: HashMap<(u32, u64, u32), Row>,
    events: u64,
    ungrouped: u64,
}

const WAKERS_MAX: usize = 64;

impl Default for Summary {
    /// With room for 10,000 pairs.
    fn default() -> Self {
        Self::with_groups_max(10_000)
    }
}

impl Summary {
    /// A summary of at most `groups_max` pairs of thread and call.
    #[must_use]
    pub fn with_groups_max(groups_max: usize) -> Self {
        Self {
            groups_max,
            rows: HashMap::new(),
            events: 0,
            ungrouped: 0,
        }
    }

    /// Adds one record of the ring.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), ScopeError> {
        self.record(&Event::from_bytes(bytes)?);
        Ok(())
    }

    /// Adds one event. Amortised O(1), but for the search among the row's wakers.
    pub fn record(&mut self, event: &Event) {
        self.events += 1;
        let key = (event.tid, event.start_ns, event.call);
        if self.rows.len() >= self.groups_max && !self.rows.contains_key(&key) {
            self.ungrouped += 1;
            return;
        }
        let row = self.rows.entry(key).or_insert_with(|| Row::new(event));
        row.calls += 1;
        row.asleep_ns.record(event.asleep_ns);
        row.queued_ns.record(event.queued_ns);
        row.asleep_total_ns += event.asleep_ns;
        row.queued_total_ns += event.queued_ns;
        row.count_waker(event);
        let time = |event: &Event| event.left_ns.saturating_sub(event.entered_ns);
        if time(event) > time(&row.slowest) {
            row.slowest = *event;
        }
    }

    /// The rows, longest time asleep first.
    #[must_use]
    pub fn rows(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.asleep_total_ns), row.tid, &row.call));
        rows
    }

    /// Events recorded.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Events of pairs for which there was no room.
    #[must_use]
    pub fn ungrouped(&self) -> u64 {
        self.ungrouped
    }
}

impl Row {
    fn new(event: &Event) -> Self {
        Self {
            pid: event.pid,
            tid: event.tid,
            start_ns: event.start_ns,
            comm: event.comm(),
            call: event.call_name(),
            calls: 0,
            asleep_ns: Histogram::default(),
            queued_ns: Histogram::default(),
            asleep_total_ns: 0,
            queued_total_ns: 0,
            wakers: Vec::new(),
            slowest: *event,
        }
    }

    fn count_waker(&mut self, event: &Event) {
        let class = event.waker_class();
        let at = |wakers: &[Waker], tid| {
            let same = |waker: &Waker| (waker.class, waker.tid) == (class, tid);
            wakers.iter().position(same)
        };
        let waker = |pid, tid, comm| Waker {
            class,
            pid,
            tid,
            comm,
            count: 0,
        };
        let index = at(&self.wakers, event.waker_tid).unwrap_or_else(|| {
            if self.wakers.len() < WAKERS_MAX {
                self.push_waker(waker(event.waker_pid, event.waker_tid, event.waker_comm()))
            } else {
                let alone = at(&self.wakers, 0);
                alone.unwrap_or_else(|| self.push_waker(waker(0, 0, String::new())))
            }
        });
        self.wakers[index].count += 1;
    }

    fn push_waker(&mut self, waker: Waker) -> usize {
        self.wakers.push(waker);
        self.wakers.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{Event, Summary};

    /// The kernel gives the number of a thread that has ended to another one.
    #[test]
    fn a_number_that_is_given_again_is_another_thread() {
        let mut summary = Summary::default();
        for start_ns in [1u64, 2, 2] {
            let mut bytes = [0; Event::BYTES];
            let at = offset_of!(Event, start_ns);
            bytes[at..at + 8].copy_from_slice(&start_ns.to_ne_bytes());
            summary.record(&Event::from_bytes(&bytes).expect("a record's length"));
        }
        let rows = summary.rows();
        let mut rows: Vec<_> = rows.iter().map(|row| (row.start_ns, row.calls)).collect();
        rows.sort_unstable();
        assert_eq!(rows, [(1, 1), (2, 2)]);
    }
}
