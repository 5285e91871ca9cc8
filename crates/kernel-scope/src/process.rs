use std::fs;
use std::os::unix::fs::MetadataExt as _;

use crate::error::ScopeError;

/// Makes sure that a tool can find the process that it is to watch: else it would find nothing, and
/// say nothing.
///
/// # Errors
///
/// There is no such process, or its number means another one to the kernel.
pub(crate) fn check(pid: Option<u32>) -> Result<(), ScopeError> {
    let Some(pid) = pid else { return Ok(()) };
    if !is_in_the_initial_namespace() {
        return Err(ScopeError::no_process(
            pid,
            "this is not the initial pid namespace, whose numbers the kernel's programs compare"
                .into(),
        ));
    }
    let status = fs::read(format!("/proc/{pid}/status"));
    let status = status.map_err(|e| ScopeError::no_process(pid, e.to_string()))?;
    // Its name is in there too, which is any bytes.
    let status = String::from_utf8_lossy(&status);
    let of = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    match of.map(str::trim) {
        Some(of) if of != pid.to_string() => {
            let why = format!("it is a thread of process {of}");
            Err(ScopeError::no_process(pid, why))
        }
        _ => Ok(()),
    }
}

/// Without /proc it is taken for one.
fn is_in_the_initial_namespace() -> bool {
    /// `PROC_PID_INIT_INO` of include/linux/proc_ns.h: the same on every Linux.
    const INITIAL: u64 = 0xEFFF_FFFC;
    fs::metadata("/proc/self/ns/pid").map_or(true, |namespace| namespace.ino() == INITIAL)
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn only_a_process_that_is_there_is_taken() {
        let own = std::process::id();
        if let Err(error) = check(Some(own)) {
            return crate::skip::skip(error);
        }
        check(None).expect("all processes");
        // No Linux has a process of this number (`PID_MAX_LIMIT`).
        let error = check(Some((1 << 22) + 1)).expect_err("it is not there");
        assert!(error.is_no_process(), "{error}");
    }

    #[test]
    fn a_process_may_be_named_by_any_bytes() {
        let own = std::process::id();
        if let Err(error) = check(Some(own)) {
            return crate::skip::skip(error);
        }
        let before = std::fs::read("/proc/self/comm").expect("Linux tells");
        std::fs::write("/proc/self/comm", b"\xff\xfe").expect("it is ours");
        let checked = check(Some(own));
        std::fs::write("/proc/self/comm", before).expect("it is ours");
        checked.expect("it is there");
    }

    #[test]
    fn a_thread_is_no_process() {
        let thread = std::thread::spawn(|| {
            let task = std::fs::read_link("/proc/thread-self").expect("Linux tells");
            let tid = task.file_name().and_then(|name| name.to_str());
            let tid = tid.and_then(|tid| tid.parse().ok()).expect("a number");
            check(Some(tid)).expect_err("it is a thread").to_string()
        });
        let error = thread.join().expect("no panic");
        assert!(
            error.contains("thread of process") || error.contains("namespace"),
            "{error}"
        );
    }
}
