//! What `cargo metadata` says about our packages. `--no-deps`: offline, and in milliseconds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cmd::Cmd;

/// The folder that holds the workspace's Cargo.toml, found upward from the working directory.
pub(crate) fn root() -> Result<PathBuf, String> {
    let here = std::env::current_dir()
        .map_err(|error| format!("the working directory is gone: {error}"))?;
    here.ancestors()
        .find(|dir| dir.join("Cargo.toml").is_file() && dir.join("xtask/Cargo.toml").is_file())
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} is not inside the workspace", here.display()))
}

/// The members and where cargo puts what it builds.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One member.
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    /// Feature name to what it turns on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
    manifest: Value,
}

/// One line of a member's dependency tables.
pub(crate) struct Dependency {
    /// The package's name in the registry.
    pub(crate) name: String,
    /// The name that features use for it.
    pub(crate) alias: String,
    pub(crate) optional: bool,
    /// What this line turns on in it.
    pub(crate) features: Vec<String>,
}

/// A binary, library, bench or the like.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: String,
}

impl Workspace {
    pub(crate) fn load() -> Result<Self, String> {
        let text = Cmd::cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .capture()?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|error| format!("cannot read cargo metadata: {error}"))?;
        Ok(Self {
            root: root()?,
            target: string(&json["target_directory"]).into(),
            packages: list(&json["packages"]).iter().map(package).collect(),
        })
    }

    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.iter().find(|package| package.name == name)
    }
}

impl Package {
    /// A string field of the manifest, empty when absent.
    pub(crate) fn field(&self, name: &str) -> String {
        string(&self.manifest[name])
    }

    /// Whether it goes to a registry.
    pub(crate) fn is_published(&self) -> bool {
        // `publish = false` is an empty list of registries.
        self.manifest["publish"]
            .as_array()
            .is_none_or(|registries| !registries.is_empty())
    }

    /// The features of this package that `start` turns on, itself included.
    pub(crate) fn closure<'a>(
        &'a self,
        start: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut todo: Vec<&str> = start.into_iter().collect();
        while let Some(feature) = todo.pop() {
            if let Some(values) = self.features.get(feature)
                && found.insert(feature)
            {
                todo.extend(values.iter().map(String::as_str));
            }
        }
        found
    }
}

fn package(json: &Value) -> Package {
    let manifest = PathBuf::from(string(&json["manifest_path"]));
    let features = json["features"].as_object().into_iter().flatten();
    Package {
        name: string(&json["name"]),
        dir: manifest.parent().map(Path::to_owned).unwrap_or_default(),
        features: features
            .map(|(name, values)| (name.clone(), list(values).iter().map(string).collect()))
            .collect(),
        dependencies: list(&json["dependencies"]).iter().map(dependency).collect(),
        targets: list(&json["targets"])
            .iter()
            .map(|target| Target {
                name: string(&target["name"]),
                kind: string(&target["kind"][0]),
            })
            .collect(),
        manifest: json.clone(),
    }
}

fn dependency(json: &Value) -> Dependency {
    let name = string(&json["name"]);
    Dependency {
        alias: json["rename"].as_str().unwrap_or(&name).to_owned(),
        optional: json["optional"].as_bool().unwrap_or(false),
        features: list(&json["features"]).iter().map(string).collect(),
        name,
    }
}

fn string(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn list(json: &Value) -> &[Value] {
    json.as_array().map(Vec::as_slice).unwrap_or_default()
}
