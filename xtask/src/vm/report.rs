//! What happened on a kernel: the report of `xtask/guest`, read and summed up.

use std::collections::BTreeMap;

/// The tests of one kernel.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) release: String,
    pub(crate) tests: Vec<Test>,
    /// Whether the last line is there, and names as many tests as ended.
    pub(crate) is_whole: bool,
}

pub(crate) struct Test {
    /// `package::module::function`.
    pub(crate) id: String,
    /// `passed`, `failed`, `hung`, `ignored`; empty when it never ended.
    pub(crate) result: String,
    pub(crate) took_ms: u64,
    pub(crate) lines: Vec<String>,
}

impl Report {
    pub(crate) fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.trim_end_matches('\r').splitn(4, '\t').collect();
            match words[..] {
                ["kernel", release] => report.release = release.into(),
                ["start", id] => {
                    at.insert(id.into(), report.tests.len());
                    report.tests.push(Test {
                        id: id.into(),
                        result: String::new(),
                        took_ms: 0,
                        lines: Vec::new(),
                    });
                }
                ["line", id, ..] => {
                    if let Some(at) = at.get(id) {
                        let text = words[2..].join("\t");
                        report.tests[*at].lines.push(text);
                    }
                }
                ["end", id, result, took_ms] => {
                    if let Some(at) = at.get(id) {
                        report.tests[*at].result = result.into();
                        report.tests[*at].took_ms = took_ms.parse().unwrap_or_default();
                    }
                }
                ["done", count] => {
                    let ended = report.tests.iter().filter(|test| !test.result.is_empty());
                    report.is_whole = count.parse() == Ok(ended.count());
                }
                // A line that a panic cut off: `is_whole` says so.
                _ => {}
            }
        }
        report
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = &Test> {
        self.tests
            .iter()
            .filter(|test| !["passed", "ignored"].contains(&test.result.as_str()))
    }

    pub(crate) fn passed(&self) -> usize {
        let passed = self.tests.iter().filter(|test| test.result == "passed");
        passed.count()
    }

    /// What could not run on this kernel, by test: a test may leave out a part of itself.
    pub(crate) fn skips(&self) -> impl Iterator<Item = (&Test, &str)> {
        self.tests
            .iter()
            .flat_map(|test| test.marked("SKIP: ").map(move |reason| (test, reason)))
    }

    /// What tests found out about the kernel: `FACT name: value`.
    pub(crate) fn facts(&self) -> BTreeMap<&str, &str> {
        self.tests
            .iter()
            .flat_map(|test| test.marked("FACT "))
            .filter_map(|fact| fact.split_once(": "))
            .collect()
    }
}

impl Test {
    fn marked<'a>(&'a self, mark: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines
            .iter()
            .filter_map(move |line| line.strip_prefix(mark))
    }

    /// `package::module`: what is counted together.
    pub(crate) fn group(&self) -> &str {
        self.id
            .rsplit_once("::")
            .map_or(&self.id, |(group, _)| group)
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    const TEXT: &str = "kernel\t6.1.0\r\nstart\tp::m::a\nstart\tp::m::b\nline\tp::m::b\tFACT ring: has\ttabs\n\
        end\tp::m::b\tpassed\t12\nline\tp::m::a\tSKIP: no tracefs\nend\tp::m::a\tfailed\t3\n";

    #[test]
    fn tests_that_overlap_are_told_apart() {
        let report = Report::parse(&format!("{TEXT}done\t2\n"));
        assert!(report.is_whole);
        assert_eq!((report.release.as_str(), report.passed()), ("6.1.0", 1));
        let failed: Vec<_> = report.failures().map(|test| test.id.as_str()).collect();
        assert_eq!(failed, ["p::m::a"]);
        assert_eq!(report.tests[1].took_ms, 12);
        assert_eq!(report.tests[1].group(), "p::m");
        assert_eq!(report.facts()["ring"], "has\ttabs");
        let skips: Vec<_> = report.skips().map(|(_, reason)| reason).collect();
        assert_eq!(skips, ["no tracefs"]);
    }

    #[test]
    fn a_report_without_its_end_or_with_a_test_too_few_is_not_whole() {
        assert!(!Report::parse(TEXT).is_whole);
        assert!(!Report::parse(&format!("{TEXT}done\t3\n")).is_whole);
        let cut = Report::parse(&format!("{TEXT}start\tp::m::c\nline\tp::m::c\thalf a li"));
        assert_eq!(cut.failures().count(), 2, "what never ended failed");
    }
}
