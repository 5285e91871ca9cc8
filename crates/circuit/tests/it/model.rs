//! The breaker beside a naive model that keeps everything and counts anew each time.

use circuit::{Breaker, Config, Outcome, Permit, State};
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
    )
        .prop_map(
            |((window, min, rate, row), (open, open_max, probes, successes, timeout))| {
                let mut config = Config::essay();
                config.window_calls = window;
                config.calls_min = min.min(window);
                config.failure_rate_percent = rate;
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

/// Everything that happened since the last change of state.
struct Model {
    config: Config,
    state: State,
    /// Which state of its life this is.
    period: usize,
    outcomes: Vec<bool>,
    out: usize,
    heard_ms: u64,
    until_ms: u64,
    trips: u32,
}

impl Model {
    fn enter(&mut self, state: State, now_ms: u64) {
        self.period += 1;
        self.state = state;
        self.outcomes.clear();
        self.out = 0;
        self.heard_ms = now_ms;
        match state {
            State::Open => {
                let open_ms = self.config.open_ms * 2u64.pow(self.trips.min(20));
                self.until_ms = now_ms + open_ms.min(self.config.open_max_ms);
                self.trips += 1;
            }
            State::Closed => self.trips = 0,
            State::HalfOpen => {}
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
                let full = self.out + self.outcomes.len() >= self.config.probes_max as usize;
                if full && now_ms >= self.heard_ms + self.config.probe_timeout_ms {
                    self.enter(State::HalfOpen, now_ms);
                } else if full {
                    return false;
                }
                self.out += 1;
                self.heard_ms = now_ms;
                true
            }
        }
    }

    fn report(&mut self, failed: bool, now_ms: u64) {
        self.outcomes.push(failed);
        if self.state == State::HalfOpen {
            self.out -= 1;
            self.heard_ms = now_ms;
            if failed {
                self.enter(State::Open, now_ms);
            } else if self.outcomes.len() >= self.config.successes_to_close as usize {
                self.enter(State::Closed, now_ms);
            }
            return;
        }
        let row = self.outcomes.iter().rev().take_while(|f| **f).count();
        let last: Vec<bool> = self
            .outcomes
            .iter()
            .rev()
            .take(self.config.window_calls as usize)
            .copied()
            .collect();
        let failures = last.iter().filter(|f| **f).count();
        let (limit, rate) = (
            self.config.consecutive_failures,
            self.config.failure_rate_percent,
        );
        let by_row = limit > 0 && row >= limit as usize;
        let by_rate = rate > 0
            && last.len() >= self.config.calls_min as usize
            && failures as f64 / last.len() as f64 >= f64::from(rate) / 100.0 - 1e-12;
        if by_row || by_rate {
            self.enter(State::Open, now_ms);
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
            out: 0,
            heard_ms: 0,
            until_ms: 0,
            trips: 0,
        };
        let mut permits: Vec<(Permit, usize)> = Vec::new();
        let mut now_ms = 0;
        for op in ops {
            match op {
                Op::Ask => {
                    let permit = breaker.try_call(now_ms);
                    prop_assert_eq!(permit.is_ok(), model.ask(now_ms));
                    permits.extend(permit.map(|permit| (permit, model.period)));
                }
                Op::Report { which, failed } if !permits.is_empty() => {
                    let (permit, period) = permits.swap_remove(which % permits.len());
                    let outcome = if failed { Outcome::Failure } else { Outcome::Success };
                    let before = model.state;
                    if period == model.period {
                        model.report(failed, now_ms);
                    }
                    let transition = breaker.record(permit, outcome, now_ms);
                    let changed = (before != model.state).then_some((before, model.state));
                    prop_assert_eq!(transition.map(|t| (t.from, t.to)), changed);
                }
                Op::Drop { which } if !permits.is_empty() => {
                    let (_, period) = permits.swap_remove(which % permits.len());
                    if period == model.period && model.state == State::HalfOpen {
                        model.out -= 1;
                    }
                }
                Op::Report { .. } | Op::Drop { .. } => {}
                Op::Wait(ms) => now_ms += ms,
                Op::Trip => {
                    breaker.trip(now_ms);
                    model.enter(State::Open, now_ms);
                }
                Op::Reset => {
                    breaker.reset();
                    model.enter(State::Closed, now_ms);
                }
            }
            prop_assert_eq!(breaker.state(now_ms), model.state(now_ms));
        }
        // Whatever happened: a callee that works again is found out, though permits were leaked.
        permits.into_iter().for_each(|(permit, _)| std::mem::forget(permit));
        for _ in 0..1_000 {
            now_ms += 1;
            if let Ok(permit) = breaker.try_call(now_ms) {
                breaker.record(permit, Outcome::Success, now_ms);
            }
        }
        prop_assert_eq!(breaker.state(now_ms), State::Closed);
    }
}
