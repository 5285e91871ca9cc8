//! Do two JSON texts mean the same? Key order, whitespace, escapes and the spelling of numbers do not count.

use alloc::string::{String, ToString};
#[cfg(feature = "rules")]
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use crate::error::Error;
use crate::json::string::{JsonKeys, string_end, value_end};
use crate::json::{Integers, Options, canonicalize_with, pointer};
use crate::order::{KeyRules, common_prefix};
#[cfg(feature = "rules")]
use crate::{json::KeyOrder, rules::RuleSet};

/// The first place where two texts differ, in canonical order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pointer: String,
    left: Option<String>,
    right: Option<String>,
}

impl Difference {
    /// JSON Pointer (RFC 6901) to the value that differs, or that one side lacks. Empty for the whole document.
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// The canonical text of the value on the left; `None` if it is only on the right.
    pub fn left(&self) -> Option<&str> {
        self.left.as_deref()
    }

    /// The canonical text of the value on the right; `None` if it is only on the left.
    pub fn right(&self) -> Option<&str> {
        self.right.as_deref()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.pointer.is_empty() {
            "the document"
        } else {
            &self.pointer
        };
        match (&self.left, &self.right) {
            (Some(left), Some(right)) => write!(f, "{place} differs: {left} against {right}"),
            (Some(left), None) => write!(f, "{place} is only on the left: {left}"),
            (None, Some(right)) => write!(f, "{place} is only on the right: {right}"),
            (None, None) => write!(f, "{place} differs"),
        }
    }
}

/// Do two JSON texts mean the same?
///
/// Integers are compared with all their digits, other numbers as doubles. Linear, but for sorting.
///
/// # Errors
///
/// As [`canonicalize_with`] under [`Integers::Exact`], of either text.
///
/// ```
/// use canon_ser::semantic::equal;
///
/// assert!(equal(br#"{"a":100,"b":[]}"#, br#"{ "b": [], "a": 1e2 }"#)?);
/// assert!(!equal(b"9007199254740993", b"9007199254740992")?);
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn equal(left: &[u8], right: &[u8]) -> Result<bool, Error> {
    Ok(canonicalize_with(left, Integers::Exact)? == canonicalize_with(right, Integers::Exact)?)
}

/// Where two JSON texts differ first, if they do not mean the same.
///
/// # Errors
///
/// As [`equal`].
///
/// ```
/// use canon_ser::semantic::diff;
///
/// let found = diff(br#"{"a":{"x":[1,2]}}"#, br#"{"a":{"x":[1,2.5]}}"#)?.expect("they differ");
/// assert_eq!(found.pointer(), "/a/x/1");
/// assert_eq!((found.left(), found.right()), (Some("2"), Some("2.5")));
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn diff(left: &[u8], right: &[u8]) -> Result<Option<Difference>, Error> {
    diff_as(left, right, Integers::Exact.into())
}

/// [`diff`] of texts that may be nested deeper than 128 levels.
///
/// # Errors
///
/// As [`equal`], but for the depth.
///
/// ```
/// use canon_ser::semantic::{diff, diff_within};
///
/// let deep = |leaf: &str| format!("{}{leaf}{}", "[".repeat(200), "]".repeat(200)).into_bytes();
/// assert!(diff(&deep("1"), &deep("2")).unwrap_err().is_depth());
/// let found = diff_within(&deep("1"), &deep("2"), 200)?.expect("they differ");
/// assert_eq!(found.pointer(), "/0".repeat(200));
/// # Ok::<(), canon_ser::Error>(())
/// ```
pub fn diff_within(
    left: &[u8],
    right: &[u8],
    depth_max: usize,
) -> Result<Option<Difference>, Error> {
    diff_as(
        left,
        right,
        Options::from(Integers::Exact).depth_max(depth_max),
    )
}

fn diff_as(left: &[u8], right: &[u8], options: Options) -> Result<Option<Difference>, Error> {
    let left = canonicalize_with(left, options)?;
    let right = canonicalize_with(right, options)?;
    Ok(first_difference(&left, &right))
}

/// The canonical text of what a document means under a rule set.
///
/// In every object, at any depth: members with null go, if the rules say so; aliases take the name of their field; times become
/// RFC 3339 in UTC; numbers with a unit factor are multiplied, in exact decimals. Numbers and keys then follow the rules'
/// options. The normal form of a normal form is itself. See docs/RULES.md.
///
/// # Errors
///
/// As [`canonicalize_with`] for the text; with a pointer, a field that is not what its rule says; a duplicate key when a field
/// is there under two of its names.
#[cfg(feature = "rules")]
pub fn normalize(text: &[u8], rules: &RuleSet) -> Result<Vec<u8>, Error> {
    let rules = rules.rules();
    crate::rules::normalize(text, rules, rules.options())
}

/// Do two JSON texts mean the same under a rule set?
///
/// # Errors
///
/// As [`normalize`], of either text.
#[cfg(feature = "rules")]
pub fn equal_with(left: &[u8], right: &[u8], rules: &RuleSet) -> Result<bool, Error> {
    Ok(normalize(left, rules)? == normalize(right, rules)?)
}

/// Where two JSON texts differ first under a rule set. Pointers and values are those of the normal form.
///
/// # Errors
///
/// As [`normalize`], of either text.
#[cfg(feature = "rules")]
pub fn diff_with(left: &[u8], right: &[u8], rules: &RuleSet) -> Result<Option<Difference>, Error> {
    // In the one order that the search for the difference knows.
    let rules = rules.rules();
    let options = rules.options().order(KeyOrder::Utf16);
    let left = crate::rules::normalize(left, rules, options)?;
    let right = crate::rules::normalize(right, rules, options)?;
    Ok(first_difference(&left, &right))
}

/// Both texts are canonical, so that the first byte in which they differ tells the first value in which they do.
fn first_difference(left: &[u8], right: &[u8]) -> Option<Difference> {
    let same = common_prefix(left, right);
    if same == left.len() && same == right.len() {
        return None;
    }
    let spot = pointer::locate(&left[..same]);
    if spot.between_members {
        return Some(lone_member(
            spot.pointer,
            &left[spot.start..],
            &right[spot.start..],
        ));
    }
    let (left, right) = (&left[spot.start..], &right[spot.start..]);
    let (a, b) = (value_at(left), value_at(right));
    if a != b {
        return Some(Difference {
            pointer: spot.pointer,
            left: a,
            right: b,
        });
    }
    // The values are the same and one side goes on behind them: with a member or with an element.
    let end = value_end(left, 0);
    let parent = spot.pointer.rfind('/').unwrap_or(0);
    let (container, last) = spot.pointer.split_at(parent);
    let skip_comma = |text: &'_ [u8]| usize::from(text.get(end) == Some(&b','));
    let rests = (
        &left[end + skip_comma(left)..],
        &right[end + skip_comma(right)..],
    );
    if [rests.0, rests.1].iter().any(|rest| starts_member(rest)) {
        return Some(lone_member(container.to_string(), rests.0, rests.1));
    }
    let mut pointer = container.to_string();
    pointer.push('/');
    pointer::push_index(
        &mut pointer,
        last.trim_start_matches('/')
            .parse::<usize>()
            .map_or(0, |index| index + 1),
    );
    Some(Difference {
        pointer,
        left: value_at(rests.0),
        right: value_at(rests.1),
    })
}

/// The value at the start of `text`; none at the end of a container.
fn value_at(text: &[u8]) -> Option<String> {
    let value = &text[..value_end(text, 0)];
    (!value.is_empty()).then(|| String::from_utf8_lossy(value).into_owned())
}

/// A key with its quotes, if a member starts here.
fn key_at(text: &[u8]) -> Option<&[u8]> {
    (text.first() == Some(&b'"')).then(|| &text[..string_end(text, 1) + 1])
}

fn starts_member(text: &[u8]) -> bool {
    key_at(text).is_some_and(|key| text.get(key.len()) == Some(&b':'))
}

/// One side has a member here that the other has not: of two different keys, the one that sorts first.
fn lone_member(mut container: String, left: &[u8], right: &[u8]) -> Difference {
    let inside = |key: &'_ [u8]| 1..key.len() - 1;
    let on_left = match (key_at(left), key_at(right)) {
        (Some(a), Some(b)) => {
            JsonKeys { utf16: true }.compare(&a[inside(a)], &b[inside(b)], true) == Ordering::Less
        }
        (a, _) => a.is_some(),
    };
    let text = if on_left { left } else { right };
    let key = key_at(text).unwrap_or(b"\"\"");
    container.push('/');
    pointer::push_key(&mut container, key);
    let value = text.get(key.len() + 1..).and_then(value_at);
    let (left, right) = if on_left {
        (value, None)
    } else {
        (None, value)
    };
    Difference {
        pointer: container,
        left,
        right,
    }
}
