//! Reading JSON text without building a tree: one iterative driver, and the sink that writes the canonical form.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::json::emit::Emitter;
use crate::json::number::{Literal, write_literal};
use crate::json::string::{self, is_special, next_special};
use crate::order::Members;

/// What the driver tells while it reads. Failures without an offset get that of the token.
pub(crate) trait Sink {
    /// `null`, `true` or `false`.
    fn word(&mut self, word: &'static str) -> Result<(), Fail>;
    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail>;
    fn string(&mut self, token: Token<'_>) -> Result<(), Fail>;
    /// The key of a member; its value follows.
    fn key(&mut self, token: Token<'_>) -> Result<(), Fail>;
    fn open(&mut self, object: bool, offset: usize) -> Result<(), Fail>;
    /// Another element of the innermost array follows.
    fn next_element(&mut self) -> Result<(), Fail>;
    fn close(&mut self) -> Result<(), Fail>;
    /// The innermost open container: is it an object, and where does it start?
    fn innermost(&self) -> Option<(bool, usize)>;
}

/// A string in the text.
#[derive(Clone, Copy)]
pub(crate) struct Token<'t> {
    /// With its quotes.
    pub(crate) quoted: &'t [u8],
    /// Of the opening quote.
    pub(crate) offset: usize,
    pub(crate) has_escapes: bool,
}

/// A stretch of a decoded string.
pub(crate) enum Piece<'t> {
    /// Bytes that stood for themselves.
    Run(&'t [u8]),
    /// What an escape stood for; the offset is that of its backslash.
    Escape(char, usize),
}

impl<'t> Token<'t> {
    pub(crate) fn contents(&self) -> &'t [u8] {
        &self.quoted[1..self.quoted.len() - 1]
    }

    /// Calls `piece` for what the string holds, in order; fails on unknown escapes and lone surrogates.
    pub(crate) fn decode(
        &self,
        mut piece: impl FnMut(Piece<'t>) -> Result<(), Fail>,
    ) -> Result<(), Fail> {
        let text = self.contents();
        let mut from = 0;
        while let Some(run) = text[from..].iter().position(|&byte| byte == b'\\') {
            let at = from + run;
            piece(Piece::Run(&text[from..at]))?;
            let offset = self.offset + 1 + at;
            let (char, len) = unescape(&text[at..]).map_err(|code| Fail::At(code, offset))?;
            piece(Piece::Escape(char, offset))?;
            from = at + len;
        }
        piece(Piece::Run(&text[from..]))
    }
}

/// Reads the escape at the start of `text`: the character and the bytes it took.
fn unescape(text: &[u8]) -> Result<(char, usize), Code> {
    let simple = match text.get(1) {
        Some(b'"') => '"',
        Some(b'\\') => '\\',
        Some(b'/') => '/',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => {
            let unit = hex4(text.get(2..6)).ok_or(Code::Escape)?;
            if let Some(char) = char::from_u32(unit) {
                return Ok((char, 6));
            }
            let low = match text.get(6..8) {
                Some(b"\\u") => hex4(text.get(8..12)).ok_or(Code::Escape)?,
                _ => 0,
            };
            if unit >= 0xdc00 || !(0xdc00..0xe000).contains(&low) {
                return Err(Code::Surrogate);
            }
            let point = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            return Ok((
                char::from_u32(point).expect("a surrogate pair is a character"),
                12,
            ));
        }
        _ => return Err(Code::Escape),
    };
    Ok((simple, 2))
}

fn hex4(digits: Option<&[u8]>) -> Option<u32> {
    digits?.iter().try_fold(0, |value, &digit| {
        Some(value << 4 | char::from(digit).to_digit(16)?)
    })
}

/// Reads one JSON text. `STRICT` refuses whitespace as not canonical.
///
/// Iterative: nesting costs the sink's own stack of containers, never the program's.
pub(crate) fn drive<S: Sink, const STRICT: bool>(text: &[u8], sink: &mut S) -> Result<(), Fail> {
    if let Err(error) = core::str::from_utf8(text) {
        return Err(Fail::At(Code::Utf8, error.valid_up_to()));
    }
    let mut reader = Reader::<STRICT> { text, at: 0 };
    loop {
        if reader.value(sink)? && !reader.first_entry(sink)? {
            continue;
        }
        if reader.after_value(sink)? {
            return Ok(());
        }
    }
}

struct Reader<'t, const STRICT: bool> {
    text: &'t [u8],
    at: usize,
}

impl<'t, const STRICT: bool> Reader<'t, STRICT> {
    /// The next byte that is not whitespace, without taking it.
    #[inline]
    fn peek(&mut self) -> Result<Option<u8>, Fail> {
        loop {
            match self.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') if STRICT => {
                    return Err(Fail::At(Code::Whitespace, self.at));
                }
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return Ok(other.copied()),
            }
        }
    }

    #[cold]
    fn unexpected(&self, code: Code) -> Fail {
        let code = if self.at < self.text.len() {
            code
        } else {
            Code::End
        };
        Fail::At(code, self.at)
    }

    /// Reads a scalar, or the opening bracket of a container (then true).
    #[inline]
    fn value<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        let first = self.peek()?;
        let start = self.at;
        let told = match first {
            Some(b'"') => {
                let token = self.string()?;
                sink.string(token)
            }
            Some(b'-' | b'0'..=b'9') => {
                let literal = Literal::lex(self.text, start)?;
                self.at += literal.text.len();
                sink.number(literal)
            }
            Some(bracket @ (b'{' | b'[')) => {
                self.at += 1;
                sink.open(bracket == b'{', start)
                    .map_err(|fail| fail.or_at(start))?;
                return Ok(true);
            }
            Some(b'n') => self.word("null", sink)?,
            Some(b't') => self.word("true", sink)?,
            Some(b'f') => self.word("false", sink)?,
            _ => return Err(self.unexpected(Code::Value)),
        };
        told.map_err(|fail| fail.or_at(start))?;
        Ok(false)
    }

    #[inline]
    fn word<S: Sink>(
        &mut self,
        word: &'static str,
        sink: &mut S,
    ) -> Result<Result<(), Fail>, Fail> {
        let rest = &self.text[self.at..];
        if !rest.starts_with(word.as_bytes()) {
            let code = if word.as_bytes().starts_with(rest) {
                Code::End
            } else {
                Code::Value
            };
            return Err(Fail::At(code, self.at));
        }
        self.at += word.len();
        Ok(sink.word(word))
    }

    /// After an opening bracket: false if the container has a first entry (whose key, if any, is then read).
    #[inline]
    fn first_entry<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        let object = self.text[self.at - 1] == b'{';
        let closing = if object { b'}' } else { b']' };
        if self.peek()? == Some(closing) {
            self.at += 1;
            sink.close()?;
            return Ok(true);
        }
        if object {
            self.key(sink)?;
        }
        Ok(false)
    }

    /// After a value: closes what ends, and reads up to the next value. True at the end of the text.
    #[inline]
    fn after_value<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        loop {
            let byte = self.peek()?;
            let Some((object, start)) = sink.innermost() else {
                return if byte.is_none() {
                    Ok(true)
                } else {
                    Err(Fail::At(Code::Trailing, self.at))
                };
            };
            match byte {
                Some(b',') if object => {
                    self.at += 1;
                    self.key(sink)?;
                    return Ok(false);
                }
                Some(b',') => {
                    self.at += 1;
                    sink.next_element()?;
                    return Ok(false);
                }
                Some(b'}') if object => {
                    let end = self.at;
                    sink.close()
                        .map_err(|fail| self.at_duplicate(fail, start).or_at(end))?;
                }
                Some(b']') if !object => sink.close()?,
                _ => return Err(self.unexpected(Code::CommaOrEnd)),
            }
            self.at += 1;
        }
    }

    #[inline]
    fn key<S: Sink>(&mut self, sink: &mut S) -> Result<(), Fail> {
        if self.peek()? != Some(b'"') {
            return Err(self.unexpected(Code::Key));
        }
        let token = self.string()?;
        sink.key(token).map_err(|fail| fail.or_at(token.offset))?;
        if self.peek()? != Some(b':') {
            return Err(self.unexpected(Code::Colon));
        }
        self.at += 1;
        Ok(())
    }

    /// Reads the string whose opening quote comes next.
    #[inline(always)]
    fn string(&mut self) -> Result<Token<'t>, Fail> {
        let start = self.at;
        let mut at = start + 1;
        let mut has_escapes = false;
        loop {
            at = next_special(self.text, at);
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') if at + 1 < self.text.len() => {
                    has_escapes = true;
                    at += 2;
                }
                Some(b'\\') | None => return Err(Fail::At(Code::End, self.text.len())),
                Some(_) => return Err(Fail::At(Code::Control, at)),
            }
        }
        self.at = at + 1;
        Ok(Token {
            quoted: &self.text[start..=at],
            offset: start,
            has_escapes,
        })
    }

    /// A disordered object finds its duplicates when it ends; this finds out where the second one stands.
    #[cold]
    fn at_duplicate(&self, fail: Fail, object_start: usize) -> Fail {
        let Fail::At(Code::Duplicate, _) = fail else {
            return fail;
        };
        let mut seen = BTreeSet::new();
        let mut reader = Reader::<false> {
            text: self.text,
            at: object_start + 1,
        };
        while let Ok(Some(b'"')) = reader.peek() {
            let Ok(token) = reader.string() else { break };
            if !seen.insert(decoded(&token)) {
                return Fail::At(Code::Duplicate, token.offset);
            }
            reader.at = string::value_end(self.text, reader.at) + 1;
        }
        fail
    }
}

/// The bytes that a string stands for.
pub(crate) fn decoded(token: &Token<'_>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.quoted.len());
    let _ = token.decode(|piece| {
        match piece {
            Piece::Run(run) => bytes.extend_from_slice(run),
            Piece::Escape(char, _) => {
                bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes())
            }
        }
        Ok(())
    });
    bytes
}

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

impl<B: Buf> Writer<'_, '_, B> {
    /// Writes a string canonically. True if that took escapes.
    #[inline]
    fn write_string(&mut self, token: Token<'_>) -> Result<bool, Fail> {
        if token.has_escapes {
            return self.rewrite_string(token);
        }
        self.emitter.out.extend(token.quoted)?;
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
        self.write_string(token).map(drop)
    }

    #[inline]
    fn key(&mut self, token: Token<'_>) -> Result<(), Fail> {
        let open = self.open.last().expect("keys stand in objects");
        let start = self.emitter.begin_entry(&open.members)?;
        let escaped = self.write_string(token)?;
        let open = self.open.last_mut().expect("keys stand in objects");
        self.emitter.note_key(&mut open.members, start, escaped)
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
