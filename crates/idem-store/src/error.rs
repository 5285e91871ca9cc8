//! The one error type: opaque, with predicates.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Why an operation of the store was refused or failed.
///
/// Opaque: ask the predicates. It is cheap to clone, because one failed sync is reported to every
/// caller whose record was in that batch. `Display` is a sentence that says what to do.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    source: Option<Arc<io::Error>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Io(&'static str),
    Locked,
    DiskFull,
    NoDescriptors,
    KeysFull(u64),
    Busy(&'static str),
    Poisoned,
    Fenced,
    EffectDeclared,
    TooLarge(&'static str, u64, u64),
    Damaged(u32, u64, &'static str),
    Outdated(u32),
    Version(u32, u16),
    Closed,
    Options(&'static str),
    Url(String),
    #[cfg(feature = "_remote")]
    Unavailable(&'static str),
    #[cfg(feature = "_remote")]
    Refused(String),
    #[cfg(feature = "_remote")]
    ServerFull,
    #[cfg(feature = "_remote")]
    Unreadable(&'static str),
    #[cfg(feature = "_remote")]
    ServerVersion(u64),
}

impl Error {
    /// The permit is no longer the holder of its key: its lease passed to another, or the key was
    /// forgotten. Do not write to the outside with its token any more.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.kind == Kind::Fenced
    }

    /// A write or sync failed once, and the store refuses everything since: what is on the disk is
    /// no longer known. Close it, look at the disk and open it again.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.kind == Kind::Poisoned
    }

    /// There is no room for a new key: the disk (or the server's memory) is full, there is no file
    /// descriptor for the next segment, or `keys_max` is reached. Stored outcomes are still replayed; try again once there is room. What it means for
    /// an outcome is told at [`Store::complete`](crate::Store::complete).
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self.kind {
            Kind::DiskFull | Kind::NoDescriptors | Kind::KeysFull(_) => true,
            #[cfg(feature = "_remote")]
            Kind::ServerFull => true,
            _ => false,
        }
    }

    /// A bounded queue is at its limit: wait for one of your completions, then try again.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.kind, Kind::Busy(_))
    }

    /// Another process (or another `Store` in this one) has the directory open.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.kind == Kind::Locked
    }

    /// [`Failure::Retryable`](crate::Failure::Retryable) was given for an effect that was declared
    /// and therefore may have happened. The key is in doubt now.
    #[must_use]
    pub fn is_effect_declared(&self) -> bool {
        self.kind == Kind::EffectDeclared
    }

    /// A key, memo or outcome is larger than its option allows, or the key is empty.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self.kind, Kind::TooLarge(..))
    }

    /// Bytes that were durable are damaged; [`segment`](Self::segment) and
    /// [`offset`](Self::offset) say where.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        match self.kind {
            Kind::Damaged(..) => true,
            #[cfg(feature = "_remote")]
            Kind::Unreadable(_) => true,
            _ => false,
        }
    }

    /// A running store has used a [`segment`](Self::segment) anew since the
    /// [`Snapshot`](crate::Snapshot) was read: what the key is now is not in it. Read another one.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        matches!(self.kind, Kind::Outdated(_))
    }

    /// The directory was written by a newer version of this crate.
    #[must_use]
    pub fn is_version(&self) -> bool {
        match self.kind {
            Kind::Version(..) => true,
            #[cfg(feature = "_remote")]
            Kind::ServerVersion(_) => true,
            _ => false,
        }
    }

    /// The store was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.kind == Kind::Closed
    }

    /// The options contradict each other, or a URL cannot be understood.
    #[must_use]
    pub fn is_options(&self) -> bool {
        matches!(self.kind, Kind::Options(_) | Kind::Url(_))
    }

    /// The server of a shared store did not answer in time, also after trying again: whether the
    /// operation took effect is not known. It is safe to call it again; a claim that nobody learned
    /// of ends with its lease (and is in doubt then, if its effect was declared with it).
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self.kind {
            #[cfg(feature = "_remote")]
            Kind::Unavailable(_) => true,
            _ => false,
        }
    }

    /// The server of a shared store is set up to lose what it acknowledges, or does not let us find
    /// out; the text says which setting to change.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        match self.kind {
            #[cfg(feature = "_remote")]
            Kind::Refused(_) => true,
            _ => false,
        }
    }

    /// The segment that the error is about.
    #[must_use]
    pub fn segment(&self) -> Option<u32> {
        match self.kind {
            Kind::Damaged(segment, ..) | Kind::Version(segment, _) | Kind::Outdated(segment) => {
                Some(segment)
            }
            _ => None,
        }
    }

    /// The byte offset within [`segment`](Self::segment).
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self.kind {
            Kind::Damaged(_, offset, _) => Some(offset),
            _ => None,
        }
    }

    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, source: None }
    }

    /// An I/O error while doing `what`; a full disk keeps its own kind.
    pub(crate) fn io(what: &'static str, source: io::Error) -> Self {
        let kind = if is_disk_full(&source) {
            Kind::DiskFull
        } else {
            Kind::Io(what)
        };
        Self {
            kind,
            source: Some(Arc::new(source)),
        }
    }

    /// A server that cannot be reached, or says something unexpected, while doing `what`.
    #[cfg(feature = "_remote")]
    pub(crate) fn unavailable(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind: Kind::Unavailable(what),
            source: Some(Arc::new(io::Error::other(source))),
        }
    }

    /// The same cause, as the error of a poisoned store.
    pub(crate) fn poisoned(cause: Error) -> Self {
        Self {
            kind: Kind::Poisoned,
            source: cause.source,
        }
    }

    pub(crate) fn damaged(segment: u32, offset: u64, reason: &'static str) -> Self {
        Self::new(Kind::Damaged(segment, offset, reason))
    }
}

/// Whether an I/O error says that there is no space left (ENOSPC or EDQUOT).
pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Io(what) => write!(f, "could not {what}")?,
            Kind::Locked => f.write_str(
                "the store is open elsewhere: stop the other process or use another directory",
            )?,
            Kind::DiskFull => f.write_str(
                "the disk is full: stored outcomes still replay, new keys wait until space is freed",
            )?,
            Kind::NoDescriptors => f.write_str(
                "too many files are open to make the next segment: stored outcomes still replay, new keys wait until some are closed or the limit (ulimit -n) is raised",
            )?,
            Kind::KeysFull(max) => write!(
                f,
                "the store holds its maximum of {max} keys: raise keys_max or shorten the retention"
            )?,
            Kind::Busy(what) => {
                write!(f, "{what}: wait for an earlier completion and try again")?;
            }
            Kind::Poisoned => f.write_str(
                "a write or sync of the store failed earlier: close it, check the disk and open it again",
            )?,
            Kind::Fenced => f.write_str(
                "this permit no longer holds its key: stop, another holder may be at work",
            )?,
            Kind::EffectDeclared => f.write_str(
                "the effect was declared and may have happened: reconcile, then complete the key or fail it with NotHappened",
            )?,
            Kind::TooLarge(what, length, max) => {
                if *length == 0 {
                    write!(f, "the {what} is empty, allowed are 1 to {max} bytes")?;
                } else {
                    write!(f, "the {what} has {length} bytes, allowed are at most {max}")?;
                }
            }
            Kind::Damaged(segment, offset, reason) => write!(
                f,
                "segment {segment} is damaged at offset {offset} ({reason}): run verify, restore a backup or repair"
            )?,
            Kind::Outdated(segment) => write!(
                f,
                "the running store has used segment {segment} anew since this snapshot was read: read another one"
            )?,
            Kind::Version(segment, version) => write!(
                f,
                "segment {segment} has format version {version}, newer than this program: upgrade it"
            )?,
            Kind::Closed => f.write_str("the store is closed: open it again")?,
            Kind::Options(what) => write!(f, "the options do not fit: {what}")?,
            Kind::Url(what) => write!(f, "the store's URL does not fit: {what}")?,
            #[cfg(feature = "_remote")]
            Kind::Unavailable(what) => write!(f, "{what}: try again once the server answers")?,
            #[cfg(feature = "_remote")]
            Kind::Refused(what) => write!(f, "this server is not safe for a store: {what}")?,
            #[cfg(feature = "_remote")]
            Kind::ServerFull => f.write_str(
                "the server's memory, disk or table is full: stored outcomes still replay, new keys wait until it has room (Redis: maxmemory)",
            )?,
            #[cfg(feature = "_remote")]
            Kind::Unreadable(what) => write!(
                f,
                "the server holds something under the store's keys that the store did not write ({what}): use another name"
            )?,
            #[cfg(feature = "_remote")]
            Kind::ServerVersion(version) => write!(
                f,
                "the server holds a store of format version {version}, newer than this program: upgrade it"
            )?,
        }
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.kind)
            .field("source", &self.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}
