use std::fmt;
use std::path::{Path, PathBuf};

use ebpf_ring::RingError;

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
    /// Capabilities that the process lacks.
    Missing(Vec<&'static str>),
    /// EPERM although it has them.
    Refused {
        doing: &'static str,
        source: libbpf_rs::Error,
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
}

impl From<Kind> for ScopeError {
    fn from(kind: Kind) -> Self {
        Self { kind, log: None }
    }
}

impl ScopeError {
    /// Fails when the process lacks what every tool needs, before libbpf tries and complains.
    pub(crate) fn check_capabilities() -> Result<(), Self> {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let missing = missing_of(&status);
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Kind::Missing(missing).into())
        }
    }

    pub(crate) fn bpf(doing: &'static str, source: libbpf_rs::Error) -> Self {
        if is_eperm(&source) {
            Kind::Refused { doing, source }.into()
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

    /// Keeps `log` in a file that the message names.
    pub(crate) fn with_log(mut self, tool: &str, log: &str) -> Self {
        if matches!(self.kind, Kind::Bpf { .. } | Kind::Refused { .. }) {
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

    /// The process may not load or attach BPF programs; the message says what it lacks.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        match &self.kind {
            Kind::Missing(_) | Kind::Refused { .. } => true,
            Kind::Ring(ring) => ring.is_permission_denied(),
            _ => false,
        }
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
            Kind::Missing(missing) => {
                let missing = missing.join(" and ");
                write!(
                    f,
                    "loading BPF programs needs {missing}, which this process lacks; run it as root"
                )
            }
            Kind::Refused { doing, source } => write!(
                f,
                "the kernel forbids {doing} although the process has CAP_BPF and CAP_PERFMON \
                 (lockdown, seccomp or a container?): {source:#}"
            ),
            Kind::Bpf { doing, source } => write!(f, "{doing} failed: {source:#}"),
            Kind::Ring(source) => source.fmt(f),
            Kind::Record(bytes) => write!(
                f,
                "the ring holds a record of {bytes} bytes that this version does not know; were the \
                 program and the crate built from the same sources?"
            ),
            Kind::NoVariant(tool) => write!(f, "{tool} cannot be attached in that way"),
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
            Kind::Ring(source) => source.source(),
            Kind::Missing(_) | Kind::Record(_) | Kind::NoVariant(_) => None,
        }
    }
}

/// Capability numbers of include/uapi/linux/capability.h. CAP_SYS_ADMIN implies the other two.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// EPERM is a want of privilege; EACCES, which libbpf-rs's kind does not tell from it, is the
/// verifier's no, and that is a bug. The error number is only in the text.
fn is_eperm(error: &libbpf_rs::Error) -> bool {
    format!("{error:#}").ends_with("(os error 1)")
}

fn missing_of(status: &str) -> Vec<&'static str> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let Some(set) = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()) else {
        return Vec::new();
    };
    let has = |capability: u32| set >> capability & 1 == 1;
    let needed = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")];
    needed
        .into_iter()
        .filter(|(n, _)| !has(*n) && !has(CAP_SYS_ADMIN))
        .map(|(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{ScopeError, missing_of};

    #[test]
    fn missing_capabilities_are_named() {
        assert_eq!(
            missing_of("Name:\tx\nCapEff:\t0000000000000000\n"),
            ["CAP_BPF", "CAP_PERFMON"]
        );
        assert_eq!(missing_of("CapEff:\t0000008000000000\n"), ["CAP_PERFMON"]);
        assert_eq!(missing_of("CapEff:\t000000c000000000\n"), [""; 0]);
        assert_eq!(missing_of("CapEff:\t0000000000200000\n"), [""; 0]);
        assert_eq!(missing_of(""), [""; 0], "no /proc: nothing to say");
    }
    #[test]
    fn the_verifiers_no_is_not_a_want_of_privilege() {
        let error = |errno| ScopeError::bpf("testing", libbpf_rs::Error::from_raw_os_error(errno));
        assert!(error(1).is_permission_denied());
        assert!(!error(13).is_permission_denied());
    }
}
