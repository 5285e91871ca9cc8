//! Reading JSON text without building a tree: one iterative driver, and what it tells to whom.

#[cfg(feature = "alloc")]
use alloc::collections::BTreeSet;
#[cfg(feature = "alloc")]
use alloc::vec::Vec;

use crate::error::{Code, Fail};
use crate::json::number::Literal;
use crate::json::scan;
#[cfg(feature = "alloc")]
use crate::json::string;

/// What the driver tells while it reads. Failures without an offset get that of the token.
pub(crate) trait Sink {
    /// `null`, `true` or `false`.
    fn word(&mut self, word: &'static str) -> Result<(), Fail>;
    fn number(&mut self, literal: Literal<'_>) -> Result<(), Fail>;
    fn string(&mut self, token: Token<'_>) -> Result<(), Fail>;
    /// The key of a member, and its leading eight bytes as they stand in the text; its value follows.
    fn key(&mut self, token: Token<'_>, leading: u64) -> Result<(), Fail>;
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

/// A string, and what was found out about it on the way.
#[derive(Clone, Copy)]
struct Scanned<'t> {
    token: Token<'t>,
    /// [`leading_eight`](crate::order::leading_eight) of its contents, up to the first escape.
    leading: u64,
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
    Reader::<STRICT>::new(text).run(sink)
}

/// What comes next where a [`Reader`] stands.
#[derive(Clone, Copy)]
enum Expect {
    Value,
    /// The first entry of a container, or its end.
    Entry,
    Key,
    Colon,
    /// The comma or the end that follows a value.
    After,
}

/// What closes the text itself: nothing, which reads as a zero byte.
const ROOT: u8 = 0;

/// Where a reader stands, between two tokens.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    pub(crate) offset: usize,
    closing: u8,
    expect: Expect,
}

impl Cursor {
    /// Before the first byte.
    pub(crate) const START: Cursor = Cursor {
        offset: 0,
        closing: ROOT,
        expect: Expect::Value,
    };
}

/// A stretch of a JSON text.
#[derive(Clone, Copy)]
pub(crate) struct Stretch<'t> {
    pub(crate) bytes: &'t [u8],
    /// Where it starts in the whole.
    pub(crate) offset: usize,
    /// The text ends with it.
    pub(crate) is_last: bool,
}

pub(crate) struct Reader<'t, const STRICT: bool> {
    text: &'t [u8],
    at: usize,
    /// The bracket that closes the innermost container.
    closing: u8,
    expect: Expect,
    base: usize,
    is_last: bool,
}

impl<'t, const STRICT: bool> Reader<'t, STRICT> {
    fn new(text: &'t [u8]) -> Self {
        let all = Stretch {
            bytes: text,
            offset: 0,
            is_last: true,
        };
        Reader::over(all, Cursor::START)
    }

    /// Goes on in a stretch that holds what follows the cursor.
    pub(crate) fn over(stretch: Stretch<'t>, cursor: Cursor) -> Self {
        Reader {
            text: stretch.bytes,
            at: cursor.offset - stretch.offset,
            closing: cursor.closing,
            expect: cursor.expect,
            base: stretch.offset,
            is_last: stretch.is_last,
        }
    }

    #[cfg(feature = "std")]
    pub(crate) fn cursor(&self) -> Cursor {
        Cursor {
            offset: self.base + self.at,
            closing: self.closing,
            expect: self.expect,
        }
    }

    fn fail(&self, code: Code, at: usize) -> Fail {
        Fail::At(code, self.base + at)
    }

    /// Reads to the end of the text. After a failure it stands where the token begins that failed; when a stretch that
    /// is not the last fails with [`Code::End`], a longer one goes on there.
    pub(crate) fn run<S: Sink>(&mut self, sink: &mut S) -> Result<(), Fail> {
        let (mut key_next, mut value_next) = (false, true);
        match self.expect {
            Expect::Value => {}
            Expect::Entry => {
                value_next = !self.closes_at_once(sink)?;
                key_next = self.closing == b'}';
            }
            Expect::Key => key_next = true,
            Expect::Colon => self.colon()?,
            Expect::After => value_next = false,
        }
        loop {
            if value_next {
                if key_next {
                    self.key(sink)?;
                }
                if self.value(sink)? && !self.closes_at_once(sink)? {
                    key_next = self.closing == b'}';
                    continue;
                }
            }
            if self.after_value(sink)? {
                return Ok(());
            }
            value_next = true;
            key_next = self.closing == b'}';
        }
    }

    /// The byte at the cursor; at the end of the text a zero, which stands for nothing in JSON.
    #[inline(always)]
    fn here(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// The next byte that is not whitespace, without taking it.
    #[inline(always)]
    fn peek(&mut self) -> Result<u8, Fail> {
        match self.here() {
            ..=b' ' => self.skip(),
            other => Ok(other),
        }
    }

    /// Steps over whitespace.
    fn skip(&mut self) -> Result<u8, Fail> {
        const SPACES: [u8; 8] = [b' '; 8];
        loop {
            match self.here() {
                b' ' | b'\n' | b'\r' | b'\t' if STRICT => {
                    return Err(self.fail(Code::Whitespace, self.at));
                }
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                other => return Ok(other),
            }
            while self.text[self.at..].first_chunk() == Some(&SPACES) {
                self.at += SPACES.len();
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
        self.fail(code, self.at)
    }

    /// Reads a scalar, or the opening bracket of a container (then true).
    #[inline(always)]
    fn value<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        self.expect = Expect::Value;
        let first = self.peek()?;
        let start = self.at;
        let offset = self.base + start;
        let (told, end) = match first {
            b'"' => {
                let token = self.string()?.token;
                (sink.string(token), start + token.quoted.len())
            }
            b'-' | b'0'..=b'9' => {
                let literal =
                    Literal::lex(self.text, start).map_err(|fail| fail.moved(self.base))?;
                let end = start + literal.text.len();
                if end == self.text.len() && !self.is_last {
                    return Err(self.fail(Code::End, end));
                }
                (sink.number(literal), end)
            }
            b'{' | b'[' => {
                sink.open(first == b'{', offset)
                    .map_err(|fail| fail.or_at(offset))?;
                self.closing = first + 2;
                self.at += 1;
                return Ok(true);
            }
            b'n' => (self.word("null", sink)?, start + 4),
            b't' => (self.word("true", sink)?, start + 4),
            b'f' => (self.word("false", sink)?, start + 5),
            _ if start == self.text.len() && self.is_last && sink.innermost().is_none() => {
                return Err(self.fail(Code::Empty, start));
            }
            _ => return Err(self.unexpected(Code::Value)),
        };
        told.map_err(|fail| fail.or_at(offset))?;
        self.at = end;
        Ok(false)
    }

    #[inline(always)]
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
            return Err(self.fail(code, self.at));
        }
        Ok(sink.word(word))
    }

    /// After an opening bracket: closes the container if it ends here.
    #[inline(always)]
    fn closes_at_once<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        self.expect = Expect::Entry;
        let byte = self.peek()?;
        if byte == self.closing {
            sink.close()?;
            self.closed(sink);
            return Ok(true);
        }
        if byte == 0 {
            // At the end of a stretch it is still an entry, or the closing bracket, that is expected.
            let object = self.closing == b'}';
            return Err(self.unexpected(if object { Code::Key } else { Code::Value }));
        }
        Ok(false)
    }

    /// After a value: closes what ends, and steps over the comma before the next entry. True at the end of the text.
    #[inline(always)]
    fn after_value<S: Sink>(&mut self, sink: &mut S) -> Result<bool, Fail> {
        loop {
            // What comes behind the comma says what is expected there.
            if self.here() == b',' && self.closing != ROOT {
                self.at += 1;
                if self.closing == b']' {
                    sink.next_element()?;
                }
                return Ok(false);
            }
            self.expect = Expect::After;
            let byte = self.peek()?;
            if byte == b',' && self.closing != ROOT {
                continue;
            }
            if byte != self.closing || self.closing == ROOT {
                return self.at_end();
            }
            let start = sink.innermost().map_or(0, |(_, start)| start);
            sink.close()
                .map_err(|fail| self.at_duplicate(fail, start).or_at(self.base + self.at))?;
            self.closed(sink);
        }
    }

    /// Steps over the bracket of the container that the sink has closed.
    #[inline(always)]
    fn closed<S: Sink>(&mut self, sink: &S) {
        self.at += 1;
        self.closing = match sink.innermost() {
            Some((true, _)) => b'}',
            Some((false, _)) => b']',
            None => ROOT,
        };
    }

    #[cold]
    fn at_end(&self) -> Result<bool, Fail> {
        if self.closing != ROOT {
            Err(self.unexpected(Code::CommaOrEnd))
        } else if self.at < self.text.len() {
            Err(self.fail(Code::Trailing, self.at))
        } else if !self.is_last {
            Err(self.fail(Code::End, self.at))
        } else {
            Ok(true)
        }
    }

    #[inline(always)]
    fn key<S: Sink>(&mut self, sink: &mut S) -> Result<(), Fail> {
        self.expect = Expect::Key;
        if self.peek()? != b'"' {
            return Err(self.unexpected(Code::Key));
        }
        let Scanned { token, leading } = self.string()?;
        sink.key(token, leading)
            .map_err(|fail| fail.or_at(token.offset))?;
        self.at += token.quoted.len();
        self.colon()
    }

    #[inline(always)]
    fn colon(&mut self) -> Result<(), Fail> {
        if self.here() != b':' {
            self.expect = Expect::Colon;
            if self.peek()? != b':' {
                return Err(self.unexpected(Code::Colon));
            }
        }
        self.at += 1;
        Ok(())
    }

    /// Reads the string whose opening quote is at the cursor, which stays.
    #[inline(always)]
    fn string(&self) -> Result<Scanned<'t>, Fail> {
        let start = self.at;
        let block = scan::block(self.text, start + 1);
        let mut end = start + 1 + block.clean();
        let mut ascii = block.is_ascii();
        if block.clean() == scan::BLOCK {
            (end, ascii) = scan::string_part(self.text, end, ascii);
        }
        let mut has_escapes = false;
        if self.text.get(end) != Some(&b'"') {
            has_escapes = true;
            (end, ascii) = self.past_escapes(end, ascii)?;
        }
        let quoted = &self.text[start..=end];
        if !ascii && let Err(error) = core::str::from_utf8(&quoted[1..]) {
            return Err(self.fail(Code::Utf8, start + 1 + error.valid_up_to()));
        }
        Ok(Scanned {
            token: Token {
                quoted,
                offset: self.base + start,
                has_escapes,
            },
            leading: block.leading(),
        })
    }

    /// From the first byte of a string that does not stand for itself to its closing quote.
    #[cold]
    fn past_escapes(&self, at: usize, ascii: bool) -> Result<(usize, bool), Fail> {
        let (mut at, mut ascii) = (at, ascii);
        loop {
            match self.text.get(at) {
                Some(b'"') => return Ok((at, ascii)),
                Some(b'\\') if at + 1 < self.text.len() => {
                    // What is escaped may be the first byte of a character.
                    ascii &= self.text[at + 1].is_ascii();
                    (at, ascii) = scan::string_part(self.text, at + 2, ascii);
                }
                Some(b'\\') | None => return Err(self.fail(Code::End, self.text.len())),
                Some(_) => return Err(self.fail(Code::Control, at)),
            }
        }
    }

    /// A disordered object finds its duplicates when it ends; this finds out where the second one stands.
    #[cold]
    fn at_duplicate(&self, fail: Fail, object_start: usize) -> Fail {
        let (Fail::At(Code::Duplicate, _), true) = (&fail, object_start >= self.base) else {
            return fail;
        };
        #[cfg(not(feature = "alloc"))]
        return fail;
        #[cfg(feature = "alloc")]
        self.second_of(fail, object_start)
    }

    #[cfg(feature = "alloc")]
    fn second_of(&self, fail: Fail, object_start: usize) -> Fail {
        let mut seen = BTreeSet::new();
        let mut reader = Reader::<false> {
            at: object_start - self.base + 1,
            ..Reader::new(self.text)
        };
        reader.base = self.base;
        while let Ok(b'"') = reader.peek() {
            let Ok(Scanned { token, .. }) = reader.string() else {
                break;
            };
            if !seen.insert(decoded(&token)) {
                return Fail::At(Code::Duplicate, token.offset);
            }
            reader.at = string::value_end(self.text, reader.at) + 1;
        }
        fail
    }
}

/// The bytes that a string stands for.
#[cfg(feature = "alloc")]
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
