//! Which CPUs share a ring: groups by what the kernel says of their caches and packages.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cpus;
use crate::error::RingError;

/// What CPUs of one group have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupBy {
    /// Each CPU is a group.
    Cpu,
    /// The threads of one core.
    Core,
    /// The last level of cache: a ring's pages stay in it.
    Cache,
    /// The package: a socket.
    Package,
}

/// The CPUs of the machine in groups, each of which has a ring of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuGroups {
    groups: Vec<Vec<u32>>,
}

impl CpuGroups {
    /// Groups the CPUs that can ever run, with at most `cpus_max` to a group: larger ones are split
    /// evenly. CPUs of which the kernel says nothing, because they are off, join the first group.
    ///
    /// # Errors
    ///
    /// Without sysfs.
    ///
    /// # Panics
    ///
    /// When `cpus_max` is 0.
    pub fn read(by: GroupBy, cpus_max: usize) -> Result<Self, RingError> {
        let possible = cpus::possible().map_err(|e| RingError::io("listing the CPUs", e))?;
        Ok(Self::group(Path::new(cpus::CPUS), &possible, by, cpus_max))
    }

    /// These groups. A record written on a CPU that is in none is counted as
    /// [`NoState`](crate::DropReason::NoState).
    ///
    /// # Errors
    ///
    /// When there is no group, or an empty one, or a CPU is in two.
    pub fn new(groups: Vec<Vec<u32>>) -> Result<Self, RingError> {
        let mut all: Vec<u32> = groups.iter().flatten().copied().collect();
        all.sort_unstable();
        let wrong = match () {
            () if groups.is_empty() || groups.iter().any(Vec::is_empty) => "a group is empty",
            () if all.windows(2).any(|pair| pair[0] == pair[1]) => "a CPU is in two groups",
            () => return Ok(Self { groups }),
        };
        let why = std::io::Error::new(std::io::ErrorKind::InvalidInput, wrong);
        Err(RingError::io("grouping the CPUs", why))
    }

    /// The CPUs of each group.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.groups.iter().map(Vec::as_slice)
    }

    fn group(sysfs: &Path, possible: &[u32], by: GroupBy, cpus_max: usize) -> Self {
        assert!(cpus_max > 0, "a group holds a CPU at least");
        let mut silent = Vec::new();
        let mut together: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for cpu in possible {
            match siblings(sysfs, *cpu, by) {
                Some(siblings) => {
                    let first = siblings.first().copied().unwrap_or(*cpu);
                    together.entry(first).or_default().push(*cpu);
                }
                None => silent.push(*cpu),
            }
        }
        let mut groups: Vec<Vec<u32>> = together
            .into_values()
            .flat_map(|cpus| {
                let parts = cpus.len().div_ceil(cpus_max);
                let each = cpus.len().div_ceil(parts);
                let chunks = cpus.chunks(each).map(<[u32]>::to_vec);
                chunks.collect::<Vec<_>>()
            })
            .collect();
        match groups.first_mut() {
            Some(first) => first.extend(silent),
            None => groups.push(silent),
        }
        Self { groups }
    }
}

/// The CPUs with which `cpu` has it in common, itself included; `None` when the kernel is silent.
fn siblings(sysfs: &Path, cpu: u32, by: GroupBy) -> Option<Vec<u32>> {
    let dir = sysfs.join(format!("cpu{cpu}"));
    // The older name behind the newer one.
    let topology = |names: [&str; 2]| {
        let mut files = names.iter().map(|name| dir.join("topology").join(name));
        files.find_map(|file| cpus::read(&file).ok())
    };
    match by {
        GroupBy::Cpu => Some(vec![cpu]),
        GroupBy::Core => topology(["core_cpus_list", "thread_siblings_list"]),
        GroupBy::Cache => last_cache(&dir.join("cache"))
            .or_else(|| topology(["package_cpus_list", "core_siblings_list"])),
        GroupBy::Package => topology(["package_cpus_list", "core_siblings_list"]),
    }
}

/// Who shares the cache of the highest level.
fn last_cache(dir: &Path) -> Option<Vec<u32>> {
    let caches = std::fs::read_dir(dir).ok()?.flatten().filter_map(|entry| {
        let level = std::fs::read_to_string(entry.path().join("level")).ok()?;
        let shared = cpus::read(&entry.path().join("shared_cpu_list")).ok()?;
        Some((level.trim().parse::<u32>().ok()?, shared))
    });
    let last = caches.max_by_key(|(level, _)| *level)?;
    Some(last.1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{CpuGroups, GroupBy};

    fn write(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        std::fs::create_dir_all(file.parent().expect("it has one")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    }

    /// Two packages of four CPUs; in the first, two share a cache; CPU 8 is off.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for cpu in 0..8 {
            let at = |name: &str| format!("cpu{cpu}/{name}");
            let package = if cpu < 4 { "0-3\n" } else { "4-7\n" };
            write(root.path(), &at("topology/package_cpus_list"), package);
            let core = format!("{}-{}\n", cpu & !1, cpu | 1);
            write(root.path(), &at("topology/thread_siblings_list"), &core);
            if cpu < 4 {
                write(root.path(), &at("cache/index0/level"), "1\n");
                write(root.path(), &at("cache/index0/shared_cpu_list"), "0\n");
                write(root.path(), &at("cache/index3/level"), "3\n");
                write(root.path(), &at("cache/index3/shared_cpu_list"), &core);
            }
        }
        root
    }

    fn groups(by: GroupBy, cpus_max: usize) -> Vec<Vec<u32>> {
        let possible: Vec<u32> = (0..9).collect();
        CpuGroups::group(machine().path(), &possible, by, cpus_max).groups
    }

    #[test]
    fn cpus_are_grouped_by_what_they_share() {
        assert_eq!(
            groups(GroupBy::Package, 9),
            [vec![0, 1, 2, 3, 8], vec![4, 5, 6, 7]]
        );
        assert_eq!(groups(GroupBy::Core, 9)[1..], [[2, 3], [4, 5], [6, 7]]);
        // The second package tells no caches.
        let by_cache = [vec![0, 1, 8], vec![2, 3], vec![4, 5, 6, 7]];
        assert_eq!(groups(GroupBy::Cache, 9), by_cache);
        assert_eq!(groups(GroupBy::Cpu, 1).len(), 9);
    }

    #[test]
    fn large_groups_are_split_evenly() {
        let split = groups(GroupBy::Package, 3);
        assert_eq!(split, [vec![0, 1, 8], vec![2, 3], vec![4, 5], vec![6, 7]]);
    }

    #[test]
    fn senseless_groups_are_refused() {
        for wrong in [vec![], vec![vec![]], vec![vec![0, 1], vec![1]]] {
            assert!(CpuGroups::new(wrong).is_err());
        }
        assert!(CpuGroups::new(vec![vec![1], vec![0]]).is_ok());
    }
}
