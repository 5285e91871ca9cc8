//! Where in a document a prefix of its text ends, as a JSON Pointer (RFC 6901).
//!
//! Used on failure only: the text read so far, or the output written so far, is itself the record of the path.

use alloc::string::String;
use alloc::vec::Vec;

use crate::json::string::string_end;
use crate::json::text::{Token, decoded};

enum Level {
    Array(usize),
    /// The key of the current member, with quotes, once it has been read.
    Object(Option<(usize, usize)>),
}

/// The pointer to the value in which `prefix` ends, and where that value starts.
///
/// `prefix` must be the start of a well-formed text.
pub(crate) fn locate(prefix: &[u8]) -> (String, usize) {
    let mut levels = Vec::new();
    let mut value_start = 0;
    let mut at = 0;
    while at < prefix.len() {
        let start = at;
        at += 1;
        match prefix[start] {
            b'"' => {
                at = (string_end(prefix, start + 1) + 1).min(prefix.len());
                if let Some(Level::Object(key @ None)) = levels.last_mut() {
                    *key = Some((start, at));
                }
            }
            b'[' => levels.push(Level::Array(0)),
            b'{' => levels.push(Level::Object(None)),
            b']' | b'}' => drop(levels.pop()),
            b',' => match levels.last_mut() {
                Some(Level::Array(index)) => *index += 1,
                Some(Level::Object(key)) => *key = None,
                None => {}
            },
            b':' => {}
            _ => continue,
        }
        if matches!(prefix[start], b'[' | b'{' | b',' | b':') {
            value_start = at;
        }
    }
    let mut pointer = String::new();
    for level in levels {
        match level {
            Level::Array(index) => {
                pointer.push('/');
                push_index(&mut pointer, index);
            }
            Level::Object(Some((start, end))) => {
                pointer.push('/');
                push_key(&mut pointer, &prefix[start..end]);
            }
            Level::Object(None) => {}
        }
    }
    (pointer, value_start)
}

/// The pointer alone.
pub(crate) fn pointer(prefix: &[u8]) -> String {
    locate(prefix).0
}

fn push_index(pointer: &mut String, index: usize) {
    use core::fmt::Write as _;
    write!(pointer, "{index}").expect("a String takes everything");
}

/// Appends a key, given as it stands in the text, with `~` and `/` escaped.
pub(crate) fn push_key(pointer: &mut String, quoted: &[u8]) {
    let whole = quoted.len() >= 2 && quoted.last() == Some(&b'"');
    let bytes = if whole {
        decoded(&Token {
            quoted,
            offset: 0,
            has_escapes: true,
        })
    } else {
        quoted[1..].to_vec()
    };
    for char in String::from_utf8_lossy(&bytes).chars() {
        match char {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}
