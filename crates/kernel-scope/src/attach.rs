use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;

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
}

/// Programs of one object that together make a tool, in the order in which they are attached.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) attach: Attach,
    pub(crate) programs: &'static [&'static str],
}

/// The first of `variants`, best first, that `open` can open; only the `wanted` one where one is.
///
/// Fails as the last of them failed, and keeps what the verifier and libbpf said about all in a
/// file that the error names.
pub(crate) fn first_that_opens<T>(
    tool: &'static str,
    wanted: Option<Attach>,
    variants: &[Variant],
    mut open: impl FnMut(&Variant) -> Result<T, ScopeError>,
) -> Result<T, ScopeError> {
    ScopeError::check_capabilities()?;
    let mut log = String::new();
    let mut failed = None;
    for variant in variants
        .iter()
        .filter(|v| wanted.is_none_or(|wanted| v.attach == wanted))
    {
        let (opened, said) = with_log(|| open(variant));
        match opened {
            Ok(tool) => return Ok(tool),
            Err(error) => {
                log += &format!("== {tool} by {}: {error}\n{said}", variant.attach.as_str());
                failed = Some(error);
            }
        }
    }
    let failed = failed.unwrap_or_else(|| ScopeError::no_variant(tool));
    Err(failed.with_log(tool, &log))
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
    attach: Attach,
}

impl Programs {
    pub(crate) fn attach<'obj>(
        skel: &impl Skel<'obj>,
        variant: &Variant,
    ) -> Result<Self, ScopeError> {
        let mut this = Self {
            links: Vec::new(),
            ids: Vec::new(),
            attach: variant.attach,
        };
        for name in variant.programs {
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

    /// What kind they are.
    pub(crate) fn kind(&self) -> Attach {
        self.attach
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
