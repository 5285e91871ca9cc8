//! The table of docs/KERNELS.md, made from reports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::report::Report;

const FILE: &str = "docs/KERNELS.md";
const BEGIN: &str = "<!-- begin: cargo xtask vm --write-docs -->\n";
const END: &str = "<!-- end: cargo xtask vm --write-docs -->";

/// Replaces what stands between the two marks.
pub(crate) fn write(root: &Path, reports: &[(&str, Report)]) -> Result<(), String> {
    let file = root.join(FILE);
    let text = fs::read_to_string(&file).map_err(|error| format!("cannot read {FILE}: {error}"))?;
    let marks = text.find(BEGIN).zip(text.find(END));
    let (begin, end) = marks
        .filter(|(begin, end)| begin < end)
        .ok_or_else(|| format!("{FILE} has no marks of a generated table"))?;
    let text = format!(
        "{}{}{}",
        &text[..begin + BEGIN.len()],
        table(reports),
        &text[end..]
    );
    fs::write(&file, text).map_err(|error| format!("cannot write {FILE}: {error}"))?;
    println!("wrote the table of {FILE}");
    Ok(())
}

/// A column for each kernel; a row for each module of tests and for each fact.
fn table(reports: &[(&str, Report)]) -> String {
    let cells = |cell: &dyn Fn(&Report) -> String| {
        let cells: Vec<String> = reports.iter().map(|(_, report)| cell(report)).collect();
        cells.join(" | ")
    };
    let names: Vec<&str> = reports.iter().map(|(name, _)| *name).collect();
    let mut text = format!("| | {} |\n", names.join(" | "));
    text += &format!("|---|{}\n", "---|".repeat(names.len()));
    text += &format!(
        "| kernel | {} |\n",
        cells(&|report| version(&report.release))
    );
    let groups: BTreeSet<&str> = reports
        .iter()
        .flat_map(|(_, report)| report.tests.iter().map(|test| test.group()))
        .collect();
    for group in groups {
        text += &format!(
            "| `{group}` | {} |\n",
            cells(&|report| counts(report, group))
        );
    }
    let facts: Vec<BTreeMap<&str, &str>> =
        reports.iter().map(|(_, report)| report.facts()).collect();
    let names: BTreeSet<&str> = facts
        .iter()
        .flat_map(|facts| facts.keys().copied())
        .collect();
    for name in names {
        let cells = facts.iter().map(|facts| *facts.get(name).unwrap_or(&""));
        text += &format!("| {name} | {} |\n", cells.collect::<Vec<_>>().join(" | "));
    }
    let mut reasons: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, report) in reports {
        for (_, reason) in report.skips() {
            let reason = reason.replace(&report.release, numbers(&report.release));
            reasons.entry(reason).or_default().insert(name);
        }
    }
    if !reasons.is_empty() {
        text += "\nWhat could not run:\n\n";
    }
    for (reason, names) in reasons {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        text += &format!("- {names}: {reason}\n");
    }
    text
}

/// Passed tests, and how many of them left something out.
fn counts(report: &Report, group: &str) -> String {
    let ours = report.tests.iter().filter(|test| test.group() == group);
    let passed = ours.filter(|test| test.result == "passed").count();
    let partly: BTreeSet<&str> = report
        .skips()
        .filter(|(test, _)| test.group() == group)
        .map(|(test, _)| test.id.as_str())
        .collect();
    if partly.is_empty() {
        format!("{passed} passed")
    } else {
        format!("{passed} passed, {} of them in part", partly.len())
    }
}

fn version(release: &str) -> String {
    match release.contains("cloud-amd64") {
        true => format!("Debian `{release}`"),
        false => numbers(release).into(),
    }
}

/// The numbers of a release: what follows names whoever built it.
fn numbers(release: &str) -> &str {
    let end = release.find(|c: char| !(c.is_ascii_digit() || c == '.'));
    &release[..end.unwrap_or(release.len())]
}

#[cfg(test)]
mod tests {
    use super::{super::report::Report, table};

    #[test]
    fn a_column_each_a_row_for_every_module_and_fact() {
        let old = "kernel\t6.1.0-9-cloud-amd64\nstart\tp::m::a\nline\tp::m::a\tFACT fentry: loads\nend\tp::m::a\tpassed\t1\ndone\t1\n";
        let new = "kernel\t6.18.4-somebody\nstart\tp::m::a\nline\tp::m::a\tSKIP: EPERM\nend\tp::m::a\tpassed\t1\ndone\t1\n";
        let reports = [("6.1", Report::parse(old)), ("host", Report::parse(new))];
        let text = table(&reports);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "| | 6.1 | host |",
                "|---|---|---|",
                "| kernel | Debian `6.1.0-9-cloud-amd64` | 6.18.4 |",
                "| `p::m` | 1 passed | 1 passed, 1 of them in part |",
                "| fentry | loads |  |",
                "",
                "What could not run:",
                "",
                "- host: EPERM",
            ]
        );
    }
}
