//! The probe beside libbpf's own, which loads programs of its own making.

use ebpf_ring::{KernelFeature as F, KernelFeatures};
use libbpf_rs::{MapType, ProgramType};

use super::Flood;

/// What loads is known to libbpf; what libbpf cannot load is not claimed.
#[test]
fn what_the_probe_finds_libbpf_finds() {
    let _flood = flood_or_skip!();
    let programs = [
        (F::RawTracepoint, ProgramType::RawTracepoint),
        (F::Syscall, ProgramType::Syscall),
        (F::SocketFilter, ProgramType::SocketFilter),
        (F::Xdp, ProgramType::Xdp),
        (F::SchedCls, ProgramType::SchedCls),
        (F::CgroupSkb, ProgramType::CgroupSkb),
        (F::SockOps, ProgramType::SockOps),
        (F::PerfEvent, ProgramType::PerfEvent),
    ];
    let maps = [
        (F::RingBuffer, MapType::RingBuf),
        (F::UserRingBuffer, MapType::UserRingBuf),
    ];
    let features = KernelFeatures::probe();
    for (feature, kind) in programs {
        let libbpf = kind.is_supported().expect("libbpf can tell");
        assert_eq!(features.has(feature), libbpf, "{:?}", features.get(feature));
    }
    for (feature, kind) in maps {
        let libbpf = kind.is_supported().expect("libbpf can tell");
        assert_eq!(features.has(feature), libbpf, "{:?}", features.get(feature));
    }
    // As root, whatever is missing is the kernel's doing and has a reason of its own.
    assert!(features.facts().missing_capabilities().is_empty());
    assert!(features.has(F::BpfLoad));
}
