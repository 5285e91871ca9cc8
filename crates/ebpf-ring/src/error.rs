use std::borrow::Cow;
use std::fmt;
use std::io;

use crate::walk::{Corrupt, CorruptKind};

/// What went wrong with a ring: ask the predicates, or show it to somebody.
#[derive(Debug)]
pub struct RingError {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    WrongMap(String),
    Corrupt(Corrupt),
    Io {
        doing: Cow<'static, str>,
        source: io::Error,
    },
}

impl RingError {
    pub(crate) fn wrong_map(why: impl Into<String>) -> Self {
        Self {
            kind: Kind::WrongMap(why.into()),
        }
    }

    pub(crate) fn io(doing: impl Into<Cow<'static, str>>, source: impl Into<io::Error>) -> Self {
        Self {
            kind: Kind::Io {
                doing: doing.into(),
                source: source.into(),
            },
        }
    }

    /// The descriptor is not a BPF map, or not of the type and size that is wanted, or /proc does not tell.
    #[must_use]
    pub fn is_wrong_map(&self) -> bool {
        matches!(self.kind, Kind::WrongMap(_))
    }

    /// The ring's memory contradicts itself. The reader stays where it is; every later call says
    /// the same. Nothing before [`position`](Self::position) was lost.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self.kind, Kind::Corrupt(_))
    }

    /// The kernel refused for want of a capability or access to the descriptor.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        matches!(&self.kind, Kind::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// The consumer position, in bytes since the ring was made, at which a corrupt ring is damaged.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        match &self.kind {
            Kind::Corrupt(corrupt) => Some(corrupt.position),
            _ => None,
        }
    }
}

impl From<Corrupt> for RingError {
    fn from(corrupt: Corrupt) -> Self {
        Self {
            kind: Kind::Corrupt(corrupt),
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::WrongMap(why) => write!(f, "this is not the map that is wanted: {why}"),
            Kind::Corrupt(Corrupt {
                position,
                kind: CorruptKind::Length(len),
            }) => write!(
                f,
                "the ring is damaged: the record at position {position} claims {len} bytes and so \
                 reaches beyond the producer; is another consumer reading the same ring?"
            ),
            Kind::Corrupt(Corrupt {
                position,
                kind: CorruptKind::Producer(end),
            }) => write!(
                f,
                "the ring is damaged: the producer's position {end} cannot belong to a consumer at \
                 {position}; is another consumer reading the same ring?"
            ),
            Kind::Corrupt(Corrupt {
                position,
                kind: CorruptKind::Size(size),
            }) => write!(
                f,
                "the perf buffer is damaged: the record at position {position} claims {size} bytes, \
                 which it cannot have; is another consumer reading the same buffer?"
            ),
            Kind::Io { doing, source } => write!(f, "{doing} failed: {source}"),
        }
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.kind {
            Kind::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
