//! serde_json's private structs: numbers kept as text (feature arbitrary_precision) and raw JSON text (`RawValue`).
//!
//! Both reach a foreign serializer as a struct with a reserved name and one string field. Written as such they would
//! corrupt the output; here the number is read as a number and the raw text is canonicalized in place.

use crate::buf::Buf;
use crate::error::{Code, Fail};
use crate::json::emit::Emitter;
use crate::json::number::{self, Literal};
#[cfg(feature = "alloc")]
use crate::json::rewrite;
use crate::json::scalar::Take;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Number,
    Raw,
}

/// The struct names are serde_json's wire contract with itself; they have not changed since they were introduced.
#[inline(always)]
pub(crate) fn token(name: &str) -> Option<Token> {
    // One byte is compared when the program is compiled.
    match name.as_bytes() {
        [b'$', ..] => private_token(name),
        _ => None,
    }
}

#[cold]
fn private_token(name: &str) -> Option<Token> {
    match name {
        "$serde_json::private::Number" => Some(Token::Number),
        "$serde_json::private::RawValue" => Some(Token::Raw),
        _ => None,
    }
}

/// Writes the JSON that the text of a private struct stands for.
pub(crate) fn write<B: Buf>(
    emitter: &mut Emitter<'_, B>,
    token: Token,
    text: &str,
) -> Result<(), Fail> {
    match token {
        Token::Number => {
            let literal = Literal::whole(text).ok_or(Fail::new(Code::NumberSyntax))?;
            number::write_foreign(emitter.out, literal, emitter.options.integers)
        }
        #[cfg(feature = "alloc")]
        Token::Raw => rewrite::write_into(emitter, text).map_err(in_fragment),
        #[cfg(not(feature = "alloc"))]
        Token::Raw => Err(Fail::new(Code::NoHeap)),
    }
}

#[cfg(feature = "alloc")]
/// An offset in raw text would count from the start of the fragment, so none is reported.
pub(crate) fn in_fragment(fail: Fail) -> Fail {
    match fail {
        Fail::At(code, _) => Fail::new(code),
        custom => custom,
    }
}

/// Takes a string, and nothing else, from the one field of a private struct.
pub(crate) struct OnlyText<F>(pub(crate) F);

impl<F: FnOnce(&str) -> Result<(), Fail>> Take for OnlyText<F> {
    const REFUSAL: Code = Code::Misuse;

    fn text(self, text: &str) -> Result<(), Fail> {
        (self.0)(text)
    }
}
