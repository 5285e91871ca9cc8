//! The breaker beside a naive model that keeps everything and counts anew each time.

use circuit::{Breaker, Config, FailureRate, Lookback, Outcome, Permit, State};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Ask,
    Report { which: usize, failed: bool },
    Drop { which: usize },
    Wait(u64),
    Trip,
    Reset,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => Just(Op::Ask),
        8 => (any::<usize>(), prop::bool::weighted(0.45))
            .prop_map(|(which, failed)| Op::Report { which, failed }),
        2 => any::<usize>().prop_map(|which| Op::Drop { which }),
        2 => (0u64..40).prop_map(Op::Wait),
        1 => prop_oneof![9 => Just(Op::Trip), 1 => Just(Op::Reset)],
    ]
}

fn config() -> impl Strategy<Value = Config> {
    (
        (1u32..100, 1u32..40, 0u8..=100, 0u32..5),
        (1u64..60, 1u64..300, 1u32..6, 1u32..6, 1u64..90),
        (any::<bool>(), 1u64..60, 0u8..=100),
    )
        .prop_map(
            |(
                (window, min, rate, row),
                (open, open_max, probes, successes, timeout),
                (timed, slow_ms, slow_rate),
            )| {
                let mut config = Config::essay();
                config.lookback = match timed {
                    false => Lookback::Calls(window),
                    true => Lookback::Time {
                        span_ms: u64::from(window) * 4,
                        buckets: 4,
                    },
                };
                config.calls_min = if timed { min } else { min.min(window) };
                config.failure_rate = FailureRate::Percent(rate);
                (config.slow_call_ms, config.slow_rate_percent) = (slow_ms, slow_rate);
                config.consecutive_failures = row;
                config.open_ms = open;
                config.open_max_ms = open_max.max(open);
                config.probes_max = probes;
                config.successes_to_close = successes.min(probes);
                config.probe_timeout_ms = timeout;
                config
            },
        )
}

#[derive(Clone, Copy)]
struct Ended {
    failed: bool,
    slow: bool,
    at_ms: u64,
}

/// Everything that happened since the last change of state.
struct Model {
    config: Config,
    state: State,
    /// Which state of its life this is.
    period: usize,
    outcomes: Vec<Ended>,
    /// Which of the state's groups of probes goes out: one is given up for the next.
    group: usize,
    /// Probes of the group that are out or have reported.
    taken: usize,
    heard_ms: u64,
    until_ms: u64,
    trips: u32,
}

impl Model {
    fn enter(&mut self, state: State, now_ms: u64) {
        self.period += 1;
        self.state = state;
        self.outcomes.clear();
        self.taken = 0;
        self.heard_ms = now_ms;
        match state {
            State::Open => {
                let open_ms = self.config.open_ms * 2u64.pow(self.trips.min(20));
                self.until_ms = now_ms + open_ms.min(self.config.open_max_ms);
                self.trips += 1;
            }
            State::Closed => self.trips = 0,
            State::HalfOpen => {}
            State::ForcedOpen | State::ForcedClosed => unreachable!("never forced"),
        }
    }

    fn ask(&mut self, now_ms: u64) -> bool {
        if self.state == State::Open && now_ms >= self.until_ms {
            self.enter(State::HalfOpen, now_ms);
        }
        match self.state {
            State::Closed => true,
            State::Open => false,
            State::HalfOpen => {
                let full = self.taken >= self.config.probes_max as usize;
                if full && now_ms >= self.heard_ms + self.config.probe_timeout_ms {
                    self.group += 1;
                    self.taken = 0;
                } else if full {
                    return false;
                }
                self.taken += 1;
                self.heard_ms = now_ms;
                true
            }
            State::ForcedOpen | State::ForcedClosed => unreachable!("never forced"),
        }
    }

    fn report(&mut self, failed: bool, begun_ms: u64, now_ms: u64) {
        let slow = now_ms - begun_ms >= self.config.slow_call_ms;
        self.outcomes.push(Ended {
            failed,
            slow,
            at_ms: now_ms,
        });
        if self.state == State::HalfOpen {
            self.heard_ms = now_ms;
            if failed || slow && self.config.slow_rate_percent > 0 {
                self.enter(State::Open, now_ms);
            } else if self.outcomes.len() >= self.config.successes_to_close as usize {
                self.enter(State::Closed, now_ms);
            }
            return;
        }
        let row = self.outcomes.iter().rev().take_while(|e| e.failed).count();
        let limit = self.config.consecutive_failures;
        let FailureRate::Percent(rate) = self.config.failure_rate else {
            unreachable!("configured above")
        };
        let seen = self.looked_back_on(now_ms);
        let share = |bad: fn(&Ended) -> bool| {
            100.0 * seen.iter().filter(|e| bad(e)).count() as f64 / seen.len() as f64
        };
        let exceeds = |share: f64, percent: u8| percent > 0 && share >= f64::from(percent) - 1e-9;
        let enough = seen.len() >= self.config.calls_min as usize;
        let by_row = limit > 0 && row >= limit as usize;
        let by_failures = enough && exceeds(share(|e| e.failed), rate);
        let by_slow = enough && exceeds(share(|e| e.slow), self.config.slow_rate_percent);
        if by_row || by_failures || by_slow {
            self.enter(State::Open, now_ms);
        }
    }

    fn looked_back_on(&self, now_ms: u64) -> Vec<Ended> {
        let newest = self.outcomes.iter().rev();
        match self.config.lookback {
            Lookback::Calls(calls) => newest.take(calls as usize).copied().collect(),
            Lookback::Time { span_ms, buckets } => {
                let bucket_ms = span_ms / u64::from(buckets);
                let oldest = (now_ms / bucket_ms + 1).saturating_sub(u64::from(buckets));
                newest
                    .filter(|e| e.at_ms / bucket_ms >= oldest)
                    .copied()
                    .collect()
            }
        }
    }

    fn state(&self, now_ms: u64) -> State {
        match self.state {
            State::Open if now_ms >= self.until_ms => State::HalfOpen,
            state => state,
        }
    }
}

proptest! {
    #[test]
    fn behaves_as_the_naive_model(config in config(), ops in prop::collection::vec(op(), 0..400)) {
        let mut breaker = Breaker::new(config.clone());
        let mut model = Model {
            config,
            state: State::Closed,
            period: 0,
            outcomes: Vec::new(),
            group: 0,
            taken: 0,
            heard_ms: 0,
            until_ms: 0,
            trips: 0,
        };
        let mut permits: Vec<(Permit, (usize, usize), u64)> = Vec::new();
        let mut now_ms = 0;
        for op in ops {
            match op {
                Op::Ask => {
                    let permit = breaker.try_call(now_ms);
                    prop_assert_eq!(permit.is_ok(), model.ask(now_ms));
                    permits.extend(permit.map(|permit| (permit, (model.period, model.group), now_ms)));
                }
                Op::Report { which, failed } if !permits.is_empty() => {
                    let (permit, (period, _), begun_ms) = permits.swap_remove(which % permits.len());
                    let outcome = if failed { Outcome::Failure } else { Outcome::Success };
                    let before = model.state;
                    if period == model.period {
                        model.report(failed, begun_ms, now_ms);
                    }
                    let transition = breaker.record(permit, outcome, now_ms);
                    let changed = (before != model.state).then_some((before, model.state));
                    prop_assert_eq!(transition.map(|t| (t.from, t.to)), changed);
                }
                Op::Drop { which } if !permits.is_empty() => {
                    let (_, of, _) = permits.swap_remove(which % permits.len());
                    if of == (model.period, model.group) && model.state == State::HalfOpen {
                        model.taken -= 1;
                    }
                }
                Op::Report { .. } | Op::Drop { .. } => {}
                Op::Wait(ms) => now_ms += ms,
                Op::Trip => {
                    breaker.trip(now_ms);
                    model.enter(State::Open, now_ms);
                }
                Op::Reset => {
                    breaker.reset(now_ms);
                    model.enter(State::Closed, now_ms);
                }
            }
            prop_assert_eq!(breaker.state(now_ms), model.state(now_ms));
        }
        // Whatever happened: a callee that works again is found out, though permits were leaked.
        permits.into_iter().for_each(|(permit, ..)| std::mem::forget(permit));
        for _ in 0..1_000 {
            now_ms += 1;
            if let Ok(permit) = breaker.try_call(now_ms) {
                breaker.record(permit, Outcome::Success, now_ms);
            }
        }
        prop_assert_eq!(breaker.state(now_ms), State::Closed);
    }
}
