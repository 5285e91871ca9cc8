//! What can be wrong with rules.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use core::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Document,
    Edit,
    Order,
    Unknown,
    Patch,
}

/// Why a rule set or a book was refused. Opaque: ask the predicates.
#[derive(Debug)]
pub struct RuleError {
    kind: Kind,
    message: Box<str>,
}

impl RuleError {
    fn new(kind: Kind, message: &dyn fmt::Display) -> RuleError {
        RuleError {
            kind,
            message: message.to_string().into_boxed_str(),
        }
    }

    pub(crate) fn document(message: &dyn fmt::Display) -> RuleError {
        RuleError::new(Kind::Document, message)
    }

    pub(crate) fn edit(version: &str) -> RuleError {
        RuleError::new(
            Kind::Edit,
            &format!("version {version} is published and never changes; publish a new version"),
        )
    }

    /// The document of a book is not the one that its digest was made of.
    pub(crate) fn digest(version: &str, said: &str, has: &str) -> RuleError {
        RuleError::new(
            Kind::Edit,
            &format!(
                "the document of version {version} does not match its digest: the book says {said}, the document has {has}; \
                 restore the document, and publish changes as a new version"
            ),
        )
    }

    pub(crate) fn order(message: &dyn fmt::Display) -> RuleError {
        RuleError::new(Kind::Order, message)
    }

    pub(crate) fn unknown(version: &str) -> RuleError {
        RuleError::new(Kind::Unknown, &format!("the book has no version {version}"))
    }

    pub(crate) fn patch(message: &dyn fmt::Display) -> RuleError {
        RuleError::new(Kind::Patch, message)
    }

    /// The document is malformed, or contradicts itself.
    pub fn is_document(&self) -> bool {
        self.kind == Kind::Document
    }

    /// A published version would have changed.
    pub fn is_edit(&self) -> bool {
        self.kind == Kind::Edit
    }

    /// The new version is not newer, does not take effect later, or is one of another set.
    pub fn is_order(&self) -> bool {
        self.kind == Kind::Order
    }

    /// There is no such version.
    pub fn is_unknown(&self) -> bool {
        self.kind == Kind::Unknown
    }

    /// The patch is malformed or does not fit the document.
    pub fn is_patch(&self) -> bool {
        self.kind == Kind::Patch
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for RuleError {}
