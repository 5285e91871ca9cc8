//! Every tool takes the best kind of program that a whole probe finds, and says why not a better one.

use ebpf_ring::{KernelFeature, KernelFeatures};
use kernel_scope::{Attach, Attachment, ScopeError, fds, map_iter, runq, wake};

/// Kinds, the best first.
type Kinds = &'static [(Attach, KernelFeature)];

const SCHEDULER: Kinds = &[
    (Attach::BtfTracepoint, KernelFeature::TpBtf),
    (Attach::RawTracepoint, KernelFeature::RawTracepoint),
];
const SYSCALL: Kinds = &[
    (Attach::SyscallTracepoint, KernelFeature::SyscallTracepoint),
    (Attach::RawTracepoint, KernelFeature::RawTracepoint),
];
const INSTALLS: Kinds = &[
    (Attach::Fentry, KernelFeature::Fentry),
    (Attach::Kprobe, KernelFeature::Kprobe),
    (Attach::RawTracepoint, KernelFeature::RawTracepoint),
];

#[expect(clippy::print_stdout, reason = "cargo xtask vm collects facts")]
fn check(tool: &str, kinds: Kinds, opened: Result<Attachment, ScopeError>) {
    let features: Vec<_> = kinds.iter().map(|(_, feature)| *feature).collect();
    let probed = KernelFeatures::probe_only(&features);
    let best = features.iter().position(|feature| probed.has(*feature));
    let attachment = match (opened, best) {
        (Ok(attachment), Some(_)) => attachment,
        (Err(error), None) => {
            let missing = error.missing().expect("it names what is missing");
            let named = missing.missing().iter().map(|support| support.feature);
            assert_eq!(named.collect::<Vec<_>>(), features, "{error}");
            crate::skip::skip(error);
            return;
        }
        (opened, best) => panic!("{tool}: {opened:?}, {best:?} of {features:?}"),
    };
    let best = best.expect("it was opened");
    assert_eq!(attachment.attach, kinds[best].0, "{tool}");
    let worse: Vec<_> = attachment.passed_over.iter().map(|(a, _)| *a).collect();
    let expected: Vec<_> = kinds[..best].iter().map(|(attach, _)| *attach).collect();
    assert_eq!(worse, expected, "{tool}");
    for ((_, reason), (_, feature)) in attachment.passed_over.iter().zip(kinds) {
        let support = probed.get(*feature).expect("it was asked for");
        assert_eq!(*reason, support.reason, "{tool}");
        assert!(attachment.to_string().contains(reason.as_str()));
    }
    println!("FACT {tool}: {}", attachment.attach.as_str());
}

#[test]
fn every_tool_takes_the_best_form_that_the_probe_allows() {
    let options = map_iter::Options::default();
    let opened = map_iter::MapIter::open(&options).map(|tool| tool.attached().clone());
    check("map-iter", SYSCALL, opened);
    let opened = runq::RunQ::open(&runq::Options::default()).map(|tool| tool.attached().clone());
    check("runq", SCHEDULER, opened);
    let opened = wake::Wake::open(&wake::Options::default()).map(|tool| tool.attached().clone());
    check("wake", SCHEDULER, opened);
    let opened = fds::Fds::open(&fds::Options::default()).map(|tool| tool.attached().clone());
    check("fds", INSTALLS, opened);
}

#[test]
fn a_form_that_the_tool_has_not_is_refused() {
    let options = runq::Options::default().attach(Attach::Kprobe);
    let error = runq::RunQ::open(&options).expect_err("runq has no such form");
    assert!(error.missing().is_none(), "{error}");
    assert!(error.to_string().contains("cannot be attached in that way"));
}
