//! The programs and headers that the tests need: finds them, installs them where it may, says what is missing.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::stages::Outcome;
use crate::workspace::Workspace;

/// How to find a tool.
enum Sign {
    /// Any of these programs.
    Program(&'static [&'static str]),
    /// Any of these files.
    File(&'static [&'static str]),
    /// A file below a folder for each version.
    Versioned(&'static str, &'static str),
    /// Nothing to find: a comfort that only needs mentioning.
    Optional(&'static str),
}

struct Tool {
    name: &'static str,
    sign: Sign,
    /// Debian's package, or the command that installs it for `Sign::Optional`.
    package: &'static str,
    needed_for: &'static str,
}

const C_LIBRARIES: &str = "the feature `trace` (libbpf is C)";
const BPF: &str = "rebuilding the BPF objects";
const GO: &str = "the Go side of the conformance run";
const VM: &str = "`cargo xtask vm`";
const PAGE: &str = "the dashboard test in a browser";

const TOOLS: &[Tool] = &[
    Tool {
        name: "cc",
        sign: Sign::Program(&["cc"]),
        package: "gcc",
        needed_for: C_LIBRARIES,
    },
    Tool {
        name: "make",
        sign: Sign::Program(&["make"]),
        package: "make",
        needed_for: C_LIBRARIES,
    },
    Tool {
        name: "pkg-config",
        sign: Sign::Program(&["pkg-config"]),
        package: "pkg-config",
        needed_for: C_LIBRARIES,
    },
    Tool {
        name: "libelf",
        sign: Sign::File(&["/usr/include/libelf.h"]),
        package: "libelf-dev",
        needed_for: C_LIBRARIES,
    },
    Tool {
        name: "zlib",
        sign: Sign::File(&["/usr/include/zlib.h"]),
        package: "zlib1g-dev",
        needed_for: C_LIBRARIES,
    },
    Tool {
        name: "clang",
        sign: Sign::Program(&["clang"]),
        package: "clang",
        needed_for: BPF,
    },
    Tool {
        name: "llvm-strip",
        sign: Sign::Program(&["llvm-strip"]),
        package: "llvm",
        needed_for: BPF,
    },
    Tool {
        name: "libbpf",
        sign: Sign::File(&["/usr/include/bpf/bpf_helpers.h"]),
        package: "libbpf-dev",
        needed_for: BPF,
    },
    Tool {
        name: "bpftool",
        sign: Sign::Program(&["bpftool"]),
        package: "bpftool",
        needed_for: BPF,
    },
    Tool {
        name: "python3",
        sign: Sign::Program(&["python3"]),
        package: "python3",
        needed_for: "the protocol's client in Python",
    },
    Tool {
        name: "go",
        sign: Sign::Program(&["go"]),
        package: "golang-go",
        needed_for: GO,
    },
    Tool {
        name: "node",
        sign: Sign::Program(&["node"]),
        package: "nodejs",
        needed_for: PAGE,
    },
    Tool {
        name: "npm",
        sign: Sign::Program(&["npm"]),
        package: "npm",
        needed_for: PAGE,
    },
    Tool {
        name: "chromium",
        sign: Sign::Program(CHROMIUM),
        package: "chromium",
        needed_for: PAGE,
    },
    Tool {
        name: "redis-server",
        sign: Sign::Program(&["redis-server"]),
        package: "redis-server",
        needed_for: "the tests of stores on Redis",
    },
    Tool {
        name: "openssl",
        sign: Sign::Program(&["openssl"]),
        package: "openssl",
        needed_for: "the test of a store on Redis over TLS",
    },
    Tool {
        name: "postgresql",
        sign: Sign::Versioned("/usr/lib/postgresql", "bin/postgres"),
        package: "postgresql",
        needed_for: "the tests of stores in PostgreSQL",
    },
    Tool {
        name: "mariadb-server",
        sign: Sign::Program(&["mariadbd"]),
        package: "mariadb-server",
        needed_for: "the tests of stores in MariaDB",
    },
    Tool {
        name: "qemu",
        sign: Sign::Program(&["qemu-system-x86_64"]),
        package: "qemu-system-x86",
        needed_for: VM,
    },
    Tool {
        name: "Debian's keys",
        sign: Sign::File(&["/usr/share/keyrings/debian-archive-keyring.gpg"]),
        package: "debian-archive-keyring",
        needed_for: VM,
    },
    Tool {
        name: "cargo-nextest",
        sign: Sign::Optional("cargo-nextest"),
        package: "cargo install cargo-nextest --locked",
        needed_for: "nothing: cargo test stands in",
    },
];

const CHROMIUM: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// The driver of the dashboard test. One version, so that a run is repeatable.
const PLAYWRIGHT: &str = "playwright-core@1.65.1";

/// File systems of the kernel that the tracing tests read: type, mount point, a file that is there once mounted.
const MOUNTS: &[(&str, &str, &str)] = &[("tracefs", "/sys/kernel/tracing", "available_events")];

/// What was found.
pub(crate) struct Found {
    names: BTreeSet<&'static str>,
}

impl Found {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Whether libbpf-sys can be built.
    pub(crate) fn has_c_libraries(&self) -> bool {
        TOOLS
            .iter()
            .filter(|tool| tool.needed_for == C_LIBRARIES)
            .all(|tool| self.has(tool.name))
    }
}

/// Looks without installing.
pub(crate) fn look() -> Found {
    Found {
        names: TOOLS
            .iter()
            .filter(|tool| is_there(&tool.sign))
            .map(|tool| tool.name)
            .collect(),
    }
}

/// The stage: looks, installs, looks again.
pub(crate) fn provide(
    workspace: &Workspace,
    install: bool,
    found: &mut Found,
) -> Result<Outcome, String> {
    *found = look();
    let packages: Vec<&str> = missing(found).map(|tool| tool.package).collect();
    if !packages.is_empty() {
        if install && is_root() && is_debian() {
            apt_install(&packages);
            *found = look();
        } else {
            println!(
                "missing; install with: sudo apt-get install {}",
                packages.join(" ")
            );
        }
    }
    if install {
        mount_kernel_files();
        install_playwright(workspace, found);
    }
    for tool in TOOLS.iter().filter(|tool| !found.has(tool.name)) {
        println!(
            "without {} ({}): {} is skipped",
            tool.name, tool.package, tool.needed_for
        );
    }
    let absent = missing(found).count();
    Ok(Outcome::Passed(if absent == 0 {
        String::new()
    } else {
        format!("{absent} tools are missing, see above")
    }))
}

/// What the tests find in their environment.
///
/// `MAINSTAY_PLAYWRIGHT`: the node_modules folder that holds playwright-core. `MAINSTAY_CHROMIUM`: a browser.
/// Each is set only when the thing is there.
pub(crate) fn environment(workspace: &Workspace, found: &Found) -> Vec<(String, OsString)> {
    let mut envs = Vec::new();
    let modules = playwright_dir(workspace).join("node_modules");
    if found.has("node") && modules.join("playwright-core").is_dir() {
        envs.push(("MAINSTAY_PLAYWRIGHT".into(), modules.into_os_string()));
    }
    if let Some(browser) = CHROMIUM.iter().find_map(|name| find_program(name)) {
        envs.push(("MAINSTAY_CHROMIUM".into(), browser.into_os_string()));
    }
    envs
}

/// Whether a program can be started by its name alone.
pub(crate) fn on_path(program: &str) -> bool {
    find_program(program).is_some()
}

/// Installs what `cargo xtask vm` needs, where it may; who needs it says what is still missing.
pub(crate) fn install_for_vm() {
    let tools = TOOLS.iter().filter(|tool| tool.needed_for == VM);
    let packages: Vec<&str> = tools
        .filter(|tool| !is_there(&tool.sign))
        .map(|tool| tool.package)
        .collect();
    if !packages.is_empty() && is_root() && is_debian() {
        apt_install(&packages);
    }
}

fn missing(found: &Found) -> impl Iterator<Item = &'static Tool> {
    let found = found.names.clone();
    TOOLS
        .iter()
        .filter(move |tool| !matches!(tool.sign, Sign::Optional(_)) && !found.contains(tool.name))
}

fn is_there(sign: &Sign) -> bool {
    match sign {
        Sign::Program(names) => names.iter().any(|name| on_path(name)),
        Sign::File(paths) => paths.iter().any(|path| Path::new(path).is_file()),
        Sign::Versioned(place, file) => std::fs::read_dir(place)
            .into_iter()
            .flatten()
            .flatten()
            .any(|version| version.path().join(file).is_file()),
        Sign::Optional(name) => on_path(name),
    }
}

/// Where a program is, by its name alone.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps bpftool where only root's PATH looks.
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(sbin)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

fn is_debian() -> bool {
    Path::new("/etc/debian_version").is_file() && on_path("apt-get")
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    // Real, effective, saved, file system.
    uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

/// Failures are printed by apt; what is still missing afterwards is reported by the caller.
fn apt_install(packages: &[&str]) {
    let apt = |args: &[&str]| {
        Cmd::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .run()
    };
    let install = ["install", "--yes", "--no-install-recommends"];
    if let Err(error) = apt(&["update"]) {
        println!("{error}: going on with the package lists that are here");
    }
    if apt(&[&install, packages].concat()).is_err() {
        // One name that this release does not know must not cost the others.
        for package in packages {
            if let Err(error) = apt(&[&install[..], &[*package]].concat()) {
                println!("{error}");
            }
        }
    }
}

fn mount_kernel_files() {
    for (kind, point, file) in MOUNTS {
        let absent = Path::new(point).is_dir() && !Path::new(point).join(file).exists();
        if absent
            && is_root()
            && let Err(error) = Cmd::new("mount").args(["-t", kind, kind, point]).run()
        {
            println!("{error}: the tests that trace are skipped");
        }
    }
}

fn playwright_dir(workspace: &Workspace) -> PathBuf {
    workspace.target.join("xtask/playwright")
}

fn install_playwright(workspace: &Workspace, found: &Found) {
    let dir = playwright_dir(workspace);
    let stamp = dir.join("installed");
    if !found.has("npm")
        || std::fs::read_to_string(&stamp).is_ok_and(|version| version == PLAYWRIGHT)
    {
        return;
    }
    let installed = std::fs::create_dir_all(&dir)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            Cmd::new("npm")
                .args([
                    "install",
                    "--no-save",
                    "--no-package-lock",
                    "--no-audit",
                    "--no-fund",
                    "--prefix",
                ])
                .args([dir.as_os_str(), PLAYWRIGHT.as_ref()])
                .run()
        });
    match installed {
        // Without the stamp the next run installs once more: no harm.
        Ok(()) => drop(std::fs::write(stamp, PLAYWRIGHT)),
        Err(error) => println!("{error}: {PAGE} is skipped"),
    }
}
