//! `cargo xtask test`: everything the README promises.

use std::ffi::OsString;
use std::path::Path;

use crate::check::{features, layers, layouts, links, native, targets, tidy};
use crate::cmd::Cmd;
use crate::flags::Flags;
use crate::stages::{Outcome, Stages};
use crate::workspace::Workspace;
use crate::{Command, build_bpf, conformance, tools, vm};

pub(crate) const COMMAND: Command = Command {
    name: "test",
    about: "Everything the README promises: tools, formatting, lints, tests, features, layers, docs",
    help: HELP,
    run,
};

const HELP: &str = "\
usage: cargo xtask test [--keep-going] [--retries N] [--no-install] [--without-c] [--only STAGE[,STAGE...]]

  --keep-going   run the remaining tests and stages after a failure
  --retries N    run a failing test up to N times more; one that passes then is named FLAKY, and is a bug (default 0)
  --no-install   install nothing, even as root on Debian
  --without-c    leave out what needs a C compiler and libraries, as on a machine that has none
  --only         only these stages

stages: tools fmt layers tidy links layouts bpf clippy tests vm conformance loom doctests features targets docs
and only when named: asan, tests under AddressSanitizer, which needs a nightly toolchain

Missing tools are installed with apt when we are root on Debian; else the command that installs them is printed
and what needs them is skipped and counted.

example: cargo xtask test --only fmt,clippy,tests";

fn run(args: &[String]) -> Result<(), String> {
    let mut flags = Flags::new(args.to_vec());
    let options = Options::take(&mut flags)?;
    flags.finish()?;
    let mut stages = options.stages();
    let result = run_stages(&mut stages, &options);
    let summary = stages.finish();
    result.and(summary)
}

/// What `test` and `ci` can be told.
pub(crate) struct Options {
    keep_going: bool,
    retries: u64,
    only: Vec<String>,
    install: bool,
    without_c: bool,
}

impl Options {
    pub(crate) fn take(flags: &mut Flags) -> Result<Self, String> {
        let only = flags.value("--only")?.unwrap_or_default();
        Ok(Self {
            keep_going: flags.switch("--keep-going"),
            retries: flags.number("--retries")?.unwrap_or(0),
            only: only
                .split(',')
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            install: !flags.switch("--no-install"),
            without_c: flags.switch("--without-c"),
        })
    }

    pub(crate) fn stages(&self) -> Stages {
        Stages::new(self.keep_going, self.only.clone())
    }
}

/// Runs every stage, what fails fastest first.
pub(crate) fn run_stages(stages: &mut Stages, options: &Options) -> Result<(), String> {
    let workspace = Workspace::load()?;
    let mut found = tools::look();
    stages.run("tools", || {
        tools::provide(&workspace, options.install, &mut found)
    })?;
    let with_c = found.has_c_libraries() && !options.without_c;
    stages.run("fmt", || {
        Cmd::cargo().args(["fmt", "--all", "--check"]).run()?;
        // A workspace of its own.
        passed(Cmd::cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--check"]))
    })?;
    stages.run("layers", || layers::check(&workspace))?;
    let features = native::selection(&workspace, with_c);
    stages.run("tidy", || tidy::check(&workspace))?;
    stages.run("links", || links::check(&workspace.root))?;
    stages.run("layouts", || layouts::check(&workspace.root))?;
    stages.run("bpf", bpf_objects)?;
    stages.run("clippy", || {
        let clippy = Cmd::cargo()
            .args(["clippy", "--all-targets"])
            .args(&features.args);
        with_note(
            clippy.args(["--", "-D", "warnings"]).run(),
            &features.left_out,
        )
    })?;
    stages.run("tests", || tests(&workspace, &features, &found, options))?;
    stages.run("vm", || {
        vm::stage(&workspace, &features.args, options.retries)
    })?;
    stages.run("conformance", || {
        conformance::slice(&workspace, &features.args, options.install)
    })?;
    stages.run("loom", || loom(&workspace))?;
    stages.run_if_named("asan", || asan(&workspace, with_c))?;
    stages.run("doctests", || {
        with_note(
            Cmd::cargo()
                .args(["test", "--doc"])
                .args(&features.args)
                .run(),
            &features.left_out,
        )
    })?;
    stages.run("features", || features::check(&workspace, with_c))?;
    stages.run("targets", targets::check)?;
    stages.run("docs", || {
        let doc = Cmd::cargo().args(["doc", "--no-deps"]).args(&features.args);
        with_note(
            doc.env("RUSTDOCFLAGS", "-D warnings").run(),
            &features.left_out,
        )
    })
}

/// Packages whose tests run under loom, every interleaving of the atomics that they use, and the features for it.
const UNDER_LOOM: &[(&str, &str)] = &[
    ("ebpf-ring", ""),
    ("idem-store", ""),
    ("timerwheel", "service"),
];

fn loom(workspace: &Workspace) -> Result<Outcome, String> {
    // The flag changes every dependency, so it gets a target directory of its own.
    let target = workspace.target.join("loom");
    for (package, features) in UNDER_LOOM {
        Cmd::cargo()
            .args([
                "test",
                "--lib",
                "--package",
                package,
                "--features",
                features,
            ])
            .env("RUSTFLAGS", "--cfg loom")
            .env("CARGO_TARGET_DIR", &target)
            // Models run on small stacks, which the frames of unoptimised code overflow.
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "1")
            .run()?;
    }
    let packages: Vec<&str> = UNDER_LOOM.iter().map(|(package, _)| *package).collect();
    Ok(Outcome::Passed(packages.join(", ")))
}

/// Packages whose tests run under AddressSanitizer, those on the kernel's own memory too, and the features for it.
const UNDER_ASAN: &[(&str, &str)] = &[("ebpf-ring", "libbpf,tokio")];

fn asan(workspace: &Workspace, with_c: bool) -> Result<Outcome, String> {
    if !with_c {
        return Ok(Outcome::Skipped("it needs the C libraries".into()));
    }
    let version = Cmd::new("rustc").args(["+nightly", "-vV"]).capture();
    let Ok(version) = version else {
        let why = "no nightly toolchain: rustup toolchain install nightly";
        return Ok(Outcome::Skipped(why.into()));
    };
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or("rustc does not name its host")?;
    for (package, features) in UNDER_ASAN {
        // `cargo` through rustup, not the toolchain's own: only the proxy understands +nightly.
        Cmd::new("cargo")
            .args(["+nightly", "test", "--lib", "--test", "it"])
            .args(["--package", package, "--features", features])
            // With a target named, the flag does not reach build scripts and procedural macros.
            .args(["--target", host])
            .env("RUSTFLAGS", "-Zsanitizer=address")
            .env("CARGO_TARGET_DIR", workspace.target.join("asan"))
            .run()?;
    }
    let packages: Vec<&str> = UNDER_ASAN.iter().map(|(package, _)| *package).collect();
    Ok(Outcome::Passed(packages.join(", ")))
}

/// The committed objects and skeletons are those of the sources.
fn bpf_objects() -> Result<Outcome, String> {
    (build_bpf::COMMAND.run)(&["--check".into()])?;
    Outcome::passed()
}

fn tests(
    workspace: &Workspace,
    features: &native::Selection,
    found: &tools::Found,
    options: &Options,
) -> Result<Outcome, String> {
    let log = workspace.target.join("xtask/skipped-tests.txt");
    let mut envs = tools::environment(workspace, found);
    envs.push(("MAINSTAY_SKIP_LOG".into(), start_log(&log)?));
    let what = if found.has("cargo-nextest") {
        let fail_fast = if options.keep_going {
            "--no-fail-fast"
        } else {
            "--fail-fast"
        };
        Cmd::cargo()
            .args(["nextest", "run", fail_fast])
            .args(["--retries", &options.retries.to_string()])
            .args(&features.args)
            .args(["-E", &format!("not ({SHARE_A_SERVER})")])
            .quiet_envs(&envs)
            .run()?;
        again(options.retries, || {
            Cmd::cargo()
                .arg("test")
                .args(&features.args)
                .args(["--test", "it", "--", "redis::", "sql::"])
                .quiet_envs(&envs)
                .run()
        })?;
        "cargo-nextest"
    } else {
        // `--tests --bins --lib --examples` is what nextest builds too; doctests have their own stage.
        Cmd::cargo()
            .args(["test", "--lib", "--bins", "--tests", "--examples"])
            .args(&features.args)
            .quiet_envs(&envs)
            .run()?;
        "cargo test"
    };
    let skipped = std::fs::read_to_string(&log).unwrap_or_default();
    let count = skipped.lines().count();
    if count > 0 {
        print!("tests that could not run here:\n{skipped}");
    }
    let mut note = format!("{what}, {count} tests could not run here");
    if !features.left_out.is_empty() {
        note = format!("{note}; {}", features.left_out);
    }
    Ok(Outcome::Passed(note))
}

/// Runs what `cargo test` cannot repeat test by test, up to `retries` times more.
fn again(retries: u64, mut run: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    for _ in 0..retries {
        match run() {
            Ok(()) => return Ok(()),
            Err(error) => eprintln!("FLAKY, unless it fails again: {error}"),
        }
    }
    run()
}

/// Tests that share database servers in their process: cargo-nextest would start a server for each of them.
const SHARE_A_SERVER: &str = "package(idem-store) & test(/^(redis|sql)::/)";

/// An empty file that tests append a line to when they cannot run: `name: reason`.
fn start_log(log: &Path) -> Result<OsString, String> {
    let dir = log.parent().expect("the path was just joined");
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(log, ""))
        .map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    Ok(log.into())
}

fn passed(cmd: Cmd) -> Result<Outcome, String> {
    cmd.run()?;
    Outcome::passed()
}

fn with_note(result: Result<(), String>, note: &str) -> Result<Outcome, String> {
    result.map(|()| Outcome::Passed(note.to_owned()))
}
