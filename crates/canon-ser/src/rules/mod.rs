//! What "the same" means for your data, written down: immutable, versioned rule sets and the book that keeps them.
//!
//! A [`RuleSet`] is a JSON document (docs/RULES.md): which fields are times and in which form, which names are aliases and with which
//! unit factor, whether null is absence, how numbers and keys are treated. It has a digest of its own, so that a digest of
//! data can name the rules that it was made under. A [`RuleBook`] holds the versions of one set: it only grows.
//! [`semantic`](crate::semantic) does the comparing.

mod book;
mod decimal;
mod error;
mod time;
mod tree;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;

use crate::json::{self, Integers, KeyOrder, Options};
use crate::rules::decimal::Decimal;
use crate::rules::time::Time;
pub(crate) use crate::rules::tree::normalize;

pub use crate::rules::book::RuleBook;
pub use crate::rules::error::RuleError;

/// Versions of a set: `MAJOR.MINOR.PATCH`, without pre-releases.
pub(crate) type Version = (u64, u64, u64);

/// How a time is given where it is a number. As text it is always RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TimeForm {
    EpochS,
    EpochMs,
    Rfc3339,
}

/// What null in a field is, where it is not itself: what a nil map or slice of Go is printed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NullIs {
    EmptyObject,
    EmptyArray,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Numbers {
    #[default]
    Exact,
    Ecmascript,
    Round,
    String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Order {
    #[default]
    Utf16,
    Utf8,
}

/// The document as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    id: String,
    version: String,
    effective_from: String,
    rules: RulesDocument,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RulesDocument {
    key_order: Order,
    numbers: Numbers,
    null_is_absent: bool,
    fields: BTreeMap<String, FieldDocument>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct FieldDocument {
    time: Option<TimeForm>,
    null_is: Option<NullIs>,
    aliases: BTreeMap<String, AliasDocument>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct AliasDocument {
    time: Option<TimeForm>,
    factor: Option<String>,
}

/// How the value of a member becomes that of its field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) time: Option<TimeForm>,
    pub(crate) null_is: Option<NullIs>,
    pub(crate) factor: Option<Decimal>,
}

/// Rules ready for work.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    order: Order,
    numbers: Numbers,
    pub(crate) null_is_absent: bool,
    /// Name of a member to its field and what happens to its value.
    sources: BTreeMap<String, (String, Source)>,
}

impl Rules {
    pub(crate) fn source(&self, name: &str) -> Option<(&str, Source)> {
        let (field, source) = self.sources.get(name)?;
        Some((field, *source))
    }

    pub(crate) fn options(&self) -> Options {
        let integers = match self.numbers {
            Numbers::Exact => Integers::Exact,
            Numbers::Ecmascript => Integers::Error,
            Numbers::Round => Integers::Round,
            Numbers::String => Integers::String,
        };
        let order = match self.order {
            Order::Utf16 => KeyOrder::Utf16,
            Order::Utf8 => KeyOrder::Utf8,
        };
        Options::new().integers(integers).order(order)
    }
}

/// One version of a set of rules. It never changes: another version is another `RuleSet`.
///
/// ```
/// use canon_ser::rules::RuleSet;
/// use canon_ser::semantic;
///
/// let rules = RuleSet::from_json(br#"{
///     "id": "telemetry", "version": "1.0.0", "effective_from": "2026-01-01T00:00:00Z",
///     "rules": {
///         "null_is_absent": true,
///         "fields": {
///             "at": {"time": "epoch_s", "aliases": {"at_ms": {"time": "epoch_ms"}}},
///             "length_m": {"aliases": {"length_cm": {"factor": "0.01"}}}
///         }
///     }
/// }"#)?;
/// let left = br#"{"at": 1767225600, "length_m": 2.5, "note": null}"#;
/// let right = br#"{"length_cm": 250, "at_ms": 1767225600000}"#;
/// assert_eq!(
///     semantic::normalize(left, &rules)?,
///     br#"{"at":"2026-01-01T00:00:00Z","length_m":2.5}"#
/// );
/// assert!(semantic::equal_with(left, right, &rules)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct RuleSet {
    id: String,
    version: String,
    parsed_version: Version,
    effective_from_ms: i64,
    canonical: Vec<u8>,
    digest: [u8; 32],
    rules: Rules,
}

impl PartialEq for RuleSet {
    fn eq(&self, other: &RuleSet) -> bool {
        self.canonical == other.canonical
    }
}

impl Eq for RuleSet {}

impl RuleSet {
    /// Reads a rule set. Whitespace, key order and escapes of the text do not matter.
    ///
    /// # Errors
    ///
    /// [`RuleError::is_document`]: malformed JSON, unknown or missing fields, a version that is not three numbers, a time that is
    /// not RFC 3339 with at most milliseconds, a factor that is no decimal or zero, a name that stands for two fields.
    pub fn from_json(text: &[u8]) -> Result<RuleSet, RuleError> {
        let canonical = json::canonicalize(text).map_err(|error| RuleError::document(&error))?;
        let document: Document =
            json::from_slice(&canonical).map_err(|error| RuleError::document(&error))?;
        if document.id.is_empty() {
            return Err(RuleError::document(&"the id is empty"));
        }
        let parsed_version = parse_version(&document.version).ok_or_else(|| {
            RuleError::document(&format!(
                "version `{}` is not MAJOR.MINOR.PATCH",
                document.version
            ))
        })?;
        let effective_from_ms = Time::parse(&document.effective_from)
            .and_then(|time| time.epoch_ms())
            .ok_or_else(|| {
                RuleError::document(&format!(
                    "effective_from `{}` is not RFC 3339 with at most milliseconds",
                    document.effective_from
                ))
            })?;
        Ok(RuleSet {
            rules: compile(document.rules)?,
            digest: crate::digest::sha256_bytes(&canonical),
            id: document.id,
            version: document.version,
            parsed_version,
            effective_from_ms,
            canonical,
        })
    }

    /// The name that all versions share.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `MAJOR.MINOR.PATCH`.
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn parsed_version(&self) -> Version {
        self.parsed_version
    }

    /// From when on it applies, this moment included: milliseconds since 1970-01-01T00:00:00Z.
    pub fn effective_from_ms(&self) -> i64 {
        self.effective_from_ms
    }

    /// The document in canonical JSON (`jcs/1`).
    pub fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    /// SHA-256 of [`canonical`](RuleSet::canonical): the same for every spelling of the document, and for ever.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }
}

fn compile(document: RulesDocument) -> Result<Rules, RuleError> {
    let mut sources = BTreeMap::new();
    for (field, rule) in document.fields {
        let FieldDocument { time, null_is, .. } = rule;
        let own = Source {
            time,
            null_is,
            factor: None,
        };
        let aliases = rule.aliases.into_iter().map(|(name, alias)| {
            let factor = alias.factor.as_deref().map(parse_factor).transpose()?;
            let time = alias.time.or(time);
            if factor.is_some() && time.is_some() {
                return Err(RuleError::document(&format!(
                    "`{name}` has a factor, but `{field}` is a time"
                )));
            }
            let source = Source {
                time,
                null_is,
                factor,
            };
            Ok((name, source))
        });
        let aliases: Vec<(String, Source)> = aliases.collect::<Result<_, RuleError>>()?;
        for (name, source) in [(field.clone(), own)].into_iter().chain(aliases) {
            if null_is.is_some() && (source.time.is_some() || source.factor.is_some()) {
                return Err(RuleError::document(&format!(
                    "null in `{field}` cannot be a container, since `{name}` is a time or a number"
                )));
            }
            if sources
                .insert(name.clone(), (field.clone(), source))
                .is_some()
            {
                return Err(RuleError::document(&format!(
                    "`{name}` stands for two fields"
                )));
            }
        }
    }
    Ok(Rules {
        order: document.key_order,
        numbers: document.numbers,
        null_is_absent: document.null_is_absent,
        sources,
    })
}

fn parse_factor(text: &str) -> Result<Decimal, RuleError> {
    Decimal::parse(text)
        .filter(|factor| !factor.is_zero())
        .ok_or_else(|| RuleError::document(&format!("factor `{text}` is no decimal other than 0")))
}

pub(crate) fn parse_version(text: &str) -> Option<Version> {
    let mut parts = text.split('.').map(|part| {
        let plain = part.bytes().all(|byte| byte.is_ascii_digit());
        let leading_zero = part.len() > 1 && part.starts_with('0');
        (plain && !leading_zero).then(|| part.parse().ok())?
    });
    let version = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(version)
}
