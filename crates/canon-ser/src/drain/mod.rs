//! Canonical bytes of a value that leave memory while the value is still being written.
//!
//! What is in order needs no place to be sorted in. So a value is written optimistically: when the buffer is full its bytes
//! go, but for those of a container that is known to be out of order, which is held until it ends. Where a container
//! turns out to be disordered after its first bytes went, the rest is written only to find all containers of that kind;
//! then the value is serialized once more, and those are held from their start.

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::ops::Range;

use serde::Serialize;

use crate::buf::{Buf, Growing};
use crate::emit::{Emitter, Format};
#[cfg(feature = "std")]
use crate::error::Error;
use crate::error::{Code, Fail};
use crate::order::Usual;

/// Bytes go when there are this many.
const FULL: usize = 2 * KEPT;

/// But not the last ones. So a container of which no more has been written is there as a whole, and whether one turns out
/// to be disordered too late does not depend on what else is held.
const KEPT: usize = if cfg!(test) { 16 } else { 32 << 10 };

/// Where the bytes go.
pub(crate) trait Take {
    /// What was taken can be forgotten, so that bytes may go before it is known that the whole value has a form.
    const FORGETS: bool;

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fail>;
    /// Forgets all.
    fn start_again(&mut self) {}
}

/// Lets bytes go to a writer.
#[cfg(feature = "std")]
pub(crate) struct Writing<W> {
    writer: W,
    error: Option<std::io::Error>,
}

#[cfg(feature = "std")]
impl<W: std::io::Write> Writing<W> {
    pub(crate) fn new(writer: W) -> Self {
        Writing {
            writer,
            error: None,
        }
    }

    /// What the writer says, if it was the writer that failed.
    pub(crate) fn error(self, error: Error) -> Error {
        self.error.map_or(error, |error| Error::io(&error))
    }
}

#[cfg(feature = "std")]
impl<W: std::io::Write> Take for Writing<W> {
    const FORGETS: bool = false;

    fn take(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        self.writer.write_all(bytes).map_err(|error| {
            self.error = Some(error);
            Fail::new(Code::Io)
        })
    }
}

/// Why there are no bytes, and what had been written, if nothing of it went.
pub(crate) type Refused = (Fail, Vec<u8>);

/// Writes a value. It is serialized twice if it is so large that bytes must go before it ends, and either `to` does not
/// forget, or one of its containers is so large and out of order.
pub(crate) fn write<T: Serialize + ?Sized, F: Format, K: Take>(
    value: &T,
    options: F,
    to: &mut K,
) -> Result<(), Refused> {
    let mut first = Draining::new(to, None);
    first.looks_only = !K::FORGETS;
    first.write(value, options)?;
    if first.drained == 0 || !first.looks_only {
        return first.finish();
    }
    let mut disordered = first.disordered;
    disordered.sort_unstable();
    to.start_again();
    let mut second = Draining::new(to, Some(disordered));
    second.write(value, options)?;
    second.finish()
}

/// An open container.
struct Open {
    /// The how manieth of the value it is.
    ordinal: usize,
    /// Where it starts.
    at: usize,
    /// Where its last key is kept.
    key: usize,
    /// It is known to be one of those that must be held from their start.
    is_listed: bool,
}

/// A buffer whose first bytes may have gone.
struct Draining<'t, K> {
    out: Growing,
    to: &'t mut K,
    /// How many bytes have gone.
    drained: usize,
    /// Bytes go nowhere.
    looks_only: bool,
    open: Vec<Open>,
    opened: usize,
    /// The last keys of open containers.
    keys: Vec<u8>,
    /// The outermost container that is held: how many are open with it, and where it starts.
    held: Option<(usize, usize)>,
    /// Containers that must be held: found, or known from the first time.
    disordered: Vec<usize>,
    is_second: bool,
}

impl<'t, K: Take> Draining<'t, K> {
    fn new(to: &'t mut K, disordered: Option<Vec<usize>>) -> Self {
        Draining {
            out: Growing::new(),
            to,
            drained: 0,
            looks_only: false,
            open: Vec::new(),
            opened: 0,
            keys: Vec::new(),
            held: None,
            is_second: disordered.is_some(),
            disordered: disordered.unwrap_or_default(),
        }
    }

    fn write<T: Serialize + ?Sized, F: Format>(
        &mut self,
        value: &T,
        options: F,
    ) -> Result<(), Refused> {
        let mut scratch = Usual::new();
        let written = value.serialize(&mut Emitter::new(self, &mut scratch, options));
        written.map_err(|fail| {
            let out = core::mem::replace(&mut self.out, Growing::new());
            let out = if self.drained == 0 {
                out.into_vec()
            } else {
                Vec::new()
            };
            (fail, out)
        })
    }

    fn finish(self) -> Result<(), Refused> {
        let done = self.to.take(self.out.bytes());
        done.map_err(|fail| (fail, Vec::new()))
    }

    fn innermost(&mut self) -> &mut Open {
        self.open.last_mut().expect("a container is open")
    }
}

impl<K: Take> Buf for Draining<'_, K> {
    const GROWS: bool = true;
    const DRAINS: bool = true;

    #[inline]
    fn memory(&self) -> &[u8] {
        self.out.memory()
    }

    #[inline]
    fn memory_mut(&mut self) -> &mut [u8] {
        self.out.memory_mut()
    }

    #[inline]
    fn len(&self) -> usize {
        self.out.len()
    }

    #[inline]
    fn set_len(&mut self, len: usize) {
        self.out.set_len(len);
    }

    fn grow(&mut self, more: usize) -> Result<(), Fail> {
        self.out.grow(more)
    }

    #[inline]
    fn drained(&self) -> usize {
        self.drained
    }

    #[inline]
    fn drain(&mut self) -> Result<(), Fail> {
        let len = self.out.len();
        if len < FULL {
            return Ok(());
        }
        let free = self.held.map_or(len, |(_, at)| at - self.drained);
        let going = free.min(len - KEPT);
        if !self.looks_only {
            self.to.take(&self.out.bytes()[..going])?;
        }
        self.out.bytes_mut().copy_within(going.., 0);
        self.out.set_len(len - going);
        self.drained += going;
        Ok(())
    }

    fn opened(&mut self, hold: bool) {
        let ordinal = self.opened;
        let at = self.drained + self.out.len();
        self.opened += 1;
        self.open.push(Open {
            ordinal,
            at,
            key: self.keys.len(),
            is_listed: false,
        });
        let hold = hold || self.is_second && self.disordered.binary_search(&ordinal).is_ok();
        if hold && self.held.is_none() {
            self.held = Some((self.open.len(), at));
        }
    }

    fn closed(&mut self) {
        if self.held.is_some_and(|(depth, _)| depth == self.open.len()) {
            self.held = None;
        }
        let closed = self.open.pop().expect("only open containers close");
        self.keys.truncate(closed.key);
    }

    fn hold(&mut self) -> Result<bool, Fail> {
        if self.held.is_some() {
            return Ok(true);
        }
        let (depth, end) = (self.open.len(), self.drained + self.out.len());
        let is_second = self.is_second;
        let open = self.innermost();
        let at = open.at;
        if end - at > KEPT {
            if is_second {
                return Err(Fail::new(Code::Unstable));
            }
            let (ordinal, was_listed) =
                (open.ordinal, core::mem::replace(&mut open.is_listed, true));
            if !was_listed {
                self.disordered.push(ordinal);
            }
            if at < self.drained {
                self.looks_only = true;
                return Ok(false);
            }
        }
        self.held = Some((depth, at));
        Ok(true)
    }

    fn keep_key(&mut self, key: Range<usize>) {
        let from = self.innermost().key;
        self.keys.truncate(from);
        self.keys.extend_from_slice(&self.out.bytes()[key]);
    }

    fn kept_key(&self) -> &[u8] {
        let from = self.open.last().map_or(0, |open| open.key);
        &self.keys[from..]
    }
}
