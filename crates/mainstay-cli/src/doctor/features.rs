//! Which kernel features can be used here, and what stands in for each that cannot.
//!
//! Judged from readable files alone, by the kernel version that brought each feature: nothing is loaded or attached
//! to find out, so a seccomp filter or a distribution's patch can still say no.

use serde::Serialize;

use super::kernel::{Capability, Facts};

/// One row of the report.
#[derive(Debug, Serialize)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) available: bool,
    /// What is used when it is not available; `None` when nothing can stand in.
    pub(super) fallback: Option<&'static str>,
    /// Why, in words.
    pub(super) reason: String,
}

/// Yes or no, with the reason.
type Verdict = (bool, String);

/// Name, what stands in, how to tell.
type Row = (&'static str, Option<&'static str>, fn(&Facts) -> Verdict);

/// Below this many descriptors one process is too small for a big gateway.
const DESCRIPTORS_MIN: u64 = 65_536;
/// What map memory needs on kernels that still charge it to RLIMIT_MEMLOCK.
const MEMLOCK_BYTES_MIN: u64 = 64 << 20;

const ROWS: &[Row] = &[
    (
        "descriptors",
        Some("several processes on one port (SO_REUSEPORT)"),
        descriptors,
    ),
    ("io-uring", Some("epoll"), io_uring),
    ("bpf-load", None, bpf_load),
    ("btf", None, btf),
    (
        "bpf-jit",
        Some("the interpreter, several times slower"),
        bpf_jit,
    ),
    ("ring-buffer", Some("perf buffers"), |facts| {
        since(facts, (5, 8))
    }),
    ("tracepoint", Some("tp_btf and raw tracepoints"), tracepoint),
    ("tp-btf", Some("tracepoints"), tp_btf),
    ("fentry", Some("tracepoints"), fentry),
    ("kprobe", Some("tracepoints"), |facts| {
        configured(facts, "KPROBES")
    }),
    ("uprobe", None, |facts| configured(facts, "UPROBES")),
    (
        "perf-event",
        Some("counters of our own process only"),
        perf_event,
    ),
    (
        "bpffs",
        Some("maps and links that end with their process"),
        bpffs,
    ),
    ("cgroup2", None, cgroup2),
    ("memlock", Some("smaller maps"), memlock),
    ("pagemap-scan", Some("soft-dirty, else mprotect"), |facts| {
        since(facts, (6, 7))
    }),
    ("soft-dirty", Some("PAGEMAP_SCAN, else mprotect"), |facts| {
        configured(facts, "MEM_SOFT_DIRTY")
    }),
];

/// Every feature, in the order of the report.
pub(super) fn judge(facts: &Facts) -> Vec<Feature> {
    let row = |(name, fallback, tell): &Row| {
        let (available, reason) = tell(facts);
        Feature {
            name,
            available,
            fallback: *fallback,
            reason,
        }
    };
    ROWS.iter().map(row).collect()
}

fn since(facts: &Facts, (major, minor): (u32, u32)) -> Verdict {
    (
        facts.version >= (major, minor),
        format!("kernel {}, since {major}.{minor}", facts.kernel.release),
    )
}

fn configured(facts: &Facts, name: &str) -> Verdict {
    match facts.config(name) {
        Some(true) => (true, format!("CONFIG_{name} is set")),
        Some(false) => (false, format!("CONFIG_{name} is not set")),
        None => (
            false,
            "unknown: the kernel's configuration is neither in /proc/config.gz nor in /boot".into(),
        ),
    }
}

fn descriptors(facts: &Facts) -> Verdict {
    match facts.kernel.nofile_hard {
        Some(hard) => (
            hard >= DESCRIPTORS_MIN,
            format!("at most {hard} per process; {DESCRIPTORS_MIN} are asked for"),
        ),
        None => (true, "no limit is set".into()),
    }
}

fn io_uring(facts: &Facts) -> Verdict {
    let (known, reason) = since(facts, (5, 19));
    if !known {
        return (false, reason);
    }
    if facts.config("IO_URING") == Some(false) {
        return (false, "CONFIG_IO_URING is not set".into());
    }
    match facts.file("proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("2") => (
            false,
            "kernel.io_uring_disabled is 2: off for everyone".into(),
        ),
        Some("1") if !facts.is_capable(Capability::SysAdmin) => (
            false,
            "kernel.io_uring_disabled is 1: only for its group or root".into(),
        ),
        _ => (true, reason),
    }
}

fn bpf_load(facts: &Facts) -> Verdict {
    if facts.config("BPF_SYSCALL") == Some(false) {
        return (false, "CONFIG_BPF_SYSCALL is not set".into());
    }
    let able = facts.is_capable(Capability::Bpf) && facts.is_capable(Capability::Perfmon);
    let reason = if able {
        "the process may load tracing programs"
    } else {
        "needs root, or CAP_BPF and CAP_PERFMON"
    };
    (able, reason.into())
}

fn btf(facts: &Facts) -> Verdict {
    let has = facts.kernel.btf;
    (
        has,
        if has {
            "/sys/kernel/btf/vmlinux"
        } else {
            "the kernel shows no /sys/kernel/btf/vmlinux"
        }
        .into(),
    )
}

fn bpf_jit(facts: &Facts) -> Verdict {
    match facts.file("proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => (false, "sysctl net.core.bpf_jit_enable is 0".into()),
        Some(value) => (true, format!("sysctl net.core.bpf_jit_enable is {value}")),
        None => configured(facts, "BPF_JIT"),
    }
}

fn tracepoint(facts: &Facts) -> Verdict {
    match facts
        .mount_point("tracefs")
        .or(facts.mount_point("debugfs"))
    {
        Some(point) => (true, format!("trace events are at {point}")),
        None => (
            false,
            "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing".into(),
        ),
    }
}

fn tp_btf(facts: &Facts) -> Verdict {
    let (has, reason) = btf(facts);
    if has {
        since(facts, (5, 5))
    } else {
        (false, reason)
    }
}

fn fentry(facts: &Facts) -> Verdict {
    let (has, reason) = tp_btf(facts);
    if !has {
        return (false, reason);
    }
    match facts.kernel.lockdown.as_str() {
        "none" => (true, reason),
        "unknown" => (
            true,
            "the kernel is new enough; whether lockdown allows it is not to be seen".into(),
        ),
        level => (false, format!("lockdown is {level}")),
    }
}

fn perf_event(facts: &Facts) -> Verdict {
    let Some(level) = facts.kernel.perf_event_paranoid else {
        return (false, "the kernel has no perf events".into());
    };
    let capable = facts.is_capable(Capability::Perfmon);
    let reason = format!("kernel.perf_event_paranoid is {level}");
    if capable {
        (true, format!("{reason}, the process has CAP_PERFMON"))
    } else {
        (level <= 0, reason)
    }
}

fn bpffs(facts: &Facts) -> Verdict {
    match facts.mount_point("bpf") {
        Some(point) => (true, format!("mounted at {point}")),
        None => (false, "not mounted: mount -t bpf bpf /sys/fs/bpf".into()),
    }
}

fn cgroup2(facts: &Facts) -> Verdict {
    match facts.mount_point("cgroup2") {
        Some(point) => (true, format!("mounted at {point}")),
        None => (
            false,
            "not mounted: BPF programs cannot attach to control groups".into(),
        ),
    }
}

fn memlock(facts: &Facts) -> Verdict {
    if facts.version >= (5, 11) {
        return (
            true,
            "since kernel 5.11 BPF maps are charged to the control group, not to RLIMIT_MEMLOCK"
                .into(),
        );
    }
    match facts.kernel.memlock_bytes_soft {
        Some(bytes) => (
            bytes >= MEMLOCK_BYTES_MIN,
            format!("{bytes} bytes; {MEMLOCK_BYTES_MIN} are asked for: ulimit -l unlimited"),
        ),
        None => (
            facts.memlock_is_unlimited(),
            "RLIMIT_MEMLOCK is unlimited or cannot be read".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{Facts, Feature, judge};
    use std::path::Path;

    fn write(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn feature<'a>(features: &'a [Feature], name: &str) -> &'a Feature {
        features
            .iter()
            .find(|feature| feature.name == name)
            .unwrap()
    }

    #[test]
    fn an_old_locked_kernel_falls_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        write(root, "proc/sys/kernel/osrelease", "5.4.0-1\n");
        write(
            root,
            "boot/config-5.4.0-1",
            "CONFIG_KPROBES=y\n# CONFIG_UPROBES is not set\n",
        );
        write(
            root,
            "sys/kernel/security/lockdown",
            "none [integrity] confidentiality\n",
        );
        write(
            root,
            "proc/self/limits",
            "Max open files  1024  4096  files\nMax locked memory  65536  65536  bytes\n",
        );
        let features = judge(&Facts::read(root));
        for name in [
            "descriptors",
            "io-uring",
            "bpf-load",
            "btf",
            "ring-buffer",
            "tracepoint",
            "fentry",
            "uprobe",
        ] {
            assert!(!feature(&features, name).available, "{name}");
        }
        assert!(feature(&features, "kprobe").available);
        assert!(!feature(&features, "memlock").available);
        assert_eq!(
            feature(&features, "ring-buffer").fallback,
            Some("perf buffers")
        );
        assert!(
            feature(&features, "tracepoint")
                .reason
                .contains("mount -t tracefs")
        );
    }

    #[test]
    fn a_new_open_kernel_has_all_and_each_switch_turns_one_off() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let config = "CONFIG_KPROBES=y\nCONFIG_UPROBES=y\nCONFIG_MEM_SOFT_DIRTY=y\nCONFIG_BPF_SYSCALL=y\nCONFIG_IO_URING=y\n";
        write(root, "proc/sys/kernel/osrelease", "6.12.1\n");
        write(root, "boot/config-6.12.1", config);
        write(root, "sys/kernel/btf/vmlinux", "");
        write(root, "proc/self/status", "CapEff:\t000001ffffffffff\n");
        write(
            root,
            "proc/self/limits",
            "Max open files  1024  1048576  files\n",
        );
        write(root, "proc/sys/kernel/perf_event_paranoid", "2\n");
        write(root, "proc/sys/kernel/io_uring_disabled", "0\n");
        write(root, "proc/sys/net/core/bpf_jit_enable", "1\n");
        let mounts = "t /sys/kernel/tracing tracefs rw 0 0\nb /sys/fs/bpf bpf rw 0 0\nc /sys/fs/cgroup cgroup2 rw 0 0\n";
        write(root, "proc/self/mounts", mounts);
        let features = judge(&Facts::read(root));
        for feature in &features {
            assert!(feature.available, "{}: {}", feature.name, feature.reason);
        }

        let switches = [
            ("proc/sys/kernel/io_uring_disabled", "2", "io-uring"),
            ("proc/sys/net/core/bpf_jit_enable", "0", "bpf-jit"),
            (
                "sys/kernel/security/lockdown",
                "none [integrity] confidentiality",
                "fentry",
            ),
            (
                "proc/self/limits",
                "Max open files  1024  4096  files\n",
                "descriptors",
            ),
            (
                "proc/self/status",
                "CapEff:\t0000000000000000\n",
                "perf-event",
            ),
        ];
        for (path, text, name) in switches {
            write(root, path, text);
            let features = judge(&Facts::read(root));
            assert!(!feature(&features, name).available, "{name} with {path}");
        }
    }
}
