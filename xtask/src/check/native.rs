//! Which features need a C compiler, headers and make, so that a machine without them still tests all the rest.

use std::collections::BTreeSet;

use crate::workspace::{Dependency, Package, Workspace};

/// Packages from the registry whose build scripts compile C against libelf and zlib, and rustls, which is only taken
/// with ring.
const NATIVE: &[&str] = &["libbpf-sys", "libbpf-rs", "libbpf-cargo", "rustls"];

/// What a workspace-wide cargo command gets.
pub(crate) struct Selection {
    pub(crate) args: Vec<String>,
    /// What was left out and why; empty when everything is in.
    pub(crate) left_out: String,
}

/// Everything, or everything that builds without C.
pub(crate) fn selection(workspace: &Workspace, has_c_libraries: bool) -> Selection {
    let mut args = vec!["--workspace".to_owned()];
    if has_c_libraries {
        args.push("--all-features".into());
        return Selection {
            args,
            left_out: String::new(),
        };
    }
    let native = Native::of(workspace);
    let mut left_out = Vec::new();
    let mut features = Vec::new();
    for package in &workspace.packages {
        if native.needs(package) {
            args.extend(["--exclude".into(), package.name.clone()]);
            left_out.push(package.name.clone());
            continue;
        }
        for feature in package.features.keys() {
            let full = format!("{}/{feature}", package.name);
            let list = if native.turned_on_by(package, feature) {
                &mut left_out
            } else {
                &mut features
            };
            list.push(full);
        }
    }
    if !features.is_empty() {
        args.extend(["--features".into(), features.join(",")]);
    }
    let left_out = if left_out.is_empty() {
        String::new()
    } else {
        format!("left out for want of C libraries: {}", left_out.join(" "))
    };
    Selection { args, left_out }
}

/// Answers which packages and features of ours reach a [`NATIVE`] package.
pub(crate) struct Native<'a> {
    workspace: &'a Workspace,
}

impl<'a> Native<'a> {
    pub(crate) fn of(workspace: &'a Workspace) -> Self {
        Self { workspace }
    }

    /// Whether the package cannot be built without C, whatever its features. Its tests count as part of it.
    pub(crate) fn needs(&self, package: &Package) -> bool {
        package
            .dependencies
            .iter()
            .any(|line| !line.optional && self.brings_c(line, None))
    }

    /// Whether this feature brings C in.
    pub(crate) fn turned_on_by(&self, package: &Package, feature: &str) -> bool {
        let values: BTreeSet<&str> = package
            .closure([feature])
            .into_iter()
            .flat_map(|feature| &package.features[feature])
            .map(String::as_str)
            .collect();
        values
            .into_iter()
            .any(|value| self.value_needs_c(package, value))
    }

    /// `value` is one of cargo's forms: `dep:alias`, `alias/feature`, `alias?/feature`, `feature`.
    fn value_needs_c(&self, package: &Package, value: &str) -> bool {
        let (alias, feature) = match value.split_once('/') {
            Some((alias, feature)) => (alias.trim_end_matches('?'), Some(feature)),
            None => match value.strip_prefix("dep:") {
                Some(alias) => (alias, None),
                None => return false,
            },
        };
        let Some(dependency) = package
            .dependencies
            .iter()
            .find(|dependency| dependency.alias == alias)
        else {
            return false;
        };
        self.brings_c(dependency, feature)
    }

    /// Whether a dependency with its features, and one more perhaps, reaches C.
    fn brings_c(&self, dependency: &Dependency, feature: Option<&str>) -> bool {
        if NATIVE.contains(&dependency.name.as_str()) {
            return true;
        }
        let Some(ours) = self.workspace.package(&dependency.name) else {
            return false;
        };
        let mut features = dependency
            .features
            .iter()
            .map(String::as_str)
            .chain(feature);
        self.needs(ours) || features.any(|feature| self.turned_on_by(ours, feature))
    }
}
