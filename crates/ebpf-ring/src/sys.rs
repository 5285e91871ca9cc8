//! The room with the system calls that rustix has not: bpf(2), perf_event_open(2), and what the
//! probe tries.
//!
//! Every function is safe: the structures that hold addresses are filled here, from borrows that
//! outlive the call.

use std::ffi::CStr;
use std::io;
use std::marker::PhantomData;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Commands of include/uapi/linux/bpf.h.
const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const PROG_LOAD: libc::c_int = 5;
const OBJ_GET: libc::c_int = 7;
const MAP_GET_FD_BY_ID: libc::c_int = 14;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const LINK_CREATE: libc::c_int = 28;

/// A program type of the kernel, and where it is meant to be attached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Program {
    /// `enum bpf_prog_type`.
    pub(crate) kind: u32,
    /// `enum bpf_attach_type`.
    pub(crate) attach: u32,
    /// Of the kernel's BTF, for tracing programs.
    pub(crate) btf_id: u32,
    /// `BPF_F_SLEEPABLE` and its like.
    pub(crate) flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    kind: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    attach: u32,
    btf_fd: u32,
    func_info_size: u32,
    func_info: u64,
    func_infos: u32,
    line_info_size: u32,
    line_info: u64,
    line_infos: u32,
    btf_id: u32,
    target_fd: u32,
    padding: u32,
}

const _: () = assert!(size_of::<ProgLoad>() == 120);
const _: () = assert!(offset_of!(ProgLoad, name) == 48);
const _: () = assert!(offset_of!(ProgLoad, attach) == 68);
const _: () = assert!(offset_of!(ProgLoad, btf_id) == 108);

/// `r0 = 0; exit`: alike in both byte orders.
const RETURN_ZERO: [u8; 16] = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Loads a program of this type that returns 0.
pub(crate) fn load_nothing(program: Program) -> io::Result<OwnedFd> {
    let mut attr = ProgLoad {
        kind: program.kind,
        insn_cnt: 2,
        insns: RETURN_ZERO.as_ptr().expose_provenance() as u64,
        license: c"Dual MIT/GPL".as_ptr().expose_provenance() as u64,
        flags: program.flags,
        name: *b"mainstay_probe\0\0",
        attach: program.attach,
        btf_id: program.btf_id,
        ..ProgLoad::default()
    };
    // SAFETY: the two addresses are of constants, with the length that `insn_cnt` says and a NUL.
    let fd = unsafe { bpf(PROG_LOAD, &mut attr) }?;
    Ok(owned(fd))
}

/// Bytes of machine code that the kernel made of a program; 0 without a JIT.
pub(crate) fn jited_bytes(program: &OwnedFd) -> io::Result<u32> {
    // `struct bpf_prog_info`: type, id, tag, jited_prog_len, xlated_prog_len
    info_by_fd(program).map(|[_, _, _, _, jited_bytes, _]| jited_bytes)
}

/// The first words of what the kernel tells of a program or a map. None of them is an address, nor
/// room behind one.
fn info_by_fd(fd: &OwnedFd) -> io::Result<[u32; 6]> {
    #[repr(C)]
    struct InfoByFd {
        fd: i32,
        info_bytes: u32,
        info: u64,
    }
    let mut info = [0u32; 6];
    let mut attr = InfoByFd {
        fd: fd.as_raw_fd(),
        info_bytes: size_of::<[u32; 6]>() as u32,
        info: info.as_mut_ptr().expose_provenance() as u64,
    };
    // SAFETY: the kernel reads and writes `info_bytes` bytes at `info`, which is that long.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// Makes a map without a name: `enum bpf_map_type`, and the parts of a `MapSpec`.
pub(crate) fn map_create(
    kind: u32,
    [key_size, value_size, max_entries, flags]: [u32; 4],
) -> io::Result<OwnedFd> {
    let mut attr = [kind, key_size, value_size, max_entries, flags];
    // SAFETY: five numbers, no address.
    let fd = unsafe { bpf(MAP_CREATE, &mut attr) }?;
    Ok(owned(fd))
}

/// A pinned object.
pub(crate) fn obj_get(path: &CStr) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ObjGet {
        path: u64,
        fd: u32,
        flags: u32,
    }
    let mut attr = ObjGet {
        path: path.as_ptr().expose_provenance() as u64,
        fd: 0,
        flags: 0,
    };
    // SAFETY: the address is of a string with its NUL, borrowed for the call.
    let fd = unsafe { bpf(OBJ_GET, &mut attr) }?;
    Ok(owned(fd))
}

/// The map with this id.
pub(crate) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    // id, next_id, open_flags
    let mut attr = [id, 0, 0];
    // SAFETY: three numbers, no address.
    let fd = unsafe { bpf(MAP_GET_FD_BY_ID, &mut attr) }?;
    Ok(owned(fd))
}

/// A map, with the sizes that the kernel tells of it.
#[derive(Debug)]
pub(crate) struct MapFd {
    fd: OwnedFd,
    key_bytes: usize,
    /// What a lookup writes.
    value_bytes: usize,
}

impl MapFd {
    /// `cpus`: how many there can be, for maps with a value for each.
    pub(crate) fn new(fd: OwnedFd, cpus: usize) -> io::Result<Self> {
        // PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH, PERCPU_CGROUP_STORAGE
        const PERCPU: [u32; 4] = [5, 6, 10, 21];
        // `struct bpf_map_info`: type, id, key_size, value_size, max_entries, map_flags
        let [kind, _, key_bytes, value_bytes, ..] = info_by_fd(&fd)?.map(|word| word as usize);
        let is_percpu = PERCPU.iter().any(|percpu| *percpu as usize == kind);
        Ok(Self {
            fd,
            key_bytes,
            value_bytes: match is_percpu {
                true => value_bytes.next_multiple_of(8) * cpus,
                false => value_bytes,
            },
        })
    }

    /// The value at `key`, with that of each CPU in a row where each has one.
    ///
    /// # Panics
    ///
    /// When the key has not the map's length.
    pub(crate) fn lookup(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_bytes];
        let value_at = value.as_mut_ptr().expose_provenance() as u64;
        let mut attr = self.element(key, value_at);
        // SAFETY: the key has the map's length, asserted by `element`; the value has room for what
        // the kernel writes, a value for each possible CPU where there are several.
        match unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(Some(value)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Puts `value` at `key`.
    ///
    /// # Panics
    ///
    /// When the key or the value has not the map's length.
    pub(crate) fn update(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        assert_eq!(value.len(), self.value_bytes, "bytes of a value");
        let mut attr = self.element(key, value.as_ptr().expose_provenance() as u64);
        // SAFETY: key and value have the map's lengths, asserted here and by `element`.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Takes away what is at `key`.
    ///
    /// # Panics
    ///
    /// When the key has not the map's length.
    pub(crate) fn delete(&self, key: &[u8]) -> io::Result<()> {
        let mut attr = self.element(key, 0);
        // SAFETY: the key has the map's length, asserted by `element`; there is no value.
        unsafe { bpf(MAP_DELETE_ELEM, &mut attr) }.map(drop)
    }

    /// `map_fd`, key, value, flags.
    fn element(&self, key: &[u8], value: u64) -> [u64; 4] {
        assert_eq!(key.len(), self.key_bytes, "bytes of a key");
        let fd = u64::from(self.fd.as_raw_fd().cast_unsigned());
        // The kernel's field is a u32 with padding behind it.
        let fd = if cfg!(target_endian = "big") {
            fd << 32
        } else {
            fd
        };
        [fd, key.as_ptr().expose_provenance() as u64, value, 0]
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for MapFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Attaches a raw tracepoint program to the tracepoint `name`, or a tracing program to what it was
/// loaded for (`None`). Closing the descriptor detaches.
pub(crate) fn raw_tracepoint_open(program: &OwnedFd, name: Option<&CStr>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Open {
        name: u64,
        program: i32,
        padding: u32,
    }
    let mut attr = Open {
        name: name.map_or(0, |name| name.as_ptr().expose_provenance() as u64),
        program: program.as_raw_fd(),
        padding: 0,
    };
    // SAFETY: the address is null or of a string with its NUL, borrowed for the call.
    let fd = unsafe { bpf(RAW_TRACEPOINT_OPEN, &mut attr) }?;
    Ok(owned(fd))
}

/// Links a program that needs no target. Closing the descriptor detaches.
pub(crate) fn link_create(program: &OwnedFd, attach: u32) -> io::Result<OwnedFd> {
    // prog_fd, target_fd, attach_type, flags
    let mut attr = [program.as_raw_fd().cast_unsigned(), 0, attach, 0];
    // SAFETY: four numbers, no address.
    let fd = unsafe { bpf(LINK_CREATE, &mut attr) }?;
    Ok(owned(fd))
}

/// # Safety
///
/// Every address in `attr` is of memory that is alive for the call, as long as `attr` says and of
/// the kind that `command` wants.
unsafe fn bpf<A>(command: libc::c_int, attr: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes no more than `size_of::<A>()` bytes of `attr`; what it
    // points to is the caller's promise.
    checked(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attr),
            size_of::<A>(),
        )
    })
}

/// `struct perf_event_attr` up to PERF_ATTR_SIZE_VER0, which every kernel takes.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct PerfAttr<'n> {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    /// `wakeup_events`, or with WATERMARK `wakeup_watermark`.
    wake_up: u32,
    bp_type: u32,
    /// `bp_addr`, or the address of a name.
    config1: u64,
    name: PhantomData<&'n CStr>,
}

const _: () = assert!(size_of::<PerfAttr<'_>>() == PerfAttr::SIZE as usize);
const _: () = assert!(offset_of!(PerfAttr<'_>, config) == 8);
const _: () = assert!(offset_of!(PerfAttr<'_>, sample_period) == 16);
const _: () = assert!(offset_of!(PerfAttr<'_>, sample_type) == 24);
const _: () = assert!(offset_of!(PerfAttr<'_>, flags) == 40);
const _: () = assert!(offset_of!(PerfAttr<'_>, wake_up) == 48);
const _: () = assert!(offset_of!(PerfAttr<'_>, config1) == 56);

impl<'n> PerfAttr<'n> {
    const SIZE: u32 = 64;
    const TYPE_SOFTWARE: u32 = 1;
    const TYPE_TRACEPOINT: u32 = 2;
    const COUNT_SW_CPU_CLOCK: u64 = 0;
    const COUNT_SW_BPF_OUTPUT: u64 = 10;
    const SAMPLE_RAW: u64 = 1 << 10;
    const WATERMARK: u64 = 1 << 14;

    fn new(kind: u32, config: u64) -> Self {
        Self {
            kind,
            size: Self::SIZE,
            config,
            ..Self::default()
        }
    }

    /// What bpf_perf_event_output() writes to.
    fn bpf_output(flags: u64, wake_up: u32) -> Self {
        Self {
            sample_period: 1,
            sample_type: Self::SAMPLE_RAW,
            flags,
            wake_up,
            ..Self::new(Self::TYPE_SOFTWARE, Self::COUNT_SW_BPF_OUTPUT)
        }
    }

    /// A perf buffer that wakes after `events` records.
    pub(crate) fn waking_by_events(events: u32) -> Self {
        Self::bpf_output(0, events)
    }

    /// A perf buffer that wakes after more than `bytes`.
    pub(crate) fn waking_by_bytes(bytes: u32) -> Self {
        Self::bpf_output(Self::WATERMARK, bytes)
    }

    /// A clock that ticks once a second of CPU time.
    pub(crate) fn cpu_clock() -> Self {
        Self {
            sample_period: 1_000_000_000,
            ..Self::new(Self::TYPE_SOFTWARE, Self::COUNT_SW_CPU_CLOCK)
        }
    }

    /// The tracepoint with this id.
    pub(crate) fn tracepoint(id: u64) -> Self {
        Self::new(Self::TYPE_TRACEPOINT, id)
    }

    /// The first byte of `name`: a function's for the kprobe type, a file's for the uprobe type,
    /// numbers that sysfs tells.
    pub(crate) fn probe(kind: u32, name: &'n CStr) -> Self {
        Self {
            config1: name.as_ptr().expose_provenance() as u64,
            ..Self::new(kind, 0)
        }
    }
}

/// Whom a perf event follows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Follow {
    /// Every task on this CPU.
    Cpu(u32),
    /// The calling task, wherever it runs.
    Myself,
}

/// Opens an event.
pub(crate) fn perf_event_open(attr: &PerfAttr<'_>, follow: Follow) -> io::Result<OwnedFd> {
    const NO_GROUP: libc::c_int = -1;
    const FD_CLOEXEC: libc::c_ulong = 8;
    let (pid, cpu): (libc::pid_t, libc::c_int) = match follow {
        Follow::Cpu(cpu) => (-1, cpu.try_into().map_err(|_| io::ErrorKind::InvalidInput)?),
        Follow::Myself => (0, -1),
    };
    // SAFETY: the kernel reads `attr.size` bytes, all of them `attr`'s, and writes none (only for
    // a size that it does not know, which this one, its oldest, is not); `config1` is no address,
    // or that of a string that `attr` borrows; the other arguments are numbers.
    let fd = checked(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            std::ptr::from_ref(attr),
            pid,
            cpu,
            NO_GROUP,
            FD_CLOEXEC,
        )
    })?;
    Ok(owned(fd))
}

/// Lets `program` run at each of the event's.
pub(crate) fn perf_event_set_bpf(event: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    const PERF_EVENT_IOC_SET_BPF: u32 = 0x4004_2408;
    let program = libc::c_long::from(program.as_raw_fd());
    // SAFETY: this request takes a descriptor's number, no address.
    let done = unsafe { libc::ioctl(event.as_raw_fd(), PERF_EVENT_IOC_SET_BPF as _, program) };
    checked(done.into()).map(drop)
}

/// Which operations io_uring knows: a word for each, by number.
pub(crate) fn io_uring_operations() -> io::Result<Vec<bool>> {
    const REGISTER_PROBE: libc::c_uint = 8;
    const OPERATIONS_MAX: usize = 256;
    const SUPPORTED: u64 = 1;
    // `struct io_uring_params`: zeros ask for nothing special.
    let mut params = [0u32; 30];
    // SAFETY: the kernel reads and writes one `struct io_uring_params`, which has 120 bytes.
    let ring =
        checked(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1u32, params.as_mut_ptr()) })?;
    let ring = owned(ring);
    // `struct io_uring_probe`: two words, then a word {u8 op, u8, u16 flags, u32} for each.
    let mut probe = [0u64; 2 + OPERATIONS_MAX];
    // SAFETY: the kernel writes a head of 16 bytes and at most OPERATIONS_MAX words behind it.
    checked(unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_PROBE,
            probe.as_mut_ptr(),
            OPERATIONS_MAX,
        )
    })?;
    let known = usize::from(probe[0].to_ne_bytes()[1]).min(OPERATIONS_MAX);
    let flags = |word: &u64| {
        let [_, _, low, high, ..] = word.to_ne_bytes();
        u64::from(u16::from_ne_bytes([low, high]))
    };
    let words = probe[2..2 + known].iter();
    Ok(words.map(|word| flags(word) & SUPPORTED != 0).collect())
}

/// Asks PAGEMAP_SCAN of `pagemap` about the page at `address`, a multiple of the page size.
pub(crate) fn pagemap_scan(
    pagemap: impl AsFd,
    address: usize,
    page_bytes: usize,
) -> io::Result<()> {
    const PAGEMAP_SCAN: u32 = 0xc060_6610;
    const PAGE_IS_PRESENT: u64 = 1 << 3;
    let mut region = [0u64; 3];
    // `struct pm_scan_arg`: size, flags, start, end, walk_end, vec, vec_len, max_pages, inverted,
    // mask, anyof_mask, return_mask.
    let mut arg = [0u64; 12];
    arg[0] = size_of::<[u64; 12]>() as u64;
    arg[2] = address as u64;
    arg[3] = (address + page_bytes) as u64;
    arg[5] = region.as_mut_ptr().expose_provenance() as u64;
    arg[6] = 1;
    arg[9] = PAGE_IS_PRESENT;
    arg[11] = PAGE_IS_PRESENT;
    let fd = pagemap.as_fd().as_raw_fd();
    // SAFETY: the kernel reads and writes one `struct pm_scan_arg`, and at most one
    // `struct page_region`, which is `region`; the pages between start and end it only looks at,
    // without PM_SCAN_WP_MATCHING.
    checked(unsafe { libc::ioctl(fd, PAGEMAP_SCAN as _, arg.as_mut_ptr()) }.into()).map(drop)
}

/// Whether userfaultfd write-protects without a handler, which PAGEMAP_SCAN needs to see writes.
pub(crate) fn userfault_write_protects_async() -> io::Result<()> {
    const USER_MODE_ONLY: libc::c_int = 1;
    const UFFDIO_API: u32 = 0xc018_aa3f;
    const API: u64 = 0xaa;
    const FEATURE_WP_ASYNC: u64 = 1 << 15;
    let flags = libc::O_CLOEXEC | USER_MODE_ONLY;
    // SAFETY: a number, no address.
    let fd = checked(unsafe { libc::syscall(libc::SYS_userfaultfd, flags) })?;
    let fd = owned(fd);
    let mut api = [API, FEATURE_WP_ASYNC, 0];
    // SAFETY: the kernel reads and writes one `struct uffdio_api`, three words.
    checked(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_API as _, api.as_mut_ptr()) }.into())
        .map(drop)
}

fn checked(answer: libc::c_long) -> io::Result<libc::c_long> {
    match answer {
        0.. => Ok(answer),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `fd`: what a system call that makes a descriptor has just returned.
fn owned(fd: libc::c_long) -> OwnedFd {
    let fd = i32::try_from(fd).expect("descriptors are ints");
    // SAFETY: every caller has it from the kernel, newly made, and tells nobody else of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
