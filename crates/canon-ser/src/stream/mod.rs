//! Canonical bytes that are written while their input is still being read.
//!
//! What is in order needs no place to be sorted in. So the input is read more than once: the first time nothing is
//! written, everything is checked, and the large containers are found whose keys are out of order. Then the output is
//! written as it comes, but for those containers, which are held as a whole until they end.
//!
//! Whether a container is large is told by what has been written of it, and so comes out the same every time.

#[cfg(test)]
mod tests;
pub(crate) mod window;

use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Range;
use std::io::{self, Read, Seek, Write};

use crate::buf::{Buf as _, Growing};
use crate::error::{Code, Error, Fail};
use crate::order::{KeyRules, Scratch, leading_eight};
use window::{Once, SMALL, Window};

/// Containers of less output than this are arranged where they stand, in the buffer.
const LARGE: usize = if SMALL { 32 } else { 64 << 10 };

/// Bytes that are written out at a time.
const CHUNK: usize = if SMALL { 16 } else { 64 << 10 };

/// What was read is read once more as a whole when something is wrong, up to this size, for the best error there is.
const REREAD_MAX: usize = if SMALL { 0 } else { 16 << 20 };

/// An open container.
struct Container {
    /// Where it starts in the input and in the output.
    offset: usize,
    start: usize,
    /// Where its last key is held, once it is settled.
    key: Range<usize>,
    rank: u64,
    escaped: bool,
    /// It has keys, and their order is still to be checked.
    ordered: bool,
}

/// Which time the input is being read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// The first time: to find the large containers that are out of order.
    First,
    /// Those are known.
    Later,
    /// The only time. A container is held if it is out of order before it is large, and must not become so later.
    Only,
}

/// What an open map or object remembers: see [`crate::order::Members::last_key`].
pub(crate) type LastKey = (Range<usize>, u64, bool, bool);

/// The way of the output to its writer.
///
/// The outer containers are *settled* once they are large: they are in order, or held by nobody, so that what was written
/// of them need not stay.
pub(crate) struct Spill<'w> {
    writer: &'w mut dyn Write,
    /// Why the writer failed.
    error: Option<io::Error>,
    written: usize,
    open: Vec<Container>,
    settled: usize,
    /// The last keys of settled containers.
    held: Vec<u8>,
    /// Large containers that are out of order: those to be held, or while they are looked for, those found.
    disordered: Vec<usize>,
    reading: Reading,
    /// How many containers are open up to the outermost that is held.
    holding: Option<usize>,
}

impl<'w> Spill<'w> {
    fn new(writer: &'w mut dyn Write, reading: Reading, disordered: Vec<usize>) -> Spill<'w> {
        Spill {
            writer,
            error: None,
            written: 0,
            open: Vec::new(),
            settled: 0,
            held: Vec::new(),
            reading,
            disordered,
            holding: None,
        }
    }

    /// A container was opened, of which nothing has been written before `start`; `hold` it until it ends?
    pub(crate) fn open(&mut self, offset: usize, start: usize, hold: bool) {
        self.open.push(Container {
            offset,
            start: self.written + start,
            key: 0..0,
            rank: 0,
            escaped: false,
            ordered: false,
        });
        let listed =
            || self.reading == Reading::Later && self.disordered.binary_search(&offset).is_ok();
        if self.holding.is_none() && (hold || listed()) {
            self.holding = Some(self.open.len());
        }
    }

    /// Before a further entry of the innermost container: is it settled? Then its keys are the business of
    /// [`Spill::key`]. `last_key` tells of an open container by its depth; none for those without keys.
    #[inline]
    pub(crate) fn entry(
        &mut self,
        out: &mut Growing,
        scratch: &mut Scratch,
        last_key: impl Fn(usize) -> Option<LastKey>,
    ) -> Result<bool, Fail> {
        let depth = self.open.len();
        if self.settled < depth {
            let start = self.open.last().map_or(0, |container| container.start);
            if self.holding.is_some() || self.written + out.len() - start < LARGE {
                return Ok(false);
            }
            self.settle(out.bytes(), scratch, last_key);
            if self.holding.is_some() {
                return Ok(false);
            }
        }
        if out.len() >= CHUNK {
            self.flush(out)?;
        }
        Ok(depth > 0)
    }

    /// From here on nothing of the open containers will be arranged; but for the outermost that is out of order and from
    /// there on inwards, if there is no later reading.
    fn settle(
        &mut self,
        out: &[u8],
        scratch: &mut Scratch,
        last_key: impl Fn(usize) -> Option<LastKey>,
    ) {
        for (depth, container) in self.open.iter_mut().enumerate().skip(self.settled) {
            let Some((key, rank, ordered, escaped)) = last_key(depth) else {
                continue;
            };
            if !ordered && self.reading == Reading::Only {
                self.holding = Some(depth + 1);
                self.settled = depth;
                return;
            }
            let start = self.held.len();
            self.held.extend_from_slice(&out[key]);
            container.key = start..self.held.len();
            (container.rank, container.escaped) = (rank, escaped);
            container.ordered = ordered;
            if !ordered {
                debug_assert!(
                    self.reading == Reading::First,
                    "what is out of order is held"
                );
                self.disordered.push(container.offset);
            }
        }
        self.settled = self.open.len();
        scratch.reset();
    }

    /// Takes note of the key, just written, of a further entry of the innermost container, which is settled.
    pub(crate) fn key<K: KeyRules>(
        &mut self,
        rules: K,
        out: &[u8],
        key: Range<usize>,
        escaped: bool,
    ) -> Result<(), Fail> {
        let container = self.open.last_mut().expect("keys stand in containers");
        if !container.ordered {
            return Ok(());
        }
        container.escaped |= escaped;
        let rank = rules.rank(leading_eight(out, key.clone()));
        let mut order = container.rank.cmp(&rank);
        if container.escaped || order == Ordering::Equal {
            let previous = &self.held[container.key.clone()];
            order = rules.compare(previous, &out[key.clone()], container.escaped);
        }
        match order {
            Ordering::Less => {}
            Ordering::Equal => return Err(Fail::new(Code::Duplicate)),
            Ordering::Greater if self.reading == Reading::Only => {
                return Err(Fail::new(Code::Late));
            }
            Ordering::Greater => {
                container.ordered = false;
                self.disordered.push(container.offset);
            }
        }
        container.rank = rank;
        self.held.truncate(container.key.start);
        self.held.extend_from_slice(&out[key]);
        container.key.end = self.held.len();
        Ok(())
    }

    /// Is the innermost container settled?
    pub(crate) fn is_settled(&self) -> bool {
        self.settled > 0 && self.settled == self.open.len()
    }

    /// The innermost container ends: was it settled?
    pub(crate) fn close(&mut self) -> bool {
        if self.holding == Some(self.open.len()) {
            self.holding = None;
        }
        let container = self.open.pop().expect("only open containers close");
        let settled = self.settled > self.open.len();
        if settled {
            self.settled = self.open.len();
            if !container.key.is_empty() {
                self.held.truncate(container.key.start);
            }
        }
        settled
    }

    fn flush(&mut self, out: &mut Growing) -> Result<(), Fail> {
        if let Err(error) = self.writer.write_all(out.bytes()) {
            self.error = Some(error);
            return Err(Fail::new(Code::Io));
        }
        self.written += out.len();
        out.truncate(0);
        Ok(())
    }

    /// Writes the rest.
    pub(crate) fn finish(&mut self, out: &mut Growing) -> Result<(), Fail> {
        self.flush(out)
    }
}

/// Why a pass ended early.
pub(crate) enum Stop {
    Fail(Fail),
    Io(io::Error),
}

impl From<Fail> for Stop {
    fn from(fail: Fail) -> Stop {
        Stop::Fail(fail)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

/// One reading of the input from its start: what it writes goes through the [`Spill`].
pub(crate) trait Pass<R> {
    fn run(&self, window: &mut Window<R>, spill: &mut Spill<'_>) -> Result<(), Stop>;
    /// The input is text: its errors have lines and columns.
    const IS_TEXT: bool;
    /// The canonical form of an input that is in memory as a whole.
    fn slice(&self, input: &[u8]) -> Result<Vec<u8>, Error>;
}

/// Writes the canonical form of what follows where the source stands. Nothing is written of an input that has none.
pub(crate) fn canonicalize<R: Read + Seek, P: Pass<R>>(
    source: R,
    mut writer: impl Write,
    pass: &P,
) -> Result<(), Error> {
    let io = |error: io::Error| Error::io(&error);
    let mut window = Window::open(source).map_err(io)?;
    if window.is_last() {
        let out = pass.slice(window.bytes())?;
        return writer.write_all(&out).map_err(io);
    }
    let mut read = |writer: &mut dyn Write, reading, disordered| {
        window.rewind().map_err(io)?;
        run(&mut window, Spill::new(writer, reading, disordered), pass)
    };
    let mut disordered = read(&mut io::sink(), Reading::First, Vec::new())?;
    disordered.sort_unstable();
    if !disordered.is_empty() {
        // Duplicates in them come to light only now.
        disordered = read(&mut io::sink(), Reading::Later, disordered)?;
    }
    read(&mut writer, Reading::Later, disordered).map(drop)
}

/// Writes the canonical form while it is read, of an input that is read once.
pub(crate) fn canonicalize_once<R: Read, P: Pass<Once<R>>>(
    source: R,
    mut writer: impl Write,
    pass: &P,
) -> Result<(), Error> {
    let mut window = Window::prompt(Once::new(source)).map_err(|error| Error::io(&error))?;
    let spill = Spill::new(&mut writer, Reading::Only, Vec::new());
    run(&mut window, spill, pass).map(drop)
}

/// Reads the input once: the large containers that are out of order, as far as they are known then.
fn run<R: Read + Seek, P: Pass<R>>(
    window: &mut Window<R>,
    mut spill: Spill<'_>,
    pass: &P,
) -> Result<Vec<usize>, Error> {
    match (pass.run(window, &mut spill), spill.error) {
        (Ok(()), _) => Ok(spill.disordered),
        (Err(Stop::Io(error)), _) | (Err(Stop::Fail(_)), Some(error)) => Err(Error::io(&error)),
        (Err(Stop::Fail(fail)), None) => {
            let of_whole = |whole: &[u8]| pass.slice(whole).err();
            Err(explained(window, fail, P::IS_TEXT, of_whole))
        }
    }
}

/// An error with all that can be told at a bounded cost, and without reading on: `of_whole` tells that of an input in
/// memory.
pub(crate) fn explained<R: Read + Seek>(
    window: &mut Window<R>,
    fail: Fail,
    is_text: bool,
    of_whole: impl FnOnce(&[u8]) -> Option<Error>,
) -> Error {
    let error = Error::new(fail);
    // What was read may end too early for it, where the input itself does not.
    if let Ok(Some(start)) = window.read_so_far(REREAD_MAX)
        && let Some(of_start) = of_whole(start)
        && of_start.is_end() == error.is_end()
    {
        return of_start;
    }
    let offset = error.offset().filter(|_| is_text);
    match offset.map(|offset| window.place(offset)) {
        Some(Ok((line, column))) => error.at_place(line, column),
        _ => error,
    }
}
