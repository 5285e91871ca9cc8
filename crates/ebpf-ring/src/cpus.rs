//! Which CPUs there are: the kernel's list syntax, `0-2,4`.

use std::io;
use std::path::Path;

/// Where the kernel describes them.
pub(crate) const CPUS: &str = "/sys/devices/system/cpu";

/// The CPUs that run now, in order.
pub(crate) fn online() -> io::Result<Vec<u32>> {
    read(&Path::new(CPUS).join("online"))
}

/// The CPUs that can ever run, in order: per-CPU maps have a value for each.
pub(crate) fn possible() -> io::Result<Vec<u32>> {
    read(&Path::new(CPUS).join("possible"))
}

/// The list in a file.
pub(crate) fn read(file: &Path) -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string(file)?;
    parse(&text).ok_or_else(|| {
        let why = format!("{} says {text:?}, which is no list of CPUs", file.display());
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

fn parse(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.trim_end().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?;
        if range.is_empty() || cpus.last() >= Some(&u32::from(*range.start())) {
            return None;
        }
        cpus.extend(range.map(u32::from));
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::{online, parse, possible};

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse("0\n"), Some(vec![0]));
        assert_eq!(parse("0-1\n"), Some(vec![0, 1]));
        assert_eq!(parse("1-3,5,8-9\n"), Some(vec![1, 2, 3, 5, 8, 9]));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "\n", "a", "0-", "-1", "3-1", "1,1", "2,1", "0-99999", "0,,1",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn this_machine_has_a_cpu() {
        let possible = possible().expect("sysfs");
        let online = online().expect("sysfs");
        assert!(!online.is_empty() && online.iter().all(|cpu| possible.contains(cpu)));
    }
}
