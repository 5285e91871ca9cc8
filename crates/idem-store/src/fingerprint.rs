//! Fingerprints of what a request means (feature `fingerprint`).

use std::fmt;

use canon_ser::json::{self, Integers};
use serde::Serialize;

use crate::permit::Fingerprint;

impl Fingerprint {
    /// SHA-256 of the canonical form (RFC 8785, integers exact) of a JSON text: the order of keys,
    /// whitespace, escapes and the spelling of numbers do not matter.
    ///
    /// ```
    /// use idem_store::Fingerprint;
    ///
    /// let one = Fingerprint::of_json(br#"{"amount": 4990, "to": "b"}"#)?;
    /// let two = Fingerprint::of_json(br#"{"to":"b","amount":4.99e3}"#)?;
    /// assert_eq!(one, two);
    /// # Ok::<(), canon_ser::Error>(())
    /// ```
    ///
    /// # Errors
    /// Text that is not JSON or has a key twice, with line and column.
    pub fn of_json(text: &[u8]) -> Result<Self, canon_ser::Error> {
        canon_ser::digest::sha256_text(text, Integers::Exact).map(Self)
    }

    /// That of the JSON which a value serializes to.
    ///
    /// # Errors
    /// NaN, infinity, keys without a text form, or an error of the value's own `Serialize`.
    pub fn of_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, canon_ser::Error> {
        let canonical = json::to_vec_with(value, Integers::Exact)?;
        Ok(Self(canon_ser::digest::sha256_bytes(&canonical)))
    }

    /// SHA-256 of bytes as they are, for requests that are not JSON.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(canon_ser::digest::sha256_bytes(bytes))
    }
}

/// Fields that do not belong to what a request means: tokens that rotate, times of sending, trace ids.
///
/// ```
/// use idem_store::{Fingerprint, Omit};
///
/// let omit = Omit::new(["/auth/nonce", "/sent_at"])?;
/// let one = omit.of_json(br#"{"auth":{"nonce":1,"user":7},"to":"b"}"#)?;
/// let two = omit.of_json(br#"{"to":"b","sent_at":"noon","auth":{"user":7,"nonce":2}}"#)?;
/// assert_eq!(one, two);
/// assert_eq!(one, Fingerprint::of_json(br#"{"auth":{"user":7},"to":"b"}"#)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Omit {
    pointers: Vec<Vec<Step>>,
}

/// One step of a pointer: the name of a member as canonical JSON writes it, and as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    quoted: Vec<u8>,
    /// For arrays.
    index: Option<usize>,
}

impl Omit {
    /// Leaves these fields out, each given as a JSON pointer (RFC 6901). A field that is absent is as
    /// one that is left out. An element of an array is given by its place in the request.
    ///
    /// # Errors
    /// What is no pointer, and the empty one: nothing would be left.
    pub fn new<P: AsRef<str>>(pointers: impl IntoIterator<Item = P>) -> Result<Self, OmitError> {
        let pointers = pointers.into_iter().map(|pointer| {
            let pointer = pointer.as_ref();
            parse(pointer).ok_or_else(|| OmitError(pointer.to_owned()))
        });
        Ok(Self {
            pointers: pointers.collect::<Result<_, _>>()?,
        })
    }

    /// As [`Fingerprint::of_json`], without the fields. Linear in the text, times the pointers.
    ///
    /// # Errors
    /// As [`Fingerprint::of_json`].
    pub fn of_json(&self, text: &[u8]) -> Result<Fingerprint, canon_ser::Error> {
        Ok(self.digest(&json::canonicalize_with(text, Integers::Exact)?))
    }

    /// As [`Fingerprint::of_value`], without the fields.
    ///
    /// # Errors
    /// As [`Fingerprint::of_value`].
    pub fn of_value<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> Result<Fingerprint, canon_ser::Error> {
        Ok(self.digest(&json::to_vec_with(value, Integers::Exact)?))
    }

    fn digest(&self, canonical: &[u8]) -> Fingerprint {
        let mut out = Vec::with_capacity(canonical.len());
        let pointers: Vec<&[Step]> = self.pointers.iter().map(Vec::as_slice).collect();
        let mut copy = Copy {
            canonical,
            at: 0,
            out: &mut out,
        };
        copy.value(&pointers);
        Fingerprint::of_bytes(&out)
    }
}

/// The steps of a pointer; `None` when it is none or the whole document.
fn parse(pointer: &str) -> Option<Vec<Step>> {
    let steps = pointer.strip_prefix('/')?.split('/').map(|step| {
        let mut parts = step.split('~');
        let mut name = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            // RFC 6901, section 3: ~0 is a tilde, ~1 a slash.
            let (escaped, rest) = match part.as_bytes().first()? {
                b'0' => ('~', &part[1..]),
                b'1' => ('/', &part[1..]),
                _ => return None,
            };
            name.push(escaped);
            name.push_str(rest);
        }
        let is_index = name == "0"
            || (!name.starts_with('0') && name.bytes().all(|byte| byte.is_ascii_digit()));
        Some(Step {
            quoted: json::to_vec(&name).ok()?,
            index: is_index.then(|| name.parse().ok()).flatten(),
        })
    });
    steps.collect()
}

/// Copies canonical JSON, which is known to be well-formed and to have no whitespace.
struct Copy<'a> {
    canonical: &'a [u8],
    at: usize,
    out: &'a mut Vec<u8>,
}

impl Copy<'_> {
    /// Copies one value without what the pointers name. Recursion ends at canon-ser's depth.
    fn value(&mut self, pointers: &[&[Step]]) {
        match self.canonical[self.at] {
            b'{' if !pointers.is_empty() => self.members(pointers, b'}'),
            b'[' if !pointers.is_empty() => self.members(pointers, b']'),
            _ => {
                let from = self.at;
                self.skip();
                self.out.extend_from_slice(&self.canonical[from..self.at]);
            }
        }
    }

    fn members(&mut self, pointers: &[&[Step]], close: u8) {
        self.take();
        let opened = self.out.len();
        let mut index = 0;
        while self.canonical[self.at] != close {
            if self.canonical[self.at] == b',' {
                self.at += 1;
            }
            let from = self.at;
            let is_here = |step: &Step, name: &[u8]| match close {
                b'}' => step.quoted == name,
                _ => step.index == Some(index),
            };
            if close == b'}' {
                self.string();
            }
            let name = &self.canonical[from..self.at];
            let below = pointers.iter().filter_map(|steps| {
                let (first, rest) = steps.split_first()?;
                is_here(first, name).then_some(rest)
            });
            let below: Vec<&[Step]> = below.collect();
            if close == b'}' {
                self.at += 1; // the colon
            }
            if below.iter().any(|rest| rest.is_empty()) {
                self.skip();
            } else {
                if self.out.len() > opened {
                    self.out.push(b',');
                }
                self.out.extend_from_slice(&self.canonical[from..self.at]);
                self.value(&below);
            }
            index += 1;
        }
        self.take();
    }

    fn take(&mut self) {
        self.out.push(self.canonical[self.at]);
        self.at += 1;
    }

    /// Goes past one value.
    fn skip(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.canonical[self.at] {
                b'"' => self.string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' => self.at += 1,
                _ => {
                    let rest = &self.canonical[self.at..];
                    let end = rest.iter().position(|byte| b",:]}".contains(byte));
                    self.at += end.unwrap_or(rest.len());
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Goes past one string.
    fn string(&mut self) {
        self.at += 1;
        while self.canonical[self.at] != b'"' {
            self.at += 1 + usize::from(self.canonical[self.at] == b'\\');
        }
        self.at += 1;
    }
}

/// What was given as a field to leave out is no JSON pointer to one.
#[derive(Clone, Debug)]
pub struct OmitError(String);

impl fmt::Display for OmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no JSON pointer to a field: write it as /name, /outer/inner or /list/0",
            self.0
        )
    }
}

impl std::error::Error for OmitError {}
