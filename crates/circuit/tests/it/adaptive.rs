//! The adaptive threshold: follows what is normal, not an outage.

use circuit::{Adaptive, Breaker, Config, FailureRate, Outcome, Reason};

fn breaker() -> Breaker {
    Breaker::new(Config::adaptive())
}

/// `seconds` of 100 calls each, of which `failing` fail; the change that ended it, if one did.
fn run(breaker: &mut Breaker, from_s: u64, seconds: u64, failing: u32) -> Option<(u64, Reason)> {
    for second in from_s..from_s + seconds {
        for n in 0..100u32 {
            let now_ms = second * 1_000 + u64::from(n) * 10;
            let permit = breaker.try_call(now_ms).expect("closed");
            // Spread over the second: 37 is coprime to 100.
            let outcome = if n * 37 % 100 < failing {
                Outcome::Failure
            } else {
                Outcome::Success
            };
            if let Some(change) = breaker.record(permit, outcome, now_ms) {
                return Some((second - from_s, change.reason));
            }
        }
    }
    None
}

#[test]
fn an_outage_far_below_a_fixed_half_opens_it() {
    let mut breaker = breaker();
    assert_eq!(run(&mut breaker, 0, 600, 1), None);
    let threshold = breaker.threshold().expect("adaptive");
    assert!((0.10..0.13).contains(&threshold), "{threshold}");
    let (after_s, reason) = run(&mut breaker, 600, 60, 30).expect("opens");
    assert_eq!(reason, Reason::FailureRate);
    assert!(after_s < 6, "{after_s}");
}

#[test]
fn a_callee_that_always_fails_a_little_is_normal() {
    let mut breaker = breaker();
    assert_eq!(run(&mut breaker, 0, 600, 30), None);
    // 30% is normal here; 60% is not.
    assert!(
        breaker
            .threshold()
            .is_some_and(|t| (0.39..0.5).contains(&t))
    );
    assert!(run(&mut breaker, 600, 60, 60).is_some());
}

#[test]
fn a_slow_drift_is_followed() {
    let mut breaker = breaker();
    let mut second = 0;
    for failing in 0..40 {
        assert_eq!(
            run(&mut breaker, second, 60, failing),
            None,
            "at {failing}%"
        );
        second += 60;
    }
}

#[test]
fn a_full_outage_opens_it_however_unsteady_the_callee_was() {
    let mut breaker = breaker();
    for second in 0..300 {
        assert_eq!(
            run(
                &mut breaker,
                second,
                1,
                if second % 2 == 0 { 0 } else { 40 }
            ),
            None
        );
    }
    assert!(run(&mut breaker, 300, 60, 100).is_some());
}

#[test]
fn an_outage_does_not_become_normal() {
    let mut breaker = breaker();
    run(&mut breaker, 0, 120, 1);
    let before = breaker.threshold();
    let mut now_ms = 120_000;
    for _ in 0..20 {
        // Open, probe, fail, for minutes.
        now_ms += 100;
        if let Ok(permit) = breaker.try_call(now_ms) {
            breaker.record(permit, Outcome::Failure, now_ms);
        }
    }
    let after = breaker.threshold();
    assert!(after <= before.map(|t| t + 0.02), "{before:?} {after:?}");
}

#[test]
fn senseless_rules_do_no_harm() {
    let mut rules = Adaptive::default();
    (rules.sample_ms, rules.learn_permille, rules.samples_min) = (0, 0, 0);
    (rules.margin_min_percent, rules.margin_max_percent) = (200, 150);
    rules.start_percent = 0;
    let mut config = Config::adaptive();
    config.failure_rate = FailureRate::Adaptive(rules);
    let mut breaker = Breaker::new(config);
    run(&mut breaker, 0, 100, 0);
    assert_eq!(breaker.threshold(), Some(1.0));
}
