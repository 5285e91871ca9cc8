//! Backoff and retry budget.

use circuit::{Backoff, BudgetPolicy, Jitter, Policy, RetryBudget};
use proptest::prelude::*;

const ALL: [Jitter; 4] = [
    Jitter::None,
    Jitter::Full,
    Jitter::Equal,
    Jitter::Decorrelated,
];

fn policy(jitter: Jitter) -> Policy {
    Policy {
        base_ms: 100,
        cap_ms: 1_000,
        jitter,
        first_window_ms: 0,
    }
}

fn delays(policy: &Policy, random: u64) -> Vec<u64> {
    let mut backoff = Backoff::new();
    (0..6)
        .map(|_| backoff.next_delay_ms(policy, random))
        .collect()
}

#[test]
fn a_client_costs_eight_bytes() {
    assert_eq!(size_of::<Backoff>(), 8);
    assert_eq!(size_of::<RetryBudget>(), 4);
}

#[test]
fn each_jitter_spans_its_range() {
    let (low, high) = (0, u64::MAX);
    let full = [100, 200, 400, 800, 1_000, 1_000];
    assert_eq!(delays(&policy(Jitter::None), low), full);
    assert_eq!(delays(&policy(Jitter::Full), low), [0; 6]);
    assert_eq!(delays(&policy(Jitter::Full), high), full);
    assert_eq!(
        delays(&policy(Jitter::Equal), low),
        [50, 100, 200, 400, 500, 500]
    );
    assert_eq!(delays(&policy(Jitter::Equal), high), full);
    assert_eq!(delays(&policy(Jitter::Decorrelated), low), [100; 6]);
    assert_eq!(
        delays(&policy(Jitter::Decorrelated), high),
        [300, 900, 1_000, 1_000, 1_000, 1_000]
    );
}

#[test]
fn the_first_try_is_spread_over_its_window() {
    let mut policy = policy(Jitter::None);
    policy.first_window_ms = 20_000;
    assert_eq!(
        delays(&policy, u64::MAX / 2),
        [9_999 + 1, 100, 200, 400, 800, 1_000]
    );
    assert_eq!(delays(&policy, 0)[0], 0);
    assert_eq!(delays(&policy, u64::MAX)[0], 20_000);
}

#[test]
fn a_success_starts_again() {
    for jitter in ALL {
        let policy = policy(jitter);
        let mut backoff = Backoff::new();
        for _ in 0..10 {
            backoff.next_delay_ms(&policy, u64::MAX);
        }
        assert_eq!(backoff.tries(), 10);
        backoff.reset();
        assert_eq!(backoff, Backoff::new());
    }
}

#[test]
fn jitter_is_uniform() {
    let policy = policy(Jitter::Full);
    let mut counts = [0u32; 101];
    for n in 0..101_000u64 {
        let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        counts[Backoff::new().next_delay_ms(&policy, random) as usize] += 1;
    }
    assert!(
        counts.iter().all(|count| (990..=1_010).contains(count)),
        "{counts:?}"
    );
}

proptest! {
    #[test]
    fn no_policy_leaves_its_bounds(
        base_ms: u32,
        cap_ms: u32,
        first_window_ms: u32,
        jitter in prop::sample::select(&ALL[..]),
        randoms in prop::collection::vec(any::<u64>(), 1..80),
    ) {
        let policy = Policy { base_ms, cap_ms, jitter, first_window_ms };
        let mut backoff = Backoff::new();
        for (n, random) in randoms.into_iter().enumerate() {
            let delay_ms = backoff.next_delay_ms(&policy, random);
            let high = if n == 0 && first_window_ms > 0 { first_window_ms } else { cap_ms };
            prop_assert!(delay_ms <= high.into());
        }
    }
}

#[test]
fn a_budget_refills_slowly_and_never_overflows() {
    let policy = BudgetPolicy::grpc();
    let mut budget = RetryBudget::new(&policy);
    for _ in 0..100 {
        budget.failure();
    }
    for _ in 0..50 {
        assert!(!budget.may_retry(&policy));
        budget.success(&policy);
    }
    // 50 successes gave 5 tokens: half is not yet more than half.
    assert!(!budget.may_retry(&policy));
    budget.success(&policy);
    assert!(budget.may_retry(&policy));
    for _ in 0..1_000 {
        budget.success(&policy);
    }
    assert_eq!(budget, RetryBudget::new(&policy));
}
