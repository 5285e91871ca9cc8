//! What the kernel watches, and what it shall watch: changes are gathered, for a turn at most, and those of one descriptor are
//! merged before the kernel sees any.
//!
//! | asked for | the kernel is told |
//! |---|---|
//! | add, then modify | add, with the later interest |
//! | modify, then modify | the later one; nothing, if that is what it has |
//! | add, then delete or close | nothing |
//! | modify, then close | nothing: the close takes the descriptor off the list |
//! | delete, then add, the descriptor open all the time | modify (an add would be EEXIST); nothing, if it is what it has |
//! | close, then add of another descriptor with the same number | add (a modify would be ENOENT) |
//!
//! All of it is one rule: what was asked for last, less what the kernel has. A close forgets both.
//!
//! So a change cannot be used to be told once more about what is ready: the shard notes what an edge said until a read
//! has used it up ([`Flags`](crate::flags::Flags)) and needs no second edge for it.

/// What the kernel reports about a descriptor; ends of both directions and errors always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Input and room for output.
    Both,
    /// Room for output only: nobody wants the input now.
    Output,
}

/// A change of the kernel's interest list: one `epoll_ctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Add(Interest),
    Modify(Interest),
    Delete,
}

/// What the kernel has on its list for a descriptor, and what it shall have. One byte in each connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Watch(u8);

impl Watch {
    const fn new(kernel: Option<Interest>, wanted: Option<Interest>) -> Self {
        Self(code(kernel) | code(wanted) << 4)
    }

    const fn kernel(self) -> Option<Interest> {
        interest(self.0 & 0xf)
    }

    pub(crate) const fn wanted(self) -> Option<Interest> {
        interest(self.0 >> 4)
    }

    /// Merges what is asked for now into what was asked for before.
    pub(crate) const fn want(self, wanted: Option<Interest>) -> Self {
        Self::new(self.kernel(), wanted)
    }

    /// What the kernel must be told, if anything.
    pub(crate) const fn change(self) -> Option<Change> {
        match (self.kernel(), self.wanted()) {
            (None, Some(interest)) => Some(Change::Add(interest)),
            (Some(_), None) => Some(Change::Delete),
            (Some(Interest::Both), Some(Interest::Output)) => {
                Some(Change::Modify(Interest::Output))
            }
            (Some(Interest::Output), Some(Interest::Both)) => Some(Change::Modify(Interest::Both)),
            (None, None) | (Some(_), Some(_)) => None,
        }
    }

    /// The kernel was told.
    pub(crate) const fn told(self) -> Self {
        Self::new(self.wanted(), self.wanted())
    }
}

const fn code(interest: Option<Interest>) -> u8 {
    match interest {
        None => 0,
        Some(Interest::Both) => 1,
        Some(Interest::Output) => 2,
    }
}

const fn interest(code: u8) -> Option<Interest> {
    match code {
        1 => Some(Interest::Both),
        2 => Some(Interest::Output),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
