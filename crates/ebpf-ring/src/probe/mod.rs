//! What this kernel lets this process do: each feature tried, with the reason and what stands in.

mod btf;
mod choice;
mod facts;
mod rows;
mod tries;

use std::fmt;

pub use choice::{Choice, MissingFeature};
pub use facts::{KernelFacts, Limits};
pub use rows::KernelFeature;
use rows::Row;
use tries::{Depth, Lab, Refusal};

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
/// let probed = KernelFeatures::probe_only(&[KernelFeature::RingBuffer, KernelFeature::IoUring]);
/// for support in probed.iter() {
///     println!("{support}"); // how it is known that it works, or why it does not
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
        let mut lab = Lab::new(&facts, Depth::Attach);
        let supports = features.iter().map(|feature| lab.examine(*feature));
        let supports = supports.collect();
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
}

impl Lab<'_> {
    /// Tries one.
    fn examine(&mut self, feature: KernelFeature) -> Support {
        let tried = feature.attempt(self);
        judge(self.facts, feature, tried)
    }
}

/// Makes an answer of what a try said.
fn judge(facts: &KernelFacts, feature: KernelFeature, tried: Result<String, Refusal>) -> Support {
    let Row { since, .. } = feature.row();
    let is_refused = tried.as_ref().is_err_and(Refusal::is_permission_denied);
    let (available, reason) = match tried {
        Ok(how) => (true, how),
        Err(Refusal::Missing(what)) => (false, what),
        Err(_) if is_refused && feature.is_in_network() => {
            (false, facts.explain_refusal_in_network())
        }
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

#[cfg(test)]
mod tests;
