//! Is a text already canonical? Answered in one pass, with nothing written and (up to 128 levels) nothing allocated.

use core::cmp::Ordering;

use crate::buf::{Buf, Fixed};
use crate::error::{Code, Fail};
use crate::json::number::{Literal, NUMBER_MAX, write_literal};
use crate::json::string::{JsonKeys, is_special, string_end, write_escape};
use crate::json::text::{Piece, Sink, Token};
use crate::json::{Options, text};
use crate::levels::Levels;
use crate::order::KeyRules as _;

/// What a number takes that is not meant to be long.
const USUAL_MAX: usize = 32;

pub(crate) fn check(bytes: &[u8], options: Options) -> Result<(), Fail> {
    text::drive::<_, true>(bytes, &mut Checker::new(bytes, 0, options))
}

#[derive(Clone, Copy)]
struct Level {
    object: bool,
    /// Some key so far holds escapes.
    escaped: bool,
    /// The previous key is in `held`, with its closing quote: its place is one there.
    is_held: bool,
    offset: usize,
    /// Where the contents of the previous key start; 0 as long as there is none.
    previous: usize,
    previous_rank: u64,
}

pub(crate) struct Checker<'t> {
    text: &'t [u8],
    /// Where the text at hand starts in the whole.
    base: usize,
    options: Options,
    keys: JsonKeys,
    levels: Levels<Level>,
    /// Previous keys of text that is no longer at hand.
    held: Held,
}

/// Only what is read by pieces is ever not at hand.
#[cfg(feature = "std")]
type Held = alloc::vec::Vec<u8>;
#[cfg(not(feature = "std"))]
type Held = [u8; 0];

impl<'t> Checker<'t> {
    pub(crate) fn new(text: &'t [u8], base: usize, options: Options) -> Checker<'t> {
        Checker {
            text,
            base,
            options,
            keys: options.keys(),
            levels: Levels::new(Level {
                object: false,
                escaped: false,
                is_held: false,
                offset: 0,
                previous: 0,
                previous_rank: 0,
            }),
            held: Held::default(),
        }
    }

    /// Goes on with another stretch of the text, and keeps of the one before what may still be needed.
    #[cfg(feature = "std")]
    pub(crate) fn over<'u>(mut self, text: &'u [u8], base: usize) -> Checker<'u> {
        // So that no key that is held starts at 0.
        let mut held = alloc::vec![0];
        for level in self.levels.iter_mut().filter(|level| level.previous > 0) {
            let key = previous(level, self.text, self.base, &self.held);
            level.previous = held.len();
            level.is_held = true;
            held.extend_from_slice(key);
            held.push(b'"');
        }
        Checker {
            text,
            base,
            options: self.options,
            keys: self.keys,
            levels: self.levels,
            held,
        }
    }
}

/// The previous key of a container, without its quotes.
fn previous<'t>(level: &Level, text: &'t [u8], base: usize, held: &'t [u8]) -> &'t [u8] {
    let (bytes, start) = match level.is_held {
        true => (held, level.previous),
        false => (text, level.previous - base),
    };
    &bytes[start..string_end(bytes, start)]
}

/// Escapes stand only where they must, in their one form.
#[cold]
fn check_escapes(token: &Token<'_>) -> Result<(), Fail> {
    token.decode(|piece| {
        let Piece::Escape(char, offset) = piece else {
            return Ok(());
        };
        let mut form = [0; 6];
        let mut out = Fixed::new(&mut form);
        if !char.is_ascii() || !is_special(char as u8) {
            return Err(Fail::At(Code::EscapeForm, offset));
        }
        write_escape(&mut out, char as u8)?;
        let stands = &token.quoted[offset - token.offset..];
        if stands.starts_with(out.bytes()) {
            Ok(())
        } else {
            Err(Fail::At(Code::EscapeForm, offset))
        }
    })
}

/// `SIZE`: a form that does not fit is longer than the literal, and so is not the literal.
fn check_number<const SIZE: usize>(literal: Literal<'_>, options: Options) -> Result<(), Fail> {
    let mut form = [0; SIZE];
    let mut out = Fixed::new(&mut form);
    match write_literal(&mut out, literal, options.integers) {
        Ok(()) if out.bytes() == literal.text => Ok(()),
        Ok(()) | Err(Fail::At(Code::Full, _)) => Err(Fail::new(Code::NumberForm)),
        Err(Fail::At(Code::Integer, _)) => Err(Fail::new(Code::NoNumberForm)),
        Err(fail) => Err(fail),
    }
}

impl Checker<'_> {
    /// The same as comparing ranks, where those do not tell that a key is behind the one before.
    #[inline(never)]
    fn check_order(&self, token: &Token<'_>, rank: u64) -> Result<(), Fail> {
        let level = self.levels.last().expect("keys stand in objects");
        if level.previous == 0 {
            return Ok(());
        }
        let mut order = level.previous_rank.cmp(&rank);
        if level.escaped || order == Ordering::Equal {
            let previous = previous(level, self.text, self.base, &self.held);
            order = self.keys.compare(previous, token.contents(), level.escaped);
        }
        match order {
            Ordering::Less => Ok(()),
            Ordering::Equal => Err(Fail::new(Code::Duplicate)),
            Ordering::Greater => Err(Fail::new(Code::KeyOrder)),
        }
    }
}

impl Sink for Checker<'_> {
    #[inline]
    fn word(&mut self, _word: &'static str) -> Result<(), Fail> {
        Ok(())
    }

    #[inline]
    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail> {
        if literal.is_plainly_canonical() || literal.is_provably_canonical() {
            Ok(())
        } else if literal.text.len() <= USUAL_MAX {
            check_number::<USUAL_MAX>(literal, self.options)
        } else {
            check_number::<NUMBER_MAX>(literal, self.options)
        }
    }

    #[inline]
    fn string(&mut self, token: Token<'_>) -> Result<(), Fail> {
        if token.has_escapes {
            check_escapes(&token)
        } else {
            Ok(())
        }
    }

    #[inline(always)]
    fn key(&mut self, token: Token<'_>, leading: u64) -> Result<(), Fail> {
        let rank = self.keys.rank(leading);
        let level = self.levels.last_mut().expect("keys stand in objects");
        if token.has_escapes {
            check_escapes(&token)?;
            level.escaped = true;
        }
        if level.previous_rank >= rank || level.escaped {
            self.check_order(&token, rank)?;
        }
        let level = self.levels.last_mut().expect("keys stand in objects");
        level.previous = token.offset + 1;
        level.previous_rank = rank;
        level.is_held = false;
        Ok(())
    }

    #[inline]
    fn open(&mut self, object: bool, offset: usize) -> Result<(), Fail> {
        if self.levels.len() >= self.options.depth_max {
            return Err(Fail::new(Code::Depth));
        }
        self.levels.push(Level {
            object,
            escaped: false,
            is_held: false,
            offset,
            previous: 0,
            previous_rank: 0,
        });
        Ok(())
    }

    #[inline]
    fn next_element(&mut self) -> Result<(), Fail> {
        Ok(())
    }

    #[inline]
    fn close(&mut self) -> Result<(), Fail> {
        self.levels.pop();
        Ok(())
    }

    #[inline]
    fn innermost(&self) -> Option<(bool, usize)> {
        self.levels.last().map(|level| (level.object, level.offset))
    }
}
