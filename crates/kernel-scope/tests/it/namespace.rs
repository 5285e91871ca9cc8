//! In a pid namespace a process has another number than the one that the kernel's programs see.

use std::process::Command;
use std::thread;

use kernel_scope::fds::Fds;
use kernel_scope::map_iter::MapIter;
use kernel_scope::runq::{self, RunQ};
use kernel_scope::wake::Wake;
use kernel_scope::{Options, ScopeError};
use rustix::thread::UnshareFlags;

/// Set for this program as it runs inside.
const INSIDE: &str = "MAINSTAY_INSIDE_A_PID_NAMESPACE";
const PASSED: &str = "passed inside";

/// Runs `test` again, in a pid namespace of its own; false when this is that run.
fn is_outside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let run = move |test: String| {
        #[expect(
            deprecated,
            reason = "its successor is unsafe for the sake of other flags"
        )]
        let unshared = rustix::thread::unshare(UnshareFlags::NEWPID);
        if let Err(error) = unshared {
            return crate::skip::skip(format_args!("a pid namespace: {error}"));
        }
        let output = Command::new(std::env::current_exe().expect("Linux tells"))
            .args(["--exact", &test, "--nocapture"])
            .env(INSIDE, "1")
            .output();
        let output = output.expect("it runs already");
        let said = String::from_utf8_lossy(&output.stdout);
        let cried = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains(PASSED),
            "{said}\n{cried}"
        );
    };
    // Only the children of this thread are inside.
    let test = test.to_owned();
    thread::spawn(move || run(test)).join().expect("passed");
    true
}

#[test]
fn a_number_of_another_namespace_is_refused() {
    if is_outside("namespace::a_number_of_another_namespace_is_refused") {
        return;
    }
    let own = std::process::id();
    let options = Options::default().pid(own);
    let refused: [Result<(), ScopeError>; 4] = [
        RunQ::open(&runq::Options::default().pid(own)).map(drop),
        Wake::open(&options).map(drop),
        MapIter::open(&options).map(drop),
        Fds::open(&options).map(drop),
    ];
    for refused in refused {
        let error = refused.expect_err("the number is another one's");
        assert!(error.is_no_process(), "{error}");
        assert!(error.to_string().contains("namespace"), "{error}");
    }
    println!("{PASSED}");
}

#[test]
fn a_tool_inside_leaves_its_own_descriptors_out() {
    if is_outside("namespace::a_tool_inside_leaves_its_own_descriptors_out") {
        return;
    }
    // That of the namespace that /proc was mounted in: the initial one.
    let own = std::fs::read_link("/proc/self").expect("Linux tells");
    let own: u32 = own
        .to_str()
        .and_then(|pid| pid.parse().ok())
        .expect("a number");
    assert_ne!(own, std::process::id(), "this is no other namespace");
    match Fds::open(&Options::default()) {
        Ok(mut tool) => {
            tool.finish().expect("a sound ring");
            let groups = tool.groups();
            assert!(groups.iter().all(|group| group.pid != own), "{groups:?}");
        }
        Err(error) if error.is_permission_denied() => crate::skip::skip(error),
        Err(error) => panic!("{error}"),
    }
    println!("{PASSED}");
}
