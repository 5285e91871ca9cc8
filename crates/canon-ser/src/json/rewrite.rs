//! JSON text to canonical JSON: the sink that writes what the driver reads.

use alloc::vec::Vec;

use crate::buf::{Buf, PIECE_MAX, piece_of};
use crate::error::Fail;
use crate::json::emit::Emitter;
use crate::json::number::{Literal, write_literal};
use crate::json::string::{self, is_special};
use crate::json::text::{Piece, Sink, Token, drive};
use crate::order::Members;

/// Writes the canonical form of `text` at the end of what the emitter has written.
pub(crate) fn write_into<B: Buf>(emitter: &mut Emitter<'_, B>, text: &str) -> Result<(), Fail> {
    let mut writer = Writer {
        emitter,
        open: Vec::new(),
    };
    drive::<_, false>(text.as_bytes(), &mut writer)
}

/// The sink that writes canonical JSON.
pub(crate) struct Writer<'e, 'a, B> {
    pub(crate) emitter: &'e mut Emitter<'a, B>,
    pub(crate) open: Vec<Open>,
}

/// An open container.
pub(crate) struct Open {
    object: bool,
    offset: usize,
    members: Members,
}

#[cfg(feature = "std")]
impl Open {
    /// What the object remembers of its keys, if it is one.
    pub(super) fn last_key(&self) -> Option<crate::stream::LastKey> {
        self.object.then(|| self.members.last_key())
    }
}

#[cfg(feature = "std")]
impl<B: Buf> Writer<'_, '_, B> {
    /// Writes a comma and a key without taking note of it: where it stands, without its quotes, and whether it holds
    /// escapes.
    pub(super) fn further_key(
        &mut self,
        token: Token<'_>,
    ) -> Result<(core::ops::Range<usize>, bool), Fail> {
        self.emitter.out.push(b',')?;
        let start = self.emitter.out.len() + 1;
        let escaped = self.write_string(token)?;
        Ok((start..self.emitter.out.len() - 1, escaped))
    }

    /// Closes the innermost container, of whose entries no note was taken.
    pub(super) fn close_as_it_is(&mut self) -> Result<(), Fail> {
        let open = self.open.pop().expect("only open containers close");
        self.emitter.close(if open.object { b'}' } else { b']' })
    }
}

impl<B: Buf> Writer<'_, '_, B> {
    /// Writes a string canonically. True if that took escapes.
    #[inline]
    fn write_string(&mut self, token: Token<'_>) -> Result<bool, Fail> {
        if token.has_escapes {
            return self.rewrite_string(token);
        }
        string::copy(self.emitter.out, token.quoted)?;
        Ok(false)
    }

    #[cold]
    fn rewrite_string(&mut self, token: Token<'_>) -> Result<bool, Fail> {
        let out = &mut *self.emitter.out;
        let mut escaped = false;
        out.push(b'"')?;
        token.decode(|piece| match piece {
            Piece::Run(run) => out.extend(run),
            Piece::Escape(char, _) if char.is_ascii() && is_special(char as u8) => {
                escaped = true;
                string::write_escape(out, char as u8)
            }
            Piece::Escape(char, _) => out.extend(char.encode_utf8(&mut [0; 4]).as_bytes()),
        })?;
        out.push(b'"')?;
        Ok(escaped)
    }
}

impl<B: Buf> Sink for Writer<'_, '_, B> {
    #[inline]
    fn word(&mut self, word: &'static str) -> Result<(), Fail> {
        self.emitter.out.extend(word.as_bytes())
    }

    #[inline]
    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail> {
        write_literal(self.emitter.out, literal, self.emitter.options.integers)
    }

    #[inline]
    fn string(&mut self, token: Token<'_>) -> Result<(), Fail> {
        let len = token.contents().len();
        if len <= PIECE_MAX - 2 && !token.has_escapes {
            return string::put(self.emitter.out, piece_of(token.contents()), len);
        }
        self.write_string(token).map(drop)
    }

    #[inline]
    fn key(&mut self, token: Token<'_>, leading: u64) -> Result<(), Fail> {
        let open = self.open.last_mut().expect("keys stand in objects");
        let len = token.contents().len();
        if len <= string::SHORT_KEY_MAX && !token.has_escapes {
            let key = piece_of(token.contents());
            return self.emitter.short_key(&mut open.members, key, len);
        }
        let start = self.emitter.begin_entry(&open.members)?;
        let escaped = self.write_string(token)?;
        let open = self.open.last_mut().expect("keys stand in objects");
        if token.has_escapes {
            return self.emitter.note_key(&mut open.members, start, escaped);
        }
        self.emitter
            .note_plain_key(&mut open.members, start, leading)
    }

    #[inline]
    fn open(&mut self, object: bool, offset: usize) -> Result<(), Fail> {
        self.emitter.open(if object { b'{' } else { b'[' })?;
        let members = Members::new(self.emitter.scratch, self.emitter.out.len());
        self.open.push(Open {
            object,
            offset,
            members,
        });
        Ok(())
    }

    #[inline]
    fn next_element(&mut self) -> Result<(), Fail> {
        self.emitter.out.push(b',')
    }

    #[inline]
    fn close(&mut self) -> Result<(), Fail> {
        let open = self.open.pop().expect("only open containers close");
        if open.object {
            self.emitter.close_object(&open.members)
        } else {
            self.emitter.close(b']')
        }
    }

    #[inline]
    fn innermost(&self) -> Option<(bool, usize)> {
        self.open.last().map(|open| (open.object, open.offset))
    }
}
