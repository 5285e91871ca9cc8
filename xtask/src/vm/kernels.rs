//! Debian's newest cloud kernels, from apt into a cache.
//!
//! apt works in a directory of its own here, with its own list of sources: it needs no root and changes nothing of the
//! machine, of which it takes the addresses of the archives.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cmd::Cmd;
use crate::tools;

/// A series of kernels. The number between `head` and `tail` is what apt is asked for.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    head: &'static str,
    tail: &'static str,
}

/// Every series of the matrix.
pub(crate) const SERIES: &[Series] = &[
    Series {
        name: "6.1",
        head: "linux-image-6.1.0-",
        tail: "-cloud-amd64",
    },
    Series {
        name: "6.12",
        head: "linux-image-6.12.",
        tail: "+deb12-cloud-amd64",
    },
];

/// Where the two series come from: the release, its security updates and the backports. By the end of the archive's address, as
/// this machine's own sources name it, and the suite.
const SOURCES: &[(&str, &str)] = &[
    ("/debian", "bookworm"),
    ("/debian", "bookworm-backports"),
    ("/debian-security", "bookworm-security"),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Debian publishes a kernel every week or two.
const LISTS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The image of the newest kernel of a series.
///
/// # Errors
///
/// Why this machine cannot have it.
pub(crate) fn newest(series: &Series, cache: &Path) -> Result<PathBuf, String> {
    let apt = Apt::in_dir(&cache.join("apt"))?;
    let package = apt.update().and_then(|()| apt.newest(series));
    let package = package.or_else(|error| {
        let cached = cached(series, cache).ok_or(error.clone())?;
        println!("{error}\ngoing on with {cached}, which is here");
        Ok::<_, String>(cached)
    })?;
    let dir = cache.join(&package);
    if image_in(&dir).is_none() {
        apt.unpack(&package, &dir)?;
    }
    image_in(&dir).ok_or_else(|| format!("{package} holds no kernel image"))
}

/// The newest of the packages that were unpacked here before.
fn cached(series: &Series, cache: &Path) -> Option<String> {
    let names = fs::read_dir(cache).ok()?.flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names
        .filter(|name| image_in(&cache.join(name)).is_some())
        .filter_map(|name| Some((series.number(&name)?, name)))
        .max()
        .map(|(_, name)| name)
}

fn image_in(dir: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(dir.join("boot")).ok()?.flatten();
    files.map(|file| file.path()).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
    })
}

impl Series {
    /// The number that tells a package of this series from its neighbours; none for other packages.
    fn number(&self, package: &str) -> Option<u32> {
        let rest = package.strip_prefix(self.head)?;
        rest.strip_suffix(self.tail)?.parse().ok()
    }
}

/// The list of sources, from the addresses of archives that this machine takes packages from.
fn sources(archives: &str) -> Result<String, String> {
    let mut list = String::new();
    for (end, suite) in SOURCES {
        let mut addresses = archives.lines().map(|line| line.trim_end_matches('/'));
        let archive = addresses
            .find(|address| address.ends_with(end))
            .ok_or_else(|| format!("no source of apt ends with {end}: kernels come from Debian"))?;
        list += &format!("deb [arch=amd64 signed-by={KEYRING}] {archive} {suite} main\n");
    }
    Ok(list)
}

/// apt with a state, a cache and a list of sources of its own.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn in_dir(dir: &Path) -> Result<Self, String> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if !tools::on_path(program) {
                return Err(format!("{program} is missing: kernels come from Debian"));
            }
        }
        if !Path::new(KEYRING).is_file() {
            return Err(format!(
                "{KEYRING} is missing: apt-get install debian-archive-keyring"
            ));
        }
        let archives = Cmd::new("apt-get")
            .args(["indextargets", "--format", "$(REPO_URI)"])
            .capture()?;
        let sources = sources(&archives)?;
        let write = || {
            fs::create_dir_all(dir.join("lists/partial"))?;
            fs::create_dir_all(dir.join("cache/archives/partial"))?;
            fs::write(dir.join("status"), "")?;
            fs::write(dir.join("sources.list"), &sources)
        };
        write().map_err(|error| format!("cannot write {}: {error}", dir.display()))?;
        Ok(Self { dir: dir.into() })
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let path = |name: &str| self.dir.join(name).display().to_string();
        let options = [
            ("Dir::State", path("")),
            ("Dir::State::lists", path("lists/")),
            ("Dir::State::status", path("status")),
            ("Dir::Cache", path("cache/")),
            ("Dir::Etc::SourceList", path("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("APT::Architecture", "amd64".into()),
            ("APT::Architectures", "amd64".into()),
            ("APT::Sandbox::User", "".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
        ];
        let options = options
            .into_iter()
            .map(|(key, value)| format!("-o{key}={value}"));
        // env: `apt-get download` writes into the working directory.
        Cmd::new("env")
            .arg(format!("--chdir={}", self.dir.display()))
            .arg(program)
            .args(options)
            .args(args)
            .capture()
    }

    /// Asks for the lists, once a day.
    fn update(&self) -> Result<(), String> {
        let stamp = self.dir.join("updated");
        let age = fs::metadata(&stamp)
            .and_then(|stamp| stamp.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age < LISTS_AGE_MAX) {
            return Ok(());
        }
        println!("asking Debian for its kernels");
        // Without the option a server that cannot be reached is a warning.
        self.run("apt-get", &["-oAPT::Update::Error-Mode=any", "update"])?;
        fs::write(&stamp, "").map_err(|error| format!("cannot write {}: {error}", stamp.display()))
    }

    fn newest(&self, series: &Series) -> Result<String, String> {
        let pattern = format!("^{}", series.head);
        let found = self.run("apt-cache", &["search", "--names-only", &pattern])?;
        let names = found.lines().filter_map(|line| line.split(' ').next());
        names
            .filter_map(|name| Some((series.number(name)?, name)))
            .max()
            .map(|(_, name)| name.to_owned())
            .ok_or_else(|| format!("apt knows no {}N{}", series.head, series.tail))
    }

    fn unpack(&self, package: &str, dir: &Path) -> Result<(), String> {
        println!("downloading {package}");
        if self.run("apt-get", &["download", package]).is_err() {
            // The lists are older than the archive.
            drop(fs::remove_file(self.dir.join("updated")));
            self.update()?;
            self.run("apt-get", &["download", package])?;
        }
        let files = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let debs = files.map(|file| file.path()).filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        });
        let deb = debs.max().ok_or("apt-get download left no package")?;
        // Whole or not at all: modules are left out, and a folder that is there counts as complete.
        let part = dir.with_extension("part");
        let moved = Cmd::new("dpkg-deb")
            .args(["--extract".as_ref(), deb.as_os_str(), part.as_os_str()])
            .capture()
            .and_then(|_| {
                fs::remove_dir_all(part.join("lib"))
                    .and_then(|()| fs::rename(&part, dir))
                    .map_err(|error| format!("cannot move {}: {error}", part.display()))
            });
        drop(fs::remove_file(deb));
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::{SERIES, sources};

    #[test]
    fn the_archives_are_those_of_the_machine() {
        let archives = "https://mirror.example/debian-security/\nhttps://mirror.example/debian/\n";
        let list = sources(archives).unwrap();
        let lines: Vec<_> = list
            .lines()
            .map(|line| line.split("] ").nth(1).unwrap())
            .collect();
        let expected = [
            "https://mirror.example/debian bookworm main",
            "https://mirror.example/debian bookworm-backports main",
            "https://mirror.example/debian-security bookworm-security main",
        ];
        assert_eq!(lines, expected);
        assert!(sources("https://mirror.example/ubuntu/\n").is_err());
    }

    #[test]
    fn only_packages_of_the_series_have_a_number_of_it() {
        let [old, new] = SERIES else {
            panic!("two series")
        };
        assert_eq!(old.number("linux-image-6.1.0-56-cloud-amd64"), Some(56));
        assert_eq!(old.number("linux-image-6.1.0-9-cloud-amd64-dbg"), None);
        assert_eq!(old.number("linux-image-6.1.0-9-amd64"), None);
        assert_eq!(
            new.number("linux-image-6.12.117+deb12-cloud-amd64"),
            Some(117)
        );
        assert_eq!(new.number("linux-image-6.12-cloud-amd64"), None);
    }
}
