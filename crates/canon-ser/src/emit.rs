//! What writing a document is made of, whatever its source and its format.

use core::fmt;

use serde::ser::Serialize;

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::json::private::Token;
use crate::order::{KeyRules, Members, Scratch};

/// Everything that writing a document needs.
pub(crate) struct Emitter<'a, B, F> {
    pub(crate) out: &'a mut B,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) options: F,
    pub(crate) depth: usize,
}

impl<'a, B: Buf, F: Format> Emitter<'a, B, F> {
    #[inline(always)]
    pub(crate) fn new(out: &'a mut B, scratch: &'a mut Scratch, options: F) -> Self {
        Emitter {
            out,
            scratch,
            options,
            depth: 0,
        }
    }

    /// Goes one level down.
    #[inline(always)]
    pub(crate) fn deeper(&mut self) -> Result<(), Fail> {
        if self.depth >= self.options.depth_max() {
            return Err(Fail::new(Code::Depth));
        }
        self.depth += 1;
        Ok(())
    }
}

/// One format, with its options: how it spells what serde says.
pub(crate) trait Format: Copy {
    type Keys: KeyRules;
    /// What the start of an open container must keep for its end.
    type Head: Copy;
    /// Stands where there is no container.
    const NO_HEAD: Self::Head;
    const HUMAN_READABLE: bool;
    /// The number of elements stands before them, so that a container whose number is unknown is not certain until it ends.
    const HOLDS_UNKNOWN: bool;

    fn keys(self) -> Self::Keys;
    fn depth_max(self) -> usize;

    fn null<B: Buf>(self, out: &mut B) -> Result<(), Fail>;
    fn boolean<B: Buf>(self, out: &mut B, value: bool) -> Result<(), Fail>;
    fn integer<B: Buf>(self, out: &mut B, magnitude: u64, negative: bool) -> Result<(), Fail>;
    fn wide<B: Buf>(self, out: &mut B, magnitude: u128, negative: bool) -> Result<(), Fail>;
    fn float<B: Buf>(self, out: &mut B, value: f64) -> Result<(), Fail>;
    fn text<B: Buf>(self, out: &mut B, text: &str) -> Result<(), Fail>;
    fn display<B: Buf, T: fmt::Display + ?Sized>(self, out: &mut B, value: &T) -> Result<(), Fail>;
    fn bytes<B: Buf>(emitter: &mut Emitter<'_, B, Self>, value: &[u8]) -> Result<(), Fail>;

    /// Starts an array of that many elements, if the number is known.
    fn open_array<B: Buf>(self, out: &mut B, len: Option<usize>) -> Result<Self::Head, Fail>;
    fn close_array<B: Buf>(self, out: &mut B, head: Self::Head, len: usize) -> Result<(), Fail>;
    /// Starts a map of that many entries, if the number is known.
    fn open_map<B: Buf>(self, out: &mut B, len: Option<usize>) -> Result<Self::Head, Fail>;
    fn close_map<B: Buf>(self, out: &mut B, head: Self::Head, len: usize) -> Result<(), Fail>;
    /// Starts the map of one entry that an enum's variant is, with its key.
    fn open_variant<B: Buf>(self, out: &mut B, variant: &str) -> Result<(), Fail>;
    fn close_variant<B: Buf>(self, out: &mut B) -> Result<(), Fail>;

    /// Writes a key that is text, with what stands around it, and takes note of it.
    fn text_key<B: Buf>(
        emitter: &mut Emitter<'_, B, Self>,
        members: &mut Members,
        key: &str,
    ) -> Result<(), Fail>;
    /// Writes any key.
    fn any_key<B: Buf, T: Serialize + ?Sized>(
        emitter: &mut Emitter<'_, B, Self>,
        members: &mut Members,
        key: &T,
    ) -> Result<(), Fail>;

    /// Writes what the text of one of serde_json's private structs stands for.
    fn private<B: Buf>(
        emitter: &mut Emitter<'_, B, Self>,
        token: Token,
        text: &str,
    ) -> Result<(), Fail>;
}

/// Passes on what a value displays, piece by piece.
pub(crate) fn write_display<T: fmt::Display + ?Sized>(
    value: &T,
    write: impl FnMut(&[u8]) -> Result<(), Fail>,
) -> Result<(), Fail> {
    let mut pieces = Pieces {
        write,
        failed: None,
    };
    let written = fmt::write(&mut pieces, format_args!("{value}"));
    match (written, pieces.failed) {
        (_, Some(fail)) => Err(fail),
        (Err(_), None) => Err(Fail::new(Code::Display)),
        (Ok(()), None) => Ok(()),
    }
}

struct Pieces<W> {
    write: W,
    failed: Option<Fail>,
}

impl<W: FnMut(&[u8]) -> Result<(), Fail>> fmt::Write for Pieces<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        (self.write)(text.as_bytes()).map_err(|fail| {
            self.failed = Some(fail);
            fmt::Error
        })
    }
}
