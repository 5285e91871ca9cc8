//! The table of features: name, age, what stands in, how to try.

use std::fmt;

use super::tries::{self, Lab, Tried};

/// Something that a kernel may or may not let a process do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KernelFeature {
    /// Loading tracing programs at all.
    BpfLoad,
    /// The kernel's own types, `/sys/kernel/btf/vmlinux`.
    Btf,
    /// Programs run as machine code.
    BpfJit,
    /// `BPF_MAP_TYPE_RINGBUF`.
    RingBuffer,
    /// `BPF_MAP_TYPE_USER_RINGBUF`: records from user space to programs.
    UserRingBuffer,
    /// Rings whose new records replace the oldest (`BPF_F_RB_OVERWRITE`).
    OverwriteRing,
    /// Raw tracepoint programs, attached.
    RawTracepoint,
    /// Raw tracepoint programs with typed arguments, attached.
    TpBtf,
    /// A file system with trace events: tracefs, or debugfs.
    Tracefs,
    /// Tracepoint programs, attached.
    Tracepoint,
    /// Tracepoints of single system calls, attached.
    SyscallTracepoint,
    /// Programs at the entry and exit of kernel functions by trampoline, attached.
    Fentry,
    /// Programs at kernel functions by breakpoint, attached.
    Kprobe,
    /// Programs at functions of user space, attached.
    Uprobe,
    /// Programs at samples of perf events, attached.
    PerfEvent,
    /// Programs that walk the kernel's objects (here: open files of tasks), attached.
    Iter,
    /// Programs that user space calls.
    Syscall,
    /// Programs at security hooks, attached.
    Lsm,
    /// Programs that look at a socket's packets.
    SocketFilter,
    /// Programs in a network driver.
    Xdp,
    /// Programs that classify packets.
    SchedCls,
    /// Programs at a control group's packets.
    CgroupSkb,
    /// Programs at TCP's events.
    SockOps,
    /// A file system to pin maps, programs and links in.
    Bpffs,
    /// Control groups of version 2.
    Cgroup2,
    /// Enough locked memory for maps, on kernels that charge them to `RLIMIT_MEMLOCK`.
    Memlock,
    /// io_uring, with its operations in the reason.
    IoUring,
    /// Written pages found by PAGEMAP_SCAN and asynchronous write protection.
    PagemapScan,
    /// Written pages found by the soft-dirty bit.
    SoftDirty,
}

/// What is known of a feature before it is tried.
pub(super) struct Row {
    feature: KernelFeature,
    name: &'static str,
    /// The kernel's version that brought it.
    pub(super) since: (u32, u32),
    fallback: Option<&'static str>,
    attempt: fn(&mut Lab<'_>) -> Tried,
}

use KernelFeature as F;

#[rustfmt::skip]
const ROWS: [Row; F::ALL.len()] = [
    row(F::BpfLoad, "bpf-load", (4, 7), None, tries::bpf_load),
    row(F::Btf, "btf", (5, 4), Some("programs compiled for this very kernel"), tries::btf),
    row(F::BpfJit, "bpf-jit", (3, 16), Some("the interpreter, several times slower"), tries::bpf_jit),
    row(F::RingBuffer, "ring-buffer", (5, 8), Some("perf buffers (PerfReader)"), tries::ring_buffer),
    row(F::UserRingBuffer, "user-ring-buffer", (6, 1), Some("a queue or hash map that user space fills"), tries::user_ring_buffer),
    row(F::OverwriteRing, "overwrite-ring", (6, 19), Some("an ordinary ring, read often enough; what does not fit is counted"), tries::overwrite_ring),
    row(F::RawTracepoint, "raw-tracepoint", (4, 17), Some("tracepoints"), tries::raw_tracepoint),
    row(F::TpBtf, "tp-btf", (5, 5), Some("raw tracepoints"), tries::tp_btf),
    row(F::Tracefs, "tracefs", (4, 1), Some("tp_btf and raw tracepoints, which need none"), tries::tracefs),
    row(F::Tracepoint, "tracepoint", (4, 7), Some("tp_btf and raw tracepoints"), tries::tracepoint),
    row(F::SyscallTracepoint, "syscall-tracepoint", (4, 7), Some("raw_tp/sys_enter and sys_exit, which run at every system call"), tries::syscall_tracepoint),
    row(F::Fentry, "fentry", (5, 5), Some("kprobes, else tracepoints"), tries::fentry),
    row(F::Kprobe, "kprobe", (4, 17), Some("tracepoints"), tries::kprobe),
    row(F::Uprobe, "uprobe", (4, 17), None, tries::uprobe),
    row(F::PerfEvent, "perf-event", (4, 9), Some("tracepoints of the scheduler instead of samples"), tries::perf_event),
    row(F::Iter, "iter", (5, 8), Some("/proc, read process by process"), tries::iter),
    row(F::Syscall, "syscall-program", (5, 14), Some("raw tracepoint programs run by BPF_PROG_TEST_RUN"), tries::syscall),
    row(F::Lsm, "lsm", (5, 7), Some("tracepoints, which see and cannot refuse"), tries::lsm),
    row(F::SocketFilter, "socket-filter", (3, 19), None, tries::socket_filter),
    row(F::Xdp, "xdp", (4, 8), Some("sched-cls, behind the driver"), tries::xdp),
    row(F::SchedCls, "sched-cls", (4, 1), None, tries::sched_cls),
    row(F::CgroupSkb, "cgroup-skb", (4, 10), Some("sched-cls, for a whole interface"), tries::cgroup_skb),
    row(F::SockOps, "sock-ops", (4, 13), Some("tracepoints of TCP"), tries::sock_ops),
    row(F::Bpffs, "bpffs", (4, 4), Some("maps and links that end with their process"), tries::bpffs),
    row(F::Cgroup2, "cgroup2", (4, 5), None, tries::cgroup2),
    row(F::Memlock, "memlock", (5, 11), Some("smaller maps"), tries::memlock),
    row(F::IoUring, "io-uring", (5, 6), Some("epoll"), tries::io_uring),
    row(F::PagemapScan, "pagemap-scan", (6, 7), Some("soft-dirty, else mprotect"), tries::pagemap_scan),
    row(F::SoftDirty, "soft-dirty", (3, 11), Some("PAGEMAP_SCAN, else mprotect"), tries::soft_dirty),
];

const fn row(
    feature: KernelFeature,
    name: &'static str,
    since: (u32, u32),
    fallback: Option<&'static str>,
    attempt: fn(&mut Lab<'_>) -> Tried,
) -> Row {
    Row {
        feature,
        name,
        since,
        fallback,
        attempt,
    }
}

const _: () = {
    let mut at = 0;
    while at < ROWS.len() {
        assert!(ROWS[at].feature as usize == at && F::ALL[at] as usize == at);
        at += 1;
    }
};

impl KernelFeature {
    /// All of them.
    pub const ALL: [Self; 29] = [
        F::BpfLoad,
        F::Btf,
        F::BpfJit,
        F::RingBuffer,
        F::UserRingBuffer,
        F::OverwriteRing,
        F::RawTracepoint,
        F::TpBtf,
        F::Tracefs,
        F::Tracepoint,
        F::SyscallTracepoint,
        F::Fentry,
        F::Kprobe,
        F::Uprobe,
        F::PerfEvent,
        F::Iter,
        F::Syscall,
        F::Lsm,
        F::SocketFilter,
        F::Xdp,
        F::SchedCls,
        F::CgroupSkb,
        F::SockOps,
        F::Bpffs,
        F::Cgroup2,
        F::Memlock,
        F::IoUring,
        F::PagemapScan,
        F::SoftDirty,
    ];

    /// A word for tables and JSON, such as `ring-buffer`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What is used where it is not available; `None` when nothing can stand in.
    #[must_use]
    pub fn fallback(self) -> Option<&'static str> {
        self.row().fallback
    }

    pub(super) fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Its programs are loaded with CAP_NET_ADMIN only (`is_net_admin_prog_type` of
    /// kernel/bpf/syscall.c).
    pub(super) fn is_in_network(self) -> bool {
        matches!(self, F::Xdp | F::SchedCls | F::SockOps)
    }

    pub(super) fn attempt(self, lab: &mut Lab<'_>) -> Tried {
        (self.row().attempt)(lab)
    }
}

impl fmt::Display for KernelFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
