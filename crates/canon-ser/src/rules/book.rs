//! The versions of one rule set, oldest first. The book only grows.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use json_patch::Patch;
use serde_json::Value;

use crate::json;
use crate::rules::time::Time;
use crate::rules::{RuleError, RuleSet, parse_version};

/// All versions of one rule set: append-only, and the answer to "which rules held at time T".
///
/// ```
/// use canon_ser::rules::{RuleBook, RuleSet};
///
/// let first = RuleSet::from_json(
///     br#"{"id":"r","version":"1.0.0","effective_from":"2026-01-01T00:00:00Z","rules":{}}"#,
/// )?;
/// let mut book = RuleBook::new();
/// book.publish(first)?;
/// // The next version as a patch (RFC 6902) to the latest one.
/// book.publish_patch(br#"[
///     {"op": "replace", "path": "/version", "value": "1.1.0"},
///     {"op": "replace", "path": "/effective_from", "value": "2026-07-01T00:00:00Z"},
///     {"op": "add", "path": "/rules/null_is_absent", "value": true}
/// ]"#)?;
/// let july_ms = 1_782_864_000_000;
/// assert_eq!(book.at_ms(july_ms).map(|set| set.version()), Some("1.1.0"));
/// assert_eq!(book.at_ms(july_ms - 1).map(|set| set.version()), Some("1.0.0"));
/// # Ok::<(), canon_ser::rules::RuleError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleBook {
    sets: Vec<RuleSet>,
}

impl RuleBook {
    /// An empty book.
    pub fn new() -> RuleBook {
        RuleBook::default()
    }

    /// All versions, oldest first.
    pub fn sets(&self) -> &[RuleSet] {
        &self.sets
    }

    /// Adds a version. One that is there already, with the same meaning, is no error and changes nothing.
    ///
    /// # Errors
    ///
    /// [`RuleError::is_edit`] when that version is there with other contents; [`RuleError::is_order`] when the version is not
    /// newer, does not take effect later than the latest one, or has another id.
    pub fn publish(&mut self, set: RuleSet) -> Result<(), RuleError> {
        if let Some(known) = self.version(set.version()) {
            return match known.digest() == set.digest() {
                true => Ok(()),
                false => Err(RuleError::edit(set.version())),
            };
        }
        if let Some(latest) = self.sets.last() {
            let reason = if latest.id() != set.id() {
                format!("the book is about `{}`, not `{}`", latest.id(), set.id())
            } else if latest.parsed_version() >= set.parsed_version() {
                let (new, old) = (set.version(), latest.version());
                format!("version {new} is not newer than {old}")
            } else if latest.effective_from_ms() >= set.effective_from_ms() {
                let (new, old) = (set.version(), latest.version());
                format!("version {new} does not take effect later than {old}")
            } else {
                String::new()
            };
            if !reason.is_empty() {
                return Err(RuleError::order(&reason));
            }
        }
        self.sets.push(set);
        Ok(())
    }

    /// The version that held at a time: the latest whose start is not after it. None before the first.
    ///
    /// `epoch_ms`: milliseconds since 1970-01-01T00:00:00Z. Logarithmic.
    pub fn at_ms(&self, epoch_ms: i64) -> Option<&RuleSet> {
        let after = self
            .sets
            .partition_point(|set| set.effective_from_ms() <= epoch_ms);
        self.sets.get(after.checked_sub(1)?)
    }

    /// The version that held at a time given as RFC 3339, of whatever precision: see [`at_ms`](RuleBook::at_ms).
    ///
    /// # Errors
    ///
    /// [`RuleError::is_document`] when it is not RFC 3339.
    pub fn at(&self, time: &str) -> Result<Option<&RuleSet>, RuleError> {
        let parsed = Time::parse(time)
            .ok_or_else(|| RuleError::document(&format!("`{time}` is not a time of RFC 3339")))?;
        // All sets begin at whole milliseconds.
        Ok(self.at_ms(parsed.floor_ms()))
    }

    /// The version of this number.
    pub fn version(&self, version: &str) -> Option<&RuleSet> {
        let version = parse_version(version)?;
        let at = self
            .sets
            .binary_search_by_key(&version, RuleSet::parsed_version);
        self.sets.get(at.ok()?)
    }

    /// Is this the digest of this version? Answers for old versions as for new ones.
    ///
    /// # Errors
    ///
    /// [`RuleError::is_unknown`]
    pub fn verify(&self, version: &str, digest: &[u8; 32]) -> Result<bool, RuleError> {
        let set = self
            .version(version)
            .ok_or_else(|| RuleError::unknown(version))?;
        // From the bytes, not from memory of it.
        Ok(crate::digest::sha256_bytes(set.canonical()) == *digest)
    }

    /// What leads from one version to another, as JSON Patch (RFC 6902) in canonical JSON.
    ///
    /// # Errors
    ///
    /// [`RuleError::is_unknown`]
    pub fn patch_between(&self, from: &str, to: &str) -> Result<Vec<u8>, RuleError> {
        let patch = json_patch::diff(&self.document(from)?, &self.document(to)?);
        json::to_vec(&patch).map_err(|error| RuleError::patch(&error))
    }

    /// Publishes the latest version as changed by a patch (RFC 6902), which has to change `/version` and `/effective_from` too.
    ///
    /// # Errors
    ///
    /// [`RuleError::is_patch`] when the patch is malformed or does not apply; then as [`RuleSet::from_json`] and
    /// [`publish`](RuleBook::publish). The book is as before.
    pub fn publish_patch(&mut self, patch: &[u8]) -> Result<(), RuleError> {
        let latest = self.sets.last().map(RuleSet::version);
        let latest = latest.ok_or_else(|| RuleError::patch(&"the book is empty"))?;
        let mut document = self.document(latest)?;
        let patch: Patch =
            serde_json::from_slice(patch).map_err(|error| RuleError::patch(&error))?;
        json_patch::patch(&mut document, &patch).map_err(|error| RuleError::patch(&error))?;
        let text = json::to_vec(&document).map_err(|error| RuleError::patch(&error))?;
        let set = RuleSet::from_json(&text)?;
        // With a patch that forgets the version, nothing new would be published, in silence.
        if self.version(set.version()).is_some() {
            return Err(RuleError::edit(set.version()));
        }
        self.publish(set)
    }

    fn document(&self, version: &str) -> Result<Value, RuleError> {
        let set = self
            .version(version)
            .ok_or_else(|| RuleError::unknown(version))?;
        serde_json::from_slice(set.canonical()).map_err(|error| RuleError::document(&error))
    }

    /// The book as canonical JSON: an array of `{"digest": lowercase hex, "set": document}`, oldest first.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::from(*b"[");
        for (nth, set) in self.sets.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(format!("{{\"digest\":\"{}\",\"set\":", hex(set)).as_bytes());
            out.extend_from_slice(set.canonical());
            out.push(b'}');
        }
        out.push(b']');
        out
    }

    /// Reads a book, and holds every version against its digest.
    ///
    /// # Errors
    ///
    /// [`RuleError::is_edit`] when a document is not what its digest says; as [`RuleSet::from_json`] and
    /// [`publish`](RuleBook::publish).
    pub fn from_json(text: &[u8]) -> Result<RuleBook, RuleError> {
        // Through the canonical form, which refuses duplicate keys.
        let canonical = json::canonicalize(text).map_err(|error| RuleError::document(&error))?;
        let entries: Vec<Entry> =
            serde_json::from_slice(&canonical).map_err(|error| RuleError::document(&error))?;
        let mut book = RuleBook::new();
        for entry in entries {
            let text = json::to_vec(&entry.set).map_err(|error| RuleError::document(&error))?;
            let set = RuleSet::from_json(&text)?;
            let has = hex(&set);
            if has != entry.digest {
                return Err(RuleError::digest(set.version(), &entry.digest, &has));
            }
            book.publish(set)?;
        }
        Ok(book)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    digest: String,
    set: Value,
}

fn hex(set: &RuleSet) -> String {
    set.digest()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
