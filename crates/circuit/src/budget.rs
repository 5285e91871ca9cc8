//! Retry budget: retries stop when they are no longer the exception.

/// What all [`RetryBudget`] states share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetPolicy {
    /// Tokens of a full budget; retries stop at half of it.
    pub tokens_max: u16,
    /// Thousandths of a token that a success gives back: 100 lets one call in ten fail in the long run.
    pub success_refill_milli: u16,
}

impl BudgetPolicy {
    /// 10 tokens, a tenth back per success: the example of gRPC's proposal.
    pub const fn grpc() -> Self {
        BudgetPolicy {
            tokens_max: 10,
            success_refill_milli: 100,
        }
    }
}

/// Retry throttling as gRPC does it (gRFC A6, "Throttling Retry Attempts"): a failure takes a token, a success
/// gives a part of one back, and retries are allowed while more than half of the tokens are there. 4 bytes; keep
/// one per server.
///
/// ```
/// use circuit::{BudgetPolicy, RetryBudget};
///
/// let policy = BudgetPolicy::grpc();
/// let mut budget = RetryBudget::new(&policy);
/// for _ in 0..5 {
///     assert!(budget.may_retry(&policy));
///     budget.failure();
/// }
/// assert!(!budget.may_retry(&policy)); // half of the tokens are gone
/// budget.success(&policy);
/// assert!(budget.may_retry(&policy));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    milli_tokens: u32,
}

impl RetryBudget {
    /// A full budget.
    pub const fn new(policy: &BudgetPolicy) -> Self {
        RetryBudget {
            milli_tokens: policy.tokens_max as u32 * 1000,
        }
    }

    /// A call succeeded.
    pub fn success(&mut self, policy: &BudgetPolicy) {
        let full = Self::new(policy).milli_tokens;
        let refill = u32::from(policy.success_refill_milli);
        self.milli_tokens = full.min(self.milli_tokens + refill);
    }

    /// A call, or a retry of one, failed.
    pub fn failure(&mut self) {
        self.milli_tokens = self.milli_tokens.saturating_sub(1000);
    }

    /// Whether a failed call may be tried again now.
    pub const fn may_retry(&self, policy: &BudgetPolicy) -> bool {
        self.milli_tokens > Self::new(policy).milli_tokens / 2
    }
}
