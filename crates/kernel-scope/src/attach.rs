use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;

use ebpf_ring::KernelFeature;
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{Link, MapHandle, MapMut, Object, OpenObject, Program};

use crate::error::ScopeError;
use crate::log::with_log;

/// What kind of program a tool runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Attach {
    /// `fentry` and `fexit`: the cheapest way to watch a function of the kernel; lockdown forbids it.
    Fentry,
    /// A probe at a function of the kernel. Needs `CONFIG_KPROBES`.
    Kprobe,
    /// Raw tracepoints with arguments typed by BTF.
    BtfTracepoint,
    /// The tracepoints of single system calls: the kernel filters. Needs tracefs mounted and
    /// `CONFIG_FTRACE_SYSCALLS`.
    SyscallTracepoint,
    /// Raw tracepoints: always there, nothing needs to be mounted.
    RawTracepoint,
}

impl Attach {
    /// As the tools of BPF spell it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::Kprobe => "kprobe",
            Self::BtfTracepoint => "tp_btf",
            Self::SyscallTracepoint => "tp/syscalls",
            Self::RawTracepoint => "raw_tp",
        }
    }

    /// What a kernel needs for it.
    fn feature(self) -> KernelFeature {
        match self {
            Self::Fentry => KernelFeature::Fentry,
            Self::Kprobe => KernelFeature::Kprobe,
            Self::BtfTracepoint => KernelFeature::TpBtf,
            Self::SyscallTracepoint => KernelFeature::SyscallTracepoint,
            Self::RawTracepoint => KernelFeature::RawTracepoint,
        }
    }
}

/// What kind of program a tool runs, and why not a better one.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attachment {
    /// The kind that runs.
    pub attach: Attach,
    /// The better ones, the best first, and why each cannot be used here.
    pub passed_over: Vec<(Attach, String)>,
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.attach.as_str())?;
        for (at, (attach, reason)) in self.passed_over.iter().enumerate() {
            let before = if at == 0 { " (" } else { "; " };
            write!(f, "{before}not {}: {reason}", attach.as_str())?;
        }
        if self.passed_over.is_empty() {
            Ok(())
        } else {
            f.write_str(")")
        }
    }
}

/// Programs of one object that together make a tool, in the order in which they are attached.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) attach: Attach,
    pub(crate) programs: &'static [&'static str],
}

/// What there is no tool without.
const EVERY_TOOL_NEEDS: [KernelFeature; 3] = [
    KernelFeature::BpfLoad,
    KernelFeature::Btf,
    KernelFeature::Memlock,
];

/// The programs of a tool.
#[derive(Debug)]
pub(crate) struct Forms {
    pub(crate) tool: &'static str,
    /// The best first.
    pub(crate) variants: &'static [Variant],
    /// What all of them need besides their own kind of program and what [every tool](EVERY_TOOL_NEEDS) does: a failure is
    /// explained by it.
    pub(crate) needs: &'static [KernelFeature],
}

/// A variant that the kernel takes, and why it is not a better one.
#[derive(Debug)]
pub(crate) struct Plan<'v> {
    pub(crate) variant: &'v Variant,
    passed_over: Vec<(Attach, String)>,
}

impl Forms {
    /// Opens the first variant that the probe allows; only the `wanted` one where one is.
    ///
    /// One that the kernel refuses all the same is passed over too. When none is left, this fails as
    /// the first of them failed, and keeps what the verifier and libbpf said in a file that the
    /// error names.
    pub(crate) fn open<T>(
        &self,
        wanted: Option<Attach>,
        mut open: impl FnMut(&Plan<'_>) -> Result<T, ScopeError>,
    ) -> Result<T, ScopeError> {
        let wanted = |v: &&Variant| wanted.is_none_or(|wanted| v.attach == wanted);
        let mut left: Vec<&Variant> = self.variants.iter().filter(wanted).collect();
        if left.is_empty() {
            return Err(ScopeError::no_variant(self.tool));
        }
        let mut passed_over = Vec::new();
        let mut log = String::new();
        let mut failed = None;
        while !left.is_empty() {
            let features: Vec<_> = left.iter().map(|v| v.attach.feature()).collect();
            let choice = match KernelFeature::first_of(&features) {
                Ok(choice) => choice,
                Err(missing) => {
                    failed.get_or_insert_with(|| ScopeError::lacks(self.tool, missing));
                    break;
                }
            };
            let behind = left.split_off(choice.passed_over.len());
            let worse = left.iter().zip(choice.passed_over);
            passed_over.extend(worse.map(|(v, support)| (v.attach, support.reason)));
            let variant = behind[0];
            left = behind[1..].to_vec();

            let plan = Plan {
                variant,
                passed_over: passed_over.clone(),
            };
            let (opened, said) = with_log(|| open(&plan));
            match opened {
                Ok(tool) => return Ok(tool),
                Err(error) => {
                    let kind = variant.attach.as_str();
                    log += &format!("== {} by {kind}: {error}\n{said}", self.tool);
                    passed_over.push((variant.attach, error.to_string()));
                    failed.get_or_insert(error);
                }
            }
        }
        let failed = failed.expect("a variant was tried");
        let needs = [&EVERY_TOOL_NEEDS, self.needs].concat();
        Err(failed
            .explained(self.tool, &needs)
            .with_log(self.tool, &log))
    }
}

/// Opens, configures and loads the object with the programs of `variant` alone.
pub(crate) fn load<'obj, B>(
    builder: B,
    storage: &'obj mut MaybeUninit<OpenObject>,
    variant: &Variant,
    configure: impl FnOnce(&mut B::Output) -> libbpf_rs::Result<()>,
) -> Result<<B::Output as OpenSkel<'obj>>::Output, ScopeError>
where
    B: SkelBuilder<'obj>,
{
    let opened = builder.open(storage);
    let mut open = opened.map_err(|e| ScopeError::bpf("opening the BPF object", e))?;
    for mut program in open.open_object_mut().progs_mut() {
        let name = program.name().to_string_lossy();
        let chosen = variant.programs.contains(&&*name);
        program.set_autoload(chosen);
    }
    configure(&mut open).map_err(|e| ScopeError::bpf("sizing the maps", e))?;
    open.load()
        .map_err(|e| ScopeError::bpf("loading the programs", e))
}

/// A map of a loaded object as something that outlives the object.
pub(crate) fn handle(map: &MapMut<'_>) -> Result<MapHandle, ScopeError> {
    MapHandle::try_from(map).map_err(|e| ScopeError::bpf("opening a map", e))
}

/// Programs that run for as long as this lives.
#[derive(Debug)]
pub(crate) struct Programs {
    links: Vec<Link>,
    ids: Vec<u32>,
    attachment: Attachment,
}

impl Programs {
    pub(crate) fn attach<'obj>(
        skel: &impl Skel<'obj>,
        plan: &Plan<'_>,
    ) -> Result<Self, ScopeError> {
        let mut this = Self {
            links: Vec::new(),
            ids: Vec::new(),
            attachment: Attachment {
                attach: plan.variant.attach,
                passed_over: plan.passed_over.clone(),
            },
        };
        for name in plan.variant.programs {
            this.add(skel.object(), name)
                .map_err(|e| ScopeError::bpf("attaching a program", e))?;
        }
        Ok(this)
    }

    fn add(&mut self, object: &Object, name: &str) -> libbpf_rs::Result<()> {
        let program = object
            .progs_mut()
            .find(|program| program.name() == name)
            .expect("a variant names programs of its object");
        self.links.push(program.attach()?);
        self.ids.push(Program::id_from_fd(program.as_fd())?);
        Ok(())
    }

    /// What kind they are, and why.
    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// Their numbers in the kernel.
    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Lets no further event in. What runs on another CPU at this moment still ends.
    pub(crate) fn detach(&mut self) {
        self.links.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Attach, Forms, KernelFeature, Variant};
    use crate::error::ScopeError;

    const fn form(attach: Attach) -> Variant {
        Variant {
            attach,
            programs: &[],
        }
    }

    const FORMS: Forms = Forms {
        tool: "test",
        variants: &[
            form(Attach::BtfTracepoint),
            form(Attach::RawTracepoint),
            form(Attach::SyscallTracepoint),
        ],
        needs: &[],
    };

    /// Whether this process may load programs at all; else there is nothing to choose from.
    fn may_trace() -> bool {
        let wanted = [KernelFeature::TpBtf, KernelFeature::RawTracepoint];
        let answer = KernelFeature::all_of(&wanted);
        answer.map_err(crate::skip::skip).is_ok()
    }

    fn refused() -> ScopeError {
        ScopeError::bpf("loading", libbpf_rs::Error::from_raw_os_error(22))
    }

    #[test]
    fn what_the_kernel_refuses_in_spite_of_the_probe_is_passed_over_and_told() {
        if !may_trace() {
            return;
        }
        let opened = FORMS.open(None, |plan| match plan.variant.attach {
            Attach::RawTracepoint => Ok(plan.passed_over.clone()),
            _ => Err(refused()),
        });
        let passed_over = opened.expect("the second form opens");
        let [(attach, reason)] = &passed_over[..] else {
            panic!("{passed_over:?}");
        };
        assert_eq!(*attach, Attach::BtfTracepoint);
        assert!(reason.contains("loading failed"), "{reason}");
    }

    #[test]
    fn the_error_of_the_best_form_is_kept_with_the_log_of_all() {
        if !may_trace() {
            return;
        }
        let mut tried = Vec::new();
        let opened = FORMS.open::<()>(None, |plan| {
            tried.push(plan.variant.attach);
            Err(refused())
        });
        let error = opened.expect_err("none opens");
        assert_eq!(tried[..2], [Attach::BtfTracepoint, Attach::RawTracepoint]);
        assert!(error.to_string().contains("loading failed"), "{error}");
        let path = error.log_path().expect("a log was kept");
        let log = std::fs::read_to_string(path).expect("it is there");
        assert!(
            log.contains("by tp_btf") && log.contains("by raw_tp"),
            "{log}"
        );
        std::fs::remove_file(path).expect("it is ours");
    }

    #[test]
    fn a_failure_is_explained_by_what_is_missing() {
        let needs = [KernelFeature::OverwriteRing, KernelFeature::BpfLoad];
        let Err(missing) = KernelFeature::all_of(&needs) else {
            return;
        };
        let error = refused().explained("test", &needs);
        assert_eq!(error.missing(), Some(&missing));
        assert!(error.to_string().contains("overwrite-ring: "), "{error}");
        let error = ScopeError::record(1).explained("test", &needs);
        assert!(error.is_corrupt(), "{error}");
    }
}
