//! `cargo xtask vm`: the tests that need a kernel, on several of them.
//!
//! [`kernels`] finds Debian's newest, [`image`] packs the test binaries, [`machine`] runs QEMU, `xtask/guest` runs the
//! tests inside and [`report`] reads what it wrote; [`docs`] makes the table of docs/KERNELS.md from it.

mod docs;
mod image;
mod kernels;
mod machine;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Command;
use crate::cmd::Cmd;
use crate::flags::Flags;
use crate::stages::Outcome;
use crate::tools;
use crate::workspace::Workspace;
use machine::{Accel, Machine, Remains};
use report::Report;

pub(crate) const COMMAND: Command = Command {
    name: "vm",
    about: "The tests that need a kernel, on Debian's newest 6.1 and 6.12 in QEMU and on the host",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask vm [--kernel 6.1|6.12|host|all] [--tests FILTER] [--write-docs] [--no-install]

  --kernel       one of them (default all)
  --tests        only tests whose `package::module::name` contains this
  --write-docs   write what each kernel did into the table of docs/KERNELS.md; needs every kernel and every test
  --no-install   do not install QEMU, even as root on Debian

Kernels come from Debian with apt into target/xtask/vm, asked for once a day; without a network those that are there
serve. The machine runs with KVM where that works, else emulated. Console and report of each stay in
target/xtask/vm/KERNEL/. With MAINSTAY_VM=required the stage of `cargo xtask test` fails where it would be skipped. A test that fails or hangs, a kernel that oopses and a report that breaks off are failures.

example: cargo xtask vm --kernel 6.1 --tests map_iter";

/// Packages whose tests of the name `it` run on every kernel.
const PACKAGES: &[&str] = &["ebpf-ring", "mainstay-kernel-scope"];

const HOST: &str = "host";

/// Why there is no result.
pub(crate) enum Trouble {
    /// This machine cannot do it.
    Unavailable(String),
    Failed(String),
}

fn run(args: &[String]) -> Result<(), String> {
    let mut flags = Flags::new(args.to_vec());
    let kernel = flags.value("--kernel")?.unwrap_or_else(|| "all".into());
    let filter = flags.value("--tests")?.unwrap_or_default();
    let write_docs = flags.switch("--write-docs");
    let install = !flags.switch("--no-install");
    flags.finish()?;
    if write_docs && !(kernel == "all" && filter.is_empty()) {
        return Err("--write-docs needs every kernel and every test".into());
    }
    let wanted = columns(&kernel)?;
    let workspace = Workspace::load()?;
    let packages = PACKAGES.iter().flat_map(|name| ["--package", *name]);
    let selection: Vec<String> = packages
        .chain(["--all-features"])
        .map(str::to_owned)
        .collect();
    let ran = Matrix::prepare(&workspace, &selection, &filter, 0, install)
        .and_then(|matrix| matrix.run(&wanted));
    let reports = ran.map_err(|trouble| match trouble {
        Trouble::Unavailable(why) => format!("this machine cannot: {why}"),
        Trouble::Failed(why) => why,
    })?;
    if write_docs {
        docs::write(&workspace.root, &reports)?;
    }
    Ok(())
}

/// The stage of `cargo xtask test`. `selection`: what it built the tests with, so that nothing is built twice; the host
/// ran them already. A test that fails is run up to `retries` times more.
pub(crate) fn stage(
    workspace: &Workspace,
    selection: &[String],
    retries: u64,
) -> Result<Outcome, String> {
    let wanted: Vec<&str> = kernels::SERIES.iter().map(|series| series.name).collect();
    let ran = Matrix::prepare(workspace, selection, "", retries, false)
        .and_then(|matrix| matrix.run(&wanted));
    match ran {
        Ok(reports) => {
            let each = reports
                .iter()
                .map(|(name, report)| format!("{name}: {} tests", report.passed()));
            Ok(Outcome::Passed(each.collect::<Vec<_>>().join(", ")))
        }
        Err(Trouble::Unavailable(why)) => {
            let is_required = std::env::var_os(REQUIRED).is_some_and(|value| value == "required");
            unavailable(why, is_required)
        }
        Err(Trouble::Failed(why)) => Err(why),
    }
}

/// Where the stage is `required`, as in `.github/workflows/pr.yml`, it is not skipped.
const REQUIRED: &str = "MAINSTAY_VM";

fn unavailable(why: String, is_required: bool) -> Result<Outcome, String> {
    match is_required {
        true => Err(format!(
            "{REQUIRED} is `required`, but this machine cannot: {why}"
        )),
        false => Ok(Outcome::Skipped(why)),
    }
}

fn columns(kernel: &str) -> Result<Vec<&'static str>, String> {
    let all = kernels::SERIES.iter().map(|series| series.name);
    let all: Vec<_> = all.chain([HOST]).collect();
    if kernel == "all" {
        return Ok(all);
    }
    let found = all.iter().find(|name| **name == kernel);
    found
        .map(|name| vec![*name])
        .ok_or_else(|| format!("there is no kernel `{kernel}`: {} or all", all.join(", ")))
}

/// What every kernel gets.
struct Matrix {
    dir: PathBuf,
    init: PathBuf,
    /// Package and file, without what debuggers need.
    binaries: Vec<(&'static str, PathBuf)>,
    filter: String,
    retries: u64,
}

impl Matrix {
    fn prepare(
        workspace: &Workspace,
        selection: &[String],
        filter: &str,
        retries: u64,
        install: bool,
    ) -> Result<Self, Trouble> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(Trouble::Unavailable(
                "the kernels are for x86-64 Linux".into(),
            ));
        }
        if install {
            tools::install_for_vm();
        }
        let dir = workspace.target.join("xtask/vm");
        let made = fs::create_dir_all(&dir)
            .map_err(|error| format!("cannot make {}: {error}", dir.display()));
        made.map_err(Trouble::Failed)?;
        let init = build_init(workspace).map_err(Trouble::Failed)?;
        let binaries = build_tests(workspace, selection, &dir)?;
        Ok(Self {
            dir,
            init,
            binaries,
            filter: filter.into(),
            retries,
        })
    }

    /// Runs on each kernel, the machines side by side: an emulated one keeps one CPU busy. An error names all that
    /// failed.
    fn run(&self, wanted: &[&'static str]) -> Result<Vec<(&'static str, Report)>, Trouble> {
        let series = kernels::SERIES.iter();
        let machines = series
            .filter(|series| wanted.contains(&series.name))
            .map(|series| self.machine(series, &self.filter))
            .collect::<Result<Vec<_>, _>>()?;
        let mut ran = std::thread::scope(|scope| {
            let started: Vec<_> = machines
                .iter()
                .map(|machine| scope.spawn(|| Ran::on(machine)))
                .collect();
            let ended = started
                .into_iter()
                .map(|machine| machine.join().expect("no panic"));
            ended.collect::<Result<Vec<_>, _>>()
        })
        .map_err(Trouble::Failed)?;
        if wanted.contains(&HOST) {
            ran.push(self.on_host().map_err(Trouble::Failed)?);
        }
        let (mut reports, mut failed) = (Vec::new(), Vec::new());
        for ran in ran {
            ran.print();
            match ran.judge().or_else(|error| self.again(&ran, error)) {
                Ok(()) => reports.push((ran.name, ran.report)),
                Err(error) => failed.push(format!("{}: {error}", ran.name)),
            }
        }
        if failed.is_empty() {
            Ok(reports)
        } else {
            Err(Trouble::Failed(failed.join("; ")))
        }
    }

    /// Runs each test that failed in a machine a few times more, alone. When all pass then, they are named FLAKY.
    fn again(&self, ran: &Ran, error: String) -> Result<(), String> {
        let series = kernels::SERIES
            .iter()
            .find(|series| series.name == ran.name);
        let Some(series) = series.filter(|_| ran.report.is_whole) else {
            return Err(error);
        };
        for test in ran.report.failures() {
            if !(0..self.retries).any(|_| self.passes_alone(series, &test.id)) {
                return Err(error);
            }
            println!("FLAKY on {}: {}", ran.name, test.id);
        }
        Ok(())
    }

    fn passes_alone(&self, series: &kernels::Series, test: &str) -> bool {
        let Ok(machine) = self.machine(series, test) else {
            return false;
        };
        Ran::on(&machine).is_ok_and(|ran| {
            ran.print();
            ran.judge().is_ok()
        })
    }

    /// A machine that only needs to be started.
    fn machine(&self, series: &kernels::Series, filter: &str) -> Result<Machine, Trouble> {
        if !tools::on_path(machine::QEMU) {
            return Err(Trouble::Unavailable(format!(
                "{} is missing: apt-get install qemu-system-x86",
                machine::QEMU
            )));
        }
        let kernel = kernels::newest(series, &self.dir).map_err(Trouble::Unavailable)?;
        let dir = self.subdir(series.name).map_err(Trouble::Failed)?;
        let image = dir.join("image.cpio");
        self.pack(&image, filter).map_err(Trouble::Failed)?;
        Ok(Machine {
            name: series.name,
            accel: Accel::find(&kernel, &self.dir),
            kernel,
            image,
            dir,
        })
    }

    fn on_host(&self) -> Result<Ran, String> {
        let dir = self.subdir(HOST)?;
        let (plan, file) = (dir.join("plan.txt"), dir.join("report.txt"));
        drop(fs::remove_file(&file));
        let path = |_: &str, binary: &Path| binary.display().to_string();
        fs::write(&plan, self.plan(&self.filter, path)).map_err(|error| error.to_string())?;
        let began = Instant::now();
        println!("{HOST}: beside everything else that runs here");
        Cmd::new(&self.init).arg(&plan).arg(&file).capture()?;
        Ok(Ran {
            name: HOST,
            report: read_report(&file)?,
            took: began.elapsed(),
            remains: None,
        })
    }

    fn pack(&self, file: &Path, filter: &str) -> Result<(), String> {
        let mut image = image::Image::new(&self.init)?;
        let inside = |label: &str, _: &Path| format!("/bin/{label}");
        for (label, binary) in &self.binaries {
            image.program(&inside(label, binary), binary)?;
        }
        image.file("/plan", self.plan(filter, inside).into_bytes());
        fs::write(file, image.into_archive())
            .map_err(|error| format!("cannot write {}: {error}", file.display()))
    }

    fn plan(&self, filter: &str, path: impl Fn(&str, &Path) -> String) -> String {
        let mut plan = String::new();
        if !filter.is_empty() {
            plan += &format!("filter {filter}\n");
        }
        for (label, binary) in &self.binaries {
            plan += &format!("binary {label} {}\n", path(label, binary));
        }
        plan
    }

    fn subdir(&self, name: &str) -> Result<PathBuf, String> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)
            .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        Ok(dir)
    }
}

/// Links `xtask/guest` statically: the machine has no libraries when it starts.
fn build_init(workspace: &Workspace) -> Result<PathBuf, String> {
    const GNU: &str = "x86_64-unknown-linux-gnu";
    let target = workspace.target.join("xtask/vm/guest");
    Cmd::cargo()
        .args(["build", "--quiet", "--release", "--package", "xtask-guest"])
        // With a target named, the flags do not reach procedural macros.
        .args(["--target", GNU])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_TARGET_DIR", &target)
        .run()?;
    Ok(target.join(GNU).join("release/xtask-guest"))
}

fn build_tests(
    workspace: &Workspace,
    selection: &[String],
    dir: &Path,
) -> Result<Vec<(&'static str, PathBuf)>, Trouble> {
    let built = Cmd::cargo()
        .args(["test", "--no-run", "--message-format=json"])
        .args(selection)
        .capture()
        .map_err(Trouble::Failed)?;
    let mut binaries = Vec::new();
    for name in PACKAGES {
        let manifest = workspace
            .package(name)
            .map(|package| package.dir.join("Cargo.toml"));
        let executable = built
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            // Warnings about it have its name, too.
            .filter(|artifact| {
                artifact["target"]["name"] == "it"
                    && artifact["manifest_path"].as_str().map(Path::new) == manifest.as_deref()
            })
            .find_map(|artifact| artifact["executable"].as_str().map(PathBuf::from));
        let Some(executable) = executable else {
            return Err(Trouble::Unavailable(format!(
                "the tests of {name} are not built without C libraries"
            )));
        };
        let stripped = dir.join(format!("{name}.it"));
        // Names of functions stay: tests resolve them.
        Cmd::new("strip")
            .args(["--strip-debug", "-o"])
            .args([&stripped, &executable])
            .capture()
            .map_err(Trouble::Unavailable)?;
        binaries.push((*name, stripped));
    }
    Ok(binaries)
}

fn read_report(file: &Path) -> Result<Report, String> {
    let bytes =
        fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    Ok(Report::parse(&String::from_utf8_lossy(&bytes)))
}

/// The tests of one kernel, done.
struct Ran {
    name: &'static str,
    report: Report,
    took: Duration,
    /// None of the host.
    remains: Option<Remains>,
}

impl Ran {
    fn on(machine: &Machine) -> Result<Self, String> {
        println!(
            "{}: {} on {}",
            machine.name,
            machine.kernel.display(),
            machine.accel.name()
        );
        let began = Instant::now();
        let remains = machine.run()?;
        Ok(Self {
            name: machine.name,
            report: read_report(&remains.report)?,
            took: began.elapsed(),
            remains: Some(remains),
        })
    }

    /// Tells what happened: each failure with its output, each part that could not run with its reason.
    fn print(&self) {
        let report = &self.report;
        for (test, reason) in report.skips() {
            println!("  SKIP {}: {reason}", test.id);
        }
        for test in report.failures() {
            let result = match test.result.as_str() {
                "" => "never ended",
                result => result,
            };
            println!("  {} {result} after {} ms", test.id, test.took_ms);
            for line in &test.lines {
                println!("    {line}");
            }
        }
        println!(
            "{} ({}): {} passed, {} failed, {} parts could not run; {:.1} s",
            self.name,
            report.release,
            report.passed(),
            report.failures().count(),
            report.skips().count(),
            self.took.as_secs_f64()
        );
    }

    fn judge(&self) -> Result<(), String> {
        let report = &self.report;
        let failed: Vec<&str> = report.failures().map(|test| test.id.as_str()).collect();
        let mut error = if !failed.is_empty() {
            format!("failed: {}", failed.join(" "))
        } else if !report.is_whole {
            "the report breaks off: the kernel or its init ended too early".into()
        } else if report.tests.is_empty() {
            "no test has that in its name".into()
        } else {
            return Ok(());
        };
        if let Some(remains) = &self.remains {
            println!("the end of {}:", remains.console.display());
            let console = fs::read_to_string(&remains.console).unwrap_or_default();
            let end: Vec<&str> = console.lines().rev().take(60).collect();
            for line in end.iter().rev() {
                println!("  {line}");
            }
            if !remains.in_time {
                error += "; the machine had to be killed";
            }
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, unavailable};

    #[test]
    fn a_required_stage_is_not_skipped() {
        let skipped = unavailable("no QEMU".into(), false);
        assert!(matches!(skipped, Ok(Outcome::Skipped(why)) if why == "no QEMU"));
        let failed = unavailable("no QEMU".into(), true);
        assert!(failed.is_err_and(|why| why.contains("MAINSTAY_VM") && why.contains("no QEMU")));
    }
}
