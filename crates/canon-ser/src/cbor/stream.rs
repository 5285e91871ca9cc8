//! Deterministic CBOR and checks of CBOR that need not be in memory as a whole.

use alloc::vec::Vec;
use std::io::{Read, Seek, Write};

use crate::buf::{Buf as _, Growing};
use crate::cbor::canon::Writer;
use crate::cbor::check::{self, Checker};
use crate::cbor::emit::Emitter;
use crate::cbor::read::{Item, Kind, Place, Reader, Sink, Stretch};
use crate::cbor::{Dialect, Options, canonicalize_with};
use crate::emit::Format as _;
use crate::error::{Code, Error, Fail};
use crate::order::Usual;
use crate::stream::window::Window;
use crate::stream::{self, Pass, Spill, Stop, explained};

/// Between two stretches there is none.
const NOTHING: Stretch<'static> = Stretch {
    bytes: &[],
    offset: 0,
    more: 0,
};

pub(crate) fn canonicalize<R: Read + Seek>(
    source: R,
    writer: impl Write,
    options: Options,
) -> Result<(), Error> {
    stream::canonicalize(source, writer, &Cbor { options })
}

pub(crate) fn canonicalize_once(
    source: impl Read,
    writer: impl Write,
    options: Options,
) -> Result<(), Error> {
    stream::canonicalize_once(source, writer, &Cbor { options })
}

pub(crate) fn check<R: Read + Seek>(source: R, options: Options) -> Result<(), Error> {
    match options.dialect {
        Dialect::Core => check_as::<R, { check::CORE }>(source, options),
        Dialect::LengthFirst => check_as::<R, { check::LENGTH_FIRST }>(source, options),
        Dialect::Dag => check_as::<R, { check::DAG }>(source, options),
    }
}

fn check_as<R: Read + Seek, const DIALECT: u8>(source: R, options: Options) -> Result<(), Error> {
    let io = |error| Error::io(&error);
    let mut window = Window::prompt(source).map_err(io)?;
    let total = window.total().map_err(io)?;
    let mut reader = Reader::<true>::new(&[], options.depth_max);
    let mut checker = Checker::<DIALECT>::new(&[], 0);
    loop {
        let stretch = stretch(&window, total);
        let mut here = checker.over(stretch.bytes, stretch.offset);
        let mut reader_here = reader.over(stretch);
        let fail = match reader_here.run(&mut here) {
            Ok(()) => return Ok(()),
            Err(fail) => fail,
        };
        let offset = reader_here.offset();
        if !is_cut(&fail, stretch) {
            let fail = within(fail, stretch);
            if ends_here(&fail, &mut window).map_err(io)? {
                return Ok(());
            }
            return Err(explained(&mut window, fail, false, |bytes| {
                check::check(bytes, options).err().map(Error::new)
            }));
        }
        let needed = reader_here.open_key().unwrap_or(offset);
        checker = here.over(&[], 0);
        reader = reader_here.over(Stretch { offset, ..NOTHING });
        window.advance(needed).map_err(io)?;
    }
}

/// Bytes that follow a stretch of an input whose end is not known: more than there are of any.
const MANY: u64 = 1 << 62;

fn stretch<R: Read + Seek>(window: &Window<R>, total: Option<u64>) -> Stretch<'_> {
    let end = window.offset() + window.bytes().len();
    Stretch {
        bytes: window.bytes(),
        offset: window.offset(),
        more: match total {
            _ if window.is_last() => 0,
            Some(total) => total.saturating_sub(end as u64),
            None => MANY,
        },
    }
}

/// A head that announces more than the input holds fails where that ends. If that is not known, one that announces more than
/// any input holds fails behind it.
fn within(fail: Fail, stretch: Stretch<'_>) -> Fail {
    match fail {
        Fail::At(Code::End, at) if stretch.more == MANY => Fail::At(
            Code::CborEndless,
            at.min(stretch.offset + stretch.bytes.len()),
        ),
        other => other,
    }
}

/// The item ends with the stretch, and what may follow has not been looked for: does the input end there too?
fn ends_here<R: Read + Seek>(fail: &Fail, window: &mut Window<R>) -> std::io::Result<bool> {
    let end = window.offset() + window.bytes().len();
    if window.is_last() || !matches!(fail, Fail::At(Code::Trailing, at) if *at == end) {
        return Ok(false);
    }
    window.advance(end)?;
    Ok(window.bytes().is_empty())
}

/// Does the input go on where the stretch ended too early?
fn is_cut(fail: &Fail, stretch: Stretch<'_>) -> bool {
    let end = stretch.offset + stretch.bytes.len();
    stretch.more > 0 && matches!(fail, Fail::At(Code::End, at) if *at == end)
}

struct Cbor {
    options: Options,
}

impl<R: Read + Seek> Pass<R> for Cbor {
    const IS_TEXT: bool = false;

    fn run(&self, window: &mut Window<R>, spill: &mut Spill<'_>) -> Result<(), Stop> {
        let total = window.total()?;
        let (mut out, mut scratch) = (Growing::new(), Usual::new());
        let mut emitter = Emitter::new(&mut out, &mut scratch, self.options);
        let writer = Writer {
            emitter: &mut emitter,
            open: Vec::new(),
        };
        let mut sink = Spilling { writer, spill };
        let mut reader = Reader::<false>::new(&[], self.options.depth_max);
        loop {
            let stretch = stretch(window, total);
            let mut here = reader.over(stretch);
            let done = here.run(&mut sink);
            let offset = here.offset();
            match done {
                Err(fail) if is_cut(&fail, stretch) => {
                    reader = here.over(Stretch { offset, ..NOTHING });
                    window.advance(offset)?;
                }
                done => {
                    if let Err(fail) = done.map_err(|fail| within(fail, stretch))
                        && !ends_here(&fail, window)?
                    {
                        return Err(fail.into());
                    }
                    return Ok(spill.finish(&mut out)?);
                }
            }
        }
    }

    fn slice(&self, input: &[u8]) -> Result<Vec<u8>, Error> {
        canonicalize_with(input, self.options)
    }
}

/// The sink that writes deterministic CBOR, and writes it out as soon as it can.
struct Spilling<'s, 'w, 'e, 'a> {
    writer: Writer<'e, 'a, Growing>,
    spill: &'s mut Spill<'w>,
}

impl Spilling<'_, '_, '_, '_> {
    #[inline]
    fn begin(&mut self, place: Place) -> Result<(), Fail> {
        if let Place::Element { first: false } | Place::Key { first: false } = place {
            let Writer { emitter, open } = &mut self.writer;
            self.spill
                .entry(emitter.out, emitter.scratch, |depth| open[depth].last_key())?;
        }
        Ok(())
    }
}

impl Sink for Spilling<'_, '_, '_, '_> {
    fn item(&mut self, item: Item<'_>, place: Place) -> Result<(), Fail> {
        self.begin(place)?;
        self.writer.item(item, place)
    }

    fn open(
        &mut self,
        kind: Kind,
        len: Option<u64>,
        place: Place,
        offset: usize,
    ) -> Result<(), Fail> {
        self.begin(place)?;
        // The head of an indefinite length is put right at the end, and a key is compared as a whole.
        let unknown = len.is_none() && !matches!(kind, Kind::Tag(_));
        let hold = unknown || matches!(place, Place::Key { .. });
        let start = self.writer.emitter.out.len();
        self.spill.open(offset, start, hold);
        self.writer.open(kind, len, place, offset)
    }

    fn key_done(&mut self, start: usize, end: usize) -> Result<(), Fail> {
        if !self.spill.is_settled() {
            return self.writer.key_done(start, end);
        }
        let key = self.writer.current_key();
        let emitter = &*self.writer.emitter;
        let unranked = emitter.is_unranked(key.start);
        let keys = emitter.options.keys();
        self.spill.key(keys, emitter.out.bytes(), key, unranked)
    }

    fn close(&mut self, items: u64) -> Result<(), Fail> {
        if self.spill.close() {
            self.writer.close_as_it_is(items)
        } else {
            self.writer.close(items)
        }
    }
}
