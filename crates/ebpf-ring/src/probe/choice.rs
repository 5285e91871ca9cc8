//! What a program takes that can do with any of several features, or needs all of some.

use std::fmt;

use super::tries::{Depth, Lab};
use super::{KernelFacts, KernelFeature, Support};

/// What can be used, and why not what would be better.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// The first that can be used.
    pub feature: KernelFeature,
    /// Those before it, which cannot.
    pub passed_over: Vec<Support>,
}

/// For a program that starts and cannot wait for a whole [probe](super::KernelFeatures): some
/// milliseconds. Programs are loaded and not attached, which whoever asks is about to do.
impl KernelFeature {
    /// The first of these that can be used; those behind it are not tried.
    ///
    /// ```
    /// use ebpf_ring::KernelFeature;
    ///
    /// match KernelFeature::first_of(&[KernelFeature::Fentry, KernelFeature::RawTracepoint]) {
    ///     Ok(choice) => println!("by {}", choice.feature),
    ///     Err(missing) => println!("{missing}"), // each of them, with its reason
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Every one of them, with its reason.
    pub fn first_of(wanted: &[Self]) -> Result<Choice, MissingFeature> {
        let facts = KernelFacts::read();
        let mut lab = Lab::new(&facts, Depth::Load);
        choose(wanted, |feature| lab.examine(feature))
    }

    /// Whether all of these can be used.
    ///
    /// # Errors
    ///
    /// Those that cannot, with their reasons.
    pub fn all_of(wanted: &[Self]) -> Result<(), MissingFeature> {
        let facts = KernelFacts::read();
        let mut lab = Lab::new(&facts, Depth::Load);
        let supports = wanted.iter().map(|feature| lab.examine(*feature));
        let missing: Vec<Support> = supports.filter(|support| !support.available).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(MissingFeature { missing })
        }
    }
}

pub(super) fn choose(
    wanted: &[KernelFeature],
    mut examine: impl FnMut(KernelFeature) -> Support,
) -> Result<Choice, MissingFeature> {
    let mut passed_over = Vec::new();
    for feature in wanted {
        let support = examine(*feature);
        if support.available {
            return Ok(Choice {
                feature: *feature,
                passed_over,
            });
        }
        passed_over.push(support);
    }
    Err(MissingFeature {
        missing: passed_over,
    })
}

/// What is wanted cannot be used here; the message has each feature's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFeature {
    missing: Vec<Support>,
}

impl MissingFeature {
    /// What cannot be used, in the order of the question.
    #[must_use]
    pub fn missing(&self) -> &[Support] {
        &self.missing
    }

    /// At least one is there, but not for this process.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.missing.iter().any(Support::is_permission_denied)
    }
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not available here: ")?;
        // One reason is often behind several.
        for (at, alike) in self
            .missing
            .chunk_by(|a, b| a.reason == b.reason)
            .enumerate()
        {
            let names: Vec<&str> = alike.iter().map(|support| support.feature.name()).collect();
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", names.join(", "), alike[0].reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for MissingFeature {}
