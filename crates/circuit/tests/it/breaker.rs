//! One test per promise of the breaker.

use circuit::{Breaker, Config, Outcome, Permit, Reason, State};

fn call(breaker: &mut Breaker, outcome: Outcome, now_ms: u64) -> Option<Reason> {
    let permit = breaker.try_call(now_ms).expect("a call is let through");
    breaker.record(permit, outcome, now_ms).map(|t| t.reason)
}

/// A breaker that opened at time 0.
fn open(config: Config) -> Breaker {
    let mut breaker = Breaker::new(config);
    breaker.trip(0);
    breaker
}

fn probes(breaker: &mut Breaker, now_ms: u64) -> Vec<Permit> {
    std::iter::from_fn(|| breaker.try_call(now_ms).ok()).collect()
}

#[test]
fn essay_opens_at_half_of_ten_and_not_before() {
    let mut breaker = Breaker::new(Config::essay());
    for _ in 0..9 {
        assert_eq!(call(&mut breaker, Outcome::Failure, 0), None);
    }
    assert_eq!(breaker.window(), (9, 9));
    assert_eq!(
        call(&mut breaker, Outcome::Success, 0),
        Some(Reason::FailureRate)
    );
    assert_eq!(breaker.state(59_999), State::Open);
    assert_eq!(breaker.state(60_000), State::HalfOpen);
}

#[test]
fn the_window_forgets_the_oldest_call() {
    let mut breaker = Breaker::new(Config::essay());
    // Never five failures among the last ten.
    for n in 0..1_000 {
        let outcome = if n % 10 < 4 {
            Outcome::Failure
        } else {
            Outcome::Success
        };
        assert_eq!(call(&mut breaker, outcome, 0), None);
    }
    assert_eq!(breaker.window(), (10, 4));
}

#[test]
fn failures_in_a_row_open_and_a_success_between_does_not() {
    let mut config = Config::essay();
    config.failure_rate_percent = 0;
    config.consecutive_failures = 3;
    let mut breaker = Breaker::new(config);
    for _ in 0..100 {
        call(&mut breaker, Outcome::Failure, 0);
        call(&mut breaker, Outcome::Failure, 0);
        assert_eq!(call(&mut breaker, Outcome::Success, 0), None);
    }
    call(&mut breaker, Outcome::Failure, 0);
    call(&mut breaker, Outcome::Failure, 0);
    assert_eq!(
        call(&mut breaker, Outcome::Failure, 0),
        Some(Reason::ConsecutiveFailures)
    );
}

#[test]
fn probes_are_bounded_and_three_successes_close() {
    let mut breaker = open(Config::essay());
    let rejected = breaker.try_call(59_999).expect_err("open");
    assert!(rejected.is_open() && rejected.retry_after_ms() == 1);

    let first = breaker.try_call(60_000).expect("half-open");
    assert_eq!(
        first.transition().map(|t| t.reason),
        Some(Reason::OpenElapsed)
    );
    let mut out = probes(&mut breaker, 60_000);
    assert_eq!(out.len(), 4);
    assert!(
        out.iter()
            .all(|permit| permit.is_probe() && permit.transition().is_none())
    );
    assert!(
        breaker
            .try_call(60_000)
            .expect_err("all out")
            .is_half_open()
    );

    assert_eq!(breaker.record(first, Outcome::Success, 60_001), None);
    // A success does not make room for a sixth probe.
    assert!(breaker.try_call(60_001).is_err());
    let mut report = || {
        let permit = out.pop().expect("four");
        breaker
            .record(permit, Outcome::Success, 60_002)
            .map(|t| t.reason)
    };
    assert_eq!(report(), None);
    assert_eq!(report(), Some(Reason::ProbesSucceeded));
    // The two that are still out say nothing about the closed breaker.
    assert_eq!(report(), None);
    assert_eq!(breaker.state(60_002), State::Closed);
    assert_eq!(breaker.window(), (0, 0));
}

#[test]
fn a_dropped_probe_makes_room() {
    let mut breaker = open(Config::essay());
    for _ in 0..100 {
        assert_eq!(probes(&mut breaker, 60_000).len(), 5);
    }
    let out = probes(&mut breaker, 60_000);
    std::thread::spawn(move || drop(out))
        .join()
        .expect("no panic");
    for _ in 0..3 {
        call(&mut breaker, Outcome::Success, 60_000);
    }
    assert_eq!(breaker.state(60_000), State::Closed);
}

#[test]
fn leaked_probes_are_given_up_after_a_time() {
    let mut breaker = open(Config::essay());
    for probe in probes(&mut breaker, 60_000) {
        std::mem::forget(probe);
    }
    assert!(breaker.try_call(119_999).is_err());
    for _ in 0..3 {
        call(&mut breaker, Outcome::Success, 120_000);
    }
    assert_eq!(breaker.state(120_000), State::Closed);
}

#[test]
fn a_report_extends_the_wait_for_the_other_probes() {
    let mut config = Config::essay();
    (config.probes_max, config.successes_to_close) = (2, 2);
    let mut breaker = open(config);
    let mut out = probes(&mut breaker, 60_000);
    let first = out.pop().expect("two");
    breaker.record(first, Outcome::Success, 110_000);
    assert!(breaker.try_call(169_999).is_err());
    let second = out.pop().expect("two");
    assert!(breaker.record(second, Outcome::Success, 169_999).is_some());
}

#[test]
fn a_probe_of_an_earlier_period_counts_nowhere() {
    let mut config = Config::essay();
    config.probes_max = 2;
    config.successes_to_close = 1;
    let mut breaker = open(config);
    let slow = breaker.try_call(60_000).expect("half-open");
    assert_eq!(
        call(&mut breaker, Outcome::Failure, 60_000),
        Some(Reason::ProbeFailed)
    );
    let mut out = probes(&mut breaker, 120_000);
    assert_eq!(out.len(), 2);
    // Neither its outcome nor its drop touches the new period.
    assert_eq!(breaker.record(slow, Outcome::Success, 120_000), None);
    assert!(breaker.try_call(120_000).is_err());
    let probe = out.pop().expect("two");
    assert!(breaker.record(probe, Outcome::Success, 120_000).is_some());
}

#[test]
fn a_call_from_before_the_trip_counts_nowhere() {
    let mut breaker = Breaker::new(Config::essay());
    let slow = breaker.try_call(0).expect("closed");
    breaker.trip(0);
    let probe = breaker.try_call(60_000).expect("half-open");
    assert_eq!(breaker.record(slow, Outcome::Failure, 60_000), None);
    breaker.record(probe, Outcome::Success, 60_000);
    assert_eq!(breaker.state(60_000), State::HalfOpen);
}

#[test]
fn failed_probes_double_the_open_time_up_to_its_limit() {
    let mut config = Config::essay();
    (config.open_ms, config.open_max_ms) = (1_000, 5_000);
    let mut breaker = open(config);
    let mut now_ms = 0;
    for open_ms in [1_000, 2_000, 4_000, 5_000, 5_000] {
        let rejected = breaker.try_call(now_ms).expect_err("open");
        assert_eq!(rejected.retry_after_ms(), open_ms);
        now_ms += open_ms;
        call(&mut breaker, Outcome::Failure, now_ms);
    }
    breaker.reset();
    breaker.trip(now_ms);
    let rejected = breaker.try_call(now_ms).expect_err("open");
    assert_eq!(rejected.retry_after_ms(), 1_000);
}

#[test]
fn senseless_configurations_neither_panic_nor_wedge() {
    let mut config = Config::essay();
    config.window_calls = 0;
    config.calls_min = 0;
    config.failure_rate_percent = 255;
    config.open_ms = u64::MAX;
    config.open_max_ms = 0;
    config.probes_max = 0;
    config.successes_to_close = 9;
    config.probe_timeout_ms = 0;
    let mut breaker = Breaker::new(config);
    assert_eq!(call(&mut breaker, Outcome::Failure, u64::MAX), None);
    breaker.trip(u64::MAX);
    let permit = breaker.try_call(u64::MAX).expect("time ends at u64::MAX");
    assert!(breaker.record(permit, Outcome::Success, u64::MAX).is_some());
}

#[test]
fn breakers_and_permits_cross_threads() {
    fn is_send<T: Send + Sync>() {}
    is_send::<Breaker>();
    is_send::<Permit>();
}
