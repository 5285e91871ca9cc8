//! Which kernel features can be used here, and what stands in for each that cannot.
//!
//! All but the descriptors is tried by `ebpf_ring::KernelFeatures`, the one place that knows; on a system without
//! BPF only the descriptors are told.

use serde::Serialize;

/// Below this many descriptors one process is too small for a big gateway.
const DESCRIPTORS_MIN: u64 = 65_536;

/// One row of the report.
#[derive(Debug, Serialize)]
pub(super) struct Feature {
    pub(super) name: &'static str,
    pub(super) available: bool,
    /// What is used when it is not available; `None` when nothing can stand in.
    pub(super) fallback: Option<&'static str>,
    /// Why, in words.
    pub(super) reason: String,
}

/// `hard`: the most descriptors that this process may open, `None` without a limit.
pub(super) fn descriptors(hard: Option<u64>) -> Feature {
    Feature {
        name: "descriptors",
        available: hard.is_none_or(|hard| hard >= DESCRIPTORS_MIN),
        fallback: Some("several processes on one port (SO_REUSEPORT)"),
        reason: match hard {
            Some(hard) => {
                format!("at most {hard} per process; {DESCRIPTORS_MIN} are asked for")
            }
            None => "no limit is set".into(),
        },
    }
}

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
impl From<&ebpf_ring::Support> for Feature {
    fn from(support: &ebpf_ring::Support) -> Self {
        Self {
            name: support.feature.name(),
            available: support.available,
            fallback: support.feature.fallback(),
            reason: support.reason.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::descriptors;

    #[test]
    fn few_descriptors_call_for_several_processes() {
        assert!(!descriptors(Some(65_535)).available);
        assert!(descriptors(Some(65_536)).available);
        assert!(descriptors(None).available);
    }
}
