//! Is a text already canonical? Answered in one pass, with nothing written and (up to 128 levels) nothing allocated.

use core::cmp::Ordering;

use crate::buf::{Buf, Fixed};
use crate::error::{Code, Fail};
use crate::json::number::{Literal, write_literal};
use crate::json::string::{JsonKeys, is_special, write_escape};
use crate::json::text::{Piece, Sink, Token};
use crate::json::{Options, text};
use crate::levels::Levels;
use crate::order::{KeyRules as _, leading_eight};

/// Digits of the largest double, its sign and some room.
const NUMBER_MAX: usize = 320;

/// What a number takes that is not meant to be long.
const USUAL_MAX: usize = 32;

pub(crate) fn check(bytes: &[u8], options: Options) -> Result<(), Fail> {
    let mut checker = Checker {
        text: bytes,
        options,
        keys: options.keys(),
        levels: Levels::new(Level {
            object: false,
            escaped: false,
            offset: 0,
            previous: (0, 0),
            previous_rank: 0,
        }),
    };
    text::drive::<_, true>(bytes, &mut checker)
}

#[derive(Clone, Copy)]
struct Level {
    object: bool,
    /// Some key so far holds escapes.
    escaped: bool,
    offset: usize,
    /// The previous key without its quotes; it ends at 0 as long as there is none.
    previous: (usize, usize),
    previous_rank: u64,
}

struct Checker<'t> {
    text: &'t [u8],
    options: Options,
    keys: JsonKeys,
    levels: Levels<Level>,
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
        // It is well-formed JSON and the writer prints no such number: that is all a check has to say.
        Ok(()) | Err(Fail::At(Code::Integer | Code::Full, _)) => Err(Fail::new(Code::NumberForm)),
        Err(fail) => Err(fail),
    }
}

impl Sink for Checker<'_> {
    #[inline]
    fn word(&mut self, _word: &'static str) -> Result<(), Fail> {
        Ok(())
    }

    #[inline]
    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail> {
        if literal.is_plainly_canonical() {
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

    #[inline]
    fn key(&mut self, token: Token<'_>) -> Result<(), Fail> {
        self.string(token)?;
        let level = self.levels.last_mut().expect("keys stand in objects");
        level.escaped |= token.has_escapes;
        let key = (token.offset + 1, token.offset + token.quoted.len() - 1);
        let rank = self.keys.rank(leading_eight(self.text, key.0..key.1));
        let previous = core::mem::replace(&mut level.previous, key);
        let previous_rank = core::mem::replace(&mut level.previous_rank, rank);
        if previous.1 == 0 {
            return Ok(());
        }
        let mut order = previous_rank.cmp(&rank);
        if level.escaped || order == Ordering::Equal {
            let previous = &self.text[previous.0..previous.1];
            order = self.keys.compare(previous, token.contents(), level.escaped);
        }
        match order {
            Ordering::Less => Ok(()),
            Ordering::Equal => Err(Fail::new(Code::Duplicate)),
            Ordering::Greater => Err(Fail::new(Code::KeyOrder)),
        }
    }

    #[inline]
    fn open(&mut self, object: bool, offset: usize) -> Result<(), Fail> {
        if self.levels.len() >= self.options.depth_max {
            return Err(Fail::new(Code::Depth));
        }
        self.levels.push(Level {
            object,
            escaped: false,
            offset,
            previous: (0, 0),
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
