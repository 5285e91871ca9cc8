//! What this kernel lets this process do: each feature tried, with the reason and what stands in.

mod btf;
mod facts;
mod rows;
mod tries;

use std::fmt;

pub use facts::{KernelFacts, Limits};
pub use rows::KernelFeature;
use rows::Row;
use tries::{Lab, Refusal};

/// Whether one feature can be used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Support {
    /// Of what this speaks.
    pub feature: KernelFeature,
    /// It was tried and worked.
    pub available: bool,
    /// How it is known, or why not, in words; for what the caller can mend, with the command.
    pub reason: String,
    is_refused: bool,
}

impl Support {
    /// The kernel knows it but this process may not: for want of a capability, or by lockdown, a
    /// filter or a container.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.is_refused
    }
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.feature, self.reason)
    }
}

/// What this kernel lets this process do.
///
/// ```
/// use ebpf_ring::{KernelFeature, KernelFeatures};
///
/// let wanted = [KernelFeature::Fentry, KernelFeature::Kprobe, KernelFeature::Tracepoint];
/// match KernelFeatures::probe_only(&wanted).first_of(&wanted) {
///     Ok(feature) => println!("by {feature}"),
///     Err(missing) => println!("{missing}"), // each of them, with its reason
/// }
/// ```
#[derive(Debug, Clone)]
pub struct KernelFeatures {
    facts: KernelFacts,
    supports: Vec<Support>,
}

impl KernelFeatures {
    /// Tries every feature.
    ///
    /// Programs that do nothing are loaded, attached where loading does not tell, and gone before
    /// this returns, which takes up to a few hundred milliseconds: the kernel waits until nobody
    /// runs them. A process without privilege may ask too: then nearly everything is unavailable to it, and
    /// says so.
    #[must_use]
    pub fn probe() -> Self {
        Self::probe_only(&KernelFeature::ALL)
    }

    /// Tries only these.
    #[must_use]
    pub fn probe_only(features: &[KernelFeature]) -> Self {
        let facts = KernelFacts::read();
        let mut lab = Lab::new(&facts);
        let support = |feature: &KernelFeature| judge(&facts, *feature, feature.attempt(&mut lab));
        let supports = features.iter().map(support).collect();
        Self { facts, supports }
    }

    /// What it told in files.
    #[must_use]
    pub fn facts(&self) -> &KernelFacts {
        &self.facts
    }

    /// What was found, in the order of the question.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Support> {
        self.supports.iter()
    }

    /// What was found about one; `None` when it was not asked for.
    #[must_use]
    pub fn get(&self, feature: KernelFeature) -> Option<&Support> {
        self.supports
            .iter()
            .find(|support| support.feature == feature)
    }

    /// Whether it was asked for and can be used.
    #[must_use]
    pub fn has(&self, feature: KernelFeature) -> bool {
        self.get(feature).is_some_and(|support| support.available)
    }

    /// The first of these that can be used.
    ///
    /// # Errors
    ///
    /// Every one of them, with its reason.
    pub fn first_of(&self, wanted: &[KernelFeature]) -> Result<KernelFeature, MissingFeature> {
        let found = wanted.iter().find(|feature| self.has(**feature));
        found.copied().ok_or_else(|| MissingFeature {
            wanted: wanted.iter().map(|f| self.explained(*f)).collect(),
        })
    }

    /// As if these could not be used: to see what a tool does on a kernel without them.
    #[must_use]
    pub fn without(mut self, features: &[KernelFeature]) -> Self {
        let hidden = |support: &&mut Support| features.contains(&support.feature);
        for support in self.supports.iter_mut().filter(hidden) {
            support.available = false;
            support.reason = "left out by the caller".into();
        }
        self
    }

    fn explained(&self, feature: KernelFeature) -> Support {
        self.get(feature).cloned().unwrap_or_else(|| Support {
            feature,
            available: false,
            reason: "it was not asked for".into(),
            is_refused: false,
        })
    }
}

/// Makes an answer of what a try said.
fn judge(facts: &KernelFacts, feature: KernelFeature, tried: Result<String, Refusal>) -> Support {
    let Row { since, .. } = feature.row();
    let is_refused = tried.as_ref().is_err_and(Refusal::is_permission_denied);
    let (available, reason) = match tried {
        Ok(how) => (true, how),
        Err(Refusal::Missing(what)) => (false, what),
        Err(_) if is_refused => (false, facts.explain_refusal()),
        Err(Refusal::Call { doing, error }) if facts.version < *since => {
            let ((major, minor), release) = (since, &facts.release);
            let why = format!("{doing}: {error}; it came with {major}.{minor}, this is {release}");
            (false, why)
        }
        Err(Refusal::Call { doing, error }) => (false, format!("{doing}: {error}")),
    };
    Support {
        feature,
        available,
        reason,
        is_refused,
    }
}

/// None of what is wanted can be used here; the message has each one's reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFeature {
    wanted: Vec<Support>,
}

impl MissingFeature {
    /// What was wanted, the best first.
    #[must_use]
    pub fn wanted(&self) -> &[Support] {
        &self.wanted
    }

    /// At least one is there, but not for this process.
    #[must_use]
    pub fn is_permission_denied(&self) -> bool {
        self.wanted.iter().any(Support::is_permission_denied)
    }
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wanted: Vec<String> = self.wanted.iter().map(Support::to_string).collect();
        write!(f, "this kernel offers none of: {}", wanted.join("; "))
    }
}

impl std::error::Error for MissingFeature {}

#[cfg(test)]
mod tests;
