//! What the kernel tells in files that anyone may read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Facts about the running kernel and this process, all from readable files.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KernelFacts {
    /// As `uname -r` says it.
    pub release: String,
    /// Major and minor of the release; zeros when it is no number.
    pub version: (u32, u32),
    /// `none`, `integrity`, `confidentiality` or `unknown`.
    pub lockdown: String,
    /// `kernel.perf_event_paranoid`; `None` without perf events.
    pub perf_event_paranoid: Option<i64>,
    /// `RLIMIT_MEMLOCK`, in bytes; `None` when it cannot be read.
    pub memlock_bytes: Option<Limits>,
    /// `RLIMIT_NOFILE`; `None` when it cannot be read.
    pub open_files: Option<Limits>,
    root: PathBuf,
    /// `CONFIG_X` to its value; `None` when the kernel does not show its configuration.
    config: Option<BTreeMap<String, String>>,
    /// File system type to its first mount point.
    mounts: BTreeMap<String, String>,
    /// The effective set; `None` without /proc.
    capabilities: Option<u64>,
    has_seccomp_filter: bool,
    is_in_user_namespace: bool,
}

/// A resource limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What holds now.
    pub soft: Option<u64>,
    /// Up to which the process may raise it.
    pub hard: Option<u64>,
}

/// A number of include/uapi/linux/capability.h and its name.
type Capability = (u32, &'static str);

/// Stands for each of the others when programs are loaded.
const CAP_SYS_ADMIN: u32 = 21;
/// What tracing programs need.
const FOR_TRACING: &[Capability] = &[(39, "CAP_BPF"), (38, "CAP_PERFMON")];
/// What programs in the network's path need besides.
const FOR_NETWORK: &[Capability] = &[FOR_TRACING[0], FOR_TRACING[1], (12, "CAP_NET_ADMIN")];

impl KernelFacts {
    /// Reads them.
    #[must_use]
    pub fn read() -> Self {
        Self::read_below(Path::new("/"))
    }

    /// Reads everything below `root`, which is `/` except in tests.
    pub(super) fn read_below(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let release = text("proc/sys/kernel/osrelease").trim().to_owned();
        let config = read_config(root, &release);
        let limits = text("proc/self/limits");
        let status = text("proc/self/status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim)
        };
        let uid_map = text("proc/self/uid_map");
        let uids: Vec<&str> = uid_map.split_whitespace().collect();
        Self {
            version: parse_version(&release),
            lockdown: lockdown(
                &text("sys/kernel/security/lockdown"),
                &text("proc/cmdline"),
                config.as_ref(),
            ),
            perf_event_paranoid: text("proc/sys/kernel/perf_event_paranoid")
                .trim()
                .parse()
                .ok(),
            memlock_bytes: parse_limit(&limits, "Max locked memory"),
            open_files: parse_limit(&limits, "Max open files"),
            root: root.to_owned(),
            config,
            mounts: parse_mounts(&text("proc/self/mounts")),
            capabilities: field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()),
            has_seccomp_filter: field("Seccomp:") == Some("2"),
            is_in_user_namespace: !matches!(uids[..], [] | ["0", "0", "4294967295"]),
            release,
        }
    }

    /// Where the first file system of this type is mounted: `tracefs`, `bpf`, `cgroup2`.
    #[must_use]
    pub fn mount_point(&self, kind: &str) -> Option<&str> {
        self.mounts.get(kind).map(String::as_str)
    }

    /// Whether `CONFIG_NAME` is `y` or `m`; `None` when the kernel does not say.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<bool> {
        let value = self.config.as_ref()?.get(&format!("CONFIG_{name}"));
        Some(value.is_some_and(|value| value == "y" || value == "m"))
    }

    /// What this process lacks of `CAP_BPF` and `CAP_PERFMON`, with which tracing programs are
    /// loaded; empty when nothing is missing, or /proc does not tell.
    #[must_use]
    pub fn missing_capabilities(&self) -> Vec<&'static str> {
        self.missing(FOR_TRACING)
    }

    fn missing(&self, needed: &[Capability]) -> Vec<&'static str> {
        let missing = needed
            .iter()
            .filter(|(capability, _)| !self.is_capable(*capability));
        missing.map(|(_, name)| *name).collect()
    }

    fn is_capable(&self, wanted: u32) -> bool {
        let has = |set: u64| set >> wanted & 1 == 1 || set >> CAP_SYS_ADMIN & 1 == 1;
        self.capabilities.is_none_or(has)
    }

    /// What can be behind an EPERM of bpf(2) or perf_event_open(2), in words.
    #[must_use]
    pub fn explain_refusal(&self) -> String {
        self.explain(FOR_TRACING)
    }

    /// As [`explain_refusal`](Self::explain_refusal), of a program in the network's path.
    pub(super) fn explain_refusal_in_network(&self) -> String {
        self.explain(FOR_NETWORK)
    }

    fn explain(&self, needed: &[Capability]) -> String {
        let missing = self.missing(needed);
        if !missing.is_empty() {
            return format!(
                "it needs {}, which this process lacks; run it as root",
                missing.join(" and ")
            );
        }
        let mut causes = Vec::new();
        if !matches!(self.lockdown.as_str(), "none" | "unknown") {
            causes.push(format!("kernel lockdown is {}", self.lockdown));
        }
        if self.has_seccomp_filter {
            causes.push("a seccomp filter is on".into());
        }
        if self.is_in_user_namespace {
            causes.push("it is in a user namespace".into());
        }
        if causes.is_empty() {
            causes.push("a security module may forbid it".into());
        }
        let names: Vec<&str> = needed.iter().map(|(_, name)| *name).collect();
        format!(
            "the kernel forbids it although the process has {}: {}",
            names.join(" and "),
            causes.join(", ")
        )
    }

    /// The trimmed content of a file below the root.
    pub(super) fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

/// Major and minor of `6.18.44-cloud`.
fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|letter: char| !letter.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The chosen word of `none [integrity] confidentiality`; without securityfs what the kernel was built or booted with.
fn lockdown(shown: &str, cmdline: &str, config: Option<&BTreeMap<String, String>>) -> String {
    if let Some((_, rest)) = shown.split_once('[') {
        return rest.split(']').next().unwrap_or_default().to_owned();
    }
    if let Some(word) = cmdline
        .split_whitespace()
        .find_map(|word| word.strip_prefix("lockdown="))
    {
        return word.to_owned();
    }
    let Some(config) = config else {
        return "unknown".into();
    };
    let is_set = |name: &str| config.contains_key(name);
    if is_set("CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY") {
        "confidentiality".into()
    } else if is_set("CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY") {
        "integrity".into()
    } else if is_set("CONFIG_SECURITY_LOCKDOWN_LSM") {
        // Secure boot or a write to securityfs may have raised it since.
        "unknown".into()
    } else {
        "none".into()
    }
}

/// The configuration of the running kernel: from itself, else from where distributions put it.
fn read_config(root: &Path, release: &str) -> Option<BTreeMap<String, String>> {
    let compressed = root.join("proc/config.gz");
    if compressed.exists()
        && let Some(text) = unzip(&compressed)
    {
        return Some(parse_config(&text));
    }
    let plain = [
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/config"),
    ];
    plain
        .iter()
        .find_map(|path| std::fs::read_to_string(root.join(path)).ok())
        .map(|text| parse_config(&text))
}

/// gzip is on every machine that has this file; without it the configuration is unknown, which is an answer too.
fn unzip(file: &Path) -> Option<String> {
    let out = Command::new("gzip")
        .arg("-dc")
        .arg(file)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    out.status
        .success()
        .then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

fn parse_config(text: &str) -> BTreeMap<String, String> {
    let set = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='));
    set.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn parse_mounts(text: &str) -> BTreeMap<String, String> {
    let mut mounts = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(point), Some(kind)) = (words.next(), words.next()) {
            mounts
                .entry(kind.to_owned())
                .or_insert_with(|| point.to_owned());
        }
    }
    mounts
}

/// A row of /proc/self/limits.
fn parse_limit(limits: &str, row: &str) -> Option<Limits> {
    let line = limits.lines().find_map(|line| line.strip_prefix(row))?;
    let mut columns = line.split_whitespace().map(|column| match column {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    });
    Some(Limits {
        soft: columns.next()??,
        hard: columns.next()??,
    })
}

#[cfg(test)]
mod tests {
    use super::{
        KernelFacts, Limits, lockdown, parse_config, parse_limit, parse_mounts, parse_version,
    };

    #[test]
    fn reads_what_the_kernel_prints() {
        assert_eq!(parse_version("6.18.44-cloud"), (6, 18));
        assert_eq!(parse_version("odd"), (0, 0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  524288  files\nMax locked memory  8388608  unlimited  bytes\n";
        let limit = |soft, hard| Some(Limits { soft, hard });
        assert_eq!(
            parse_limit(limits, "Max open files"),
            limit(Some(1024), Some(524_288))
        );
        assert_eq!(
            parse_limit(limits, "Max locked memory"),
            limit(Some(8_388_608), None)
        );
        assert_eq!(parse_limit(limits, "Max file size"), None);
        let mounts =
            parse_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nx /other cgroup2 rw 0 0\n");
        assert_eq!(mounts["cgroup2"], "/sys/fs/cgroup");
    }

    #[test]
    fn lockdown_comes_from_the_best_source() {
        let integrity = parse_config(
            "CONFIG_SECURITY_LOCKDOWN_LSM=y\nCONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY=y\n",
        );
        let possible =
            parse_config("CONFIG_SECURITY_LOCKDOWN_LSM=y\n# CONFIG_KPROBES is not set\n");
        let impossible = parse_config("# CONFIG_SECURITY_LOCKDOWN_LSM is not set\n");
        assert_eq!(
            lockdown("none integrity [confidentiality]", "", Some(&integrity)),
            "confidentiality"
        );
        assert_eq!(
            lockdown("", "quiet lockdown=integrity", Some(&impossible)),
            "integrity"
        );
        assert_eq!(lockdown("", "", Some(&integrity)), "integrity");
        assert_eq!(lockdown("", "", Some(&possible)), "unknown");
        assert_eq!(lockdown("", "", Some(&impossible)), "none");
        assert_eq!(lockdown("", "", None), "unknown");
    }

    fn of(files: &[(&str, &str)]) -> KernelFacts {
        super::super::tests::facts_of(files)
    }

    #[test]
    fn missing_capabilities_are_named() {
        let missing = |status| of(&[("proc/self/status", status)]).missing_capabilities();
        assert_eq!(
            missing("Name:\tx\nCapEff:\t0000000000000000\n"),
            ["CAP_BPF", "CAP_PERFMON"]
        );
        assert_eq!(missing("CapEff:\t0000008000000000\n"), ["CAP_PERFMON"]);
        assert_eq!(missing("CapEff:\t000000c000000000\n"), [""; 0]);
        assert_eq!(missing("CapEff:\t0000000000200000\n"), [""; 0]);
        assert_eq!(missing(""), [""; 0], "no /proc: nothing to say");
    }

    #[test]
    fn a_refusal_names_everything_that_can_be_behind_it() {
        let able = ("proc/self/status", "CapEff:\t000000c000000000\n");
        let plain = of(&[able]).explain_refusal();
        assert!(plain.contains("security module"), "{plain}");
        let filtered = (
            "proc/self/status",
            "CapEff:\t000000c000000000\nSeccomp:\t2\n",
        );
        let all = of(&[
            filtered,
            ("proc/self/uid_map", "         0     100000      65536\n"),
            (
                "sys/kernel/security/lockdown",
                "none [integrity] confidentiality\n",
            ),
        ]);
        let all = all.explain_refusal();
        for cause in ["lockdown is integrity", "seccomp", "user namespace"] {
            assert!(all.contains(cause), "{all}");
        }
        let poor = of(&[("proc/self/status", "CapEff:\t0\n")]).explain_refusal();
        assert!(poor.contains("needs CAP_BPF and CAP_PERFMON"), "{poor}");
    }
}
