//! The Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header, section 2), as bytes: for
//! whatever HTTP library reads them.

use std::fmt;

/// Most characters of a key.
const KEY_CHARS_MAX: usize = 255;

/// Why an `Idempotency-Key` header cannot be used; its Display names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHeaderError(&'static str);

impl KeyHeaderError {
    /// What is wrong, as the detail of an answer 400.
    #[must_use]
    pub fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for KeyHeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the Idempotency-Key cannot be used: {}", self.0)
    }
}

impl std::error::Error for KeyHeaderError {}

const NOT_VISIBLE: KeyHeaderError = KeyHeaderError("it has characters that are not visible ASCII");

/// The key in the values of all `Idempotency-Key` headers of a request: 1 to 255 visible ASCII
/// characters, without the quotes of an RFC 8941 string. Bare keys are taken too: many clients send
/// them. `None` when there is no such header.
///
/// # Errors
/// A [`KeyHeaderError`] for a header that stands there twice, and for what is no such key.
///
/// ```
/// # fn main() -> Result<(), idem_store::KeyHeaderError> {
/// let key = idem_store::read_key_header([&b"\"order-4711\""[..]])?;
/// assert_eq!(key.as_deref(), Some("order-4711"));
/// # Ok(()) }
/// ```
pub fn read_key_header<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<String>, KeyHeaderError> {
    let mut values = values.into_iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value,
        (Some(_), Some(_)) => {
            return Err(KeyHeaderError("the header stands there more than once"));
        }
    };
    let text = str::from_utf8(value).map_err(|_| NOT_VISIBLE)?;
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted)?,
        None => text.to_owned(),
    };
    if key.is_empty() || key.len() > KEY_CHARS_MAX {
        return Err(KeyHeaderError("it must have 1 to 255 characters"));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(NOT_VISIBLE);
    }
    Ok(Some(key))
}

/// The inside of an sf-string (RFC 8941, section 3.3.3) whose first quote is already gone.
fn unquote(quoted: &str) -> Result<String, KeyHeaderError> {
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match (character, characters.as_str()) {
            ('"', "") => return Ok(key),
            ('"', _) => return Err(KeyHeaderError("something follows its quotes")),
            ('\\', _) => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => {
                    let why = "a backslash in quotes stands before something other than \" and \\";
                    return Err(KeyHeaderError(why));
                }
            },
            _ => key.push(character),
        }
    }
    Err(KeyHeaderError("its quotes are not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(value: &str) -> Option<String> {
        read_key_header([value.as_bytes()]).unwrap_or(None)
    }

    #[test]
    fn keys_are_visible_ascii_with_or_without_quotes() {
        assert_eq!(key_of("order-1").as_deref(), Some("order-1"));
        assert_eq!(key_of("\"order-1\"").as_deref(), Some("order-1"));
        assert_eq!(key_of(r#""a\"b\\c""#).as_deref(), Some(r#"a"b\c"#));
        for bad in [
            "",
            "\"\"",
            "two words",
            "\"open",
            r#""a\x""#,
            "\"a\"b",
            "\u{e4}",
        ] {
            assert!(read_key_header([bad.as_bytes()]).is_err(), "{bad}");
        }
        assert!(read_key_header([&b"\xff"[..]]).is_err());
        assert!(read_key_header([&b"a"[..], b"a"]).is_err());
        let long = "k".repeat(256);
        assert_eq!(key_of(&long[1..]).as_deref(), Some(&long[1..]));
        assert_eq!(key_of(&long), None);
        assert_eq!(read_key_header([]), Ok(None));
    }
}
