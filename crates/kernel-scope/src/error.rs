use std::fmt;
use std::path::{Path, PathBuf};

use ebpf_ring::{KernelFacts, KernelFeature, MissingFeature, RingError};

use crate::log;

/// Why a tool could not start or go on: ask the predicates, or show it to somebody.
#[derive(Debug)]
pub struct ScopeError {
    kind: Kind,
    /// Where what libbpf and the verifier said was kept.
    log: Option<PathBuf>,
}

#[derive(Debug)]
enum Kind {
    /// EPERM, and what can be behind it.
    Refused {
        doing: &'static str,
        why: String,
        source: libbpf_rs::Error,
    },
    /// What the probe found missing.
    Missing {
        tool: &'static str,
        missing: MissingFeature,
    },
    Bpf {
        doing: &'static str,
        source: libbpf_rs::Error,
    },
    Ring(RingError),
    /// A record that the program cannot have written.
    Record(usize),
    /// The tool cannot be attached in the way that was asked for.
    NoVariant(&'static str),
    /// The process to watch cannot be found by its number.
    NoProcess {
        pid: u32,
        why: String,
    },
}

impl From<Kind> for ScopeError {
    fn from(kind: Kind) -> Self {
        Self { kind, log: None }
    }
}

impl ScopeError {
    /// No kind of program that `tool` can do with can be used here.
    pub(crate) fn lacks(tool: &'static str, missing: MissingFeature) -> Self {
        Kind::Missing { tool, missing }.into()
    }

    /// If something of `needs` cannot be used here, then that is why.
    pub(crate) fn explained(self, tool: &'static str, needs: &[KernelFeature]) -> Self {
        match (&self.kind, KernelFeature::all_of(needs)) {
            (Kind::Bpf { .. } | Kind::Refused { .. }, Err(missing)) => Self::lacks(tool, missing),
            _ => self,
        }
    }

    pub(crate) fn bpf(doing: &'static str, source: libbpf_rs::Error) -> Self {
        if is_eperm(&source) {
            let why = KernelFacts::read().explain_refusal();
            Kind::Refused { doing, why, source }.into()
        } else {
            Kind::Bpf { doing, source }.into()
        }
    }

    pub(crate) fn record(bytes: usize) -> Self {
        Kind::Record(bytes).into()
    }

    pub(crate) fn no_variant(tool: &'static str) -> Self {
        Kind::NoVariant(tool).into()
    }

    pub(crate) fn no_process(pid: u32, why: String) -> Self {
        Kind::NoProcess { pid, why }.into()
    }

    /// Keeps `log` in a file that the message names.
    pub(crate) fn with_log(mut self, tool: &str, log: &str) -> Self {
        if matches!(
            self.kind,
            Kind::Bpf { .. } | Kind::Refused { .. } | Kind::Missing { .. }
        ) && !log.is_empty()
        {
            self.log = log::keep(tool, log).ok();
        }
        self
    }

    /// The file that holds what libbpf and the verifier said when the programs were loaded, where
    /// that is why the tool could not start.
    #[must_use]
    pub fn log_path(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    /// The kernel has not what the tool needs, or not for this process: the features, each with its
    /// reason.
    #[must_use]
    pub fn missing(&self) -> Option<&MissingFeature> {
        match &self.kind {
            Kind::Missing { missing, .. } => Some(missing),
            _ => None,
        }
    }

    /// The process may not load or attach BPF programs; the message says what it lacks.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        match &self.kind {
            Kind::Refused { .. } => true,
            Kind::Missing { missing, .. } => missing.is_permission_denied(),
            Kind::Ring(ring) => ring.is_permission_denied(),
            _ => false,
        }
    }

    /// The process to watch does not exist, or not under that number.
    #[must_use]
    pub fn is_no_process(&self) -> bool {
        matches!(self.kind, Kind::NoProcess { .. })
    }

    /// The ring or a record in it is not what the tool's program writes.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        match &self.kind {
            Kind::Record(_) => true,
            Kind::Ring(ring) => ring.is_corrupt(),
            _ => false,
        }
    }
}

impl From<RingError> for ScopeError {
    fn from(source: RingError) -> Self {
        Kind::Ring(source).into()
    }
}

impl fmt::Display for ScopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Refused { doing, why, source } => {
                write!(f, "{doing} failed: {why} ({source:#})")
            }
            Kind::Missing { tool, missing } => write!(f, "{tool} cannot run: {missing}"),
            Kind::Bpf { doing, source } => write!(f, "{doing} failed: {source:#}"),
            Kind::Ring(source) => source.fmt(f),
            Kind::Record(bytes) => write!(
                f,
                "the ring holds a record of {bytes} bytes that this version does not know; were the \
                 program and the crate built from the same sources?"
            ),
            Kind::NoVariant(tool) => write!(f, "{tool} cannot be attached in that way"),
            Kind::NoProcess { pid, why } => write!(f, "process {pid} cannot be watched: {why}"),
        }?;
        match &self.log {
            Some(log) => write!(f, "; what the verifier said is in {}", log.display()),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ScopeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Refused { source, .. } | Kind::Bpf { source, .. } => Some(source),
            Kind::Missing { missing, .. } => Some(missing),
            Kind::Ring(source) => source.source(),
            Kind::Record(_) | Kind::NoVariant(_) | Kind::NoProcess { .. } => None,
        }
    }
}

/// EPERM is a want of privilege; EACCES, which libbpf-rs's kind does not tell from it, is the
/// verifier's no, and that is a bug. The error number is only in the text.
fn is_eperm(error: &libbpf_rs::Error) -> bool {
    format!("{error:#}").ends_with("(os error 1)")
}

#[cfg(test)]
mod tests {
    use super::ScopeError;

    #[test]
    fn the_verifiers_no_is_not_a_want_of_privilege() {
        let error = |errno| ScopeError::bpf("testing", libbpf_rs::Error::from_raw_os_error(errno));
        assert!(error(1).is_permission_denied());
        assert!(!error(13).is_permission_denied());
    }
}
