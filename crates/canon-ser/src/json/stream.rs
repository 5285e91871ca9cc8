//! Canonical JSON and checks of text that need not be in memory as a whole.

use alloc::vec::Vec;
use std::io::{Read, Seek, Write};

use crate::buf::{Buf as _, Growing};
use crate::error::{Code, Error, Fail};
use crate::json::check::{self, Checker};
use crate::json::emit::Emitter;
use crate::json::number::Literal;
use crate::json::rewrite::Writer;
use crate::json::text::{Cursor, Reader, Sink, Stretch, Token};
use crate::json::{Options, canonicalize_with, text_error};
use crate::order::Usual;
use crate::stream::window::Window;
use crate::stream::{self, Pass, Spill, Stop, explained};

pub(crate) fn canonicalize<R: Read + Seek>(
    source: R,
    writer: impl Write,
    options: Options,
) -> Result<(), Error> {
    stream::canonicalize(source, writer, &Text { options })
}

pub(crate) fn canonicalize_once(
    source: impl Read,
    writer: impl Write,
    options: Options,
) -> Result<(), Error> {
    stream::canonicalize_once(source, writer, &Text { options })
}

pub(crate) fn check<R: Read + Seek>(source: R, options: Options) -> Result<(), Error> {
    let io = |error| Error::io(&error);
    let mut window = Window::prompt(source).map_err(io)?;
    let mut cursor = Cursor::START;
    let mut checker = Checker::new(&[], 0, options);
    loop {
        let stretch = stretch(&window);
        let mut here = checker.over(stretch.bytes, stretch.offset);
        let mut reader = Reader::<true>::over(stretch, cursor);
        let done = reader.run(&mut here);
        cursor = reader.cursor();
        match done {
            Ok(()) => return Ok(()),
            Err(Fail::At(Code::End, _)) if !window.is_last() => {
                checker = here.over(&[], 0);
                window.advance(cursor.offset).map_err(io)?;
            }
            Err(fail) => {
                let error = explained(&mut window, fail, true, |text| {
                    let fail = check::check(text, options).err()?;
                    Some(text_error(fail, text))
                });
                // Text that is canonical up to there has one line.
                return Err(match (error.line(), error.offset()) {
                    (None, Some(offset)) => error.at_place(1, offset + 1),
                    _ => error,
                });
            }
        }
    }
}

fn stretch<R: Read + Seek>(window: &Window<R>) -> Stretch<'_> {
    Stretch {
        bytes: window.bytes(),
        offset: window.offset(),
        is_last: window.is_last(),
    }
}

struct Text {
    options: Options,
}

impl<R: Read + Seek> Pass<R> for Text {
    const IS_TEXT: bool = true;

    fn run(&self, window: &mut Window<R>, spill: &mut Spill<'_>) -> Result<(), Stop> {
        let (mut out, mut scratch) = (Growing::new(), Usual::new());
        let mut emitter = Emitter::new(&mut out, &mut scratch, self.options);
        let writer = Writer {
            emitter: &mut emitter,
            open: Vec::new(),
        };
        let mut sink = Spilling { writer, spill };
        let mut cursor = Cursor::START;
        loop {
            let mut reader = Reader::<false>::over(stretch(window), cursor);
            let done = reader.run(&mut sink);
            cursor = reader.cursor();
            match done {
                Err(Fail::At(Code::End, _)) if !window.is_last() => {
                    window.advance(cursor.offset)?
                }
                done => {
                    done?;
                    return Ok(spill.finish(&mut out)?);
                }
            }
        }
    }

    fn slice(&self, input: &[u8]) -> Result<Vec<u8>, Error> {
        canonicalize_with(input, self.options)
    }
}

/// The sink that writes canonical JSON, and writes it out as soon as it can.
struct Spilling<'s, 'w, 'e, 'a> {
    writer: Writer<'e, 'a, Growing>,
    spill: &'s mut Spill<'w>,
}

impl Spilling<'_, '_, '_, '_> {
    #[inline]
    fn is_settled(&mut self) -> Result<bool, Fail> {
        let Writer { emitter, open } = &mut self.writer;
        self.spill
            .entry(emitter.out, emitter.scratch, |depth| open[depth].last_key())
    }
}

impl Sink for Spilling<'_, '_, '_, '_> {
    fn word(&mut self, word: &'static str) -> Result<(), Fail> {
        self.writer.word(word)
    }

    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail> {
        self.writer.number(literal)
    }

    fn string(&mut self, token: Token<'_>) -> Result<(), Fail> {
        self.writer.string(token)
    }

    fn key(&mut self, token: Token<'_>, leading: u64) -> Result<(), Fail> {
        if !self.is_settled()? {
            return self.writer.key(token, leading);
        }
        let (key, escaped) = self.writer.further_key(token)?;
        let emitter = &mut *self.writer.emitter;
        self.spill
            .key(emitter.options.keys(), emitter.out.bytes(), key, escaped)?;
        emitter.out.push(b':')
    }

    fn open(&mut self, object: bool, offset: usize) -> Result<(), Fail> {
        let start = self.writer.emitter.out.len();
        self.spill.open(offset, start, false);
        self.writer.open(object, offset)
    }

    fn next_element(&mut self) -> Result<(), Fail> {
        self.is_settled()?;
        self.writer.next_element()
    }

    fn close(&mut self) -> Result<(), Fail> {
        if self.spill.close() {
            self.writer.close_as_it_is()
        } else {
            self.writer.close()
        }
    }

    fn innermost(&self) -> Option<(bool, usize)> {
        self.writer.innermost()
    }
}
