use std::collections::HashMap;

use super::row::{TaskId, TaskRow};
use super::total::TotalRow;
use super::waker_key::WakerKey;
use crate::bytes::text;
use crate::log2::Log2Histogram;
use crate::waker::WakerClass;

/// Why a task waited for a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitKind {
    /// It was woken, or new.
    Woken,
    /// The same, and it was moved to another CPU than it ran on before.
    WokenMigrated,
    /// Another task, or the end of its time slice, took the CPU from it.
    Preempted,
    /// The same, and it was moved to another CPU while it waited.
    PreemptedMigrated,
}

impl WaitKind {
    /// Every kind, in the order of `enum runq_kind`.
    pub const ALL: [Self; 4] = [
        Self::Woken,
        Self::WokenMigrated,
        Self::Preempted,
        Self::PreemptedMigrated,
    ];

    /// A word for tables and JSON keys.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Woken => "woken",
            Self::WokenMigrated => "woken_migrated",
            Self::Preempted => "preempted",
            Self::PreemptedMigrated => "preempted_migrated",
        }
    }
}

/// Waits of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waits {
    /// All together, nanoseconds.
    pub total_ns: u64,
    /// How many of which length.
    pub lengths: Log2Histogram,
}

/// Who woke a task, and how long it waited for a CPU then.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waker {
    /// In whose context.
    pub class: WakerClass,
    /// The thread, if it was a task; else 0.
    pub tid: u32,
    /// Its name; empty if it was not a task.
    pub comm: String,
    /// Wake-ups.
    pub count: u64,
    /// The waits after them together, nanoseconds.
    pub total_ns: u64,
    /// The longest of them.
    pub longest_ns: u64,
}

/// One thread and its waits for a CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Task {
    /// Its process, as the initial pid namespace numbers it.
    pub pid: u32,
    /// The thread, likewise. After its end the kernel may give the number to another one.
    pub tid: u32,
    /// When it began, by `CLOCK_MONOTONIC`, nanoseconds: with `tid` it is never given twice.
    pub start_ns: u64,
    /// Its name; the last one, if it has changed.
    pub comm: String,
    /// It has ended.
    pub has_ended: bool,
    /// How often it was moved to another CPU, also while it ran.
    pub migrations: u64,
    /// Who woke it, most often first. At most what the program had room for.
    pub wakers: Vec<Waker>,
    waits: [Waits; 4],
}

impl Task {
    pub(super) fn new(row: &TaskRow) -> Self {
        let waits = std::array::from_fn(|kind| Waits {
            total_ns: row.wait_ns[kind],
            lengths: Log2Histogram::new(&row.slots[kind], row.longest_ns[kind]),
        });
        let mut task = Self {
            pid: row.tgid,
            tid: row.tid,
            start_ns: row.start_ns,
            comm: text(&row.comm),
            has_ended: row.dead != 0,
            migrations: row.migrations,
            wakers: Vec::new(),
            waits,
        };
        if row.waker_count > 0 {
            task.add_waker(Waker {
                class: WakerClass::from_number(row.waker_class),
                tid: row.waker_tid,
                comm: text(&row.waker_comm),
                count: row.waker_count,
                total_ns: row.waker_ns,
                longest_ns: row.waker_longest_ns,
            });
        }
        task
    }

    /// Its waits of one kind.
    #[must_use]
    pub fn waits(&self, kind: WaitKind) -> &Waits {
        &self.waits[kind as usize]
    }

    /// Its waits of all kinds together.
    #[must_use]
    pub fn all_waits(&self) -> Log2Histogram {
        let mut all = Log2Histogram::default();
        self.waits.iter().for_each(|waits| all.add(&waits.lengths));
        all
    }

    /// All its waits together, nanoseconds.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.waits.iter().map(|waits| waits.total_ns).sum()
    }

    /// The same waker may have been counted in two places.
    pub(super) fn add_waker(&mut self, waker: Waker) {
        let same = |known: &&mut Waker| {
            (known.class, known.tid, &known.comm) == (waker.class, waker.tid, &waker.comm)
        };
        match self.wakers.iter_mut().find(same) {
            Some(known) => {
                known.count += waker.count;
                known.total_ns += waker.total_ns;
                known.longest_ns = known.longest_ns.max(waker.longest_ns);
            }
            None => self.wakers.push(waker),
        }
    }
}

impl Waker {
    pub(super) fn new(key: &WakerKey, total: &TotalRow) -> Self {
        Self {
            class: WakerClass::from_number(key.waker_class),
            tid: key.waker_tid,
            comm: text(&key.waker_comm),
            count: total.count,
            total_ns: total.time_ns,
            longest_ns: total.longest_ns,
        }
    }
}

/// Gives every task its wakers, and sorts: longest total wait first, most frequent waker first.
pub(super) fn join(mut tasks: HashMap<TaskId, Task>, wakers: &[(WakerKey, TotalRow)]) -> Vec<Task> {
    for (key, total) in wakers {
        if let Some(task) = tasks.get_mut(&key.task()) {
            task.add_waker(Waker::new(key, total));
        }
    }
    let mut tasks: Vec<Task> = tasks.into_values().collect();
    for task in &mut tasks {
        task.wakers
            .sort_by_key(|waker| (std::cmp::Reverse(waker.count), waker.tid));
    }
    tasks.sort_by_key(|task| (std::cmp::Reverse(task.total_ns()), task.tid));
    tasks
}
