use std::cell::RefCell;
use std::collections::HashMap;

use blazesym::symbolize::source::{Kernel, Process, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use blazesym::{MaybeDefault, Pid};
use ebpf_ring::MapCounters;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapMut};

use crate::attach::handle;
use crate::error::ScopeError;
use crate::events::total;

/// Addresses of the kernel and of processes as names, by `/proc/kallsyms` and the ELF symbols of
/// what the process has mapped. An address without a name stays a number.
///
/// A process is read when it is asked about: after its end, its addresses have no names.
pub struct Symbols {
    symbolizer: Symbolizer,
    /// A stack has dozens of addresses, and the same ones come again and again.
    known: RefCell<HashMap<(Option<u32>, u64), String>>,
}

/// Names kept; beyond that it starts again empty.
const KNOWN_MAX: usize = 100_000;

impl Symbols {
    /// Reads nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            symbolizer: Symbolizer::builder().enable_code_info(false).build(),
            known: RefCell::default(),
        }
    }

    /// Names of addresses of the kernel, one each.
    #[must_use]
    pub fn kernel(&self, addresses: &[u64]) -> Vec<String> {
        let kernel = Kernel {
            // kallsyms is what the running kernel says, and it is smaller.
            vmlinux: MaybeDefault::None,
            debug_syms: false,
            ..Kernel::default()
        };
        self.names(None, &Source::Kernel(kernel), addresses)
    }

    /// Names of addresses of the process `pid`, one each.
    #[must_use]
    pub fn user(&self, pid: u32, addresses: &[u64]) -> Vec<String> {
        let mut process = Process::new(Pid::from(pid));
        process.debug_syms = false;
        self.names(Some(pid), &Source::Process(process), addresses)
    }

    /// Forgets the names of `pid`, which runs another program now.
    pub fn forget(&self, pid: u32) {
        let mut known = self.known.borrow_mut();
        known.retain(|(of, _), _| *of != Some(pid));
    }

    fn names(&self, pid: Option<u32>, source: &Source<'_>, addresses: &[u64]) -> Vec<String> {
        let mut known = self.known.borrow_mut();
        if known.len() > KNOWN_MAX {
            known.clear();
        }
        let unknown: Vec<u64> = addresses
            .iter()
            .copied()
            .filter(|address| !known.contains_key(&(pid, *address)))
            .collect();
        if !unknown.is_empty() {
            let found = self.symbolizer.symbolize(source, Input::AbsAddr(&unknown));
            let mut found = found.unwrap_or_default().into_iter();
            for address in unknown {
                let name = match found.next() {
                    Some(Symbolized::Sym(symbol)) => symbol.name.into_owned(),
                    _ => format!("{address:#x}"),
                };
                known.insert((pid, address), name);
            }
        }
        addresses
            .iter()
            .map(|address| known[&(pid, *address)].clone())
            .collect()
    }
}

impl Default for Symbols {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Symbols {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Symbols")
            .field("known", &self.known.borrow().len())
            .finish_non_exhaustive()
    }
}

/// The stacks that programs left in a `BPF_MAP_TYPE_STACK_TRACE`.
#[derive(Debug)]
pub(crate) struct Stacks {
    map: MapHandle,
    counts: MapCounters,
}

/// Instead of a stack's number: another one had its place. `STACK_LOST` of
/// `bpf/include/mainstay_stack.h`.
const LOST: i32 = -17;

impl Stacks {
    /// `counts`: where the program counts the stacks that it loses.
    pub(crate) fn new(map: &MapMut<'_>, counts: MapCounters) -> Result<Self, ScopeError> {
        let map = handle(map)?;
        Ok(Self { map, counts })
    }

    /// Whether the program lost this stack.
    pub(crate) fn is_lost(id: i32) -> bool {
        id == LOST
    }

    /// How many it lost.
    pub(crate) fn lost(&self) -> Result<u64, ScopeError> {
        Ok(total(&self.counts)?.dropped())
    }

    /// The addresses of a stack, innermost first; none for what is no stack's number.
    pub(crate) fn addresses(&self, id: i32) -> Vec<u64> {
        let Ok(id) = u32::try_from(id) else {
            return Vec::new();
        };
        let found = self.map.lookup(&id.to_ne_bytes(), MapFlags::ANY);
        let bytes = found.ok().flatten().unwrap_or_default();
        bytes
            .as_chunks()
            .0
            .iter()
            .map(|word| u64::from_ne_bytes(*word))
            .take_while(|address| *address != 0)
            .collect()
    }
}
