use std::io;
use std::path::Path;

use super::tries::Refusal;
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
fn the_first_that_works_is_chosen_and_a_want_names_all() {
    let facts = facts_of(&[("sys/kernel/security/lockdown", "none [integrity] x\n")]);
    let wanted = [
        KernelFeature::Fentry,
        KernelFeature::Kprobe,
        KernelFeature::Tracepoint,
    ];
    let supports = vec![
        judge(&facts, wanted[0], refused(1)),
        judge(
            &facts,
            wanted[1],
            Err(Refusal::Missing("CONFIG_KPROBES is not set".into())),
        ),
        judge(&facts, wanted[2], Ok("loaded".into())),
    ];
    let features = KernelFeatures { facts, supports };
    assert_eq!(features.first_of(&wanted), Ok(KernelFeature::Tracepoint));
    let without = features.without(&[KernelFeature::Tracepoint]);
    let missing = without.first_of(&wanted).expect_err("none is left");
    assert!(missing.is_permission_denied());
    let text = missing.to_string();
    for part in [
        "lockdown is integrity",
        "CONFIG_KPROBES",
        "left out",
        "fentry: ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let other = without.first_of(&[KernelFeature::Xdp]);
    let other = other.expect_err("it was not asked for");
    assert!(!other.is_permission_denied() && other.to_string().contains("not asked for"));
}

#[test]
fn names_are_words_and_differ() {
    let names = KernelFeature::ALL.map(KernelFeature::name);
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), names.len());
}

/// Needs no privilege: without it nearly all is unavailable, and says so.
#[test]
fn the_probe_leaves_nothing_open() {
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
    }
    assert_eq!(open(), 0);
}
