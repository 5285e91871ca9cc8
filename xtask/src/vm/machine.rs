//! QEMU: one machine from its start to its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::tools;

pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// The machine runs for no longer than this: emulated ones need a quarter of it.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// A kernel without a root file system ends itself after a second.
const TRIAL_MAX: Duration = Duration::from_secs(6);
const MEMORY_MB: u32 = 1024;
const CPUS: u32 = 2;

/// Who executes the machine's instructions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    /// The processor.
    Kvm,
    /// QEMU, about ten times slower, everywhere.
    Tcg,
}

impl Accel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// KVM where a kernel comes up in it: a `/dev/kvm` inside of a virtual machine may be there and not work. Remembered
    /// in `dir` until the host boots again.
    pub(crate) fn find(kernel: &Path, dir: &Path) -> Self {
        if !Path::new("/dev/kvm").exists() {
            return Self::Tcg;
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let stamp = dir.join("accel");
        let remembered = fs::read_to_string(&stamp).unwrap_or_default();
        if let Some(name) = remembered.strip_prefix(&boot) {
            return if name == "kvm" { Self::Kvm } else { Self::Tcg };
        }
        let found = if kvm_works(kernel, dir) {
            Self::Kvm
        } else {
            Self::Tcg
        };
        // Without it the next run tries again.
        drop(fs::write(stamp, boot + found.name()));
        found
    }
}

fn kvm_works(kernel: &Path, dir: &Path) -> bool {
    let console = dir.join("kvm-trial.txt");
    let mut qemu = qemu(kernel, Accel::Kvm, &[&console]);
    let ended = qemu.spawn().ok().and_then(|child| wait(child, TRIAL_MAX));
    let console = fs::read_to_string(console).unwrap_or_default();
    ended.is_some() && console.contains("Kernel panic")
}

/// What a machine leaves behind.
pub(crate) struct Remains {
    pub(crate) console: PathBuf,
    pub(crate) report: PathBuf,
    /// Whether it ended by itself.
    pub(crate) in_time: bool,
}

/// A machine that only needs to be started.
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) kernel: PathBuf,
    pub(crate) image: PathBuf,
    pub(crate) accel: Accel,
    /// For its console and the report of its init.
    pub(crate) dir: PathBuf,
}

impl Machine {
    /// Runs it to its end.
    pub(crate) fn run(&self) -> Result<Remains, String> {
        let console = self.dir.join("console.txt");
        let report = self.dir.join("report.txt");
        for old in [&console, &report] {
            drop(fs::remove_file(old));
        }
        let mut qemu = qemu(&self.kernel, self.accel, &[&console, &report]);
        qemu.arg("-initrd").arg(&self.image);
        let child = qemu
            .spawn()
            .map_err(|error| format!("cannot start {QEMU}: {error}"))?;
        Ok(Remains {
            in_time: wait(child, LIFE_MAX).is_some(),
            console,
            report,
        })
    }
}

fn qemu(kernel: &Path, accel: Accel, serial: &[&PathBuf]) -> Command {
    let program = tools::find_program(QEMU).unwrap_or_else(|| QEMU.into());
    let mut qemu = Command::new(program);
    let accel = match accel {
        Accel::Kvm => "kvm",
        // In turns on one thread: with a thread each, a CPU may go on with code that another has just patched, as kernels
        // do when they attach probes or count what programs cost, and meet a breakpoint that is gone: an oops, or a loop
        // without end (docs/KERNELS.md).
        Accel::Tcg => "tcg,thread=single",
    };
    qemu.args(["-accel", accel, "-machine", "q35"])
        // Some nested hypervisors refuse to set the MSR of that name.
        .args(["-cpu", "max,arch-capabilities=off"])
        .args(["-m", &MEMORY_MB.to_string(), "-smp", &CPUS.to_string()])
        .args(["-nodefaults", "-no-reboot", "-display", "none"])
        .arg("-kernel")
        .arg(kernel)
        // An oops is a panic, and a panic ends the machine.
        .args(["-append", "console=ttyS0 quiet oops=panic panic=-1"]);
    for file in serial {
        qemu.arg("-serial").arg(format!("file:{}", file.display()));
    }
    qemu.stdin(Stdio::null());
    qemu
}

/// Whether it succeeded; nothing when it had to be killed.
fn wait(mut child: Child, max: Duration) -> Option<bool> {
    const LOOK: Duration = Duration::from_millis(20);
    let began = Instant::now();
    while began.elapsed() < max {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK),
            Ok(Some(status)) => return Some(status.success()),
            Err(_) => break,
        }
    }
    drop(child.kill());
    drop(child.wait());
    None
}
