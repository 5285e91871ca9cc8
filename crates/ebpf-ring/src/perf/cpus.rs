//! Which CPUs run: the kernel's list syntax, `0-2,4`.

use std::io;

const ONLINE: &str = "/sys/devices/system/cpu/online";

/// The CPUs that run now, in order.
pub(super) fn online() -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string(ONLINE)?;
    parse(&text).ok_or_else(|| {
        let why = format!("{ONLINE} says {text:?}, which is no list of CPUs");
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
    use super::{online, parse};

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
        assert!(!online().expect("sysfs").is_empty());
    }
}
