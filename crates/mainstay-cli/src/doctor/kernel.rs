//! What the report says of the kernel itself.

use std::path::Path;

use serde::Serialize;

use super::features::{self, Feature};

/// Facts of the kernel and of this process's limits.
#[derive(Debug, Default, Serialize)]
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

/// Asks the running kernel.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
pub(super) fn examine() -> (Kernel, Vec<Feature>) {
    let probed = ebpf_ring::KernelFeatures::probe();
    let facts = probed.facts();
    let (files, memory) = (facts.open_files, facts.memlock_bytes);
    let kernel = Kernel {
        release: facts.release.clone(),
        machine: std::env::consts::ARCH,
        lockdown: facts.lockdown.clone(),
        btf: probed.has(ebpf_ring::KernelFeature::Btf),
        cgroup2: facts.mount_point("cgroup2").map(str::to_owned),
        perf_event_paranoid: facts.perf_event_paranoid,
        nofile_soft: files.and_then(|files| files.soft),
        nofile_hard: files.and_then(|files| files.hard),
        memlock_bytes_soft: memory.and_then(|memory| memory.soft),
        memlock_bytes_hard: memory.and_then(|memory| memory.hard),
        ..Kernel::of_devices(Path::new("/sys/devices/system"))
    };
    let mut features = vec![features::descriptors(kernel.nofile_hard)];
    features.extend(probed.iter().map(Feature::from));
    (kernel, features)
}

/// A system of which this command knows no kernel features.
#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
pub(super) fn examine() -> (Kernel, Vec<Feature>) {
    let kernel = Kernel {
        machine: std::env::consts::ARCH,
        lockdown: "unknown".into(),
        ..Kernel::default()
    };
    let features = vec![features::descriptors(None)];
    (kernel, features)
}

impl Kernel {
    /// The clock and the CPUs, which `devices` describes.
    fn of_devices(devices: &Path) -> Self {
        let word = |path: &str| {
            let text = std::fs::read_to_string(devices.join(path)).ok()?;
            Some(text.trim().to_owned()).filter(|word| !word.is_empty())
        };
        Self {
            clocksource: word("clocksource/clocksource0/current_clocksource"),
            isolated_cpus: word("cpu/isolated"),
            ..Self::default()
        }
    }

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

#[cfg(test)]
mod tests {
    use super::Kernel;

    #[test]
    fn empty_lists_are_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("cpu")).unwrap();
        std::fs::write(dir.path().join("cpu/isolated"), "\n").unwrap();
        assert_eq!(Kernel::of_devices(dir.path()).isolated_cpus, None);
        std::fs::write(dir.path().join("cpu/isolated"), "2-3\n").unwrap();
        let isolated = Kernel::of_devices(dir.path()).isolated_cpus;
        assert_eq!(isolated.as_deref(), Some("2-3"));
    }
}
