use std::io;
use std::path::Path;

use super::choice::choose;
use super::tries::{Depth, Lab, Refusal};
use super::{KernelFacts, KernelFeature, KernelFeatures, judge};

/// Of a machine that has only these files.
pub(super) fn facts_of(files: &[(&str, &str)]) -> KernelFacts {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let file = root.path().join(path);
        std::fs::create_dir_all(file.parent().expect("it has one")).expect("a folder");
        std::fs::write(file, text).expect("a file");
    }
    KernelFacts::read_below(Path::new(root.path()))
}

fn refused(errno: i32) -> Result<String, Refusal> {
    let error = io::Error::from_raw_os_error(errno);
    let doing = "loading";
    Err(Refusal::Call { doing, error })
}

#[test]
fn an_old_kernel_is_told_what_it_lacks_and_since_when() {
    let facts = facts_of(&[("proc/sys/kernel/osrelease", "5.4.0-1\n")]);
    let ring = judge(&facts, KernelFeature::RingBuffer, refused(22));
    assert!(!ring.available && !ring.is_permission_denied());
    assert!(
        ring.reason.contains("it came with 5.8, this is 5.4.0-1"),
        "{ring}"
    );
    let new = facts_of(&[("proc/sys/kernel/osrelease", "6.12.1\n")]);
    let ring = judge(&new, KernelFeature::RingBuffer, refused(22));
    assert!(!ring.reason.contains("came with"), "{ring}");
}

#[test]
fn a_missing_capability_is_named_and_the_verifiers_no_is_none() {
    let facts = facts_of(&[("proc/self/status", "CapEff:\t0000008000000000\n")]);
    let fentry = judge(&facts, KernelFeature::Fentry, refused(1));
    assert!(fentry.is_permission_denied());
    assert!(fentry.reason.contains("needs CAP_PERFMON"), "{fentry}");
    let fentry = judge(&facts, KernelFeature::Fentry, refused(13));
    assert!(!fentry.is_permission_denied(), "{fentry}");
}

#[test]
fn programs_in_the_networks_path_need_a_capability_more() {
    let facts = facts_of(&[("proc/self/status", "CapEff:\t000000c000000000\n")]);
    let needs = |feature| judge(&facts, feature, refused(1)).reason;
    for feature in [
        KernelFeature::Xdp,
        KernelFeature::SchedCls,
        KernelFeature::SockOps,
    ] {
        let reason = needs(feature);
        assert!(reason.contains("needs CAP_NET_ADMIN,"), "{reason}");
    }
    let reason = needs(KernelFeature::CgroupSkb);
    assert!(!reason.contains("CAP_NET_ADMIN"), "{reason}");
}

#[test]
fn the_first_that_works_is_chosen_and_a_want_names_all() {
    let facts = facts_of(&[("sys/kernel/security/lockdown", "none [integrity] x\n")]);
    let mut tried = Vec::new();
    let mut examine = |feature| {
        tried.push(feature);
        let found = match feature {
            KernelFeature::Fentry | KernelFeature::Lsm => refused(1),
            KernelFeature::Kprobe => Err(Refusal::Missing("CONFIG_KPROBES is not set".into())),
            _ => Ok("loaded".into()),
        };
        judge(&facts, feature, found)
    };
    let wanted = [
        KernelFeature::Fentry,
        KernelFeature::Kprobe,
        KernelFeature::Tracepoint,
        KernelFeature::RawTracepoint,
    ];
    let choice = choose(&wanted, &mut examine).expect("tracepoints work");
    assert_eq!(choice.feature, KernelFeature::Tracepoint);
    let passed_over = choice.passed_over.iter().map(|support| support.feature);
    assert_eq!(passed_over.collect::<Vec<_>>(), wanted[..2]);

    let none = [
        KernelFeature::Fentry,
        KernelFeature::Lsm,
        KernelFeature::Kprobe,
    ];
    let missing = choose(&none, &mut examine).expect_err("none works");
    assert!(missing.is_permission_denied());
    let text = missing.to_string();
    for part in [
        "here: fentry, lsm: the kernel",
        "is integrity; kprobe: CONFIG_",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let expected = [&wanted[..3], &none[..]].concat();
    assert_eq!(tried, expected, "what is behind the choice is not tried");
}

#[test]
fn names_are_words_and_differ() {
    let names = KernelFeature::ALL.map(KernelFeature::name);
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len());
}

/// Needs no privilege: without it nearly all is unavailable, and says so. The only test here that
/// tries the kernel: another would have descriptors open meanwhile.
#[test]
fn a_choice_finds_what_the_whole_probe_finds_and_neither_leaves_anything_open() {
    let open = || {
        let list = std::fs::read_dir("/proc/self/fd").expect("/proc");
        let links = list.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let ours = |link: &std::path::PathBuf| {
            let link = link.to_string_lossy();
            [
                "bpf",
                "perf_event",
                "io_uring",
                "userfaultfd",
                "memfd:probe",
            ]
            .iter()
            .any(|part| link.contains(part))
        };
        links.filter(ours).count()
    };
    let features = KernelFeatures::probe();
    assert_eq!(features.iter().len(), KernelFeature::ALL.len());
    for support in features.iter() {
        println!("{:<5} {support}", support.available);
        assert!(!support.reason.is_empty());
        let alone = [support.feature];
        let (first, all) = (
            KernelFeature::first_of(&alone),
            KernelFeature::all_of(&alone),
        );
        assert_eq!(first.is_ok(), support.available, "{first:?}");
        assert_eq!(all.is_ok(), support.available, "{all:?}");
    }
    assert_eq!(open(), 0);
}

/// Who has the capabilities but is not root may not read tracefs: that is not a file without a number.
#[test]
fn a_tracepoint_whose_number_cannot_be_read_says_why() {
    let facts = facts_of(&[("proc/self/mounts", "x /nowhere tracefs rw 0 0\n")]);
    let tried = Lab::new(&facts, Depth::Load).attach_tracepoint("a/b");
    let Err(Refusal::Missing(reason)) = tried else {
        panic!("{tried:?}");
    };
    assert!(
        reason.starts_with("/nowhere/events/a/b/id cannot be read: "),
        "{reason}"
    );
}
