use crate::attach::Attach;

/// How to open a tool that reads events from a ring.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Only this process, as the initial pid namespace numbers it; `None` for all (`fds`: but the tool's own).
    pub pid: Option<u32>,
    /// Bytes of the ring: a power of two of whole pages; `None` for what the tool takes by itself.
    pub ring_bytes: Option<u32>,
    /// Where to attach; `None` for the best that this machine has.
    pub attach: Option<Attach>,
}

impl Options {
    /// Only the process `pid`.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }

    /// A ring of `ring_bytes`.
    #[must_use]
    pub fn ring_bytes(mut self, ring_bytes: u32) -> Self {
        self.ring_bytes = Some(ring_bytes);
        self
    }

    /// Attach there and nowhere else.
    #[must_use]
    pub fn attach(mut self, attach: Attach) -> Self {
        self.attach = Some(attach);
        self
    }
}
