//! Facts of the kernel, all from files that anyone may read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

/// What the report says of the kernel itself.
#[derive(Debug, Serialize)]
pub(super) struct Kernel {
    pub(super) release: String,
    pub(super) machine: &'static str,
    /// `none`, `integrity`, `confidentiality` or `unknown`.
    pub(super) lockdown: String,
    pub(super) btf: bool,
    pub(super) clocksource: Option<String>,
    /// CPUs that the scheduler leaves alone (`isolcpus`).
    pub(super) isolated_cpus: Option<String>,
    /// Where cgroup2 is mounted.
    pub(super) cgroup2: Option<String>,
    pub(super) perf_event_paranoid: Option<i64>,
    /// Soft limit of open files; `None` is unlimited or unknown.
    pub(super) nofile_soft: Option<u64>,
    pub(super) nofile_hard: Option<u64>,
    pub(super) memlock_bytes_soft: Option<u64>,
    pub(super) memlock_bytes_hard: Option<u64>,
}

/// [`Kernel`], and what features are judged by.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) kernel: Kernel,
    root: PathBuf,
    /// Major and minor, zeros when the release is no number.
    pub(super) version: (u32, u32),
    /// `CONFIG_X` to its value; `None` when the kernel does not show its configuration.
    config: Option<BTreeMap<String, String>>,
    /// File system type to its first mount point.
    mounts: BTreeMap<String, String>,
    capabilities: u64,
    limits: String,
}

/// Bits of linux/capability.h.
#[derive(Debug, Clone, Copy)]
pub(super) enum Capability {
    SysAdmin = 21,
    Perfmon = 38,
    Bpf = 39,
}

impl Facts {
    /// Reads everything below `root`, which is `/` except in tests.
    pub(super) fn read(root: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        let release = text("proc/sys/kernel/osrelease").trim().to_owned();
        let config = read_config(root, &release);
        let mounts = parse_mounts(&text("proc/self/mounts"));
        let limits = text("proc/self/limits");
        let word = |path: &str| Some(text(path).trim().to_owned()).filter(|word| !word.is_empty());
        let kernel = Kernel {
            machine: std::env::consts::ARCH,
            lockdown: lockdown(
                &text("sys/kernel/security/lockdown"),
                &text("proc/cmdline"),
                config.as_ref(),
            ),
            btf: root.join("sys/kernel/btf/vmlinux").exists(),
            clocksource: word("sys/devices/system/clocksource/clocksource0/current_clocksource"),
            isolated_cpus: word("sys/devices/system/cpu/isolated"),
            cgroup2: mounts.get("cgroup2").cloned(),
            perf_event_paranoid: text("proc/sys/kernel/perf_event_paranoid")
                .trim()
                .parse()
                .ok(),
            nofile_soft: limit(&limits, "Max open files", 0),
            nofile_hard: limit(&limits, "Max open files", 1),
            memlock_bytes_soft: limit(&limits, "Max locked memory", 0),
            memlock_bytes_hard: limit(&limits, "Max locked memory", 1),
            release,
        };
        Self {
            version: parse_version(&kernel.release),
            root: root.to_owned(),
            config,
            mounts,
            capabilities: parse_capabilities(&text("proc/self/status")),
            limits,
            kernel,
        }
    }

    /// The trimmed content of a file below the root.
    pub(super) fn file(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path))
            .ok()
            .map(|text| text.trim().to_owned())
    }

    /// Whether `CONFIG_NAME` is `y` or `m`; `None` when the kernel does not say.
    pub(super) fn config(&self, name: &str) -> Option<bool> {
        let config = self.config.as_ref()?;
        Some(
            config
                .get(&format!("CONFIG_{name}"))
                .is_some_and(|value| value == "y" || value == "m"),
        )
    }

    pub(super) fn mount_point(&self, kind: &str) -> Option<&str> {
        self.mounts.get(kind).map(String::as_str)
    }

    /// Whether the process may do what `wanted` guards; `CAP_SYS_ADMIN` stands for the newer ones.
    pub(super) fn is_capable(&self, wanted: Capability) -> bool {
        let has = |capability: Capability| self.capabilities & (1 << capability as u32) != 0;
        has(wanted) || has(Capability::SysAdmin)
    }

    /// Whether the soft limit of locked memory is `unlimited`, which [`Kernel`] cannot tell from unknown.
    pub(super) fn memlock_is_unlimited(&self) -> bool {
        let line = self
            .limits
            .lines()
            .find_map(|line| line.strip_prefix("Max locked memory"));
        line.and_then(|line| line.split_whitespace().next()) == Some("unlimited")
    }
}

impl Kernel {
    pub(super) fn to_lines(&self) -> Vec<String> {
        let or_dash = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        let number =
            |value: Option<u64>| value.map_or("unlimited".into(), |value| value.to_string());
        let paranoid = self
            .perf_event_paranoid
            .map_or("-".into(), |value| value.to_string());
        vec![
            format!(
                "kernel {} {}, lockdown {}",
                self.release, self.machine, self.lockdown
            ),
            format!(
                "  open files {} (hard {}), locked memory {} bytes (hard {})",
                number(self.nofile_soft),
                number(self.nofile_hard),
                number(self.memlock_bytes_soft),
                number(self.memlock_bytes_hard),
            ),
            format!(
                "  clock source {}, isolated CPUs {}, cgroup2 {}, perf_event_paranoid {paranoid}",
                or_dash(&self.clocksource),
                or_dash(&self.isolated_cpus),
                or_dash(&self.cgroup2),
            ),
        ]
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

fn parse_capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

/// Column 0 (soft) or 1 (hard) of a row of /proc/self/limits.
fn limit(limits: &str, row: &str, column: usize) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(row))?;
    line.split_whitespace().nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{limit, lockdown, parse_capabilities, parse_config, parse_mounts, parse_version};

    #[test]
    fn reads_what_the_kernel_prints() {
        assert_eq!(parse_version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(parse_version("odd"), (0, 0));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  524288  files\nMax locked memory  8388608  unlimited  bytes\n";
        assert_eq!(limit(limits, "Max open files", 0), Some(1024));
        assert_eq!(limit(limits, "Max open files", 1), Some(524_288));
        assert_eq!(limit(limits, "Max locked memory", 1), None);
        let mounts =
            parse_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nx /other cgroup2 rw 0 0\n");
        assert_eq!(mounts["cgroup2"], "/sys/fs/cgroup");
        assert_eq!(
            parse_capabilities("Name:\tx\nCapEff:\t0000008000000000\n"),
            1 << 39
        );
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
}
