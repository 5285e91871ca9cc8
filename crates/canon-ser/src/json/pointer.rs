//! Where in a document a prefix of its text ends, as a JSON Pointer (RFC 6901).
//!
//! Used on failure only: the text read so far, or the output written so far, is itself the record of the path.

use alloc::string::String;
use alloc::vec::Vec;

use crate::json::string::string_end;
use crate::json::text::{Token, decoded};

enum Level {
    Array(usize),
    Object {
        /// The key of the current member, with quotes.
        key: Option<(usize, usize)>,
        /// Its colon has been read.
        in_value: bool,
    },
}

/// Where a prefix of a text ends.
pub(crate) struct Spot {
    /// To the value in which it ends, or to the object between whose members it ends.
    pub(crate) pointer: String,
    /// Where that value starts, or the member of that object whose colon has not been read.
    pub(crate) start: usize,
    /// It ends in front of a member's colon.
    pub(crate) between_members: bool,
}

/// Where `prefix`, the start of a well-formed text, ends.
pub(crate) fn locate(prefix: &[u8]) -> Spot {
    let (mut levels, start) = walk(prefix);
    let mut between_members = false;
    if let Some(Level::Object {
        key,
        in_value: false,
    }) = levels.last_mut()
    {
        *key = None;
        between_members = true;
    }
    Spot {
        pointer: render(&levels, prefix),
        start,
        between_members,
    }
}

/// The pointer to what was being read or written when `prefix` ended, its key included if that is complete.
pub(crate) fn pointer(prefix: &[u8]) -> String {
    render(&walk(prefix).0, prefix)
}

fn walk(prefix: &[u8]) -> (Vec<Level>, usize) {
    let mut levels = Vec::new();
    let mut value_start = 0;
    let mut at = 0;
    while at < prefix.len() {
        let start = at;
        at += 1;
        match prefix[start] {
            b'"' => {
                let end = string_end(prefix, start + 1);
                at = end + 1;
                // A key that has not been read to its end names nothing yet.
                if end < prefix.len()
                    && let Some(Level::Object {
                        key: key @ None, ..
                    }) = levels.last_mut()
                {
                    *key = Some((start, at));
                }
                continue;
            }
            b'[' => levels.push(Level::Array(0)),
            b'{' => levels.push(Level::Object {
                key: None,
                in_value: false,
            }),
            b']' | b'}' => {
                levels.pop();
                continue;
            }
            b',' => match levels.last_mut() {
                Some(Level::Array(index)) => *index += 1,
                Some(Level::Object { key, in_value }) => (*key, *in_value) = (None, false),
                None => {}
            },
            b':' => {
                if let Some(Level::Object { in_value, .. }) = levels.last_mut() {
                    *in_value = true;
                }
            }
            _ => continue,
        }
        value_start = at;
    }
    (levels, value_start)
}

fn render(levels: &[Level], prefix: &[u8]) -> String {
    let mut pointer = String::new();
    for level in levels {
        match *level {
            Level::Array(index) => {
                pointer.push('/');
                push_index(&mut pointer, index);
            }
            Level::Object {
                key: Some((start, end)),
                ..
            } => {
                pointer.push('/');
                push_key(&mut pointer, &prefix[start..end]);
            }
            Level::Object { key: None, .. } => {}
        }
    }
    pointer
}

pub(crate) fn push_index(pointer: &mut String, index: usize) {
    use core::fmt::Write as _;
    write!(pointer, "{index}").expect("a String takes everything");
}

/// Appends a key, given as it stands in the text, with `~` and `/` escaped.
pub(crate) fn push_key(pointer: &mut String, quoted: &[u8]) {
    let bytes = decoded(&Token {
        quoted,
        offset: 0,
        has_escapes: true,
    });
    for char in String::from_utf8_lossy(&bytes).chars() {
        match char {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}
