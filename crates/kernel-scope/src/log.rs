//! What libbpf and the verifier say while programs are loaded: kept for when that fails, and away
//! from the caller's standard error.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use libbpf_rs::{PrintLevel, set_print};

/// libbpf has one printer for the whole process: one load at a time may borrow it.
static LOADING: Mutex<()> = Mutex::new(());
static SAID: Mutex<String> = Mutex::new(String::new());

/// Runs `load`, and returns with its result what libbpf said meanwhile.
pub(crate) fn with_log<T>(load: impl FnOnce() -> T) -> (T, String) {
    let loading = lock(&LOADING);
    lock(&SAID).clear();
    let before = set_print(Some((PrintLevel::Info, |_, line| {
        lock(&SAID).push_str(&line)
    })));
    let loaded = load();
    set_print(before);
    let said = std::mem::take(&mut *lock(&SAID));
    drop(loading);
    (loaded, said)
}

/// Writes the log to a new file of the folder for temporary files, readable by its owner alone.
pub(crate) fn keep(tool: &str, log: &str) -> io::Result<PathBuf> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let name = format!(
        "mainstay-{tool}-{}-{}.verifier.log",
        std::process::id(),
        now.as_nanos()
    );
    let path = std::env::temp_dir().join(name);
    // A name that others can guess: never through a link that lies there already.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    file?.write_all(log.as_bytes())?;
    Ok(path)
}

/// The text is whole after every statement, so a panic elsewhere leaves nothing broken.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::keep;

    #[test]
    fn a_log_is_kept_in_a_file_of_its_own() {
        let first = keep("test", "one\n").expect("temporary files can be made");
        let second = keep("test", "two\n").expect("temporary files can be made");
        assert_ne!(first, second);
        assert_eq!(
            std::fs::read_to_string(&first).expect("it is there"),
            "one\n"
        );
        for path in [first, second] {
            std::fs::remove_file(path).expect("it is ours");
        }
    }
}
