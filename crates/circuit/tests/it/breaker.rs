//! One test per promise of the breaker.

use circuit::{
    Breaker, CallError, Config, FailureRate, Lookback, Outcome, Permit, Reason, State, TraceId,
    Transition,
};
use std::sync::{Arc, Mutex};

fn call(breaker: &mut Breaker, outcome: Outcome, now_ms: u64) -> Option<Reason> {
    let permit = breaker.try_call(now_ms).expect("a call is let through");
    breaker.record(permit, outcome, now_ms).map(|t| t.reason)
}

fn counts(breaker: &mut Breaker, now_ms: u64) -> (u32, u32, u32) {
    let counts = breaker.counts(now_ms);
    (counts.calls, counts.failures, counts.slow)
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
    assert_eq!(counts(&mut breaker, 0), (9, 9, 0));
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
    assert_eq!(counts(&mut breaker, 0), (10, 4, 0));
}

#[test]
fn failures_in_a_row_open_and_a_success_between_does_not() {
    let mut config = Config::essay();
    config.failure_rate = FailureRate::Off;
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
    assert_eq!(counts(&mut breaker, 60_002), (0, 0, 0));
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
fn calls_that_take_longer_than_the_wait_for_probes_close_the_breaker() {
    let mut config = Config::essay();
    (config.probes_max, config.successes_to_close) = (2, 2);
    let timeout_ms = config.probe_timeout_ms;
    let mut breaker = open(config);
    let mut slow = probes(&mut breaker, 60_000);
    let given_up_ms = 60_000 + timeout_ms;
    let newer = probes(&mut breaker, given_up_ms);
    assert_eq!((slow.len(), newer.len()), (2, 2));
    let first = slow.pop().expect("two");
    assert_eq!(breaker.record(first, Outcome::Success, given_up_ms), None);
    assert!(breaker.try_call(given_up_ms).is_err(), "the newer are out");
    let second = slow.pop().expect("two");
    let change = breaker.record(second, Outcome::Success, given_up_ms);
    assert_eq!(change.expect("two succeeded").to, State::Closed);
    for probe in newer {
        assert_eq!(breaker.record(probe, Outcome::Failure, given_up_ms), None);
    }
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
    breaker.reset(now_ms);
    breaker.trip(now_ms);
    let rejected = breaker.try_call(now_ms).expect_err("open");
    assert_eq!(rejected.retry_after_ms(), 1_000);
}

#[test]
fn senseless_configurations_neither_panic_nor_wedge() {
    let mut config = Config::essay();
    config.lookback = Lookback::Calls(0);
    config.calls_min = 0;
    config.failure_rate = FailureRate::Percent(255);
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

#[test]
fn a_time_window_forgets_what_is_too_old() {
    let mut config = Config::essay();
    config.lookback = Lookback::Time {
        span_ms: 1_000,
        buckets: 10,
    };
    let mut breaker = Breaker::new(config);
    // Nine failures: below calls_min, and gone when the tenth comes.
    for _ in 0..9 {
        assert_eq!(call(&mut breaker, Outcome::Failure, 99), None);
    }
    assert_eq!(counts(&mut breaker, 999), (9, 9, 0));
    assert_eq!(counts(&mut breaker, 1_000), (0, 0, 0));
    for n in 0..9 {
        assert_eq!(call(&mut breaker, Outcome::Failure, 1_000 + n * 100), None);
    }
    let tripped = call(&mut breaker, Outcome::Failure, 1_950);
    assert_eq!(tripped, Some(Reason::FailureRate));
}

#[test]
fn a_clock_that_goes_back_loses_no_call() {
    let mut config = Config::essay();
    config.lookback = Lookback::Time {
        span_ms: 1_000,
        buckets: 4,
    };
    let mut breaker = Breaker::new(config);
    call(&mut breaker, Outcome::Failure, 10_000);
    call(&mut breaker, Outcome::Success, 10);
    assert_eq!(counts(&mut breaker, 10_000), (2, 1, 0));
}

#[test]
fn slow_calls_open_though_they_succeed() {
    let mut config = Config::essay();
    (config.slow_call_ms, config.slow_rate_percent) = (500, 80);
    let mut breaker = Breaker::new(config);
    for n in 0..10 {
        let permit = breaker.try_call(1_000).expect("closed");
        let took_ms = if n < 2 { 499 } else { 500 };
        let reason = breaker
            .record(permit, Outcome::Success, 1_000 + took_ms)
            .map(|t| t.reason);
        assert_eq!(reason, (n == 9).then_some(Reason::SlowCallRate));
    }
    // A slow probe is a failed probe.
    let probe = breaker.try_call(100_000).expect("half-open");
    let change = breaker.record(probe, Outcome::Success, 100_500);
    assert_eq!(change.map(|t| t.reason), Some(Reason::ProbeFailed));
}

fn trace(n: u8) -> TraceId {
    TraceId::from_bytes([n; 16]).expect("not zero")
}

#[test]
fn failures_of_one_trace_count_once_when_asked() {
    for once in [false, true] {
        let mut config = Config::essay();
        config.consecutive_failures = 3;
        config.failures_once_per_trace = once;
        let mut breaker = Breaker::new(config);
        let mut fail = |id| {
            let permit = breaker.try_call_traced(0, Some(trace(id))).expect("closed");
            breaker.record(permit, Outcome::Failure, 0)
        };
        assert!(fail(1).is_none() && fail(1).is_none());
        assert_eq!(fail(1).is_some(), !once);
        if once {
            assert!(fail(2).is_none());
            let change = fail(3).expect("the third trace that fails");
            assert_eq!(change.trace, Some(trace(3)));
        }
    }
}

#[test]
fn decisions_name_the_trace_and_observers_see_each_change() {
    let seen = Arc::new(Mutex::new(Vec::<Transition>::new()));
    let mut config = Config::essay();
    config.consecutive_failures = 1;
    config.successes_to_close = 1;
    let mut breaker = Breaker::new(config);
    let log = Arc::clone(&seen);
    breaker.observe(move |change| log.lock().expect("unpoisoned").push(*change));

    let permit = breaker.try_call_traced(5, Some(trace(1))).expect("closed");
    let opened = breaker.record(permit, Outcome::Failure, 6).expect("opens");
    let rejected = breaker
        .try_call_traced(7, Some(trace(2)))
        .expect_err("open");
    assert_eq!(rejected.trace(), Some(trace(2)));
    let probe = breaker
        .try_call_traced(60_006, Some(trace(3)))
        .expect("half-open");
    let half = probe.transition().expect("the first probe");
    let closed = breaker
        .record(probe, Outcome::Success, 60_007)
        .expect("closes");
    let forced = breaker.force_open(60_008);
    let released = breaker.release(60_009).expect("was forced");

    assert_eq!((opened.at_ms, opened.trace), (6, Some(trace(1))));
    assert_eq!((half.at_ms, half.trace), (60_006, Some(trace(3))));
    assert_eq!(
        *seen.lock().expect("unpoisoned"),
        [opened, half, closed, forced, released]
    );
}

#[test]
fn forced_states_hold_until_released() {
    let mut breaker = Breaker::new(Config::essay());
    breaker.force_open(0);
    let rejected = breaker.try_call(u64::MAX).expect_err("forced open");
    assert!(rejected.is_open() && rejected.is_forced());
    assert_eq!(breaker.state(u64::MAX), State::ForcedOpen);
    breaker.force_closed(0);
    for _ in 0..100 {
        assert_eq!(call(&mut breaker, Outcome::Failure, 0), None);
    }
    assert_eq!(breaker.state(0), State::ForcedClosed);
    assert!(
        breaker
            .release(0)
            .is_some_and(|change| change.to == State::Closed)
    );
    assert!(breaker.release(0).is_none());
    assert_eq!(counts(&mut breaker, 0), (0, 0, 0));
}

#[test]
fn call_counts_errors_and_panics_and_passes_answers() {
    let mut config = Config::essay();
    config.consecutive_failures = 2;
    let mut breaker = Breaker::new(config);
    let clock = || 0;
    assert_eq!(breaker.call(clock, || Ok::<_, ()>(1)), Ok(1));
    assert_eq!(
        breaker.call(clock, || Err::<(), _>("no")),
        Err(CallError::Failed("no"))
    );
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        breaker.call(clock, || -> Result<(), ()> { panic!("the callee's") })
    }));
    assert!(panicked.is_err());
    assert_eq!(breaker.state(0), State::Open);
    let refused = breaker.call(clock, || -> Result<(), ()> { unreachable!("open") });
    assert!(matches!(refused, Err(CallError::Rejected(_))));
}

#[test]
fn the_fleet_stands_in_for_missing_calls() {
    let mut breaker = Breaker::new(Config::essay());
    breaker.set_fleet_failure_rate(0.6, 1_000);
    // One failure of one call, and 60% of nine others: 6.4 of 10.
    assert_eq!(
        call(&mut breaker, Outcome::Failure, 999),
        Some(Reason::FailureRate)
    );

    let mut breaker = Breaker::new(Config::essay());
    breaker.set_fleet_failure_rate(0.6, 1_000);
    assert_eq!(call(&mut breaker, Outcome::Failure, 1_000), None); // too old
    breaker.set_fleet_failure_rate(f32::NAN, 9_000);
    assert_eq!(call(&mut breaker, Outcome::Failure, 1_000), None);
    // Enough calls of its own: the fleet does not count.
    let mut breaker = Breaker::new(Config::essay());
    for _ in 0..10 {
        call(&mut breaker, Outcome::Success, 0);
    }
    breaker.set_fleet_failure_rate(1.0, 1_000);
    assert_eq!(call(&mut breaker, Outcome::Failure, 0), None);
}
