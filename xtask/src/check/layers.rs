//! Dependencies point down: no crate uses a crate of its own level or above, not even in its tests.

use std::collections::BTreeMap;

use crate::stages::Outcome;
use crate::workspace::Workspace;

/// The one place that says which level a crate is on. A new crate gets a row.
const LEVELS: &[(&str, u32)] = &[
    ("canon-ser", 0),
    ("timerwheel", 0),
    ("mainstay-circuit", 0),
    ("heartbeat-codec", 0),
    ("ebpf-ring", 0),
    ("idem-store", 1),
    ("conn-reactor", 1),
    ("mainstay-kernel-scope", 1),
    ("mainstay-scheduler", 2),
    ("mainstay-gateway", 3),
    ("mainstay", 4),
    ("mainstay-cli", 5),
    ("mainstay-benches", 6),
    ("xtask", 6),
    ("xtask-guest", 6),
];

pub(crate) fn check(workspace: &Workspace) -> Result<Outcome, String> {
    let crates = workspace.packages.iter().map(|package| {
        let used = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.as_str());
        (package.name.as_str(), used.collect())
    });
    let wrong = violations(
        &BTreeMap::from_iter(LEVELS.iter().copied()),
        &crates.collect(),
    );
    if wrong.is_empty() {
        return Ok(Outcome::Passed(format!(
            "{} crates",
            workspace.packages.len()
        )));
    }
    Err(format!(
        "an arrow points up (levels: xtask/src/check/layers.rs)\n{}",
        wrong.join("\n")
    ))
}

/// `crates`: each member with the packages that it uses, from the registry or ours.
fn violations(levels: &BTreeMap<&str, u32>, crates: &BTreeMap<&str, Vec<&str>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, used) in crates {
        let Some(level) = levels.get(name) else {
            wrong.push(format!("{name} has no level: add a row"));
            continue;
        };
        for dependency in used
            .iter()
            .filter(|dependency| crates.contains_key(**dependency))
        {
            let below = levels.get(dependency).copied().unwrap_or_default();
            if below >= *level {
                wrong.push(format!(
                    "{name} (level {level}) uses {dependency} (level {below})"
                ));
            }
        }
    }
    let stale = levels.keys().filter(|name| !crates.contains_key(**name));
    wrong.extend(stale.map(|name| format!("{name} has a level but is no member: remove the row")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::violations;
    use std::collections::BTreeMap;

    #[test]
    fn an_upward_arrow_a_missing_row_and_a_stale_row_are_found() {
        let levels = BTreeMap::from([("low", 0), ("other", 0), ("high", 1)]);
        let good = BTreeMap::from([
            ("low", vec!["serde"]),
            ("other", vec![]),
            ("high", vec!["low", "other"]),
        ]);
        assert_eq!(violations(&levels, &good), Vec::<String>::new());

        let up = BTreeMap::from([("low", vec!["high"]), ("other", vec![]), ("high", vec![])]);
        assert_eq!(
            violations(&levels, &up),
            ["low (level 0) uses high (level 1)"]
        );

        let sideways =
            BTreeMap::from([("low", vec!["other"]), ("other", vec![]), ("high", vec![])]);
        assert_eq!(
            violations(&levels, &sideways),
            ["low (level 0) uses other (level 0)"]
        );

        let unknown = BTreeMap::from([("low", vec![]), ("other", vec![]), ("new", vec![])]);
        assert_eq!(
            violations(&levels, &unknown),
            [
                "new has no level: add a row",
                "high has a level but is no member: remove the row"
            ]
        );
    }
}
