//! The tries: each does the real thing with a program of two instructions, and takes it back.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use super::btf::{self, Kind};
use super::facts::KernelFacts;
use crate::spec::{MapFlags, MapKind};
use crate::sys::{self, Follow, PerfAttr, Program};

/// How it worked, in words.
pub(super) type Tried = Result<String, Refusal>;

/// Why it did not.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Something that it builds on is not there: the whole reason, with the command that mends it.
    Missing(String),
    /// What the kernel answered.
    Call {
        doing: &'static str,
        error: io::Error,
    },
}

impl Refusal {
    /// EACCES is not: that is the verifier's no, or a file's.
    pub(super) fn is_permission_denied(&self) -> bool {
        let Self::Call { error, .. } = self else {
            return false;
        };
        error.raw_os_error() == Some(rustix::io::Errno::PERM.raw_os_error())
    }
}

/// How far a try goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Up to attaching: detaching takes the kernel up to a tenth of a second.
    Load,
    Attach,
}

/// What several tries need.
pub(super) struct Lab<'f> {
    pub(super) facts: &'f KernelFacts,
    depth: Depth,
    /// The kernel's BTF, read at the first need: some megabytes.
    btf: Option<Result<Vec<u8>, io::ErrorKind>>,
}

const BTF_FILE: &str = "sys/kernel/btf/vmlinux";
/// A tracepoint that every kernel has and that is rarely passed: a task changes its name.
const RARE_TRACEPOINT: &CStr = c"task_rename";
/// A function that only BPF_PROG_TEST_RUN calls.
const RARE_FUNCTION: &CStr = c"bpf_fentry_test1";
/// What map memory needs on kernels that still charge it to RLIMIT_MEMLOCK.
const MEMLOCK_BYTES_MIN: u64 = 64 << 20;

/// Program and attach types of include/uapi/linux/bpf.h.
const SOCKET_FILTER: Program = program(1, 0);
const KPROBE: Program = program(2, 0);
const SCHED_CLS: Program = program(3, 0);
const TRACEPOINT: Program = program(5, 0);
const XDP: Program = program(6, 0);
const PERF_EVENT: Program = program(7, 0);
const CGROUP_SKB: Program = program(8, 1);
const SOCK_OPS: Program = program(13, 3);
const RAW_TRACEPOINT: Program = program(17, 0);
const TP_BTF: Program = program(26, 23);
const FENTRY: Program = program(26, 24);
const ITER: Program = program(26, 28);
const LSM: Program = program(29, 27);
const SYSCALL: Program = Program {
    flags: 1 << 4, // BPF_F_SLEEPABLE, which it has to be
    ..program(31, 0)
};

const fn program(kind: u32, attach: u32) -> Program {
    Program {
        kind,
        attach,
        btf_id: 0,
        flags: 0,
    }
}

const LOADED: &str = "loaded";
const ATTACHED: &str = "loaded and attached";

impl<'f> Lab<'f> {
    pub(super) fn new(facts: &'f KernelFacts, depth: Depth) -> Self {
        Self {
            facts,
            depth,
            btf: None,
        }
    }

    /// The end of a try whose program is loaded.
    fn attach(&self, attach: impl FnOnce() -> io::Result<OwnedFd>) -> Tried {
        if self.depth == Depth::Load {
            return Ok(LOADED.into());
        }
        call("attaching", attach())?;
        Ok(ATTACHED.into())
    }

    fn btf(&mut self) -> Result<&[u8], Refusal> {
        let path = self.facts.path(BTF_FILE);
        let read = || std::fs::read(path).map_err(|error| error.kind());
        match self.btf.get_or_insert_with(read) {
            Ok(btf) => Ok(btf),
            Err(kind) => Err(Refusal::Missing(format!(
                "the kernel shows no /{BTF_FILE} ({kind})"
            ))),
        }
    }

    fn btf_id(&mut self, kind: Kind, name: &str) -> Result<u32, Refusal> {
        let id = btf::find(self.btf()?, kind, name);
        id.ok_or_else(|| Refusal::Missing(format!("the kernel's BTF does not name {name}")))
    }

    /// The folder of trace events.
    fn events(&self) -> Result<String, Refusal> {
        if let Some(tracefs) = self.facts.mount_point("tracefs") {
            return Ok(format!("{tracefs}/events"));
        }
        let debugfs = self.facts.mount_point("debugfs");
        let events = debugfs.map(|debugfs| format!("{debugfs}/tracing/events"));
        events.ok_or_else(|| {
            Refusal::Missing(
                "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing".into(),
            )
        })
    }

    pub(super) fn attach_tracepoint(&self, event: &str) -> Tried {
        let file = format!("{}/{event}/id", self.events()?);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| Refusal::Missing(format!("{file} cannot be read: {error}")))?;
        let id = text.trim().parse().ok();
        let id = id.ok_or_else(|| Refusal::Missing(format!("{file} holds no number")))?;
        self.attach_perf(TRACEPOINT, &PerfAttr::tracepoint(id), Follow::Cpu(0))
    }

    fn attach_perf(&self, program: Program, attr: &PerfAttr<'_>, follow: Follow) -> Tried {
        let program = load(program)?;
        self.attach(|| {
            let event = sys::perf_event_open(attr, follow)?;
            sys::perf_event_set_bpf(&event, &program)?;
            Ok(event)
        })
    }

    /// Tracing programs, which know from loading on where they belong.
    fn attach_tracing(&self, program: Program, btf_id: u32) -> Tried {
        let program = load(Program { btf_id, ..program })?;
        self.attach(|| sys::raw_tracepoint_open(&program, None))
    }

    /// The perf event type of `kprobe` and `uprobe`.
    fn perf_type(&self, name: &str, config: &str) -> Result<u32, Refusal> {
        let file = format!("sys/bus/event_source/devices/{name}/type");
        let kind = self.facts.file(&file).and_then(|text| text.parse().ok());
        kind.ok_or_else(|| {
            let configured = match self.facts.config(config) {
                Some(false) => format!("CONFIG_{config} is not set"),
                _ => "the kernel is too old for it, or built without".into(),
            };
            Refusal::Missing(format!("/{file} is not there: {configured}"))
        })
    }
}

fn call<T>(doing: &'static str, done: io::Result<T>) -> Result<T, Refusal> {
    done.map_err(|error| Refusal::Call { doing, error })
}

fn load(program: Program) -> Result<OwnedFd, Refusal> {
    call("loading", sys::load_nothing(program))
}

fn only_load(program: Program) -> Tried {
    load(program)?;
    Ok(LOADED.into())
}

fn make_ring(kind: u32, flags: MapFlags) -> Tried {
    let bytes = u32::try_from(rustix::param::page_size()).expect("pages are small");
    call("making one", sys::map_create(kind, [0, 0, bytes, flags.0]))?;
    Ok("made and closed".into())
}

pub(super) fn bpf_load(_: &mut Lab<'_>) -> Tried {
    load(RAW_TRACEPOINT)?;
    Ok("a tracing program was loaded".into())
}

pub(super) fn btf(lab: &mut Lab<'_>) -> Tried {
    let bytes = lab.btf()?.len();
    Ok(format!("/{BTF_FILE}, {} KiB", bytes / 1024))
}

pub(super) fn bpf_jit(lab: &mut Lab<'_>) -> Tried {
    let program = load(RAW_TRACEPOINT)?;
    match call("asking about a program", sys::jited_bytes(&program))? {
        0 => {
            let sysctl = lab.facts.file("proc/sys/net/core/bpf_jit_enable");
            let sysctl = sysctl.as_deref().unwrap_or("unknown");
            let why = format!("no machine code was made: net.core.bpf_jit_enable is {sysctl}");
            Err(Refusal::Missing(why))
        }
        bytes => Ok(format!(
            "two instructions became {bytes} bytes of machine code"
        )),
    }
}

pub(super) fn ring_buffer(_: &mut Lab<'_>) -> Tried {
    make_ring(MapKind::RingBuf.number(), MapFlags::NONE)
}

pub(super) fn user_ring_buffer(_: &mut Lab<'_>) -> Tried {
    const USER_RINGBUF: u32 = 31;
    make_ring(USER_RINGBUF, MapFlags::NONE)
}

pub(super) fn overwrite_ring(_: &mut Lab<'_>) -> Tried {
    make_ring(MapKind::RingBuf.number(), MapFlags::RB_OVERWRITE)
}

pub(super) fn raw_tracepoint(lab: &mut Lab<'_>) -> Tried {
    let program = load(RAW_TRACEPOINT)?;
    lab.attach(|| sys::raw_tracepoint_open(&program, Some(RARE_TRACEPOINT)))
}

pub(super) fn tp_btf(lab: &mut Lab<'_>) -> Tried {
    let name = format!("btf_trace_{}", RARE_TRACEPOINT.to_string_lossy());
    let id = lab.btf_id(Kind::Typedef, &name)?;
    lab.attach_tracing(TP_BTF, id)
}

pub(super) fn fentry(lab: &mut Lab<'_>) -> Tried {
    let id = lab.btf_id(Kind::Func, &RARE_FUNCTION.to_string_lossy())?;
    lab.attach_tracing(FENTRY, id)
}

pub(super) fn lsm(lab: &mut Lab<'_>) -> Tried {
    let id = lab.btf_id(Kind::Func, "bpf_lsm_path_chroot")?;
    let active = lab.facts.file("sys/kernel/security/lsm");
    if let Some(active) = active.filter(|list| !list.split(',').any(|module| module == "bpf")) {
        let why = format!("the active security modules are {active}: boot with lsm={active},bpf");
        return Err(Refusal::Missing(why));
    }
    lab.attach_tracing(LSM, id)
}

pub(super) fn iter(lab: &mut Lab<'_>) -> Tried {
    let btf_id = lab.btf_id(Kind::Func, "bpf_iter_task_file")?;
    let program = load(Program { btf_id, ..ITER })?;
    lab.attach(|| sys::link_create(&program, ITER.attach))
}

pub(super) fn tracefs(lab: &mut Lab<'_>) -> Tried {
    let events = lab.events()?;
    // Mounted is not readable: it belongs to root.
    call("reading the events", std::fs::read_dir(&events))?;
    Ok(format!("trace events are in {events}"))
}

pub(super) fn tracepoint(lab: &mut Lab<'_>) -> Tried {
    lab.attach_tracepoint(&format!("task/{}", RARE_TRACEPOINT.to_string_lossy()))
}

pub(super) fn syscall_tracepoint(lab: &mut Lab<'_>) -> Tried {
    lab.attach_tracepoint("syscalls/sys_enter_chroot")
}

pub(super) fn kprobe(lab: &mut Lab<'_>) -> Tried {
    let kind = lab.perf_type("kprobe", "KPROBES")?;
    let attr = PerfAttr::probe(kind, RARE_FUNCTION);
    lab.attach_perf(KPROBE, &attr, Follow::Cpu(0))
}

/// At a file that nobody runs: not even this process is touched.
pub(super) fn uprobe(lab: &mut Lab<'_>) -> Tried {
    let kind = lab.perf_type("uprobe", "UPROBES")?;
    let made = rustix::fs::memfd_create(c"probe", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(call("making a file", made.map_err(io::Error::from))?);
    call("writing a file", file.write_all_at(&[0; 64], 0))?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = CString::new(path).expect("a path without NUL");
    lab.attach_perf(KPROBE, &PerfAttr::probe(kind, &path), Follow::Myself)
}

pub(super) fn perf_event(lab: &mut Lab<'_>) -> Tried {
    let Some(level) = lab.facts.perf_event_paranoid else {
        return Err(Refusal::Missing("the kernel has no perf events".into()));
    };
    let how = lab.attach_perf(PERF_EVENT, &PerfAttr::cpu_clock(), Follow::Cpu(0))?;
    Ok(format!("{how}; kernel.perf_event_paranoid is {level}"))
}

pub(super) fn syscall(_: &mut Lab<'_>) -> Tried {
    only_load(SYSCALL)
}

pub(super) fn socket_filter(_: &mut Lab<'_>) -> Tried {
    only_load(SOCKET_FILTER)
}

pub(super) fn xdp(_: &mut Lab<'_>) -> Tried {
    only_load(XDP)
}

pub(super) fn sched_cls(_: &mut Lab<'_>) -> Tried {
    only_load(SCHED_CLS)
}

pub(super) fn cgroup_skb(_: &mut Lab<'_>) -> Tried {
    only_load(CGROUP_SKB)
}

pub(super) fn sock_ops(_: &mut Lab<'_>) -> Tried {
    only_load(SOCK_OPS)
}

pub(super) fn bpffs(lab: &mut Lab<'_>) -> Tried {
    mounted(lab, "bpf", "mount -t bpf bpf /sys/fs/bpf")
}

pub(super) fn cgroup2(lab: &mut Lab<'_>) -> Tried {
    mounted(lab, "cgroup2", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}

fn mounted(lab: &Lab<'_>, kind: &str, command: &str) -> Tried {
    match lab.facts.mount_point(kind) {
        Some(point) => Ok(format!("mounted at {point}")),
        None => Err(Refusal::Missing(format!("not mounted: {command}"))),
    }
}

pub(super) fn memlock(lab: &mut Lab<'_>) -> Tried {
    if lab.facts.version >= (5, 11) {
        return Ok("maps are charged to the control group, not to RLIMIT_MEMLOCK".into());
    }
    let soft = lab.facts.memlock_bytes.map(|limits| limits.soft);
    match soft {
        Some(Some(bytes)) if bytes < MEMLOCK_BYTES_MIN => Err(Refusal::Missing(format!(
            "RLIMIT_MEMLOCK is {bytes} bytes, {MEMLOCK_BYTES_MIN} are asked for: ulimit -l unlimited"
        ))),
        Some(Some(bytes)) => Ok(format!("RLIMIT_MEMLOCK is {bytes} bytes")),
        Some(None) => Ok("RLIMIT_MEMLOCK is unlimited".into()),
        None => Ok("RLIMIT_MEMLOCK cannot be read".into()),
    }
}

pub(super) fn io_uring(lab: &mut Lab<'_>) -> Tried {
    let known = sys::io_uring_operations();
    if let Err(error) = &known
        && error.kind() == io::ErrorKind::PermissionDenied
    {
        let sysctl = lab.facts.file("proc/sys/kernel/io_uring_disabled");
        return Err(Refusal::Missing(match sysctl.as_deref() {
            Some("2") => "kernel.io_uring_disabled is 2: off for everyone".into(),
            Some("1") => "kernel.io_uring_disabled is 1: only for its group or root".into(),
            _ => "io_uring_setup is refused: a seccomp filter or a container?".into(),
        }));
    }
    let known = call("asking for its operations", known)?;
    let count = known.iter().filter(|known| **known).count();
    let lacks: Vec<&str> = OPERATIONS
        .iter()
        .filter(|(_, number)| known.get(*number) != Some(&true))
        .map(|(name, _)| *name)
        .collect();
    let lacks = match lacks.is_empty() {
        true => String::new(),
        false => format!(", without {}", lacks.join(", ")),
    };
    Ok(format!("{count} operations{lacks}"))
}

/// Those that a server's sockets use, by `enum io_uring_op`.
const OPERATIONS: [(&str, usize); 8] = [
    ("accept", 13),
    ("close", 19),
    ("send", 26),
    ("recv", 27),
    ("epoll_ctl", 29),
    ("msg_ring", 40),
    ("socket", 45),
    ("send_zc", 47),
];

pub(super) fn pagemap_scan(_: &mut Lab<'_>) -> Tried {
    let pagemap = call("opening the page map", File::open("/proc/self/pagemap"))?;
    let page = rustix::param::page_size();
    let bytes = std::hint::black_box(vec![1u8; 2 * page]);
    let address = bytes.as_ptr().addr().next_multiple_of(page);
    call("PAGEMAP_SCAN", sys::pagemap_scan(&pagemap, address, page))?;
    let protects = sys::userfault_write_protects_async();
    call("asynchronous write protection (userfaultfd)", protects)?;
    Ok("a page was asked for, and asynchronous write protection is there".into())
}

/// A page that was just written has the bit; nothing is cleared, so a tracker in this process is
/// not disturbed.
pub(super) fn soft_dirty(lab: &mut Lab<'_>) -> Tried {
    const SOFT_DIRTY: u64 = 1 << 55;
    let pagemap = call("opening the page map", File::open("/proc/self/pagemap"))?;
    let page = rustix::param::page_size();
    let bytes = std::hint::black_box(vec![1u8; 2 * page]);
    let number = bytes.as_ptr().addr().div_ceil(page);
    let mut entry = [0; 8];
    let read = pagemap.read_exact_at(&mut entry, number as u64 * 8);
    call("reading the page map", read)?;
    if u64::from_ne_bytes(entry) & SOFT_DIRTY != 0 {
        return Ok("a written page has the bit".into());
    }
    let why = match lab.facts.config("MEM_SOFT_DIRTY") {
        Some(false) => "CONFIG_MEM_SOFT_DIRTY is not set",
        _ => "a written page has not the bit",
    };
    Err(Refusal::Missing(why.into()))
}
