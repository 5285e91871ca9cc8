//! Breakers in front of commands, one for each group of devices: when most commands to a group are not delivered or not
//! answered in time, further ones are refused for a while instead of waiting one by one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use circuit::{
    Breaker, Config as Rules, FailureRate, Lookback, Outcome as Heard, Permit, State, TraceId,
    Transition,
};
use parking_lot::{Mutex, RwLock};

use super::command::Answer;
use super::config::BreakerConfig;

/// Every group that was sent a command.
pub(crate) struct Groups {
    config: BreakerConfig,
    started: Instant,
    groups: RwLock<HashMap<Box<str>, Arc<Group>>>,
    has_overflowed: AtomicBool,
}

struct Group {
    breaker: Mutex<Breaker>,
    refused: AtomicU64,
    heard: Arc<Changes>,
}

/// What a breaker's observer noted, so that the state and the counts of changes say the same.
#[derive(Default)]
struct Changes {
    /// The place in [`STATES`] that it went into last.
    state: AtomicUsize,
    /// Times that it went into each of them.
    counts: [AtomicU64; STATES.len()],
}

/// The states by the names that metrics give them, from good to bad.
pub(crate) const STATES: [&str; 3] = ["closed", "half-open", "open"];

/// A group at one moment.
pub(crate) struct Reading {
    pub(crate) name: Box<str>,
    /// A place in [`STATES`]. An open one whose time has passed is open until somebody asks it.
    pub(crate) state: usize,
    /// Commands that the breaker looks back on.
    pub(crate) calls: u32,
    pub(crate) failures: u32,
    pub(crate) refused: u64,
    pub(crate) changes: [u64; STATES.len()],
}

/// A command that a breaker let through; dropped, it counts as one that was never sent.
pub(crate) struct Call {
    group: Arc<Group>,
    permit: Permit,
    started: Instant,
}

/// The breaker is open.
pub(crate) struct Refused {
    group: Arc<Group>,
    retry_after_s: u32,
}

impl Groups {
    pub(crate) fn new(config: &BreakerConfig, started: Instant) -> Self {
        Self {
            config: config.clone(),
            started,
            groups: RwLock::default(),
            has_overflowed: AtomicBool::new(false),
        }
    }

    /// Asks the breaker of the device's group; `None` when it has none.
    pub(crate) fn ask(
        &self,
        device: &str,
        trace: Option<TraceId>,
    ) -> Result<Option<Call>, Refused> {
        let Some(group) = self
            .config
            .group_of(device)
            .and_then(|name| self.group(name))
        else {
            return Ok(None);
        };
        let now_ms = now_ms(self.started);
        let asked = group.breaker.lock().try_call_traced(now_ms, trace);
        match asked {
            Ok(permit) => Ok(Some(Call {
                group,
                permit,
                started: self.started,
            })),
            Err(rejected) => {
                let seconds = rejected.retry_after_ms().div_ceil(1_000).max(1);
                Err(Refused {
                    group,
                    retry_after_s: u32::try_from(seconds).unwrap_or(u32::MAX),
                })
            }
        }
    }

    fn group(&self, name: &str) -> Option<Arc<Group>> {
        if let Some(group) = self.groups.read().get(name) {
            return Some(Arc::clone(group));
        }
        let mut groups = self.groups.write();
        if groups.len() >= self.config.groups_max && !groups.contains_key(name) {
            if !self.has_overflowed.swap(true, Relaxed) {
                let max = self.config.groups_max;
                tracing::warn!(
                    name,
                    max,
                    "groups beyond breaker.groups_max have no breaker"
                );
            }
            return None;
        }
        let make = || Arc::new(Group::new(name, self.config.rules()));
        Some(Arc::clone(groups.entry(name.into()).or_insert_with(make)))
    }

    /// Every group, in the order of their names.
    pub(crate) fn read(&self) -> Vec<Reading> {
        let now_ms = now_ms(self.started);
        let groups = self.groups.read();
        let mut readings: Vec<_> = groups
            .iter()
            .map(|(name, group)| group.read(name, now_ms))
            .collect();
        drop(groups);
        readings.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        readings
    }
}

impl Group {
    fn new(name: &str, rules: Rules) -> Self {
        let mut breaker = Breaker::new(rules);
        let changes: Arc<Changes> = Arc::default();
        let (group, heard) = (name.to_owned(), Arc::clone(&changes));
        breaker.observe(move |change| {
            let place = place_of(change.to);
            heard.state.store(place, Relaxed);
            heard.counts[place].fetch_add(1, Relaxed);
            log(&group, change);
        });
        Self {
            breaker: Mutex::new(breaker),
            refused: AtomicU64::new(0),
            heard: changes,
        }
    }

    fn read(&self, name: &str, now_ms: u64) -> Reading {
        // Under the lock, in which it changes.
        let mut breaker = self.breaker.lock();
        let counts = breaker.counts(now_ms);
        Reading {
            name: name.into(),
            state: self.heard.state.load(Relaxed),
            calls: counts.calls,
            failures: counts.failures,
            refused: self.refused.load(Relaxed),
            changes: std::array::from_fn(|place| self.heard.counts[place].load(Relaxed)),
        }
    }
}

impl Refused {
    /// What the caller is told when nothing is known of the key.
    pub(crate) fn answer(self) -> Answer {
        self.group.refused.fetch_add(1, Relaxed);
        Answer::BreakerOpen {
            retry_after_s: self.retry_after_s,
        }
    }
}

impl Call {
    /// The caller is told this.
    pub(crate) fn ended(self, answer: &Answer) {
        let heard = match answer {
            Answer::Done(_) => Heard::Success,
            Answer::TimedOutUnsent | Answer::TimedOutSent => Heard::Failure,
            // Nothing was sent, or it says nothing about the device.
            _ => return,
        };
        let now_ms = now_ms(self.started);
        self.group.breaker.lock().record(self.permit, heard, now_ms);
    }
}

impl BreakerConfig {
    /// The group that a device is in.
    fn group_of<'a>(&'a self, device: &'a str) -> Option<&'a str> {
        if let Some(separator) = self.separator {
            return Some(device.split(separator).next().unwrap_or(device));
        }
        let groups = self.prefixes.iter();
        let fitting = groups.filter(|prefix| device.starts_with(prefix.as_str()));
        fitting
            .max_by_key(|prefix| prefix.len())
            .map(String::as_str)
    }

    fn rules(&self) -> Rules {
        let mut rules = Rules::essay();
        rules.lookback = Lookback::Calls(self.calls);
        rules.calls_min = self.calls;
        rules.failure_rate = FailureRate::Percent(self.failures_percent);
        (rules.open_ms, rules.open_max_ms) = (self.open_ms, self.open_ms_max);
        rules.probes_max = self.probes;
        rules.successes_to_close = self.successes;
        rules
    }
}

fn now_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn place_of(state: State) -> usize {
    match state {
        State::Closed | State::ForcedClosed => 0,
        State::HalfOpen => 1,
        State::Open | State::ForcedOpen => 2,
    }
}

fn log(group: &str, change: &Transition) {
    let (from, to) = (change.from.name(), change.to.name());
    let trace_id = change.trace.map(tracing::field::display);
    tracing::warn!(group, from, to, reason = ?change.reason, trace_id, "the breaker changed its state");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_what_the_configuration_says() {
        let mut config = BreakerConfig::default();
        assert_eq!(config.group_of("a/b"), None, "none unless it says");
        config.separator = Some('/');
        assert_eq!(config.group_of("berlin/7/x"), Some("berlin"));
        assert_eq!(config.group_of("berlin"), Some("berlin"));
        config.separator = None;
        config.prefixes = ["a-", "a-1", "b-"].map(String::from).into();
        assert_eq!(config.group_of("a-17"), Some("a-1"), "the longest");
        assert_eq!(config.group_of("a-27"), Some("a-"));
        assert_eq!(config.group_of("c-1"), None);
    }

    #[test]
    fn groups_are_bounded_and_apart() {
        let config = BreakerConfig {
            separator: Some('-'),
            groups_max: 2,
            ..BreakerConfig::default()
        };
        let groups = Groups::new(&config, Instant::now());
        for _ in 0..config.calls {
            let call = groups.ask("a-1", None).ok().flatten().unwrap();
            call.ended(&Answer::TimedOutUnsent);
        }
        let Err(refused) = groups.ask("a-2", None) else {
            panic!("all its commands failed")
        };
        let answer = refused.answer();
        let seconds = 59..=60;
        assert!(
            matches!(answer, Answer::BreakerOpen { retry_after_s } if seconds.contains(&retry_after_s))
        );
        assert!(groups.ask("b-1", None).is_ok_and(|call| call.is_some()));
        assert!(groups.ask("c-1", None).is_ok_and(|call| call.is_none()));
        let readings = groups.read();
        let names: Vec<_> = readings.iter().map(|it| (&*it.name, it.state)).collect();
        assert_eq!(names, [("a", 2), ("b", 0)]);
        assert_eq!((readings[0].refused, readings[0].changes), (1, [0, 0, 1]));
    }

    #[test]
    fn what_says_nothing_about_devices_opens_nothing() {
        let config = BreakerConfig {
            separator: Some('-'),
            ..BreakerConfig::default()
        };
        let groups = Groups::new(&config, Instant::now());
        for _ in 0..100 {
            for answer in [Answer::QueueFull, Answer::StoreBusy, Answer::InProgress] {
                let call = groups.ask("a-1", None).ok().flatten().unwrap();
                call.ended(&answer);
            }
        }
        assert_eq!(groups.read()[0].calls, 0);
    }
}
