use std::fmt;

use libbpf_rs::btf::types::{Composite, DataSec, MemberAttr};
use libbpf_rs::btf::{Btf, BtfType};

use crate::log::with_log;

/// In whose context a sleeping task was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum WakerClass {
    /// This kernel does not let a program tell a task from an interrupt in it, or nobody woke it: it
    /// was about to sleep, and went on for a signal.
    Unknown,
    /// A task, by a call of its own.
    Task,
    /// A soft interrupt: what the network and timers with low resolution run in. Also in
    /// ksoftirqd, and at the end of a task's own call, when it sends to itself.
    SoftIrq,
    /// An interrupt, of a device or of a timer with high resolution. The task that it came upon has
    /// no part in it.
    HardIrq,
    /// The idle task of a CPU itself.
    Idle,
}

impl WakerClass {
    /// How many there are: their numbers begin at 0.
    pub(crate) const COUNT: usize = 5;

    /// `enum waker_class` of `bpf/include/mainstay_sched.h`.
    pub(crate) fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Task,
            2 => Self::SoftIrq,
            3 => Self::HardIrq,
            4 => Self::Idle,
            _ => Self::Unknown,
        }
    }

    /// One word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Task => "task",
            Self::SoftIrq => "softirq",
            Self::HardIrq => "hardirq",
            Self::Idle => "idle",
        }
    }
}

impl fmt::Display for WakerClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The knob `preempt_count_offset` of the programs: the way from a CPU's runqueue to its preempt
/// count, both per-CPU variables. 0 where BTF does not know them, as on other machines than x86.
pub(crate) fn preempt_count_offset() -> i64 {
    // Where there is none, the tool says so better than libbpf.
    let (btf, _) = with_log(Btf::from_vmlinux);
    let found = btf.ok().and_then(|btf| {
        let (runqueues, count) = per_cpu_offsets(&btf)?;
        Some(count - runqueues)
    });
    found.unwrap_or(0)
}

fn per_cpu_offsets(btf: &Btf<'_>) -> Option<(i64, i64)> {
    let section: DataSec<'_> = btf.type_by_name(".data..percpu")?;
    let offset_of = |name: &str| {
        section.iter().find_map(|variable| {
            let found: BtfType<'_> = btf.type_by_id(variable.ty)?;
            (found.name()? == name).then_some(i64::from(variable.offset))
        })
    };
    // From 6.2 to 6.14 it was a member of a variable.
    let count = offset_of("__preempt_count").or_else(|| {
        let hot: Composite<'_> = btf.type_by_name("pcpu_hot")?;
        let member = member_offset(btf, &hot, "preempt_count")?;
        Some(offset_of("pcpu_hot")? + member)
    });
    Some((offset_of("runqueues")?, count?))
}

/// In bytes; looks into members without a name.
fn member_offset(btf: &Btf<'_>, composite: &Composite<'_>, name: &str) -> Option<i64> {
    composite.iter().find_map(|member| {
        let MemberAttr::Normal { offset } = member.attr else {
            return None;
        };
        let bytes = i64::from(offset) / 8;
        match member.name {
            Some(own) if own == name => Some(bytes),
            Some(own) if !own.is_empty() => None,
            _ => {
                let inner: Composite<'_> = btf.type_by_id(member.ty)?;
                Some(bytes + member_offset(btf, &inner, name)?)
            }
        }
    })
}
