use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use ebpf_ring::{Counters, MapCounters};
use libbpf_rs::MapHandle;

use super::ended::Ended;
use super::off_cpu::OffCpu;
use super::row::TaskRow;
use super::stack_key::StackKey;
use super::task::{Task, join};
use super::total::TotalRow;
use super::waker_key::WakerKey;
use crate::attach::{Attach, Attachment, Forms, Programs, Variant, handle, load};
use crate::bpf::runq::{OpenRunqSkel, RunqSkelBuilder};
use crate::entries::entries;
use crate::error::ScopeError;
use crate::events::{Events, total};
use crate::overhead::{Meter, Overhead, SAMPLE};
use crate::process;
use crate::symbols::Stacks;
use crate::waker::preempt_count_offset;

/// Those that end a wait first, so that none begins unseen; those that forget or rename a task first of all.
const FORMS: Forms = Forms {
    tool: "runq",
    variants: &[
        Variant {
            attach: Attach::BtfTracepoint,
            programs: &[
                "btf_process_free",
                "btf_rename",
                "btf_exec",
                "btf_switch",
                "btf_migrate",
                "btf_waking",
                "btf_wakeup",
                "btf_wakeup_new",
            ],
        },
        Variant {
            attach: Attach::RawTracepoint,
            programs: &[
                "raw_process_free",
                "raw_rename",
                "raw_exec",
                "raw_switch",
                "raw_migrate",
                "raw_waking",
                "raw_wakeup",
                "raw_wakeup_new",
            ],
        },
    ],
    needs: &[],
};

/// How often rows of tasks that have ended are taken out of the kernel, to make room.
const HARVEST: Duration = Duration::from_millis(500);
const OFF_CPU_MAX: u32 = 16384;
/// A place for each hash of a stack, whose second stack is lost: the emptier the map, the fewer. 34 MB.
const STACKS_MAX: u32 = 32768;
/// A program that was running on another CPU when its link went away is waited for so long.
const STRAGGLERS_MS_MAX: u32 = 100;

/// The shards of the counters in `bpf/runq.bpf.c`.
const WAITS: u32 = 0;
const OFF_CPU: u32 = 1;
const WAKERS: u32 = 2;
const STACKS: u32 = 3;

/// No Linux has more tasks than this at once (`PID_MAX_LIMIT`).
pub const TASKS_MAX: u32 = 1 << 22;

/// How to open [`RunQ`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Only the threads of this process, as the initial pid namespace numbers it; `None` for all.
    pub pid: Option<u32>,
    /// Also where tasks go off the CPU, for [`RunQ::off_cpu`]. Costs several times as much.
    pub stacks: bool,
    /// Tasks that are kept apart in the kernel at once: a row takes some 700 bytes.
    pub tasks_max: u32,
    /// Where to attach; `None` for the best that this machine has.
    pub attach: Option<Attach>,
}

impl Default for Options {
    /// Every process, no stacks, 16,384 tasks, the best attachment.
    fn default() -> Self {
        Self {
            pid: None,
            stacks: false,
            tasks_max: 16_384,
            attach: None,
        }
    }
}

impl Options {
    /// Only the process `pid`.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// With stacks.
    #[must_use]
    pub fn stacks(mut self) -> Self {
        self.stacks = true;
        self
    }

    /// Room for `tasks_max` tasks: from 1 to [`TASKS_MAX`].
    #[must_use]
    pub fn tasks_max(mut self, tasks_max: u32) -> Self {
        self.tasks_max = tasks_max.clamp(1, TASKS_MAX);
        self
    }

    /// Attach there and nowhere else.
    #[must_use]
    pub fn attach(mut self, attach: Attach) -> Self {
        self.attach = Some(attach);
        self
    }
}

/// The loaded and attached tool. Dropping it detaches.
#[derive(Debug)]
pub struct RunQ {
    programs: Programs,
    meter: Meter,
    maps: Maps,
    ended: Ended,
    harvested: Instant,
}

#[derive(Debug)]
struct Maps {
    tasks: MapHandle,
    wakers: MapHandle,
    left: MapHandle,
    off_cpu: MapHandle,
    stacks: Stacks,
    counts: [MapCounters; 3],
}

impl RunQ {
    /// Loads and attaches the programs. From here on every wait that ends is counted.
    ///
    /// # Errors
    ///
    /// [`is_no_process`](ScopeError::is_no_process) for a pid that is not there, and for any outside of
    /// the initial pid namespace; [`is_permission_denied`](ScopeError::is_permission_denied) without root or `CAP_BPF` and
    /// `CAP_PERFMON`; [`missing`](ScopeError::missing) when the kernel has not what the tool needs;
    /// otherwise what libbpf says.
    pub fn open(options: &Options) -> Result<Self, ScopeError> {
        process::check(options.pid)?;
        let preempt_count_offset = preempt_count_offset();
        FORMS.open(options.attach, |plan| {
            let mut storage = MaybeUninit::uninit();
            let builder = RunqSkelBuilder::default();
            let skel = load(builder, &mut storage, plan.variant, |open| {
                configure(open, options, preempt_count_offset)
            })?;
            let counts = |shard| -> Result<MapCounters, ScopeError> {
                Ok(MapCounters::new(handle(&skel.maps.event_counts)?, shard)?)
            };
            let maps = Maps {
                tasks: handle(&skel.maps.tasks)?,
                wakers: handle(&skel.maps.wakers)?,
                left: handle(&skel.maps.left)?,
                off_cpu: handle(&skel.maps.off_cpu)?,
                stacks: Stacks::new(&skel.maps.stacks, counts(STACKS)?)?,
                counts: [counts(WAITS)?, counts(OFF_CPU)?, counts(WAKERS)?],
            };
            let programs = Programs::attach(&skel, plan)?;
            Ok(Self {
                meter: Meter::start(programs.ids()),
                programs,
                maps,
                ended: Ended::new(options.tasks_max as usize),
                harvested: Instant::now(),
            })
        })
    }

    /// What kind of program runs: [`BtfTracepoint`](Attach::BtfTracepoint), else
    /// [`RawTracepoint`](Attach::RawTracepoint).
    #[must_use]
    pub fn attached(&self) -> &Attachment {
        self.programs.attachment()
    }

    /// Sleeps for `duration` while the kernel sums up; makes room there now and then.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn collect(&mut self, duration: Duration) -> Result<(), ScopeError> {
        let start = Instant::now();
        loop {
            self.meter.tick();
            if self.harvested.elapsed() >= HARVEST {
                self.harvested = Instant::now();
                self.harvest()?;
            }
            let left = duration.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SAMPLE));
        }
    }

    /// Every task that has waited, longest total wait first.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn tasks(&self) -> Result<Vec<Task>, ScopeError> {
        let mut tasks = self.ended.tasks().clone();
        for row in self.maps.rows()? {
            if row.waits() == 0 {
                continue;
            }
            tasks.insert(row.id(), Task::new(&row));
        }
        Ok(join(tasks, &self.maps.wakers()?))
    }

    /// Where processes went off the CPU, for how long, and why they came back; longest first. Empty
    /// without [`Options::stacks`].
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn off_cpu(&self) -> Result<Vec<OffCpu>, ScopeError> {
        let rows = entries(&self.maps.off_cpu)?;
        let rows = rows.iter().map(|(key, total)| {
            let key = StackKey::from_bytes(key)?;
            let total = TotalRow::from_bytes(total)?;
            Ok(OffCpu::new(&key, &total, &self.maps.stacks))
        });
        let mut found = rows.collect::<Result<Vec<_>, ScopeError>>()?;
        found.sort_by_key(|off| std::cmp::Reverse(off.total_ns));
        Ok(found)
    }

    /// Waits so far. Exact once the tool has [finished](Self::finish).
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn events(&self) -> Result<Events, ScopeError> {
        let rows = self.maps.rows()?.iter().map(TaskRow::waits).sum::<u64>();
        Ok(Events {
            delivered: rows + self.ended.waits(),
            discarded: 0,
            pending: 0,
            counters: self.maps.counters(WAITS)?,
        })
    }

    /// Times off the CPU, and totals of wakers, for which the program had no room; the waits
    /// themselves are counted in [`events`](Self::events).
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn without_room(&self) -> Result<(u64, u64), ScopeError> {
        let off_cpu = self.maps.counters(OFF_CPU)?.dropped();
        Ok((off_cpu, self.maps.counters(WAKERS)?.dropped()))
    }

    /// How many times a stack was lost because another one was in its place.
    ///
    /// # Errors
    ///
    /// When the counters cannot be read.
    pub fn stacks_lost(&self) -> Result<u64, ScopeError> {
        self.maps.stacks.lost()
    }

    /// Waits of tasks that have ended, of more of them than are kept.
    #[must_use]
    pub fn ungrouped(&self) -> u64 {
        self.ended.ungrouped()
    }

    /// What watching has cost so far.
    #[must_use]
    pub fn overhead(&self) -> Overhead {
        self.meter.read()
    }

    /// Detaches and returns the exact account. Nothing changes after it.
    ///
    /// # Errors
    ///
    /// When a map cannot be read.
    pub fn finish(&mut self) -> Result<Events, ScopeError> {
        self.meter.stop();
        self.programs.detach();
        let mut tries = 0;
        loop {
            let events = self.events()?;
            tries += 1;
            if events.is_balanced() || tries > STRAGGLERS_MS_MAX {
                self.harvest()?;
                return Ok(events);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn harvest(&mut self) -> Result<(), ScopeError> {
        let Maps {
            tasks,
            wakers,
            left,
            ..
        } = &self.maps;
        self.ended.harvest(tasks, wakers, left)
    }
}

impl Maps {
    fn rows(&self) -> Result<Vec<TaskRow>, ScopeError> {
        let rows = entries(&self.tasks)?;
        rows.iter()
            .map(|(_, row)| TaskRow::from_bytes(row))
            .collect()
    }

    fn wakers(&self) -> Result<Vec<(WakerKey, TotalRow)>, ScopeError> {
        let rows = entries(&self.wakers)?;
        rows.iter()
            .map(|(key, total)| Ok((WakerKey::from_bytes(key)?, TotalRow::from_bytes(total)?)))
            .collect()
    }

    fn counters(&self, shard: u32) -> Result<Counters, ScopeError> {
        total(&self.counts[shard as usize])
    }
}

fn configure(
    open: &mut OpenRunqSkel<'_>,
    options: &Options,
    preempt_count_offset: i64,
) -> libbpf_rs::Result<()> {
    let rodata = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the program has knobs");
    rodata.target_pid = options.pid.unwrap_or(0);
    rodata.preempt_count_offset = preempt_count_offset;
    if options.stacks {
        rodata.with_stacks = true;
        open.maps.off_cpu.set_max_entries(OFF_CPU_MAX)?;
        open.maps.stacks.set_max_entries(STACKS_MAX)?;
    }
    open.maps.wakers.set_max_entries(options.tasks_max)?;
    open.maps.tasks.set_max_entries(options.tasks_max)
}
