//! The process's limit on open files: each connection takes one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to the hard one; returns it (`None`: there is no limit).
pub(crate) fn raise_open_files() -> io::Result<Option<u64>> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: maximum,
            maximum,
        },
    )?;
    Ok(maximum)
}

/// Says that `wanted` open files are more than the process may have.
pub(crate) fn check_open_files(wanted: u64, limit: Option<u64>) -> io::Result<()> {
    match limit {
        Some(limit) if wanted > limit => Err(io::Error::other(format!(
            "{wanted} open files are needed, but this process may have {limit}; \
             raise the hard limit (ulimit -Hn) or use fewer devices"
        ))),
        _ => Ok(()),
    }
}
